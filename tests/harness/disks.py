"""File systems that are too small for what is to be written there."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


def _as_root(*command: str) -> None:
    """Mounting takes root, or a sudo that asks for nothing."""
    sudo = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    subprocess.run([*sudo, *command], check=True)


@contextlib.contextmanager
def mounted(path: Path, size: str) -> Iterator[None]:
    """A file system of that size at an empty directory; anybody may write to it."""
    _as_root("mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", str(path))
    try:
        yield
    finally:
        _as_root("umount", "--lazy", str(path))


def resize(path: Path, size: str) -> None:
    """Gives a file system another size."""
    _as_root("mount", "-o", f"remount,size={size}", str(path))


def free(path: Path) -> int:
    """Bytes that may still be written."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize

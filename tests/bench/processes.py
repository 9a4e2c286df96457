"""What processes cost: time of the processors, and memory of their own."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path

PAUSE = 0.01
TICKS = os.sysconf("SC_CLK_TCK")
KILOBYTES_PER_MB = 1024


def seconds(pid: int) -> float:
    """User and system time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def own_memory(pid: int) -> int:
    """Memory that no other process shares, in kB; the server's buffers and programs are not among it. 0 if it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
    return 0


class Peak:
    """The most that some processes take together while the block runs, above what they took before."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = list(pids)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._idle = self._peak = self._sum()

    @property
    def megabytes(self) -> float:
        """The peak above idle."""
        return (self._peak - self._idle) / KILOBYTES_PER_MB

    def _sum(self) -> int:
        return sum(own_memory(pid) for pid in self._pids)

    def _look(self) -> None:
        while not self._over.wait(PAUSE):
            self._peak = max(self._peak, self._sum())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

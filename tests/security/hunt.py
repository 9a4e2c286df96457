"""A hunt for secrets: what is searched for, in whatever form, and where."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

# Bits of /proc/PID/coredump_filter, for what a mapping holds.
PRIVATE_MEMORY, SHARED_MEMORY, PRIVATE_FILE, SHARED_FILE = 1, 2, 4, 8
MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+) *(.*)$")
CHUNK = 1 << 24


class Hunt:
    """Secrets by name, each looked for as it is and as servers and libraries like to write bytes."""

    def __init__(self) -> None:
        self._forms: dict[str, list[bytes]] = {}
        self.searched = 0

    def add(self, name: str, secret: str | bytes) -> None:
        """From now on it is looked for."""
        raw = secret.encode() if isinstance(secret, str) else secret
        encoded = [base64.b64encode(b"\0" * shift + raw)[4 if shift else 0 :].rstrip(b"=")[:-2] for shift in range(3)]
        self._forms[name] = [
            raw,
            raw.hex().encode(),
            raw.hex().upper().encode(),
            *encoded,
            # As PostgreSQL prints the bytes of a constant in a plan.
            " ".join(str(byte - 256 if byte > 127 else byte) for byte in raw).encode(),
        ]

    def hits(self, content: bytes) -> dict[str, int]:
        """How often each secret occurs, those that do not left out."""
        self.searched += len(content)
        counts = {name: sum(content.count(form) for form in forms) for name, forms in self._forms.items()}
        return {name: count for name, count in counts.items() if count}

    def hits_in_all(self, contents: Iterable[tuple[str, bytes]]) -> dict[str, dict[str, int]]:
        """The places where something occurs, and what."""
        found = {place: self.hits(content) for place, content in contents}
        return {place: hits for place, hits in found.items() if hits}


def files(root: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a directory."""
    # Of a directory that the server has just removed, this walk makes no error.
    for path in sorted(Path(directory) / name for directory, _, names in os.walk(root) for name in names):
        if path.is_file() and not path.is_symlink():
            try:
                yield str(path.relative_to(root)), path.read_bytes()
            except FileNotFoundError:
                continue  # the server has just removed it


def memory(pid: int, *, in_core_file: bool) -> Iterator[tuple[str, bytes]]:
    """The memory of a process: all that can be read, or what the kernel would write to its core file."""
    chosen = int(Path(f"/proc/{pid}/coredump_filter").read_text(), 16)
    mapping, wanted = None, []
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if found := MAPPING.match(line):
            mapping = found
        elif line.startswith("VmFlags:") and mapping:
            start, end, mode, inode, name = mapping.groups()
            is_file = inode != "0" and not name.startswith(("/dev/zero", "/SYSV", "/dev/shm", "/memfd"))
            is_shared = mode[3] == "s"
            kind = {(False, False): PRIVATE_MEMORY, (False, True): SHARED_MEMORY, (True, False): PRIVATE_FILE, (True, True): SHARED_FILE}
            # What was written to of a file's private mapping counts as private memory.
            needed = kind[is_file, is_shared] | (PRIVATE_MEMORY if is_file and mode[1] == "w" and not is_shared else 0)
            is_left_out = "dd" in line.split()[1:] or not chosen & needed
            if mode[0] == "r" and not name.startswith("[v") and not (in_core_file and is_left_out):
                wanted.append((f"{start} {name}", int(start, 16), int(end, 16)))
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory_file:
        for place, start, end in wanted:
            parts = []
            memory_file.seek(start)
            while start < end:
                try:
                    part = memory_file.read(min(CHUNK, end - start))
                except OSError:
                    break  # a guard page, or pages of a file that ends before
                if not part:
                    break
                parts.append(part)
                start += len(part)
            yield place, b"".join(parts)

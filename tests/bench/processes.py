"""What processes cost: time of the processors, and memory of their own."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

PAUSE = 0.01
TICKS = os.sysconf("SC_CLK_TCK")
KILOBYTES_PER_MB = 1024


def seconds(pid: int, *, of_children: bool = False) -> float:
    """User and system time so far; or that of the children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    first = 13 if of_children else 11
    return (int(fields[first]) + int(fields[first + 1])) / TICKS


class Cpu:
    """Time of the processors that some processes use from now on, and, if a server is named, its children that end from now on."""

    def __init__(self, pids: Mapping[str, int], **servers: int) -> None:
        self._pids, self._servers = dict(pids), servers
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        own = {name: seconds(pid) for name, pid in self._pids.items()}
        return own | {name: seconds(pid, of_children=True) for name, pid in self._servers.items()}

    def used(self) -> dict[str, float]:
        """Seconds since then, as `cpu_NAME`."""
        return {f"cpu_{name}": now - self._before[name] for name, now in self._now().items()}


def own_memory(pid: int) -> int:
    """Memory that no other process shares, in kB; the server's buffers and programs are not among it. 0 if it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
    return 0


def children(pid: int) -> set[int]:
    """The processes that it has started and that run."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


class Peak:
    """The most that some processes take together while the block runs, above what they took before. What `server` starts
    meanwhile counts too."""

    def __init__(self, pids: Iterable[int], server: int | None = None) -> None:
        self._pids, self._server = set(pids), server
        self._others = children(server) if server else set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._idle = self._peak = self._sum()

    @property
    def megabytes(self) -> float:
        """The peak above idle."""
        return (self._peak - self._idle) / KILOBYTES_PER_MB

    def _sum(self) -> int:
        new = children(self._server) - self._others if self._server else set()
        return sum(own_memory(pid) for pid in self._pids | new)

    def _look(self) -> None:
        while not self._over.wait(PAUSE):
            self._peak = max(self._peak, self._sum())

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

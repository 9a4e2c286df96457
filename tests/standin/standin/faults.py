"""Faults on demand: what a test asks to go wrong, for which requests, how often.

A fault is `{"match": {...}, "times": n, "skip": k, "action": {...}}`. `match` holds regular expressions for `path`, `sql`,
`kind`, `method` and `host`, all of which must be found; `skip` lets that many matching requests pass first; `times` is how
many are then spoiled (default 1).
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_MATCHABLE = {"path", "sql", "kind", "method", "host"}
_ACTIONS = {"status", "body", "headers", "delay_ms", "lose_answer", "error", "cut_after", "black_hole"}


@dataclass(frozen=True)
class Seen:
    """What a fault may look at in a request."""

    path: str
    kind: str
    method: str
    host: str
    sql: str


@dataclass
class Fault:
    match: dict[str, re.Pattern[str]]
    action: dict[str, Any]
    times: int
    skip: int
    released: threading.Event = field(default_factory=threading.Event)

    def fits(self, seen: Seen) -> bool:
        return all(pattern.search(getattr(seen, name)) for name, pattern in self.match.items())

    @property
    def status(self) -> int | None:
        return self.action.get("status")

    def before(self, connection: socket.socket) -> bool:
        """Delay or swallow the request. True when it must not be executed."""
        if "delay_ms" in self.action:
            self.released.wait(self.action["delay_ms"] / 1000)
        if self.action.get("black_hole"):
            self.released.wait()
            self.cut(connection)
            return True
        return "status" in self.action or "error" in self.action

    def loses_answer(self) -> bool:
        return bool(self.action.get("lose_answer"))

    def cut_after(self) -> int | None:
        return self.action.get("cut_after")

    @staticmethod
    def cut(connection: socket.socket) -> None:
        """End the connection with a reset, so that the client sees no orderly close."""
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the client has gone already

    def body(self) -> bytes:
        body = self.action.get("body", "")
        return body.encode() if isinstance(body, str) else repr(body).encode()

    def wsgi_answer(self, start_response: Callable[..., Any]) -> list[bytes]:
        if self.status is None:
            return []
        payload = self.body()
        headers = [("Content-Length", str(len(payload))), *self.action.get("headers", {}).items()]
        start_response(f"{self.status} Fault", headers)
        return [payload]


class Faults:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, spec: dict[str, Any]) -> None:
        match = spec.get("match", {})
        action = spec.get("action", {})
        unknown = (
            (set(match) - _MATCHABLE) | (set(action) - _ACTIONS) | (set(spec) - {"match", "action", "times", "skip"})
        )
        if unknown or not action:
            raise ValueError(f"not a fault: {sorted(unknown) or 'no action'}")
        patterns = {name: re.compile(text, re.IGNORECASE | re.DOTALL) for name, text in match.items()}
        with self._lock:
            self._faults.append(Fault(patterns, action, int(spec.get("times", 1)), int(spec.get("skip", 0))))

    def clear(self) -> None:
        """Forget all faults and let go of the requests they hold."""
        with self._lock:
            for fault in self._faults:
                fault.released.set()
            self._faults.clear()

    def take(self, seen: Seen) -> Fault | None:
        """The first fault that applies to this request, counted down."""
        with self._lock:
            for fault in self._faults:
                if fault.times <= 0 or not fault.fits(seen):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def remaining(self) -> list[dict[str, Any]]:
        with self._lock:
            return [
                {
                    "match": {name: pattern.pattern for name, pattern in fault.match.items()},
                    "action": fault.action,
                    "times": fault.times,
                    "skip": fault.skip,
                }
                for fault in self._faults
            ]

"""Faults on demand: what a test asks to go wrong, for which requests, how often.

A fault is `{"match": {...}, "times": n, "skip": k, "action": {...}}`. `match` holds regular expressions for `path`, `sql`,
`kind`, `method` and `host`, all of which must be found; `skip` lets that many matching requests pass first; `times` is how
many are then spoiled (default 1). Which requests a fault is for is decided here; how it spoils them is in `spoiling`.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import Any

_MATCHABLE = {"path", "sql", "kind", "method", "host"}
# While the request is read; before it is executed, in its place; after it, to its answer.
_READING = {"cut_request_after", "throttle"}
_WAITING = {"delay_ms", "black_hole"}
_FORGING = {"status", "body", "headers", "error", "endless_body", "endless_headers", "gzip_bomb"}
_ANSWERING = {"lose_answer", "cut_after", "drip", "close_after"}
_ACTIONS = _READING | _WAITING | _FORGING | _ANSWERING


@dataclass(frozen=True)
class Seen:
    """What a fault may look at in a request. The SQL text is not known before the body is read."""

    path: str
    kind: str
    method: str
    host: str
    sql: str | None = None


@dataclass
class Fault:
    match: dict[str, re.Pattern[str]]
    action: dict[str, Any]
    times: int
    skip: int
    # Set when the test forgets its faults: whatever waits for this one goes on.
    released: threading.Event = field(default_factory=threading.Event)

    def fits(self, seen: Seen) -> bool:
        return all(pattern.search(getattr(seen, name) or "") for name, pattern in self.match.items())

    @property
    def texts(self) -> dict[str, str]:
        return {name: pattern.pattern for name, pattern in self.match.items()}

    @property
    def spoils_reading(self) -> bool:
        return bool(_READING & self.action.keys())

    @property
    def forges(self) -> bool:
        """Is there an answer of its own, so that the request is not executed?"""
        return bool((_FORGING - {"body", "headers"}) & self.action.keys())


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

    def clear(self, match: dict[str, str] | None = None) -> None:
        """Forget all faults, or those with this `match`, of which there must be one, and let go of the requests they hold."""
        with self._lock:
            if match is not None and not any(fault.texts == match for fault in self._faults):
                raise ValueError(f"no fault has the match {match}")
            for fault in self._faults:
                if match is None or fault.texts == match:
                    fault.released.set()
            self._faults = [fault for fault in self._faults if not fault.released.is_set()]

    def take(self, seen: Seen) -> Fault | None:
        """The first fault that applies to this request, counted down.

        Asked twice: when only the head of the request is known (no SQL), for the faults that spoil the reading of its body
        and do not ask for SQL; and when the body is there, for all others.
        """
        before_body = seen.sql is None
        with self._lock:
            for fault in self._faults:
                early = fault.spoils_reading and "sql" not in fault.match
                if early != before_body or fault.times <= 0 or not fault.fits(seen):
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
                    "match": fault.texts,
                    "action": fault.action,
                    "times": fault.times,
                    "skip": fault.skip,
                }
                for fault in self._faults
            ]

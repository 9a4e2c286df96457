"""Waiting for a condition with a deadline; nothing in the tests sleeps for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Short enough that a wait ends soon after its condition, long enough not to load a small machine.
PAUSE = 0.02


class Late(AssertionError):
    """A condition did not come true in time."""


def until(condition: Callable[[], T | None], what: str, seconds: float = 30.0, pause: float = PAUSE) -> T:
    """The first true value of `condition`, or a failure that says what was waited for and what was seen last."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Late(f"{what}: not within {seconds:g} s; last seen: {value!r}")
        time.sleep(pause)

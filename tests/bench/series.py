"""Repeated measurements, and how far an upload has come that Snowflake's side does not load."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

REFUSED = {"error": {"code": "100038", "message": "Not loaded, for the sake of a measurement"}}
SECONDS = 600.0


@dataclass
class Series:
    """Repeated measurements of one way to do it."""

    name: str
    seconds: list[float] = field(default_factory=list)
    details: list[dict[str, float]] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle one, in seconds."""
        return statistics.median(self.seconds)

    def detail(self, name: str) -> float:
        """The median of one of the other figures."""
        return statistics.median(details[name] for details in self.details)

    def report(self, of: float) -> str:
        """One line for people; `of` is what it is compared with."""
        each = "  ".join(f"{name} {self.detail(name):.2f}" for name in (self.details or [{}])[0])
        return f"{self.name:<16} {self.median:7.2f} s   x {self.median / of:5.2f}   n = {len(self.seconds)}   {each}"


def refused(upload: dict[str, Any]) -> bool:
    """Whether the upload has come as far as COPY. That it ends otherwise is an error."""
    is_over = upload["state"] == "failed"
    assert not is_over or upload["error_code"] == REFUSED["error"]["code"], upload["error_message"]
    return is_over

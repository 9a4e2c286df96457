"""Repeated measurements, and how far an upload has come that Snowflake's side does not load."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

REFUSED = {"error": {"code": "100038", "message": "Not loaded, for the sake of a measurement"}}
SECONDS = 600.0


@dataclass
class Series:
    """Repeated measurements of one way to do it. Where it had a part of the rows only, `times` is how many of them are the whole."""

    name: str
    times: float = 1.0
    seconds: list[float] = field(default_factory=list)
    details: list[dict[str, float]] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle one, in seconds for the whole."""
        return statistics.median(self.seconds) * self.times

    def detail(self, name: str) -> float:
        """The median of one of the other figures; memory does not grow with the rows as time does."""
        return statistics.median(details[name] for details in self.details) * (1 if name == "peak_mb" else self.times)

    def figures(self) -> dict[str, float]:
        """For `results.json`."""
        names = self.details[0] if self.details else {}
        return {self.name: round(self.median, 4), **{f"{self.name}_{name}": round(self.detail(name), 3) for name in names}}

    def report(self, of: float) -> str:
        """One line for people; `of` is what it is compared with."""
        each = "  ".join(f"{name} {self.detail(name):.2f}" for name in (self.details or [{}])[0])
        part = f"   1/{self.times:g} of the rows, times {self.times:g}" if self.times != 1 else ""
        return f"{self.name:<16} {self.median:8.2f} s   x {self.median / of:6.2f}   n = {len(self.seconds)}   {each}{part}"


def refused(upload: dict[str, Any]) -> bool:
    """Whether the upload has come as far as COPY. That it ends otherwise is an error."""
    is_over = upload["state"] == "failed"
    assert not is_over or upload["error_code"] == REFUSED["error"]["code"], upload["error_message"]
    return is_over

"""Where the benchmarks leave their figures: `target/bench/results.json`, flat, in seconds unless a name says otherwise."""

from __future__ import annotations

import json
from pathlib import Path

PATH = Path(__file__).resolve().parents[2] / "target/bench/results.json"


def begin() -> None:
    """Forgets what was measured before."""
    PATH.unlink(missing_ok=True)


def add(**figures: float | str) -> None:
    """Notes figures beside those of other benchmarks."""
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(json.dumps(load() | figures, indent=1) + "\n")


def load() -> dict[str, float | str]:
    """What was noted so far."""
    known: dict[str, float | str] = json.loads(PATH.read_text()) if PATH.exists() else {}
    return known

"""Where the benchmarks leave their figures: `target/bench/results.json`, flat, in seconds unless a name says otherwise."""

from __future__ import annotations

import json
from pathlib import Path

PATH = Path(__file__).resolve().parents[2] / "target/bench/results.json"


def add(**figures: float) -> None:
    """Notes figures beside those of other benchmarks."""
    PATH.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(PATH.read_text()) if PATH.exists() else {}
    PATH.write_text(json.dumps(known | figures, indent=1) + "\n")

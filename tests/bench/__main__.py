"""Latency of the whole way: `python -m bench [N]`, N uploads of 100 rows, 200 unless told otherwise."""

from __future__ import annotations

import contextlib
import sys

from harness import latency
from harness.bridge import Bridge
from harness.standin import Standin

COUNT = 200


def main() -> int:
    """Measures and prints."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    with contextlib.closing(Standin()) as standin, contextlib.closing(Bridge(standin)) as bridge:
        bridge.ready()
        print(latency.measure(bridge, count).report())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Measures: `python -m bench [N]` the latency of the whole way, by N uploads of 100 rows, 200 unless told otherwise;
`python -m bench leak [N]` what the worker keeps over N small uploads, 10000 unless told otherwise.
"""

from __future__ import annotations

import contextlib
import sys

from bench import leak
from harness import latency
from harness.bridge import Bridge
from harness.standin import Standin

COUNT = 200
LEAK_COUNT = 10_000
IDLE_SECONDS = 120.0


def main() -> int:
    """Measures and prints."""
    is_leak = sys.argv[1:2] == ["leak"]
    count = [int(argument) for argument in sys.argv[1 + is_leak :]]
    settings = leak.SETTINGS if is_leak else None
    with contextlib.closing(Standin()) as standin, contextlib.closing(Bridge(standin, settings)) as bridge:
        bridge.ready()
        if is_leak:
            print(leak.measure(bridge, *(count or [LEAK_COUNT])).report())
            print(f"idle: {leak.idle_queries(bridge, IDLE_SECONDS):.1f} statements a minute")
        else:
            print(latency.measure(bridge, *(count or [COUNT])).report())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m memory`: the peak of each process above idle, for results that are large in each way.

ROWS narrow rows, a jsonb result of JSONB_MB megabytes, WIDE_ROWS rows of 1,600 columns; then values of each type that can be
large, as large as they can be, where `max_memory` is so low that one more copy of them would be too much. Each line says what
it measured; fails if a process took more than it may.
"""

from __future__ import annotations

import contextlib
import os
import sys

from harness.bridge import Bridge
from harness.standin import Standin
from memory import peaks


def main() -> int:
    """Measures and prints."""
    rows = int(os.environ.get("ROWS") or 20_000_000)
    megabytes = int(os.environ.get("JSONB_MB") or 200)
    wide_rows = int(os.environ.get("WIDE_ROWS") or 20_000)
    with contextlib.closing(Standin()) as standin:
        with contextlib.closing(Bridge(standin, peaks.SETTINGS)) as bridge:
            bridge.ready()
            within = [show(peak) for peak in peaks.all_kinds(bridge, rows, megabytes, wide_rows)]
        with contextlib.closing(Bridge(standin, peaks.LEAST)) as bridge:
            bridge.ready()
            within += [show(peak) for peak in peaks.all_values(bridge)]
    return 0 if all(within) else 1


def show(peak: peaks.Peak) -> bool:
    """Prints a peak; whether it is within what is allowed."""
    print(peak.report(), flush=True)
    return peak.above <= peak.allowed


if __name__ == "__main__":
    sys.exit(main())

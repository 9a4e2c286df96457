"""Measures: `python -m bench [N]` the latency of the whole way, by N uploads of 100 rows, 200 unless told otherwise;
`python -m bench leak [N]` what the worker keeps over N small uploads, 10000 unless told otherwise;
`python -m bench trigger [N]` what the triggers cost, with statements of N rows, 10000 unless told otherwise;
`python -m bench speed [ROWS] [ROUNDS] [PEER…]` a whole table beside what others take for it, 5000000 rows and 5 rounds unless
told otherwise, and results in `target/bench/results.json`;
`python -m bench small [N] [ROUNDS]` N executions of 100 rows for 50 users and 200 tables, 10000 and one round unless told otherwise, with a
COPY that those share that wait together, and each with its own; results in `target/bench/results.json` too;
`python -m bench shutdown [N…]` a fast shutdown with N uploads in flight, 0, 10 and 100 unless told otherwise,
each ROUNDS times, 10 unless told otherwise.
"""

from __future__ import annotations

import contextlib
import sys

from bench import leak, results, shutdown, small, speed, trigger
from harness import latency
from harness.bridge import Bridge
from harness.standin import Standin

COUNT = 200
LEAK_COUNT = 10_000
IDLE_SECONDS = 120.0
TRIGGER_ROWS = 10_000
SETTINGS = {"leak": leak.SETTINGS, "shutdown": shutdown.SETTINGS, "trigger": trigger.SETTINGS}


def main() -> int:
    """Measures and prints."""
    if sys.argv[1:2] == ["speed"]:
        return speed.main(sys.argv[2:])
    if sys.argv[1:2] == ["small"]:
        return compare_small(*map(int, sys.argv[2:4]))
    what = sys.argv[1] if sys.argv[1:] and sys.argv[1] in SETTINGS else "latency"
    count = [int(argument) for argument in sys.argv[1 + (what in SETTINGS) :]]
    with contextlib.closing(Standin()) as standin, contextlib.closing(Bridge(standin, SETTINGS.get(what))) as bridge:
        if what == "trigger":
            for cost in trigger.measure(bridge, *(count or [TRIGGER_ROWS])):
                print(cost.report())
            return 0
        bridge.ready()
        if what == "shutdown":
            for measured in shutdown.measure(bridge, *(count or shutdown.COUNTS)):
                print(measured.report())
        elif what == "leak":
            print(leak.measure(bridge, *(count or [LEAK_COUNT])).report())
            print(f"idle: {leak.idle_queries(bridge, IDLE_SECONDS):.1f} statements a minute")
        else:
            print(latency.measure(bridge, *(count or [COUNT])).report())
    return 0


def compare_small(executions: int = small.EXECUTIONS, rounds: int = small.ROUNDS) -> int:
    """Measures small results, prints, and notes the results."""
    shared, alone = small.measure(executions, rounds)
    for way in (shared, alone):
        print(way.report())
    print(f"sharing: {alone.copies / shared.copies:.1f} x fewer COPY statements, {shared.per_second / alone.per_second:.2f} x as fast")
    results.add(
        small_jobs_per_s=round(shared.per_second, 1),
        small_copies_per_job=round(shared.copies_per_execution, 4),
        small_alone_jobs_per_s=round(alone.per_second, 1),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

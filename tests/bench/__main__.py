"""`python -m bench` measures everything and ends with one table; `python -m bench WHAT [ARGUMENT…]` a part.

What a part prints and takes is said in its module. SCALE=0.1 makes everything short, ROUNDS=5 is how often what is compared is
measured, JOBS and QUEUES are numbers of executions for `small` and `queue`. Figures are left in `target/bench/results.json`.
"""

from __future__ import annotations

import os
import sys

from bench import backlog, chart, document, latency, leak, results, rows, shutdown, small, speed, trigger, wide, world

PARTS = {
    "speed": speed.main,
    "rows": rows.main,
    "latency": latency.main,
    "trigger": trigger.main,
    "small": small.main,
    "queue": backlog.main,
    "wide": wide.main,
    "leak": leak.main,
    "shutdown": shutdown.main,
}
SIZES = ("SCALE", "ROUNDS", "JOBS", "QUEUES")


def everything() -> None:
    """One run of all parts. One of the usual size becomes the documentation's."""
    results.begin()
    results.add(
        profile=os.environ.get("PROFILE") or "release",
        processors=os.cpu_count() or 0,
        load=round(os.getloadavg()[0], 1),
        scale=world.scale(),
        rounds=world.rounds(),
    )
    for name, part in PARTS.items():
        print(f"\n== {name}", flush=True)
        part([])
    figures = results.load()
    print()
    for block in (document.comparison, document.aims):
        print(block(figures))
    drawing = results.PATH.with_name("performance.svg")
    drawing.write_text(chart.draw(figures))
    print(f"-- {results.PATH} and {drawing.name} beside it")
    if figures["profile"] == "release" and not any(map(os.environ.get, SIZES)):
        document.publish(figures)
        print("-- README.md and docs/performance.* have the figures of this run")


def main() -> int:
    """Measures and prints."""
    what, *arguments = sys.argv[1:] or [""]
    if not what:
        everything()
    elif what in PARTS:
        PARTS[what](arguments)
    else:
        print(f"there is no {what}; there are: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

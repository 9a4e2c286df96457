"""`python -m bench` measures everything and ends with one table; `python -m bench WHAT [ARGUMENT…]` a part.

What a part prints and takes is said in its module. SCALE=0.1 makes everything short, ROUNDS=5 is how often what is compared is
measured, JOBS and QUEUES are numbers of executions for `small` and `queue`. Figures are left in `target/bench/results.json`.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from bench import backlog, chart, document, latency, leak, results, rows, shutdown, small, speed, trigger, wide, world

# What takes milliseconds comes first: gigabytes that the disk has yet to write are felt by it for minutes.
PARTS = {
    "latency": latency.main,
    "trigger": trigger.main,
    "speed": speed.main,
    "rows": rows.main,
    "small": small.main,
    "queue": backlog.main,
    "wide": wide.main,
    "leak": leak.main,
    "shutdown": shutdown.main,
}


def everything() -> None:
    """One run of all parts. One of a release build and of the usual size becomes the documentation's."""
    reason = what_keeps_it_out()
    print(f"-- README.md and docs/performance.* keep their figures: {reason}" if reason else "-- the documentation gets this run's figures")
    build = installed()
    results.begin()
    results.add(
        profile=profile(),
        processors=os.cpu_count() or 0,
        load=round(os.getloadavg()[0], 1),
        scale=world.scale(),
        rounds=world.rounds(),
    )
    for name, part in PARTS.items():
        print(f"\n== {name}", flush=True)
        part([])
        assert installed() == build, "another build was installed meanwhile"
    figures = results.load()
    print()
    for block in (document.comparison, document.aims):
        print(block(figures))
    drawing = results.PATH.with_name("performance.svg")
    drawing.write_text(chart.draw(figures))
    print(f"-- {results.PATH} and {drawing.name} beside it")
    if not reason:
        document.publish(figures)
        print("-- README.md and docs/performance.* have the figures of this run")


def profile() -> str:
    """How the extension was built, as the Makefile says."""
    return os.environ.get("PROFILE") or "release"


def what_keeps_it_out() -> str:
    """Why a run would say nothing to readers of the documentation; empty if it would."""
    if profile() != "release":
        return f"this is a {profile()} build"
    changed = [name for name in ("SCALE", "ROUNDS", "JOBS", "QUEUES") if os.environ.get(name)]
    return f"{' and '.join(changed)} are set" if changed else ""


def installed() -> str:
    """The digest of the library that servers load."""
    directory = subprocess.run([os.environ["PG_CONFIG"], "--pkglibdir"], check=True, capture_output=True, text=True).stdout.strip()
    return hashlib.sha256(Path(directory, "snowflake_bridge.so").read_bytes()).hexdigest()


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

"""`python -m chaos PACKAGE [FINDING...]`: rounds of uploads while everything fails that can, each checked row by row in the end.

PACKAGE is what `cargo pgrx package` made of a build with fail points; a build with a fault, of which FINDINGs (`doubled`,
say) are expected, must be found out. SEED chooses what is done, JOBS how many jobs a round
has, TROUBLE how much goes wrong (1 as usual, 0 nothing but what the builds with a fault are found out by: COPYs that lose rows, and
commits of which Snowflake says that they were rolled back), KEEP_LOG where the server's log is kept, and beside it
what Snowflake was asked. Ends with one line, `chaos: seed=… jobs=…
rows=… kills=… faults=… lost=… doubled=… unverified=… stuck=…`, and fails unless the last four are 0 and as much went wrong as
was meant to.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from chaos import intruder
from chaos.checker import Verdict
from chaos.jobs import Application, Round
from chaos.rounds import add, count, play, settle
from chaos.trouble import PLACES, Trouble
from chaos.world import World
from harness.installation import with_package

LOG_LINES = 200
# What goes wrong at least, of 100 jobs: a third of what usually does.
MIN_KILLS, MIN_FAULTS = 0.5, 6.0
# So many uploads are loaded beside others at least, of 100 jobs: a fifth of what usually are.
MIN_SHARED = 10
# A run of so many jobs kills processes at so many places of the product.
LONG_RUN, MIN_KILLED_PLACES = 1_000, 10


def main() -> int:
    seed = int(os.environ.get("SEED") or random.randrange(2**32))
    rounds = int(os.environ.get("ROUNDS") or 3)
    jobs = int(os.environ.get("JOBS") or 100)
    trouble = float(os.environ.get("TROUBLE") or 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    package, expected = Path(sys.argv[1]).resolve(), sys.argv[2:]
    with with_package(package):
        total, done = run(seed, rounds, jobs, trouble, is_faulty=bool(expected))
    if not expected:
        share = rounds * jobs * trouble / 100
        min_kills = max(rounds if trouble > 0 else 0, int(MIN_KILLS * share))
        min_places = MIN_KILLED_PLACES if rounds * jobs >= LONG_RUN and trouble >= 1 else 0
        once = int(trouble > 0)
        least = Done(min_kills, int(MIN_FAULTS * share), min_places, int(MIN_SHARED * rounds * jobs / 100), once, once)
        is_enough = all(came >= needed for came, needed in zip(done, least, strict=True))
        if not is_enough:
            print(f"chaos: too little came to pass in {rounds} rounds: {done}, at least {least}")
        return 0 if total.clean() and is_enough else 1
    found = {finding: getattr(total, finding) for finding in expected}
    print(f"chaos mutant: {package.name} " + " ".join(f"{finding}={count}" for finding, count in found.items()))
    return 0 if all(found.values()) else 1


class Done(NamedTuple):
    """What has come to pass in a run."""

    kills: int
    faults: int
    killed_places: int
    shared: int
    parked: int
    takeovers: int


def run(seed: int, rounds: int, jobs: int, amount: float, *, is_faulty: bool) -> tuple[Verdict, Done]:
    """All rounds: what was found in them, and what came to pass."""
    rng = random.Random(seed)
    total = Verdict()
    uploads = 0
    with contextlib.closing(World(rng)) as world:
        trouble = Trouble(world, rng)
        try:
            for number in range(1, rounds + 1):
                began = time.monotonic()
                round = Round(number)
                play(Application(world, rng), trouble, round, jobs, amount)
                trouble.stop()
                verdict = settle(world, trouble, round)
                add(total, verdict)
                uploads += count(world, round, "true")
                told = f"round {number} in {time.monotonic() - began:.0f} s"
                print(line(told, uploads, total, trouble), flush=True)
                for finding in verdict.findings:
                    print(f"  {finding}", flush=True)
                if not verdict.clean():
                    # What has led to it is what happened last.
                    break
        finally:
            if not (total.clean() or is_faulty) or sys.exc_info()[0]:
                print("\n".join(world.bridge.cluster.log_text().splitlines()[-LOG_LINES:]), flush=True)
            if kept := os.environ.get("KEEP_LOG"):
                Path(kept).write_text(world.bridge.cluster.log_text())
                Path(kept).with_suffix(".json").write_text("\n".join(map(json.dumps, world.standin.audit())))
        report(trouble)
        print(("as expected, " if is_faulty else "") + line(f"seed={seed}", uploads, total, trouble), flush=True)
        places, parked = len(places_of_kills(trouble)), trouble.credentials.parked
        done = Done(trouble.killed(), trouble.faults(), places, shared(world), parked, intruder.takeovers(world))
    return total, done


def line(head: str, jobs: int, total: Verdict, trouble: Trouble) -> str:
    """How it stands."""
    return (
        f"chaos: {head} jobs={jobs} rows={total.rows} kills={trouble.killed()} faults={trouble.faults()} "
        f"lost={total.lost} doubled={total.doubled} unverified={total.unverified} stuck={total.stuck}"
    )


def places_of_kills(trouble: Trouble) -> set[str]:
    """The fail points at which a process was killed."""
    return {place for place, what in trouble.world.carried_out() if what == "kill"}


def shared(world: World) -> int:
    """Uploads whose last COPY was that of others, too."""
    [row] = world.ask(
        "select count(*) as n from snowflake_bridge.uploads u where transaction_id is not null and exists ("
        "select from snowflake_bridge.uploads o where o.transaction_id = u.transaction_id and o.id <> u.id)"
    )
    return int(row["n"])


def report(trouble: Trouble) -> None:
    """What went wrong, by kind."""
    done = trouble.world.carried_out()
    places = Counter[str]()
    for (place, _), times in done.items():
        places[place] += times
    killed = len(places_of_kills(trouble))
    print(f"fail points: {len(places)} of {len(PLACES)} places came to pass, {killed} of them by SIGKILL")
    print("  " + ", ".join(f"{place} {times}" for place, times in sorted(places.items())))
    network = sum((proxy.faults for proxy in trouble.world.proxies), Counter[str]())
    print("network: " + ", ".join(f"{what} {times}" for what, times in sorted(network.items())))
    print(f"one COPY for several: {shared(trouble.world)} uploads were loaded so in the end")
    refused = trouble.credentials
    print(f"credentials: refused {refused.times} times, for which {refused.parked} uploads have waited")
    print(f"second workers: {intruder.takeovers(trouble.world)} have taken the place of the first")
    print("others: " + ", ".join(f"{what} {times}" for what, times in sorted(trouble.counts.items())))


if __name__ == "__main__":
    sys.exit(main())

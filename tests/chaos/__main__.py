"""`python -m chaos PACKAGE [FINDING...]`: rounds of uploads while everything fails that can, each checked row by row in the end.

PACKAGE is what `cargo pgrx package` made of a build with fail points; a build with a fault, of which FINDINGs (`doubled`,
say) are expected, must be found out. SEED chooses what is done, JOBS how many jobs a round
has, TROUBLE how much goes wrong (1 as usual, 0 nothing but what the builds with a fault are found out by: COPYs that lose rows, and
commits of which Snowflake says that they were rolled back), KEEP_LOG where the server's log is kept. Ends with one line, `chaos: seed=… jobs=…
rows=… kills=… faults=… lost=… doubled=… unverified=… stuck=…`, and fails unless the last four are 0 and as much went wrong as
was meant to.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from chaos.checker import Verdict, check
from chaos.jobs import Application, Round
from chaos.reasons import is_injected
from chaos.trouble import PLACES, Trouble
from chaos.world import World
from harness.installation import with_package

FINAL = "('completed', 'failed', 'canceled', 'needs_credentials')"
# More than these wait for nothing but each other.
MAX_WAITING = 40
DRAIN_SECONDS = float(os.environ.get("DRAIN_SECONDS") or 180)
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
        least = Done(min_kills, int(MIN_FAULTS * share), min_places, int(MIN_SHARED * rounds * jobs / 100))
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
                play(world, rng, trouble, round, jobs, amount)
                trouble.stop()
                verdict = settle(world, trouble, round)
                add(total, verdict)
                uploads += count(world, round, "true")
                told = f"round {number} in {time.monotonic() - began:.0f} s"
                print(line(told, uploads, total, trouble), flush=True)
                for finding in verdict.findings:
                    print(f"  {finding}", flush=True)
        finally:
            if not (total.clean() or is_faulty) or sys.exc_info()[0]:
                print("\n".join(world.bridge.cluster.log_text().splitlines()[-LOG_LINES:]), flush=True)
            if kept := os.environ.get("KEEP_LOG"):
                Path(kept).write_text(world.bridge.cluster.log_text())
        report(trouble)
        print(("as expected, " if is_faulty else "") + line(f"seed={seed}", uploads, total, trouble), flush=True)
        done = Done(trouble.killed(), trouble.faults(), len(places_of_kills(trouble)), shared(world))
    return total, done


def line(head: str, jobs: int, total: Verdict, trouble: Trouble) -> str:
    """How it stands."""
    return (
        f"chaos: {head} jobs={jobs} rows={total.rows} kills={trouble.killed()} faults={trouble.faults()} "
        f"lost={total.lost} doubled={total.doubled} unverified={total.unverified} stuck={total.stuck}"
    )


def play(world: World, rng: random.Random, trouble: Trouble, round: Round, jobs: int, amount: float) -> None:
    """Jobs, with trouble between them. However short the round is, a worker is killed in it."""
    application = Application(world, rng)
    for number in range(jobs):
        if amount > 0 and number == jobs // 2:
            trouble.kill_worker(round)
        if amount == 0:
            # One after the other: a load that is repeated would make good what a short COPY has lost.
            if number in (0, jobs // 4):
                trouble.deny_commits()
            elif number == jobs // 2:
                drain(world, trouble, round)
                trouble.stop()
            elif number > jobs // 2 and rng.random() < 0.2:
                trouble.short_copy(round)
        elif rng.random() < 0.25 * amount:
            trouble.make(round)
        application.job(round)
        trouble.time_passes()
        trouble.weather()
        hold_back(world, trouble, round)
    if amount == 0:
        drain(world, trouble, round)


def hold_back(world: World, trouble: Trouble, round: Round) -> None:
    """Lets the worker catch up, for a while: with more in the queue nothing new would happen."""
    until = time.monotonic() + 1
    while time.monotonic() < until and count(world, round, f"state not in {FINAL}") > MAX_WAITING:
        trouble.time_passes()
        time.sleep(0.1)


def settle(world: World, trouble: Trouble, round: Round) -> Verdict:
    """Everything comes to its end. What has failed must have failed for a reason and left no rows; then nothing fails."""
    drain(world, trouble, round)
    failures = failed(world, round)
    early = check(world, round) if failures else Verdict()
    for upload in failures:
        message = str(upload["error_message"])
        early.say("lost", int(not is_injected(message)), f"upload {upload['id']} failed by itself: {message}")
        round.retried.add(upload["id"])
        world.ask("select snowflake_bridge.retry_upload(%s)", [upload["id"]])
    drain(world, trouble, round)
    verdict = check(world, round)
    for upload in failed(world, round):
        verdict.say("lost", 1, f"upload {upload['id']} failed when nothing was wrong: {upload['error_message']}")
    # The rows that are there are counted once.
    early.rows = 0
    add(verdict, early)
    verdict.findings += [f"{finding}, before what had failed was sent again" for finding in early.findings]
    world.attempt("vacuum snowflake_bridge.uploads", as_admin=True)
    return verdict


def drain(world: World, trouble: Trouble, round: Round) -> None:
    """Waits, not for ever. What is stuck then, the checker finds."""
    until = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < until and count(world, round, f"state not in {FINAL} or needs_mirror") > 0:
        trouble.time_passes()
        time.sleep(0.1)


def failed(world: World, round: Round) -> list[dict[str, Any]]:
    """Uploads that have failed and that nothing has replaced."""
    return world.ask(
        "select id, error_message from snowflake_bridge.uploads u where execution_id like %s "
        "and state in ('failed', 'needs_credentials') and not exists (select from snowflake_bridge.uploads n "
        "where n.watch_id = u.watch_id and n.execution_id = u.execution_id and n.id > u.id)",
        [f"{round.number}-%"],
    )


def count(world: World, round: Round, condition: str) -> int:
    """Uploads of this round."""
    query = f"select count(*) as n from snowflake_bridge.uploads where execution_id like %s and ({condition})"
    return int(world.ask(query, [f"{round.number}-%"])[0]["n"])


def add(total: Verdict, more: Verdict) -> None:
    """Sums up."""
    for name in ("rows", "lost", "doubled", "unverified", "stuck"):
        setattr(total, name, getattr(total, name) + getattr(more, name))


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
    print("others: " + ", ".join(f"{what} {times}" for what, times in sorted(trouble.counts.items())))


if __name__ == "__main__":
    sys.exit(main())

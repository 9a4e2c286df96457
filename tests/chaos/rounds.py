"""A round: jobs with trouble between them, and then everything comes to its end."""

from __future__ import annotations

import os
import time
from typing import Any

from chaos.checker import Verdict, check
from chaos.jobs import Application, Round
from chaos.reasons import is_injected, is_lost_with_server
from chaos.trouble import Trouble
from chaos.world import World

FINAL = "('completed', 'failed', 'canceled', 'needs_credentials')"
# More than these wait for nothing but each other.
MAX_WAITING = 40
DRAIN_SECONDS = float(os.environ.get("DRAIN_SECONDS") or 180)


def play(application: Application, trouble: Trouble, round: Round, jobs: int, amount: float) -> None:
    """Jobs, with trouble between them. However short the round is, somebody's credentials are refused in it, a worker is killed, and another
    one takes its place."""
    world, rng = application.world, application.rng
    for number in range(jobs):
        if amount > 0 and number == jobs // 4:
            trouble.refuse(round)
        if amount > 0 and number == jobs // 2:
            trouble.kill_worker(round)
        if amount > 0 and number == 3 * jobs // 4:
            # Whose statuses are to be shown.
            application.batch(round)
            trouble.displace()
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
        if amount > 0 and rng.random() < 0.1:
            trouble.people(round)
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
        round.retry(upload["id"])
        world.ask("select snowflake_bridge.retry_upload(%s)", [upload["id"]])
    drain(world, trouble, round)
    verdict = check(world, round)
    for finding in trouble.credentials.findings:
        verdict.say("unverified", 1, finding)
    trouble.credentials.findings.clear()
    workers = trouble.workers()
    verdict.say("stuck", int(len(workers) != 1), f"workers in the end: {workers}")
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
    """Uploads that have failed and that nothing has replaced; not those of which the rows were lost with a server."""
    failures = world.ask(
        "select id, error_message, created_at from snowflake_bridge.uploads u where execution_id like %s "
        "and state in ('failed', 'needs_credentials') and not exists (select from snowflake_bridge.uploads n "
        "where n.watch_id = u.watch_id and n.execution_id = u.execution_id and n.id > u.id)",
        [f"{round.number}-%"],
    )
    return [
        upload
        for upload in failures
        if not (
            round.failed_over_at and upload["created_at"] < round.failed_over_at and is_lost_with_server(str(upload["error_message"]))
        )
    ]


def count(world: World, round: Round, condition: str) -> int:
    """Uploads of this round."""
    query = f"select count(*) as n from snowflake_bridge.uploads where execution_id like %s and ({condition})"
    return int(world.ask(query, [f"{round.number}-%"])[0]["n"])


def add(total: Verdict, more: Verdict) -> None:
    """Sums up."""
    for name in ("rows", "lost", "doubled", "unverified", "stuck"):
        setattr(total, name, getattr(total, name) + getattr(more, name))

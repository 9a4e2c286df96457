"""`python -m chaos.failover PACKAGE`: the primary is lost amid uploads, and a standby takes its place that has not heard of its last moments,
in which it has loaded more. What the standby knows is there once; what it has never heard of is there whole, or not at all.

PACKAGE is what `cargo pgrx package` made of a build with fail points; SEED chooses what is done. Ends with one line, `failover: seed=… jobs=…
forgotten=… rows=… lost=… doubled=… unverified=… stuck=…`, and fails unless the last four are 0 and the standby had something to repeat.
"""

from __future__ import annotations

import contextlib
import copy
import os
import random
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from chaos.checker import Verdict, uploads_of
from chaos.jobs import MAX_BATCH, Application, Round
from chaos.rounds import count, drain, play, settle
from chaos.trouble import Trouble
from chaos.world import DATABASE, World
from harness import copies, lifecycle, wait
from harness.cluster import Cluster
from harness.installation import with_package

# Before there is a standby, while it follows, when it does not any more, and when it is the primary.
EARLY, FOLLOWED, UNHEARD, AFTERWARDS = 10, 10, 15, 15
# Batches that have just been queued when the standby hears the last, and when the primary is lost.
JUST_QUEUED = 3
LOG_LINES = 200


def main() -> int:
    seed = int(os.environ.get("SEED") or random.randrange(2**32))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rng = random.Random(seed)
    with with_package(Path(sys.argv[1]).resolve()), contextlib.closing(World(rng)) as world:
        trouble, round = Trouble(world, rng), Round(1)
        with shown_log(world):
            verdict, jobs, repeated = fail_over(Application(world, rng), trouble, round)
        for finding in verdict.findings:
            print(f"  {finding}")
        print(
            f"failover: seed={seed} jobs={jobs} forgotten={len(round.forgotten)} repeated={repeated} "
            f"rows={verdict.rows} lost={verdict.lost} doubled={verdict.doubled} unverified={verdict.unverified} stuck={verdict.stuck}"
        )
        return 0 if verdict.clean() and round.forgotten and repeated else 1


@contextlib.contextmanager
def shown_log(world: World) -> Iterator[None]:
    """After a failure the end of the server's log is shown."""
    try:
        yield
    except BaseException:
        print("\n".join(world.bridge.cluster.log_text().splitlines()[-LOG_LINES:]), flush=True)
        raise


def fail_over(application: Application, trouble: Trouble, round: Round) -> tuple[Verdict, int, int]:
    """What was found in the end, how many uploads there were, and how many of them were loaded already when the standby took over, which
    did not know."""
    world = application.world
    primary = world.bridge.cluster
    play(application, trouble, round, EARLY, 1)
    trouble.stop()
    with copies.base_backup(primary, standby=True) as standby:
        standby.start()
        play(application, trouble, round, FOLLOWED, 1)
        trouble.stop()
        # So far nobody has loaded these.
        lifecycle.hold(world.bridge, {"kind": "query", "sql": "begin"}, times=JUST_QUEUED * MAX_BATCH)
        hurry(application, round)
        leave_behind(world, standby)
        world.standin.clear_faults()
        heard = copy.deepcopy(round)
        play(application, trouble, round, UNHEARD, 1)
        trouble.stop()
        drain(world, trouble, round)
        hurry(application, round)
        before = {upload["upload_id"]: upload for upload in uploads_of(world, round)}
        try:
            known = take_over(world, standby)
            # What was asked for and answered since, nobody has heard of.
            round.retried, round.unwanted, round.cancels = heard.retried, heard.unwanted, heard.cancels
            save_credentials(trouble, round)
            # Also what had ended, and was sent on its way again.
            round.forgotten = [
                upload
                for upload_id, upload in before.items()
                if upload_id not in known or known[upload_id] in ("failed", "canceled") and known[upload_id] != upload["state"]
            ]
            round.failed_over_at = datetime.now(UTC)
            repeated = [
                upload_id for upload_id, state in known.items() if state != "completed" and before[upload_id]["state"] == "completed"
            ]
            play(application, trouble, round, AFTERWARDS, 1)
            trouble.stop()
            verdict = settle(world, trouble, round)
            return verdict, count(world, round, "true"), len(repeated)
        finally:
            world.bridge.cluster = primary


def hurry(application: Application, round: Round) -> None:
    """Uploads that have not ended when this returns."""
    for _ in range(JUST_QUEUED):
        application.batch(round)
        application.query(round)


def leave_behind(world: World, standby: Cluster) -> None:
    """The standby has heard of everything until now, and of nothing that comes."""
    [at] = world.ask("select pg_current_wal_lsn()::text as lsn")
    with standby.connect() as reader:
        heard = "select pg_last_wal_replay_lsn() >= %s::pg_lsn as heard"
        wait.until(lambda: reader.execute(heard, [at["lsn"]]).fetchone()["heard"], "the standby has heard of everything", 60)
    standby.stop()
    # Where its primary is.
    (standby.data / "postgresql.auto.conf").write_text("")


def take_over(world: World, standby: Cluster) -> dict[str, str]:
    """The primary is lost, and the standby takes its place. Returns the uploads that it knows of, and how each of them stood."""
    world.bridge.cluster.stop(signal.SIGQUIT)
    standby.start()
    with standby.connect(DATABASE) as reader:
        rows = reader.execute("select upload_id::text, state from snowflake_bridge.uploads").fetchall()
    standby.promote()
    world.bridge.cluster = standby
    world.reconnect()
    return {row["upload_id"]: row["state"] for row in rows}


def save_credentials(trouble: Trouble, round: Round) -> None:
    """The configurations get the credentials of today, which the standby may not have heard of."""
    world = trouble.world
    trouble.credentials.come_late(round)
    for tenant in world.tenants:
        wait.until(lambda tenant=tenant: world.save(tenant, tenant.secret(), verify=False), "the credentials are saved", 60)


if __name__ == "__main__":
    sys.exit(main())

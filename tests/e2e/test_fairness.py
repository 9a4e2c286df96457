"""One user's queue, dead endpoint or throttled account costs the others nothing."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest
from psycopg.types.json import Jsonb

from harness import hostile, latency, wait
from harness.bridge import TABLE, Bridge
from harness.standin import User

# `FAIRNESS_JOBS=10000` gives the figure.
JOBS = int(os.environ.get("FAIRNESS_JOBS", "400"))
ROUNDS = 10
# The promise. On a machine that is busy with other things half of them still keep it, and all but one, which a pause of the whole
# machine may have met, keep to `LIMIT`.
PROMISE = 1.0
LIMIT = 2.5
SLOWEST = 30.0
BUSY = 12
# Half of 64 slots each.
SHARE, MANY = 32, 320
# Longer than what the client waits for by itself.
RETRY_AFTER = 17


@pytest.fixture
def bridge(make_bridge: Callable[..., Bridge]) -> Bridge:
    """Each upload has a slot of its own: those that share one count as one."""
    return make_bridge({"snowflake_bridge.max_shared_uploads": "1"} | latency.SETTINGS)


def tenant(bridge: Bridge, name: str, user: User, host: str, **arguments: object) -> None:
    """A user of the application with a connection of their own."""
    bridge.configure(user, connection=bridge.admin, user_id=name, account_identifier=host, **arguments)


def queue(bridge: Bridge, name: str, jobs: int, prefix: str, **options: str) -> None:
    """That many finished executions of one tenant, in one transaction."""
    bridge.admin.execute(
        f"insert into {TABLE} (execution_id, user_id, status, snowflake_enabled, result_rows, snowflake_options) "
        "select %s || n, %s, 'completed', true, %s, %s from generate_series(1, %s) n",
        [prefix, name, Jsonb([{"n": 1}]), Jsonb(options), jobs],
    )


def delays(bridge: Bridge, name: str, prefix: str, rounds: int = ROUNDS) -> list[float]:
    """Seconds from commit to the first statement at Snowflake's side, for uploads one after the other."""
    found = []
    for number in range(rounds):
        mark = bridge.standin.audit_mark()
        queue(bridge, name, 1, f"{prefix}-{number}-")
        bridge.completed(f"{prefix}-{number}-1", seconds=60)
        upload = bridge.upload(f"{prefix}-{number}-1")
        stage = str(upload["upload_id"])
        first = next(record["time"] for record in bridge.standin.audit(mark) if stage in (record["sql"] or ""))
        found.append(first - upload["created_at"].timestamp())
    return found


def keep_to(seconds: list[float], limit: float) -> bool:
    """Whether all of them do, but for one, which has its own limit."""
    *others, slowest = sorted(seconds)
    return max(others) < limit and slowest < SLOWEST


def taken_after(bridge: Bridge, name: str, moment: datetime) -> int:
    """How many of this tenant's uploads were taken later than that, for the last time, or still wait."""
    sql = "select count(*) as n from snowflake_bridge.uploads where user_id = %s and (claimed_at is null or claimed_at > %s)"
    [row] = bridge.admin.execute(sql, [name, moment]).fetchall()
    return row["n"]


def test_dead_endpoints_and_a_long_queue(make_bridge: Callable[..., Bridge], capsys) -> None:
    with hostile.servers() as dead:
        bridge = make_bridge({"snowflake_bridge.stall_timeout": "5s"}, hosts=[one.origin for one in dead.values()])
        user = bridge.account.add_user()
        bridge.call("watch", connection=bridge.admin, relation=TABLE, create_if_missing=True, act_for_users=True)
        bridge.admin.execute(f"grant select, insert, update, delete on {TABLE} to app")
        tenant(bridge, "healthy", user, bridge.account.host)
        alone = delays(bridge, "healthy", "alone")
        for phase, server in dead.items():
            tenant(bridge, phase, user, server.host, verify=False)
            queue(bridge, phase, JOBS // len(dead), f"{phase}-")

        def each_is_tried() -> bool:
            sql = "select count(distinct user_id) as n from snowflake_bridge.uploads where attempt_count > 0"
            [row] = bridge.admin.execute(sql).fetchall()
            return row["n"] == len(dead) + 1

        began = time.monotonic()
        crowded = delays(bridge, "healthy", "first")
        wait.until(each_is_tried, "each dead endpoint was tried", 60)
        crowded += delays(bridge, "healthy", "later")
        with capsys.disabled():
            print(
                f"\nfairness: {JOBS} uploads to {len(dead)} dead endpoints; commit -> first statement of somebody else, max of {len(alone)}"
                f" alone {max(alone):.3f} s, max of {len(crowded)} beside them {max(crowded):.3f} s"
                f" ({time.monotonic() - began:.0f} s)"
            )
        assert statistics.median(crowded) < statistics.median(alone) + PROMISE
        assert keep_to(crowded, max(alone) + LIMIT)


def test_a_long_queue_that_cannot_even_begin(bridge: Bridge) -> None:
    """Its owner has no connection. Statuses are written before all of it was tried, and others go on."""
    user = bridge.account.add_user()
    bridge.call("watch", connection=bridge.admin, relation=TABLE, create_if_missing=True, act_for_users=True)
    bridge.admin.execute(f"grant select, insert, update, delete on {TABLE} to app")
    tenant(bridge, "somebody", user, bridge.account.host)
    alone = delays(bridge, "somebody", "alone", 5)
    queue(bridge, "nobody", 5 * JOBS, "nobody-")
    first = f"select min(pg_xact_commit_timestamp(xmin)) as moment from {TABLE} where snowflake_status = 'failed'"
    moment = wait.until(lambda: bridge.admin.execute(first).fetchone()["moment"], "a status is shown", 60)
    assert taken_after(bridge, "nobody", moment) > 2 * JOBS, "it was shown while others waited"
    crowded = delays(bridge, "somebody", "crowded", 5)
    assert statistics.median(crowded) < statistics.median(alone) + PROMISE


def test_whoever_has_no_connection_keeps_nobody_waiting(bridge: Bridge) -> None:
    """Not even at a table of the watch's owner's, whom the account lets in."""
    user = bridge.account.add_user()
    bridge.configure(user, connection=bridge.admin)
    bridge.call("watch", connection=bridge.admin, relation=TABLE, create_if_missing=True, act_for_users=True)
    tenant(bridge, "somebody", user, bridge.account.host)
    with bridge.admin.transaction():
        bridge.admin.execute(f"grant select, insert, update, delete on {TABLE} to app")
        queue(bridge, "nobody", 2 * JOBS, "nobody-", strategy="replace", table_name="t")
        queue(bridge, "somebody", 1, "somebody-", table_name="t")
    bridge.completed("somebody-1", seconds=60)
    claimed_at = bridge.upload("somebody-1")["claimed_at"]
    assert taken_after(bridge, "nobody", claimed_at) > JOBS, "it did not wait for all of them"


def test_a_long_queue_of_somebody_else(bridge: Bridge) -> None:
    users = [bridge.account.add_user(name) for name in ("BUSY", "CALM")]
    bridge.call("watch", connection=bridge.admin, relation=TABLE, create_if_missing=True, act_for_users=True)
    for name, user in zip(("busy", "calm"), users, strict=True):
        tenant(bridge, name, user, bridge.account.host)
    bridge.admin.execute(f"grant select, insert, update, delete on {TABLE} to app")
    with bridge.admin.transaction():
        queue(bridge, "busy", JOBS, "busy-")
        queue(bridge, "calm", 1, "calm-")
    bridge.completed("calm-1", seconds=60)
    claimed_at = bridge.upload("calm-1")["claimed_at"]
    assert taken_after(bridge, "busy", claimed_at) > JOBS / 2, "it did not wait behind all of them"


def seconds_to_cancel(bridge: Bridge, execution: str) -> float:
    """Until it is canceled, one that is under way."""
    began = time.monotonic()
    bridge.call("cancel_upload", connection=bridge.admin, id=bridge.upload(execution)["id"])
    wait.until(lambda: bridge.upload(execution)["state"] == "canceled", "it is canceled")
    return time.monotonic() - began


def test_queues_that_share_copies_keep_nobody_waiting(make_bridge: Callable[..., Bridge], capsys) -> None:
    """What it takes to begin all that many others have waiting is for them alone to wait for."""
    bridge = make_bridge()
    bridge.call("watch", connection=bridge.admin, relation=TABLE, create_if_missing=True, act_for_users=True)
    bridge.admin.execute(f"grant select, insert, update, delete on {TABLE} to app")
    user = bridge.account.add_user()
    busy = [f"busy-{number}" for number in range(BUSY)]
    for name in (*busy, "calm", "held"):
        tenant(bridge, name, user, bridge.account.host)
    alone = delays(bridge, "calm", "alone")
    held = [f"held-{number}-" for number in range(3)]
    bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into[^(]*hangs"}, {"black_hole": True}, times=len(held))
    for number, prefix in enumerate(held):
        # At tables of their own, so that they share nothing.
        queue(bridge, "held", 1, prefix, table_name=f"hangs_{number}")
    wait.until(lambda: all(bridge.upload(f"{prefix}1")["state"] == "copying" for prefix in held), "they hang", 60)
    for name in busy:
        queue(bridge, name, JOBS // 2, f"{name}-")

    def shared() -> int:
        sql = "select count(*) - count(distinct transaction_id) as n from snowflake_bridge.uploads where transaction_id is not null"
        [row] = bridge.admin.execute(sql).fetchall()
        return row["n"]

    wait.until(lambda: shared() > BUSY * 4, "copies are shared", 60)
    beside = delays(bridge, "calm", "beside", ROUNDS // 2)
    canceled = [seconds_to_cancel(bridge, f"{prefix}1") for prefix in held]
    last = max(bridge.upload(f"{prefix}1")["completed_at"] for prefix in held)
    left = sum(taken_after(bridge, name, last) for name in busy)
    with capsys.disabled():
        print(
            f"\nfairness: {BUSY} owners share copies; commit -> first statement of somebody else, max alone {max(alone):.3f} s, beside them"
            f" {max(beside):.3f} s; cancellations took up to {max(canceled):.3f} s; {left} wait still"
        )
    assert left > 0, "the others had something to do all the time"
    assert statistics.median(beside) < statistics.median(alone) + PROMISE
    assert keep_to(beside, max(alone) + LIMIT)
    assert statistics.median(canceled) < LIMIT
    bridge.standin.clear_faults()


def test_two_owners_whose_copies_hang_leave_a_slot_to_a_third(bridge: Bridge, capsys) -> None:
    """One of them has two connections; together they would have every slot until Snowflake gives up."""
    bridge.call("watch", connection=bridge.admin, relation=TABLE, create_if_missing=True, act_for_users=True)
    for name in ("two", "one", "third"):
        tenant(bridge, name, bridge.account.add_user(name.upper()), bridge.account.host)
    again = bridge.account.add_user("AGAIN")
    bridge.configure(again, connection=bridge.admin, user_id="two", name="second")
    bridge.admin.execute(f"grant select, insert, update, delete on {TABLE} to app")
    alone = delays(bridge, "third", "alone")
    bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into[^(]*hangs"}, {"black_hole": True}, times=100)
    mark = bridge.standin.audit_mark()
    queue(bridge, "two", 6, "two-", table_name="hangs")
    queue(bridge, "two", 6, "second-", table_name="hangs", config="second")
    queue(bridge, "one", 6, "one-", table_name="hangs")

    def hanging(name: str) -> int:
        sql = "select count(*) as n from snowflake_bridge.uploads where user_id = %s and state = 'copying'"
        [row] = bridge.admin.execute(sql, [name]).fetchall()
        return row["n"]

    wait.until(lambda: (hanging("two"), hanging("one")) == (4, 4), "each has half of the slots", 60)
    assert sum(record["kind"] == "query" for record in bridge.standin.audit(mark)) > 8
    beside = delays(bridge, "third", "beside")
    with capsys.disabled():
        print(f"\nfairness: commit -> first statement of a third, max alone {max(alone):.3f} s, beside hanging copies {max(beside):.3f} s")
    assert statistics.median(beside) < statistics.median(alone) + PROMISE
    assert keep_to(beside, max(alone) + LIMIT)
    assert (hanging("two"), hanging("one")) == (4, 4), "they hang on, and have no more"
    bridge.standin.clear_faults()


def test_a_connection_that_hangs_leaves_the_owners_other_one_a_slot(bridge: Bridge, user: User) -> None:
    bridge.configure(bridge.account.add_user("SECOND"), name="second")
    bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into[^(]*hangs"}, {"black_hole": True}, times=100)

    def hanging() -> int:
        sql = "select count(*) as n from snowflake_bridge.uploads where state = 'copying'"
        [row] = bridge.admin.execute(sql).fetchall()
        return row["n"]

    for number in range(6):
        bridge.run(f"hangs-{number}", [{"n": 1}], snowflake_options={"table_name": "hangs"})
    wait.until(lambda: hanging() == 3, "it has all of the owner's share but one", 60)
    for number in range(ROUNDS):
        bridge.run(f"goes-on-{number}", [{"n": 1}], snowflake_options={"config": "second"})
    for number in range(ROUNDS):
        bridge.completed(f"goes-on-{number}", seconds=60)
    assert hanging() == 3, "they hang on, and have no more"
    # An owner who has no other connection keeps nothing back.
    bridge.call("delete_config", name="second")
    wait.until(lambda: hanging() == 4, "it has the owner's share", 60)
    bridge.standin.clear_faults()


def test_slow_reports_of_many_owners_keep_nobody_from_loading(make_bridge: Callable[..., Bridge]) -> None:
    """More than there are readers, and than accounts may be knocked at."""
    bridge = make_bridge({"snowflake_bridge.max_concurrent_uploads": "1"})
    quick = bridge.account.add_user("QUICK")
    bridge.admin.execute(f"create table {TABLE} (execution_id text unique, user_id text, status text)")
    bridge.admin.execute(
        "create function rows_of(id text) returns table (n int) language sql volatile set search_path from current as "
        "$$ select 1 from pg_catalog.pg_sleep(600) $$"
    )
    bridge.call("watch", connection=bridge.admin, relation=TABLE, result_function="rows_of(text)", act_for_users=True)
    bridge.call("watch", connection=bridge.admin, relation="other_executions", create_if_missing=True, act_for_users=True)
    names = [f"slow-{number}" for number in range(6)]
    for name in (*names, "quick"):
        tenant(bridge, name, quick, bridge.account.host)
    for name in names:
        bridge.admin.execute(
            f"insert into {TABLE} (execution_id, user_id, status, snowflake_enabled) values (%s, %s, 'completed', true)",
            [name, name],
        )
    wait.until(lambda: all(bridge.upload(name)["state"] == "claimed" for name in names), "all are read, or wait for it", 60)
    bridge.admin.execute(
        "insert into other_executions (execution_id, user_id, status, snowflake_enabled, result_rows)"
        """ values ('quick', 'quick', 'completed', true, '[{"n": 1}]')"""
    )
    status = "select snowflake_status from other_executions where execution_id = 'quick'"
    wait.until(lambda: bridge.admin.execute(status).fetchone()["snowflake_status"] == "completed", "the quick one is loaded", 60)
    assert all(bridge.upload(name)["state"] == "claimed" for name in names)


def test_all_of_very_many_are_shown(make_bridge: Callable[..., Bridge]) -> None:
    """As far as each is, where several hundred are under way."""
    bridge = make_bridge({"snowflake_bridge.max_concurrent_uploads": "64", "snowflake_bridge.max_reader_processes": "1"})
    user = bridge.account.add_user()
    bridge.admin.execute(f"create table {TABLE} (execution_id text unique, user_id text, status text)")
    bridge.admin.execute(
        "create function rows_of(id text) returns table (n int) language sql volatile set search_path from current as "
        "$$ select 1 from pg_catalog.pg_sleep(600) $$"
    )
    bridge.call("watch", connection=bridge.admin, relation=TABLE, result_function="rows_of(text)", act_for_users=True)
    for number in range(MANY // SHARE):
        tenant(bridge, f"user-{number}", user, bridge.account.host, verify=False)
    bridge.admin.execute(
        f"insert into {TABLE} (execution_id, user_id, status, snowflake_enabled) "
        "select 'run-' || n, 'user-' || n %% %s, 'completed', true from generate_series(1, %s) n",
        [MANY // SHARE, MANY],
    )
    sql = "select count(*) filter (where phase = 'reading') as shown from snowflake_bridge.upload_progress() where state = 'claimed'"

    def all_are_shown() -> bool:
        return bridge.admin.execute(sql).fetchone() == {"shown": MANY}

    wait.until(all_are_shown, "all are shown", 60)


def test_slow_reports_of_one_owner_leave_a_reader_to_others(bridge: Bridge) -> None:
    user = bridge.account.add_user()
    bridge.admin.execute(f"create table {TABLE} (execution_id text unique, user_id text, status text)")
    bridge.admin.execute(
        "create function rows_of(id text) returns table (n int) language sql volatile set search_path from current as "
        "$$ select 1 from pg_catalog.pg_sleep(case when id like 'slow%' then 600 else 0 end) $$"
    )
    bridge.call("watch", connection=bridge.admin, relation=TABLE, result_function="rows_of(text)")
    bridge.admin.execute(f"grant select, insert, update, delete on {TABLE} to app")
    bridge.configure(user, connection=bridge.admin)

    def run(name: str, owner: str) -> None:
        bridge.admin.execute(
            f"insert into {TABLE} (execution_id, user_id, status, snowflake_enabled) values (%s, %s, 'completed', true)",
            [name, owner],
        )

    def reading() -> int:
        return len(bridge.cluster.backends("snowflake_bridge reader"))

    for number in range(3):
        run(f"slow-{number}", "slow")
    wait.until(lambda: reading() == 2, "where there is nobody else, an owner has both")
    bridge.admin.execute("select snowflake_bridge.cancel_upload(id) from snowflake_bridge.uploads")
    wait.until(lambda: reading() == 0, "nothing is read")
    # From now on there are others.
    for name in ("slow", "quick"):
        tenant(bridge, name, user, bridge.account.host)
    bridge.call("watch", connection=bridge.admin, relation=TABLE, result_function="rows_of(text)", act_for_users=True)
    slow = [f"slow-again-{number}" for number in range(3)]
    for name in slow:
        run(name, "slow")
    wait.until(lambda: all(bridge.upload(name)["state"] == "claimed" for name in slow), "all are read, or wait for it")
    wait.until(lambda: reading() == 1, "one is read")
    run("quick", "quick")
    bridge.completed("quick", seconds=60)
    assert reading() == 1
    assert all(bridge.upload(name)["state"] == "claimed" for name in slow)


def test_an_account_that_asks_to_slow_down(bridge: Bridge, user: User) -> None:
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "login"}, {"status": 429, "headers": {"Retry-After": str(RETRY_AFTER)}}, times=2)
    queue(bridge, "anybody", 12, "run-")
    for number in range(1, 13):
        bridge.completed(f"run-{number}", seconds=60)
    assert bridge.row_count(user) == 12
    logins = [record for record in bridge.standin.audit(mark) if record["kind"] == "login"]
    refused = [record["finished"] for record in logins if record["status"] == 429]
    early = [record for record in logins if refused[0] < record["monotonic"] < refused[0] + RETRY_AFTER - 0.5]
    assert len(early) <= 1, "only what had begun before the refusal is sent before the pause is over"
    uploads = [bridge.upload(f"run-{number}") for number in range(1, 13)]
    assert sorted(upload["claim_count"] for upload in uploads) == [1] * 10 + [2] * 2, "the others were not even tried"
    assert {upload["attempt_count"] for upload in uploads} == {1}, "to be told to come later is no attempt"


def test_whoever_only_names_somebodys_table_keeps_nobody_waiting(bridge: Bridge) -> None:
    """A stranger who has no password for the account wants to replace somebody's table, and is long at the door."""
    owner = bridge.account.add_user("OWNER")
    bridge.call("watch", connection=bridge.admin, relation=TABLE, create_if_missing=True, act_for_users=True)
    bridge.admin.execute(f"grant select, insert, update, delete on {TABLE} to app")
    tenant(bridge, "stranger", replace(owner, password="guessed"), bridge.account.host, verify=False)
    tenant(bridge, "owner", owner, bridge.account.host)
    queue(bridge, "owner", 1, "before-", table_name="t")
    bridge.completed("before-1")
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "login"}, {"delay_ms": 120_000})
    queue(bridge, "stranger", 1, "stranger-", strategy="replace", table_name="t")
    bridge.uploading({"kind": "login"}, mark)
    queue(bridge, "owner", 1, "owner-", table_name="t")
    bridge.completed("owner-1", seconds=60)
    assert bridge.upload("stranger-1")["state"] == "claimed"

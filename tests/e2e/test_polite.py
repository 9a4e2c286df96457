"""The bridge as a guest in somebody's server: what it holds, for how long, and what it does when nothing is to be done."""

from __future__ import annotations

import email.utils
import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import leak
from harness import wait
from harness.bridge import TABLE, Bridge
from harness.cluster import give
from harness.standin import User

ROWS = [{"n": n} for n in range(20)]
ENDLESS = "begin loop null; end loop; end"
# Whoever catches its cancellation can only be ended with its process.
STUBBORN = "begin loop begin perform pg_sleep(60); exception when query_canceled then null; end; end loop; end"


@pytest.mark.parametrize("body", [ENDLESS, STUBBORN], ids=["endless", "stubborn"])
def test_an_endless_trigger_of_the_application_delays_nobody_else(make_bridge: Callable[..., Bridge], body: str) -> None:
    """The mirror runs the application's own triggers; one that never ends costs its table the status, and nothing else."""
    bridge = make_bridge({"snowflake_bridge.mirror_timeout": "1s"})
    bridge.ready()
    bridge.app.execute("create table public.other_executions (like public.workflow_executions including all)")
    bridge.call("watch", relation="public.other_executions")
    bridge.app.execute(
        f"create function spin() returns trigger language plpgsql as '{body}';"
        f"create trigger spin before update of snowflake_status on {TABLE} for each row"
        " when (new.snowflake_status <> 'pending') execute function spin()"
    )
    for number in range(5):
        bridge.run(f"run-{number}", ROWS)
    bridge.app.execute(
        "insert into other_executions (execution_id, status, snowflake_enabled, result_rows)"
        """ values ('other', 'completed', true, '[{"n": 1}]')"""
    )
    status = "select snowflake_status from other_executions where execution_id = 'other'"
    wait.until(lambda: bridge.app.execute(status).fetchone()["snowflake_status"] == "completed", "the other is told", 60)
    wait.until(lambda: all(bridge.upload(f"run-{number}")["state"] == "completed" for number in range(5)), "all are loaded")
    if body == ENDLESS:
        assert "mirror_timeout" in wait.until(lambda: bridge.upload("run-0")["mirror_error"], "the trouble is recorded")
    assert {bridge.upload(f"run-{number}")["crash_count"] for number in range(5)} == {0}, "nobody is to blame but the trigger"
    bridge.app.execute(f"drop trigger spin on {TABLE}")
    # A new worker tries at once.
    bridge.admin.execute("select pg_terminate_backend(%s)", [bridge.worker()])
    for number in range(5):
        bridge.completed(f"run-{number}")


def test_after_a_halt_of_the_machine_code_of_the_application_has_its_grace(make_bridge: Callable[..., Bridge]) -> None:
    """It may end after its time, though by the clock its grace is over too."""
    bridge = make_bridge({"snowflake_bridge.mirror_timeout": "5s"})
    bridge.ready()
    bridge.app.execute(
        "create function linger() returns trigger language plpgsql as"
        " 'begin perform pg_sleep(60); exception when query_canceled then perform pg_sleep(0.1); return new; end';"
        f"create trigger linger before update of snowflake_status on {TABLE} for each row"
        " when (new.snowflake_status = 'completed') execute function linger()"
    )
    worker = bridge.worker()
    bridge.run("run-1", ROWS)
    asleep = "select now() as at from pg_stat_activity where pid = %s and wait_event = 'PgSleep'"
    [row] = wait.until(lambda: bridge.admin.execute(asleep, [worker]).fetchall(), "its code runs")
    os.kill(worker, signal.SIGSTOP)
    try:
        over = "select clock_timestamp() > %s + interval '8 s' as is_over"
        wait.until(lambda: bridge.admin.execute(over, [row["at"]]).fetchone()["is_over"], "time and grace are over")
    finally:
        os.kill(worker, signal.SIGCONT)
    bridge.completed("run-1")
    assert bridge.worker() == worker


def test_a_lock_of_the_application_is_waited_for_by_nobody_else_and_costs_no_attempt(bridge: Bridge, user: User) -> None:
    bridge.app.execute("create table public.other_executions (like public.workflow_executions including all)")
    bridge.call("watch", relation="public.other_executions")
    other = bridge.cluster.connect("shop", "app")
    with other.transaction():
        with bridge.unclaimed():
            bridge.run("run-1", ROWS)
            other.execute(f"lock table {TABLE} in access exclusive mode")
        wait.until(lambda: bridge.upload("run-1")["claim_count"] > 2, "it was tried again and again", 60)
        assert bridge.upload("run-1")["error_sqlstate"] in ("55P03", None)
        bridge.app.execute(
            "insert into other_executions (execution_id, status, snowflake_enabled, result_rows)"
            """ values ('other', 'completed', true, '[{"n": 1}]')"""
        )
        status = "select snowflake_status from other_executions where execution_id = 'other'"
        wait.until(lambda: bridge.app.execute(status).fetchone()["snowflake_status"] == "completed", "the other completes")
    bridge.completed("run-1")
    upload = bridge.upload("run-1")
    assert upload["attempt_count"] == 1, f"of {upload['claim_count']} times that it was begun"


def test_code_of_the_application_cannot_have_a_second_worker_started(bridge: Bridge, user: User) -> None:
    bridge.app.execute(
        "create function let_go() returns trigger language plpgsql as 'begin perform pg_advisory_unlock_all(); return new; end';"
        f"create trigger let_go before update of snowflake_status on {TABLE} for each row execute function let_go()"
    )
    before = bridge.worker()
    bridge.run("run-1", ROWS)
    bridge.completed("run-1")
    # It has had a look at everything since.
    bridge.app.execute(f"drop trigger let_go on {TABLE}")
    bridge.run("run-2", ROWS)
    bridge.completed("run-2")
    held = f"select pid from pg_locks where locktype = 'advisory' and objsubid = {0x5342}"
    assert bridge.admin.execute(held).fetchall() == [{"pid": before}]


@pytest.mark.parametrize("place", ["trigger", "result_function"])
def test_what_code_of_the_application_locks_is_let_go(make_bridge: Callable[..., Bridge], place: str) -> None:
    """A lock for the session is the application's until its session ends; the worker's does not."""
    bridge = make_bridge({"snowflake_bridge.max_reader_processes": "0"})
    bridge.configure(bridge.account.add_user())
    bridge.app.execute(
        "create function lock_on() returns trigger language plpgsql as "
        "'begin perform pg_advisory_lock(7), pg_advisory_lock(7), pg_advisory_lock_shared(8, 9); return new; end';"
        "create function rows_of(id text) returns table (n int) language sql set search_path from current as "
        "'select 1 from (select pg_advisory_lock(7), pg_advisory_lock_shared(8, 9)) l'"
    )
    if place == "trigger":
        bridge.watch()
        bridge.app.execute(f"create trigger lock_on before update of snowflake_status on {TABLE} for each row execute function lock_on()")
    else:
        bridge.watch(result_function="rows_of(text)")
    worker = bridge.worker()
    bridge.app.execute(f"insert into {TABLE} (execution_id, status, snowflake_enabled) values ('run-1', 'completed', true)")
    bridge.settled("run-1")
    locks = "select objsubid from pg_locks where locktype = 'advisory' and pid = %s"
    own = [{"objsubid": 0x5342}]
    wait.until(lambda: bridge.admin.execute(locks, [worker]).fetchall() == own, "it holds nothing but its own")
    bridge.app.execute("set lock_timeout = '5s'; select pg_advisory_lock(7)")
    assert bridge.worker() == worker


@pytest.mark.parametrize(
    ("held", "begins"),
    [
        ({"kind": "login"}, {"kind": "login"}),
        ({"kind": "objectstore", "method": "PUT"}, {"kind": "objectstore"}),
        ({"kind": "query", "sql": r"^\s*create .*table"}, {"sql": "create"}),
        ({"kind": "query", "sql": r"^\s*copy into"}, {"sql": "copy into"}),
        ({"kind": "query", "sql": r"^\s*commit"}, {"sql": "commit"}),
        ({"kind": "query", "sql": r"^\s*remove"}, {"sql": "remove"}),
    ],
    ids=["login", "staging", "preparing", "copying", "committing", "tidying"],
)
def test_nothing_is_held_while_the_network_is_waited_for(
    bridge: Bridge, user: User, held: dict[str, str], begins: dict[str, str]
) -> None:
    worker = bridge.worker()
    bridge.standin.fault(held, {"black_hole": True})
    mark = bridge.standin.audit_mark()
    bridge.run("run-1", ROWS)
    bridge.uploading(begins, mark)

    # Now and then it looks at its queue, for milliseconds; whatever it held for the network it would hold for ever.
    idle = (
        "select * from pg_stat_activity where pid = %s and state = 'idle'"
        " and num_nonnulls(backend_xmin, backend_xid, xact_start) = 0"
    )
    seen = wait.until(lambda: bridge.admin.execute(idle, [worker]).fetchone(), "the worker has no transaction")
    assert seen["application_name"] == "snowflake_bridge worker"
    assert seen["query"] in ("snowflake_bridge: 1 uploads under way", "snowflake_bridge: 0 uploads under way")
    # The one lock is what makes it the only worker of this database; see LOCK_CLASS.
    locks = "select locktype, objsubid from pg_locks where pid = %s"
    only = [{"locktype": "advisory", "objsubid": 0x5342}]
    wait.until(lambda: bridge.admin.execute(locks, [worker]).fetchall() == only, "the worker holds no lock")
    bridge.standin.clear_faults()
    bridge.completed("run-1")


def test_many_uploads_leave_nothing_behind_in_the_worker(bridge: Bridge, user: User) -> None:
    """`python -m bench leak` is the long form, with figures."""
    # What uploads that share a COPY hold at once is found out by the allocator over some hundreds of them, and between two looks
    # it is 13 MB more or less. That it stays so over thousands, the long form shows.
    measured = leak.measure(bridge, 400, warm_up=700)
    first, last = measured.sizes[0], measured.sizes[-1]
    assert last.memory - first.memory < 32 * 1024, measured.report()
    # Sessions of uploads at once come and go; one descriptor for each upload would be 400.
    assert last.files - first.files < 20, measured.report()
    # Those that read and encrypt files come and go as well, up to 32.
    assert last.threads <= 40, measured.report()
    assert measured.snapshots is not None
    assert measured.snapshots.looks > 0
    assert measured.snapshots.oldest < 10, measured.report()


def test_nothing_is_asked_between_two_polls(make_bridge: Callable[..., Bridge]) -> None:
    preload = {"shared_preload_libraries": "snowflake_bridge,pg_stat_statements", "pg_stat_statements.track": "all"}
    bridge = make_bridge(preload)
    bridge.ready()
    bridge.admin.execute("create extension pg_stat_statements")
    bridge.run("run-1", ROWS)
    bridge.completed("run-1")
    wait.until(lambda: bridge.upload("run-1")["clean_up_after"] is None, "it is tidied up")
    wait.until(lambda: not bridge.upload("run-1")["needs_mirror"], "its row is told")
    bridge.admin.execute("select pg_stat_statements_reset()")

    def asked() -> dict[str, int]:
        sql = (
            "select query, calls from pg_stat_statements where query like '%%snowflake_bridge.uploads%%'"
            # Which plan is used depends on how large the table is; its rows are not looked at for that.
            " and query not like '%%pg_stat_statements%%' and query not like '%%pg_relation_size%%'"
            " and dbid = (select oid from pg_database where datname = current_database())"
        )
        return {row["query"]: row["calls"] for row in bridge.admin.execute(sql).fetchall()}

    polls = 4
    seen = wait.until(lambda: asked() if max(asked().values(), default=0) >= polls else None, "the worker has polled")
    assert len(seen) == 4, f"a poll asks whether somebody wants a table alone, claims, looks for mirrors, and looks ahead: {seen}"
    # It may have polled again before this was looked at, but each time it asked all of them.
    assert max(seen.values()) - min(seen.values()) <= 1, seen


def test_a_reader_that_will_not_stop_is_ended(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge({"snowflake_bridge.snapshot_timeout": "1s"})
    bridge.configure(bridge.account.add_user())
    bridge.app.execute(f"create function slow(id text) returns setof int language plpgsql set search_path from current as '{STUBBORN}'")
    bridge.watch(result_function="slow")
    bridge.start_execution("run-1")
    worker = bridge.worker()
    bridge.app.execute(f"update {TABLE} set status = 'completed'")
    assert "snapshot_timeout" in bridge.failed("run-1")["snowflake_error_message"]
    held = "select from pg_stat_activity where backend_xmin is not null and backend_type like 'snowflake_bridge%'"
    wait.until(lambda: not bridge.admin.execute(held).fetchall(), "nothing holds a snapshot")
    assert bridge.worker() == worker


def test_a_policy_that_will_not_stop_costs_one_worker_and_nobody_elses_upload(make_bridge: Callable[..., Bridge]) -> None:
    """Both reading and the status run the policy; once it has shown what it is, neither runs in the worker."""
    bridge = make_bridge({"snowflake_bridge.snapshot_timeout": "1s", "snowflake_bridge.mirror_timeout": "1s"})
    bridge.configure(bridge.account.add_user())
    bridge.watch()
    bridge.app.execute("create table public.other_executions (like public.workflow_executions including all)")
    bridge.call("watch", relation="public.other_executions")
    bridge.app.execute(
        f"create function stubborn() returns boolean language plpgsql as '{STUBBORN}';"
        f"create policy stubborn on {TABLE} using (current_setting('application_name') not like 'snowflake_bridge %'"
        f" or status <> 'completed' or stubborn()) with check (true);"
        f"alter table {TABLE} enable row level security, force row level security"
    )
    for number in range(5):
        bridge.run(f"run-{number}", ROWS)
    wait.until(lambda: all(bridge.upload(f"run-{number}")["state"] == "failed" for number in range(5)), "all have failed", 90)
    uploads = [bridge.upload(f"run-{number}") for number in range(5)]
    # Whether it was first met by reading or by the status is a matter of speed.
    assert sum(upload["crash_count"] for upload in uploads) <= 1
    assert all("snapshot_timeout" in upload["error_message"] for upload in uploads)
    bridge.app.execute(
        "insert into other_executions (execution_id, status, snowflake_enabled, result_rows)"
        """ values ('other', 'completed', true, '[{"n": 1}]')"""
    )
    status = "select snowflake_status from other_executions where execution_id = 'other'"
    wait.until(lambda: bridge.app.execute(status).fetchone()["snowflake_status"] == "completed", "the other is told", 60)
    starts = bridge.cluster.log_text().count("snowflake_bridge: worker started")
    assert starts == 2, "one has ended of it, and not one for each"


def test_many_tables_that_will_not_stop_cost_few_workers_and_nobody_elses_upload(make_bridge: Callable[..., Bridge]) -> None:
    """An owner of whose tables some have cost a worker each costs no more of them, by however many tables, or new ones."""
    bridge = make_bridge({"snowflake_bridge.mirror_timeout": "500ms"})
    user = bridge.account.add_user()
    bridge.configure(user)
    bridge.configure(user, connection=bridge.admin)
    bridge.call("watch", connection=bridge.admin, relation="public.of_another", create_if_missing=True)
    bridge.app.execute(f"create function stubborn() returns trigger language plpgsql as '{STUBBORN}'")

    def finish(connection: Any, table: str) -> None:
        rows = """insert into {} (execution_id, status, snowflake_enabled, result_rows) values ('{}', 'completed', true, '[{{"n": 1}}]')"""
        connection.execute(rows.format(table, table))

    def make_stubborn(table: str) -> None:
        bridge.call("watch", relation=table, create_if_missing=True)
        bridge.app.execute(
            f"create trigger stubborn before update on {table} for each row when (new.snowflake_status <> 'pending') execute function stubborn()"
        )
        finish(bridge.app, table)

    def starts() -> int:
        return bridge.cluster.log_text().count("snowflake_bridge: worker started")

    for number in range(5):
        make_stubborn(f"stubborn_{number}")
    uploads = [f"stubborn_{number}" for number in range(5)]
    wait.until(lambda: all(bridge.upload(upload)["state"] == "completed" for upload in uploads), "all are loaded", 60)
    wait.until(lambda: starts() == 4, "those that are met one by one cost a worker each", 60)
    worker = bridge.worker()
    make_stubborn("stubborn_later")
    finish(bridge.admin, "of_another")
    status = "select snowflake_status from of_another"
    wait.until(lambda: bridge.admin.execute(status).fetchone()["snowflake_status"] == "completed", "another owner's row is told", 60)
    wait.until(lambda: bridge.upload("stubborn_later")["state"] == "completed", "and one of the same owner's is loaded")
    time.sleep(2)
    assert starts() == 4 and bridge.worker() == worker


def directory(path: Path) -> Path:
    """A directory that the server could have made."""
    path.mkdir()
    return give(path, 0o700)


def test_the_spool_is_swept_while_the_worker_runs(bridge: Bridge, user: User) -> None:
    root = bridge.cluster.data / "snowflake_bridge_spool"
    [spool] = wait.until(lambda: list(root.glob("*")), "the worker has made its directory")
    crashed = directory(spool / str(uuid.uuid4()))
    directory(crashed / "1")
    announced = spool / f"share-0123456789abcdef-99999-{crashed.name}"
    announced.touch()
    foreign = directory(spool / "notes")
    dropped = directory(spool.parent / "99999")
    directory(dropped / str(uuid.uuid4()))
    other_files = directory(spool.parent / "notes")
    other = bridge.cluster.connect("shop", "app")
    with other.transaction():
        bridge.call("upload_query", connection=other, query="select 1 as n", table_name="t")
        [own] = [path for path in spool.iterdir() if path.is_dir() and path not in (crashed, foreign)]
        [own_announcement] = [path for path in spool.glob("share-*") if path != announced]
        bridge.reload()
        wait.until(lambda: not crashed.exists(), "what a crash left is gone")
        wait.until(lambda: not dropped.exists(), "what a dropped database left is gone")
        wait.until(lambda: not announced.exists(), "and what that had announced")
        assert own.exists() and own_announcement.exists(), "what a transaction has not committed yet is its own"
        assert foreign.exists(), "what is not ours is not touched"
        assert other_files.exists(), "nor beside it"
        assert spool.exists()
    wait.until(lambda: not own.exists(), "the rows are in Snowflake")
    assert not own_announcement.exists()
    assert bridge.row_count(user, "T") == 1


def test_status_of_the_worker(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", ROWS)
    bridge.completed("run-1")
    bridge.run("run-2", ROWS, snowflake_options={"strategie": "append"})
    bridge.failed("run-2")
    [status] = bridge.app.execute("select * from snowflake_bridge.worker_status").fetchall()
    assert (status["running"], status["pid"]) == (True, bridge.worker())
    assert (status["completed"], status["failed"], status["key_usable"]) == (1, 1, True)
    assert status["last_error_sqlstate"] == bridge.upload("run-2")["error_sqlstate"] is not None
    assert 1 << 20 < status["memory_bytes"] < 1 << 28
    [stats] = bridge.app.execute("select * from snowflake_bridge.upload_stats where completed > 0").fetchall()
    assert (stats["row_count"], stats["user_id"]) == (len(ROWS), "app")
    assert 0 < stats["average_seconds"] < 60


def test_a_clock_that_snowflake_does_not_share(bridge: Bridge, user: User) -> None:
    clock = "select ok, detail from snowflake_bridge.check() where item = 'clock'"
    bridge.run("run-1", ROWS)
    bridge.completed("run-1")
    assert bridge.app.execute(clock).fetchone()["ok"] is True
    hour_ago = email.utils.formatdate(time.time() - 3_600, usegmt=True)
    bridge.standin.fault({"kind": "query"}, {"status": 503, "headers": {"Date": hour_ago}}, times=100)
    bridge.run("run-2", ROWS)
    seen = wait.until(lambda: row if not (row := bridge.app.execute(clock).fetchone())["ok"] else None, "the doctor notices")
    assert "ahead of Snowflake's" in seen["detail"]

"""CREATE, ALTER and DROP EXTENSION, committed or rolled back, while uploads are in flight."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
import pytest

from harness import lifecycle, wait
from harness.bridge import DATABASE, Bridge
from harness.standin import User

LIBRARY = "select default_version from pg_available_extensions where name = 'snowflake_bridge'"
# A DROP that waited for Snowflake's answer, for a result to be read, or for the worker's next poll would take minutes here.
PROMPT_SECONDS = 30.0
POLL = {"snowflake_bridge.poll_interval": "5min"}


def starts(bridge: Bridge) -> int:
    """How many workers have started so far."""
    return bridge.cluster.log_text().count("snowflake_bridge: worker started")


def test_drop_extension_waits_neither_for_the_network_nor_for_a_reader(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge(POLL)
    bridge.ready()
    lifecycle.watch_slowly(bridge)
    lifecycle.in_flight(bridge, "run-1")
    reader = lifecycle.being_read(bridge, "slow-1")
    worker = bridge.worker()
    # Until its next poll, as far as it knows.
    sleeps = "select from pg_stat_activity where pid = %s and state = 'idle' and state_change < clock_timestamp() - interval '1 s'"
    wait.until(lambda: bridge.admin.execute(sleeps, [worker]).fetchall(), "the worker has nothing to do")
    began = time.monotonic()
    bridge.admin.execute("drop extension snowflake_bridge cascade")
    assert time.monotonic() - began < PROMPT_SECONDS
    wait.until(lambda: lifecycle.has_ended(worker) and lifecycle.has_ended(reader), "worker and reader have ended")
    # The application goes on, and nobody looks after what is not there.
    bridge.app.execute("update workflow_executions set status = 'failed'")
    log = bridge.cluster.log_text()
    assert "the extension was dropped" in log
    assert " ERROR: " not in log.partition("drop extension")[2], "a dropped extension is no error"
    before = starts(bridge)
    bridge.admin.execute("create extension snowflake_bridge")
    lifecycle.worker(bridge.cluster, DATABASE)
    wait.until(lambda: starts(bridge) == before + 1, "one worker has started for the new extension")


def test_a_drop_that_is_rolled_back_changes_nothing(bridge: Bridge, user: User) -> None:
    lifecycle.in_flight(bridge, "run-1")
    worker = bridge.worker()
    with bridge.admin.transaction(force_rollback=True):
        bridge.admin.execute("drop extension snowflake_bridge cascade")
        # The answer arrives while the tables are locked, and waits to be recorded.
        bridge.standin.clear_faults()
        waiting = "select from pg_locks where pid = %s and not granted"
        for _ in range(2):
            with bridge.cluster.connect(DATABASE) as other:
                wait.until(lambda: other.execute(waiting, [worker]).fetchall(), "the worker waits for its tables")
                wait.until(lambda: not other.execute(waiting, [worker]).fetchall(), "and does not wait for ever")
    bridge.completed("run-1")
    bridge.run("run-2", lifecycle.ROWS)
    bridge.completed("run-2")
    assert bridge.row_count(user) == 2 * len(lifecycle.ROWS)
    assert bridge.worker() == worker, "nothing had to start anew"


def test_a_drop_that_is_refused_ends_no_reader(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge(POLL)
    bridge.ready()
    lifecycle.watch_slowly(bridge)
    reader = lifecycle.being_read(bridge, "slow-1")
    for connection, error in ((bridge.app, psycopg.errors.InsufficientPrivilege), (bridge.admin, psycopg.errors.DependentObjectsStillExist)):
        with pytest.raises(error):
            connection.execute("drop extension snowflake_bridge")
    # By then the worker has looked.
    bridge.run("run-1", lifecycle.ROWS)
    bridge.completed("run-1")
    assert bridge.cluster.backends("snowflake_bridge reader") == [reader]


def test_a_create_that_is_rolled_back_leaves_nothing(bridge: Bridge) -> None:
    with bridge.cluster.connect() as server:
        server.execute("create database fresh")
    with bridge.cluster.connect("fresh") as fresh:
        with fresh.transaction(force_rollback=True):
            fresh.execute("create extension snowflake_bridge")
        with fresh.transaction():
            with fresh.transaction(force_rollback=True):
                fresh.execute("create extension snowflake_bridge")
            # The rest of the transaction goes on without, and is committed.
            fresh.execute("create table kept (n int)")
        assert fresh.execute("select count(*) as n from kept").fetchone()["n"] == 0
        assert fresh.execute("select from pg_namespace where nspname = 'snowflake_bridge'").fetchone() is None
        assert fresh.execute("select from pg_class where relname like 'snowflake%'").fetchone() is None
        wait.until(lambda: not lifecycle.workers(bridge.cluster, "fresh"), "nobody looks after it")
        fresh.execute("create extension snowflake_bridge")
        lifecycle.worker(bridge.cluster, "fresh")


def test_dropped_and_made_anew_in_one_transaction(bridge: Bridge, user: User) -> None:
    lifecycle.in_flight(bridge, "run-1")
    worker = bridge.worker()
    before = bridge.admin.execute("select id from snowflake_bridge.installation").fetchone()
    with bridge.admin.transaction():
        bridge.admin.execute("drop extension snowflake_bridge cascade")
        bridge.admin.execute("create extension snowflake_bridge")
        bridge.admin.execute("select snowflake_bridge.grant_usage('app')")
    assert bridge.admin.execute("select id from snowflake_bridge.installation").fetchone() != before
    # The first upload of the new extension has the number of the old one's, whose answer comes now.
    bridge.app.execute("delete from workflow_executions")
    bridge.ready(user)
    bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into"}, {"status": 503}, times=1)
    bridge.run("run-2", [{"n": 1}, {"n": 2}])
    bridge.standin.clear_faults()
    assert bridge.completed("run-2")["snowflake_row_count"] == 2
    assert sorted(bridge.results(user, ["N"], tail="where execution_id = 'run-2'")) == [(1,), (2,)]
    assert lifecycle.worker(bridge.cluster, DATABASE) != worker


def test_another_version_pauses_the_worker(bridge: Bridge, user: User) -> None:
    lifecycle.in_flight(bridge, "run-1")
    worker = bridge.worker()
    library = bridge.admin.execute(LIBRARY).fetchone()["default_version"]
    # As ALTER EXTENSION UPDATE leaves it while the server still runs the library of before.
    bridge.admin.execute("update pg_extension set extversion = '99.0' where extname = 'snowflake_bridge'")
    paused = lifecycle.worker(bridge.cluster, DATABASE, other_than=worker)
    bridge.standin.clear_faults()
    mark = bridge.standin.audit_mark()
    bridge.run("run-2", lifecycle.ROWS)
    wait.until(lambda: "the worker waits: library" in bridge.cluster.log_text(), "the log says what it waits for")
    version = lifecycle.finding(bridge.admin, "version")
    assert not version["ok"] and "99.0" in version["detail"] and "ALTER EXTENSION" in version["hint"]
    assert "99.0" in lifecycle.status(bridge.admin)["hint"]
    assert bridge.upload("run-2")["state"] == "queued"
    assert bridge.account.statements("COPY INTO", mark) == []
    bridge.admin.execute("update pg_extension set extversion = %s where extname = 'snowflake_bridge'", [library])
    bridge.completed("run-1")
    bridge.completed("run-2")
    assert bridge.row_count(user) == 2 * len(lifecycle.ROWS)
    assert bridge.upload("run-1")["crash_count"] == 0
    assert bridge.worker() == paused
    assert lifecycle.finding(bridge.admin, "version")["ok"]


def test_an_update_that_is_rolled_back_changes_nothing(bridge: Bridge, user: User) -> None:
    """As ALTER EXTENSION UPDATE does it: the version and the objects, with the tables locked, while an answer arrives."""
    lifecycle.in_flight(bridge, "run-1")
    worker = bridge.worker()
    before = starts(bridge)
    with bridge.admin.transaction(force_rollback=True):
        bridge.admin.execute("update pg_extension set extversion = '99.0' where extname = 'snowflake_bridge'")
        bridge.admin.execute("alter table snowflake_bridge.uploads add further text")
        bridge.standin.clear_faults()
        waiting = "select from pg_locks where pid = %s and not granted"
        with bridge.cluster.connect(DATABASE) as other:
            wait.until(lambda: other.execute(waiting, [worker]).fetchall(), "the worker waits for its table")
    bridge.completed("run-1")
    bridge.run("run-2", lifecycle.ROWS)
    bridge.completed("run-2")
    assert bridge.row_count(user) == 2 * len(lifecycle.ROWS)
    assert (bridge.worker(), starts(bridge)) == (worker, before), "nothing had to start anew"
    assert bridge.upload("run-1")["attempt_count"] == 1


def test_a_library_that_is_preloaded_by_its_path(make_bridge) -> None:
    bridge = make_bridge({"shared_preload_libraries": "$libdir/snowflake_bridge"})
    bridge.worker()
    assert lifecycle.finding(bridge.admin, "preload")["ok"] is True


def test_without_preloading_uploads_wait(make_bridge) -> None:
    bridge = make_bridge({"shared_preload_libraries": ""})
    user = bridge.ready()
    bridge.run("run-1", lifecycle.ROWS)
    assert bridge.execution("run-1")["snowflake_status"] == "pending"
    for said in (lifecycle.finding(bridge.admin, "preload"), lifecycle.status(bridge.admin)):
        assert "shared_preload_libraries" in said["hint"]
    # Statements about databases are PostgreSQL's alone then.
    with bridge.cluster.connect() as server, pytest.raises(psycopg.errors.ObjectInUse):
        server.execute(f"create database copy template {DATABASE}")
    bridge.cluster.settings["shared_preload_libraries"] = "snowflake_bridge"
    bridge.cluster.restart()
    bridge.connect()
    bridge.completed("run-1")
    assert bridge.row_count(user) == len(lifecycle.ROWS)

"""Statements that need a database for themselves work at the first try, while its worker and readers are busy in it."""

from __future__ import annotations

import os
import signal
import time

import psycopg
import pytest

from harness import lifecycle, wait
from harness.bridge import DATABASE, Bridge
from harness.standin import User


@pytest.fixture
def busy(bridge: Bridge, user: User) -> Bridge:
    """A server on which one upload is being loaded and another one read; nobody else is connected to its database."""
    lifecycle.watch_slowly(bridge)
    lifecycle.in_flight(bridge, "run-1")
    lifecycle.being_read(bridge, "slow-1")
    leave(bridge)
    return bridge


def leave(bridge: Bridge) -> None:
    """The application and the administrator disconnect, as they have to for these statements."""
    bridge.app.close()
    bridge.admin.close()


def stop_reading(bridge: Bridge) -> None:
    """Whoever reads for ever takes a place that the test needs no more."""
    bridge.admin.execute("select snowflake_bridge.cancel_upload(id) from snowflake_bridge.uploads where execution_id = 'slow-1'")


def ends_well(bridge: Bridge, user: User) -> None:
    """The upload that was in flight is loaded, once."""
    bridge.standin.clear_faults()
    bridge.connect()
    stop_reading(bridge)
    bridge.completed("run-1")
    assert bridge.row_count(user) == len(lifecycle.ROWS)
    assert bridge.upload("run-1")["crash_count"] == 0, "a worker that was asked to leave has not crashed"


@pytest.mark.parametrize("force", ["", " with (force)"])
def test_drop_database(busy: Bridge, force: str) -> None:
    with busy.cluster.connect() as server:
        server.execute(f"drop database {DATABASE}{force}")
        # It is gone for good, and the launcher does not try to serve it.
        server.execute(f"create database {DATABASE}")
    assert "cannot start" not in busy.cluster.log_text()


@pytest.mark.parametrize("strategy", ["", " strategy wal_log", " strategy file_copy"])
def test_create_database_from_a_template(busy: Bridge, user: User, strategy: str) -> None:
    with busy.cluster.connect() as server:
        server.execute(f"create database copy template {DATABASE}{strategy}")
    lifecycle.worker(busy.cluster, DATABASE)
    ends_well(busy, user)


def test_rename_database(busy: Bridge, user: User) -> None:
    with busy.cluster.connect() as server:
        server.execute(f"alter database {DATABASE} rename to boutique")
        lifecycle.worker(busy.cluster, "boutique")
        server.execute(f"alter database boutique rename to {DATABASE}")
    ends_well(busy, user)


def test_rename_database_in_a_transaction(busy: Bridge, user: User) -> None:
    with busy.cluster.connect() as server:
        with server.transaction():
            server.execute(f"alter database {DATABASE} rename to boutique")
            assert not lifecycle.workers(busy.cluster, DATABASE)
        lifecycle.worker(busy.cluster, "boutique")
        with server.transaction(force_rollback=True):
            server.execute(f"alter database boutique rename to {DATABASE}")
        lifecycle.worker(busy.cluster, "boutique")
        with server.transaction():
            with server.transaction(force_rollback=True):
                server.execute(f"alter database boutique rename to {DATABASE}")
            # The savepoint has undone it; the rest of the transaction may take its time.
            lifecycle.worker(busy.cluster, "boutique")
        server.execute(f"alter database boutique rename to {DATABASE}")
    ends_well(busy, user)


def test_set_tablespace(busy: Bridge, user: User) -> None:
    with busy.cluster.connect() as server:
        server.execute(f"create tablespace elsewhere location '{busy.cluster.directory('elsewhere')}'")
        server.execute(f"alter database {DATABASE} set tablespace elsewhere")
    ends_well(busy, user)


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("drop database {}", psycopg.errors.ObjectInUse),
        ("alter database {} rename to boutique", psycopg.errors.ObjectInUse),
        ("create database taken template {}", psycopg.errors.DuplicateDatabase),
        ("alter database {} set tablespace nowhere", psycopg.errors.UndefinedObject),
    ],
)
def test_a_statement_that_fails_brings_the_worker_back(bridge: Bridge, user: User, statement: str, error: type) -> None:
    # The application stays connected, or something else is in the way.
    lifecycle.in_flight(bridge, "run-1")
    before = bridge.worker()
    with bridge.cluster.connect() as server:
        server.execute("create database taken")
        with pytest.raises(error):
            server.execute(statement.format(DATABASE))
    lifecycle.worker(bridge.cluster, DATABASE, other_than=before)
    bridge.standin.clear_faults()
    bridge.completed("run-1")
    assert bridge.row_count(user) == len(lifecycle.ROWS)


@pytest.mark.parametrize(
    "statement",
    [
        "drop database {}",
        "drop database {} with (force)",
        "alter database {} rename to mine",
        "alter database {} set tablespace pg_default",
        "create database mine template {}",
    ],
)
def test_who_may_not_run_the_statement_disturbs_nobody(bridge: Bridge, user: User, statement: str) -> None:
    lifecycle.in_flight(bridge, "run-1")
    before = bridge.worker()
    with bridge.cluster.connect() as server:
        server.execute("create role stranger login createdb")
    with bridge.cluster.connect("postgres", "stranger") as stranger:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            stranger.execute(statement.format(DATABASE))
    bridge.standin.clear_faults()
    bridge.completed("run-1")
    assert bridge.worker() == before


@pytest.mark.parametrize(
    "statement",
    ["drop database {}", "alter database {} set tablespace pg_default", "create database mine template {}"],
)
def test_what_a_function_may_not_do_disturbs_nobody(bridge: Bridge, user: User, statement: str) -> None:
    before = bridge.worker()
    with bridge.cluster.connect() as server, pytest.raises(psycopg.errors.ActiveSqlTransaction):
        server.execute(f"do $$ begin execute '{statement.format(DATABASE)}'; end $$")
    bridge.run("run-1", lifecycle.ROWS)
    bridge.completed("run-1")
    assert bridge.worker() == before


def test_an_owner_without_createdb_may_not_rename(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", lifecycle.ROWS)
    before = bridge.worker()
    with bridge.cluster.connect("postgres", "app") as owner, pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute(f"alter database {DATABASE} rename to mine")
    assert bridge.worker() == before


def test_the_owner_drops_its_database(busy: Bridge) -> None:
    with busy.cluster.connect("postgres", "app") as owner:
        owner.execute(f"drop database {DATABASE}")


def test_a_worker_that_does_not_leave_is_not_waited_for_beyond_a_timeout(bridge: Bridge, user: User) -> None:
    lifecycle.in_flight(bridge, "run-1")
    stopped = bridge.worker()
    os.kill(stopped, signal.SIGSTOP)
    try:
        with bridge.cluster.connect() as server:
            server.execute("set statement_timeout = '500ms'")

            def seconds() -> float:
                began = time.monotonic()
                with pytest.raises(psycopg.errors.QueryCanceled):
                    server.execute(f"drop database {DATABASE}")
                return time.monotonic() - began

            # PostgreSQL's own wait for sessions heeds no timeout and takes 5 s each time; this one came before it.
            assert any(seconds() < 4 for _ in range(3))
    finally:
        os.kill(stopped, signal.SIGCONT)
    lifecycle.worker(bridge.cluster, DATABASE, other_than=stopped)


def test_errors_of_other_statements_keep_their_details(bridge: Bridge) -> None:
    # The hook sees every utility statement, and must leave no trace in any.
    bridge.admin.execute("create table plain (a integer constraint positive check (a > 0))")
    with pytest.raises(psycopg.errors.CheckViolation) as caught, bridge.admin.cursor() as cursor:
        with cursor.copy("copy plain from stdin") as copy:
            copy.write("-1\n")
    assert caught.value.diag.constraint_name == "positive"
    assert caught.value.diag.table_name == "plain"
    with pytest.raises(psycopg.errors.UndefinedObject) as caught:
        bridge.admin.execute("create table odd (a integer, b no_such_type)")
    assert caught.value.diag.statement_position == "32"


def test_new_databases_get_workers(bridge: Bridge) -> None:
    with bridge.cluster.connect() as server:
        for number in range(4):
            server.execute(f"create database other_{number}")
    for number in range(4):
        with bridge.cluster.connect(f"other_{number}") as connection:
            connection.execute("create extension snowflake_bridge")
    for number in range(4):
        lifecycle.worker(bridge.cluster, f"other_{number}", seconds=20)
    wait.until(lambda: not lifecycle.workers(bridge.cluster, "postgres"), "there is none without the extension")


def test_a_database_that_was_half_dropped_gets_no_worker(bridge: Bridge) -> None:
    """As PostgreSQL marks it: nobody can connect to it, and each try would end with an error in the log."""
    with bridge.cluster.connect() as server:
        server.execute("create database half_dropped")
        with bridge.cluster.connect("half_dropped") as connection:
            connection.execute("create extension snowflake_bridge")
        lifecycle.worker(bridge.cluster, "half_dropped")
        server.execute("update pg_database set datconnlimit = -2 where datname = 'half_dropped'")
        bridge.reload()
        wait.until(lambda: not lifecycle.workers(bridge.cluster, "half_dropped"), "its worker has ended")
        server.execute("create database whole")
        with bridge.cluster.connect("whole") as connection:
            connection.execute("create extension snowflake_bridge")
        lifecycle.worker(bridge.cluster, "whole")
        assert 'invalid database "half_dropped"' not in bridge.cluster.log_text()
        server.execute("drop database half_dropped")

"""The worker beside others' transactions: whatever the server's defaults are, it fails nobody's, and loses itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import wait
from harness.bridge import DATABASE, TABLE, Bridge
from harness.standin import User

ROWS = [{"n": n} for n in range(20)]
# Far longer than anything here waits: what is seen to before it, was not left to the next poll.
RARELY = {"snowflake_bridge.poll_interval": "5min"}
DEFAULTS = {
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
}
READS = "backend_type = 'snowflake_bridge reader' and wait_event = 'PgSleep'"


def test_worker_and_readers_have_their_own_defaults_for_transactions(bridge: Bridge) -> None:
    user = bridge.account.add_user()
    bridge.configure(user)
    bridge.app.execute(
        "create function seen() returns text language sql stable return "
        "concat_ws(' ', current_setting('transaction_isolation'), current_setting('transaction_deferrable'));"
        "create function rows_of(id text) returns table (seen text) language sql stable set search_path from current "
        "as 'select public.seen()'"
    )
    bridge.watch(result_function="rows_of(text)")
    bridge.app.execute(
        f"alter table {TABLE} add seen text;"
        "create function note() returns trigger language plpgsql as 'begin new.seen := public.seen(); return new; end';"
        f"create trigger note before update of snowflake_status on {TABLE} for each row execute function note()"
    )
    for name, value in DEFAULTS.items():
        bridge.admin.execute(f"alter database {DATABASE} set {name} = '{value}'")
    # Its successor begins with the new defaults; this session has the old ones.
    bridge.admin.execute("select pg_terminate_backend(%s)", [bridge.worker()])
    bridge.start_execution("run-1")
    bridge.app.execute(f"update {TABLE} set status = 'completed'")
    assert bridge.completed("run-1")["seen"] == "read committed off"
    assert bridge.results(user, ["SEEN"]) == [("read committed off",)]


def test_a_status_that_loses_a_conflict_is_written_soon(bridge: Bridge, user: User) -> None:
    """What a trigger of the application raises when somebody else came first; the sequence counts what was rolled back."""
    bridge.app.execute(
        "create sequence conflicts;"
        "create function lose() returns trigger language plpgsql as $$ begin "
        "if nextval('public.conflicts') < 3 then raise 'lost' using errcode = 'serialization_failure'; end if; return new; end $$;"
        f"create trigger lose before update of snowflake_status on {TABLE} for each row "
        "when (new.snowflake_status = 'completed') execute function lose()"
    )
    bridge.run("run-1", ROWS)
    # After a trigger that refuses, it would be a minute for each.
    bridge.completed("run-1", 30)
    assert bridge.app.execute("select last_value as n from conflicts").fetchone()["n"] >= 3


def test_a_look_that_failed_does_not_wait_for_the_next_poll(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge(RARELY)
    bridge.ready()
    with bridge.unclaimed():
        bridge.run("run-1", ROWS)
        wait.until(lambda: "snowflake_bridge: worker: canceling" in bridge.cluster.log_text(), "the look has failed")
    bridge.completed("run-1", 60)


@pytest.mark.parametrize("source", ["row", "function", "view"])
def test_a_table_that_is_rewritten_while_its_lock_is_waited_for(bridge: Bridge, source: str) -> None:
    """Its rows are nothing that an older snapshot sees."""
    bridge.ready()
    if source == "function":
        bridge.app.execute(
            "create function rows_of(id text) returns setof jsonb language sql stable set search_path from current "
            f"as 'select jsonb_array_elements(result_rows) from {TABLE} where execution_id = id'"
        )
        bridge.watch(result_function="rows_of(text)")
    locked, rewrite = TABLE, f"alter table {TABLE} add noise float default random(); alter table {TABLE} drop noise"
    if source == "view":
        bridge.app.execute(
            "create table public.sales (execution_id text, n int); create view public.results as select * from public.sales"
        )
        bridge.watch(result_relation="public.results")
        # Locked for the first time when the view is planned.
        locked = "public.sales"
        rewrite = f"truncate {locked}; insert into {locked} select 'run-' || e, n from generate_series(0, 2) e, generate_series(1, {len(ROWS)}) n"
    other = bridge.cluster.connect(DATABASE, "app")
    waits = f"select from pg_locks where relation = '{locked}'::regclass and not granted and mode = 'AccessShareLock'"
    for number in range(3):
        with bridge.unclaimed():
            bridge.run(f"run-{number}", ROWS)
            other.execute(f"begin; {rewrite}")
        wait.until(lambda: bridge.admin.execute(waits).fetchall(), "it is waited for", 60)
        other.execute("commit")
        assert bridge.completed(f"run-{number}", 60)["snowflake_row_count"] == len(ROWS)


@pytest.mark.parametrize("first", ["application", "reader"])
def test_of_a_deadlock_with_the_application_the_reader_is_the_victim(make_bridge: Callable[..., Bridge], first: str) -> None:
    """A reader holds the watched table and wants another one, which the application has locked, that now wants the watched one."""
    # A reader gives up after 2 s then, long before the application looks for a deadlock, whose victim it would be.
    bridge = make_bridge({"deadlock_timeout": "10s"})
    bridge.configure(bridge.account.add_user())
    bridge.app.execute(
        "create table public.parts (n int);"
        "create function rows_of(id text) returns table (n int) language plpgsql set search_path from current as $$ begin "
        "perform pg_catalog.pg_sleep(0.5); return query execute 'select n from public.parts'; end $$"
    )
    bridge.watch(result_function="rows_of(text)")
    bridge.start_execution("run-1")
    other = bridge.cluster.connect(DATABASE, "app")
    other.execute("begin; lock table public.parts in access exclusive mode")
    bridge.app.execute(f"update {TABLE} set status = 'completed'")
    reads = f"select from pg_stat_activity where {READS}"
    wait.until(lambda: bridge.admin.execute(reads).fetchall(), "the result is being read")
    if first == "reader":
        # Or its successor: it gives up in the end.
        waits = "select from pg_stat_activity where backend_type = 'snowflake_bridge reader' and wait_event_type = 'Lock'"
        wait.until(lambda: bridge.admin.execute(waits).fetchall(), "a reader waits for the other table")
    # Were it the victim, this would be an error.
    other.execute(f"lock table {TABLE} in access exclusive mode; insert into public.parts values (1); commit")
    assert bridge.completed("run-1", 60)["snowflake_row_count"] == 1
    assert bridge.upload("run-1")["attempt_count"] == 1, "a lost conflict is no attempt"


def test_options_deeper_than_can_be_read_fail_their_own_upload_only(bridge: Bridge, user: User) -> None:
    def nested(depth: int) -> str:
        return "[" * depth + "]" * depth

    options = {"deep": f'{{"x": {nested(200)}}}', "edge": nested(127), "good": None}
    bridge.app.execute(f"alter table {TABLE} disable trigger user")
    for execution, text in options.items():
        bridge.app.execute(
            f"insert into {TABLE} (execution_id, status, snowflake_enabled, result_rows, snowflake_options)"
            """ values (%s, 'completed', true, '[{"n": 1}]', %s)""",
            [execution, text],
        )
    bridge.app.execute(f"alter table {TABLE} enable trigger user")
    assert bridge.call("backfill", since=None) == len(options)
    bridge.completed("good")
    assert "not JSON" in bridge.failed("deep")["snowflake_error_message"]
    assert "not an object" in bridge.failed("edge")["snowflake_error_message"]
    assert bridge.call("retry_upload", id=bridge.upload("deep")["id"]) is True
    wait.until(lambda: bridge.upload("deep")["claim_count"] > 1, "it was tried once more")
    assert "not JSON" in bridge.failed("deep")["snowflake_error_message"]
    assert isinstance(bridge.call("upload", execution_id="deep"), int)


def test_a_lock_on_our_own_tables_costs_no_worker(make_bridge: Callable[..., Bridge]) -> None:
    """Both ends of a worker: what it cannot write down, and what the one before it has left."""
    bridge = make_bridge({"snowflake_bridge.max_shared_uploads": "1"})
    user = bridge.ready()
    worker = bridge.worker()
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "query", "sql": r"^\s*commit"}, {"delay_ms": 120_000}, times=2)
    for number in (1, 2):
        bridge.run(f"run-{number}", ROWS)
    wait.until(lambda: len(bridge.account.statements("COMMIT", mark)) == 2, "both are about to be loaded")
    with bridge.cluster.connect(DATABASE) as other, other.transaction():
        other.execute("select from snowflake_bridge.uploads where execution_id = 'run-1' for update")
        bridge.standin.clear_faults()
        wait.until(lambda: "is recorded later" in bridge.cluster.log_text(), "the end of one cannot be written down")
        bridge.completed("run-2")
        bridge.run("run-3", ROWS)
        bridge.completed("run-3")
        assert bridge.upload("run-1")["state"] == "copying"
        assert bridge.worker() == worker
        # Its successor leaves the row alone as well, until it is free.
        bridge.admin.execute("select pg_terminate_backend(%s)", [worker])
        successor = wait.until(lambda: pid if (pid := bridge.worker()) != worker else None, "another worker runs")
        bridge.run("run-4", ROWS)
        bridge.completed("run-4")
    bridge.completed("run-1")
    assert bridge.worker() == successor
    assert bridge.row_count(user) == 4 * len(ROWS), "nothing is lost, nothing doubled"
    assert bridge.upload("run-1")["crash_count"] == 0


def test_an_index_on_the_queue_is_made_while_an_upload_ends(bridge: Bridge, user: User) -> None:
    worker = bridge.worker()
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "query", "sql": r"^\s*commit"}, {"delay_ms": 120_000}, times=1)
    bridge.run("run-1", ROWS)
    bridge.uploading({"sql": "commit"}, mark)
    with bridge.cluster.connect(DATABASE) as other, other.transaction():
        # As CREATE INDEX and REINDEX take it.
        other.execute("lock table snowflake_bridge.uploads in share mode")
        bridge.standin.clear_faults()
        wait.until(lambda: "is recorded later" in bridge.cluster.log_text(), "its end cannot be written down")
        bridge.admin.execute("select pg_terminate_backend(%s)", [worker])
        waits = "select from pg_locks where pid = %s and not granted and relation = 'snowflake_bridge.uploads'::regclass"
        successor = wait.until(lambda: pid if (pid := bridge.worker()) != worker else None, "another worker runs")
        for _ in range(2):
            wait.until(lambda: bridge.admin.execute(waits, [successor]).fetchall(), "it waits for the table")
            wait.until(lambda: not bridge.admin.execute(waits, [successor]).fetchall(), "and not for ever")
    bridge.completed("run-1")
    assert bridge.worker() == successor
    assert bridge.row_count(user) == len(ROWS)

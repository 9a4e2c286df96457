"""A single execution that finishes is entered in the queue without a statement: as a statement would, whatever the queue is like."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from harness import wait
from harness.bridge import TABLE, Bridge

UPLOADS = "snowflake_bridge.uploads"
RESULT = [{"a": 1}]
# What differs from one upload to the next.
OWN = {"id", "upload_id", "execution_id", "next_attempt_at", "mirror_after", "created_at"}


@pytest.fixture
def app(make_bridge: Callable[..., Bridge]) -> Bridge:
    """A watched table without a worker, in a session that has entered an execution before."""
    bridge = make_bridge({"snowflake_bridge.databases": "postgres"})
    bridge.watch()
    bridge.run("first", RESULT)
    return bridge


def entered(bridge: Bridge, execution: str) -> dict[str, Any]:
    """What an upload has in common with others."""
    return {name: value for name, value in bridge.upload(execution).items() if name not in OWN}


def is_waiting(bridge: Bridge, other: psycopg.Connection[Any]) -> bool:
    """Whether the application's session waits for a lock, as another one sees it."""
    sql = "select from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
    return bool(other.execute(sql, [bridge.app.info.backend_pid]).fetchall())


def test_alone_as_among_others(app: Bridge) -> None:
    """One row is what each of several is, and numbers go on."""
    options = {"user_id": "anna", "snowflake_options": '{"config": "other"}', "snowflake_table_name": "T", "snowflake_schema_name": "S"}
    names, values = ", ".join(options), ", ".join(["%s"] * len(options))
    for ids in (["alone"], ["one", "two"]):
        app.app.execute(
            f"insert into {TABLE} (execution_id, status, snowflake_enabled, {names}) "
            f"select id, 'running', true, {values} from unnest(%s::text[]) id",
            [*options.values(), ids],
        )
        app.app.execute(f"update {TABLE} set status = 'completed' where execution_id = any (%s)", [ids])
    assert entered(app, "alone") == entered(app, "one") == entered(app, "two")
    assert app.upload("alone")["id"] == app.upload("first")["id"] + 1
    assert app.upload("alone")["next_attempt_at"] == app.upload("alone")["created_at"] > app.upload("first")["created_at"]


def test_no_statement_is_run_for_one_row(app: Bridge) -> None:
    """As PostgreSQL tells of all that it runs within others. Several rows take one."""
    told: list[str] = []
    app.admin.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    app.admin.execute(
        "load 'auto_explain'; set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on; "
        "set auto_explain.log_level = notice"
    )
    for ids, statements in ((["alone"], 0), (["one", "two"], 1)):
        told.clear()
        app.admin.execute(
            f"insert into {TABLE} (execution_id, status, snowflake_enabled) select id, 'completed', true from unnest(%s::text[]) id", [ids]
        )
        assert any(f"insert into {TABLE}" in text for text in told)
        assert sum(f"insert into {UPLOADS}" in text for text in told) == statements, told
        assert all(app.upload(execution)["state"] == "queued" for execution in ids)


def test_one_that_waits_covers_the_change(app: Bridge) -> None:
    """Whether it was entered by this transaction or by an earlier one."""
    with app.app.transaction():
        app.run("run", RESULT)
        app.finish("run", [{"a": 2}])
    app.finish("run", [{"a": 3}])
    rows = app.admin.execute(f"select generation from {UPLOADS} where execution_id = 'run'").fetchall()
    assert rows == [{"generation": 3}]


def test_the_table_as_it_is_now(app: Bridge) -> None:
    """A session that has entered executions before knows of a changed default, a new index and a new column at once."""
    app.admin.execute(f"alter table {UPLOADS} alter generation set default 7")
    app.run("default", RESULT)
    app.admin.execute(f"create unique index only_once on {UPLOADS} (execution_id, generation) where generation = 9")
    app.admin.execute(f"alter table {UPLOADS} alter generation set default 9, add column more text default 'more'")
    app.run("index", RESULT)
    app.admin.execute("set enable_seqscan = off")
    found = app.admin.execute(f"select execution_id, more from {UPLOADS} where execution_id = 'index' and generation = 9").fetchall()
    assert found == [{"execution_id": "index", "more": "more"}]
    assert app.upload("default")["generation"] == 7


def test_a_row_is_in_the_indexes_that_it_belongs_to(app: Bridge) -> None:
    """What an index says of its rows may be about what is told, about a default, and about a number that comes last."""
    app.admin.execute("create extension amcheck")
    conditions = ("id % 2 = 0", "execution_id like '%3'", "generation = 1", "state = 'completed'")
    for number, condition in enumerate(conditions):
        app.admin.execute(f"create index dba_{number} on {UPLOADS} (execution_id) where {condition}")
    for number in range(10):
        app.run(f"run-{number}", RESULT)
    app.admin.execute(
        "select bt_index_check(i.indexrelid, heapallindexed => true) from pg_index i join pg_class c on c.oid = i.indexrelid "
        "join pg_am a on a.oid = c.relam where i.indrelid = %s::regclass and a.amname = 'btree'",
        [UPLOADS],
    )
    app.admin.execute("set enable_seqscan = off")
    for condition in conditions:
        [listed] = app.admin.execute(f"select count(*) filter (where {condition}) as all from {UPLOADS}").fetchall()
        found = app.admin.execute(f"select execution_id from {UPLOADS} where {condition}").fetchall()
        assert len(found) == listed["all"]


def test_defaults_of_the_queue(app: Bridge) -> None:
    """Somebody has chosen others: of what is otherwise made without asking, and of what an index of ours goes by."""
    chosen = uuid.UUID("00000000-0000-4000-8000-000000000001")
    app.admin.execute(f"alter table {UPLOADS} alter upload_id set default '{chosen}'")
    app.run("id", RESULT)
    assert app.upload("id")["upload_id"] == chosen
    app.admin.execute(f"alter table {UPLOADS} alter upload_id set default gen_random_uuid(), alter state set default 'retry'")
    app.run("state", RESULT)
    assert app.upload("state")["state"] == "retry"
    assert app.upload("state")["upload_id"].version == 4


def test_an_index_that_was_never_finished(app: Bridge) -> None:
    """CREATE INDEX CONCURRENTLY has failed at some row and left it behind: it has no say in what is entered."""
    app.run("run-0", RESULT)
    with pytest.raises(psycopg.errors.DivisionByZero):
        app.admin.execute(f"create index concurrently dba on {UPLOADS} (id) where 1 / (length(execution_id) - 5) = 0")
    app.run("run-1", RESULT)
    assert app.upload("run-1")["state"] == "queued"


def test_triggers_of_the_queue(app: Bridge) -> None:
    """Somebody has attached one to the queue itself."""
    app.admin.execute("create function stamp() returns trigger language plpgsql as $$ begin new.target = 'stamped'; return new; end $$")
    app.admin.execute(f"create trigger stamp before insert on {UPLOADS} for each row execute function stamp()")
    app.run("run", RESULT)
    assert app.upload("run")["target"] == "stamped"


def test_generated_columns_and_domains_of_the_queue(app: Bridge) -> None:
    """What a statement heeds is heeded, also where somebody has added it to the queue."""
    app.admin.execute(f"alter table {UPLOADS} add column shouted text generated always as (upper(execution_id)) stored")
    app.run("generated", RESULT)
    assert app.upload("generated")["shouted"] == "GENERATED"
    app.admin.execute("create domain public.given as text not null")
    app.admin.execute(f"alter table {UPLOADS} drop column shouted")
    app.run("dropped", RESULT)
    assert app.upload("dropped")["state"] == "queued"
    app.admin.execute(f"alter table {UPLOADS} add column more public.given default 'more'")
    app.run("default", RESULT)
    assert app.upload("default")["more"] == "more"
    app.admin.execute(f"alter table {UPLOADS} alter column more drop default")
    app.run("domain", RESULT)
    assert not app.admin.execute(f"select from {UPLOADS} where execution_id = 'domain'").fetchall(), "it refuses NULL"


@pytest.mark.parametrize("moved", ["dba", "uploads_waiting", "uploads_pkey"])
def test_indexes_that_move_while_somebody_finishes(app: Bridge, moved: str) -> None:
    """They are rewritten just before the next row. One of another kind keeps more in memory between two of them."""
    app.admin.execute("create extension amcheck")
    app.admin.execute("set allow_in_place_tablespaces = on")
    app.admin.execute("create tablespace elsewhere location ''")
    if moved == "dba":
        app.admin.execute(f"create index dba on {UPLOADS} using gin (options)")
    app.admin.execute(
        f"insert into {TABLE} (execution_id, status, snowflake_enabled, result_rows) "
        "select 'bulk-' || n, 'completed', true, '[]' from generate_series(1, 5000) n"
    )
    app.admin.execute(f"vacuum {UPLOADS}")

    def finish(number: int) -> None:
        app.app.execute(
            f"insert into {TABLE} (execution_id, status, snowflake_enabled, result_rows, snowflake_table_name) "
            "values ('run-' || %s, 'completed', true, '[]', 't' || %s)",
            [number, number],
        )

    for number in range(5):
        finish(number)
    with ThreadPoolExecutor() as threads, app.cluster.connect("shop") as other:
        for number, place in enumerate(("elsewhere", "pg_default", "elsewhere", "pg_default"), 5):
            with app.admin.transaction():
                app.admin.execute(f"alter index snowflake_bridge.{moved} set tablespace {place}")
                finished = threads.submit(finish, number)
                wait.until(lambda: is_waiting(app, other), "somebody waits for an index")
            finished.result()
    app.admin.execute("set enable_seqscan = off")
    for number in range(9):
        found = app.admin.execute(f"select from {UPLOADS} where options @> %s::jsonb", [f'{{"table_name": "t{number}"}}']).fetchall()
        assert len(found) == 1, number
    app.admin.execute(
        "select bt_index_check(c.oid, true) from pg_class c join pg_index i on i.indexrelid = c.oid join pg_am a on a.oid = c.relam "
        f"where i.indrelid = '{UPLOADS}'::regclass and a.amname = 'btree'"
    )
    app.admin.execute(f"alter index snowflake_bridge.{moved} set tablespace pg_default")
    app.admin.execute("drop tablespace elsewhere")


def test_another_comes_first_by_a_hair(app: Bridge) -> None:
    """Somebody enters the execution after it was seen that nobody had, and before it is written."""
    app.start_execution("run")
    columns = "watch_id, execution_id, user_id, owner_kind, owner_oid"

    with ThreadPoolExecutor() as threads, app.cluster.connect("shop") as other:
        with app.admin.transaction():
            # Whoever wants a number waits.
            app.admin.execute("alter sequence snowflake_bridge.uploads_id_seq cache 1")
            finished = threads.submit(app.finish, "run", RESULT)
            wait.until(lambda: is_waiting(app, other), "the row is about to be numbered")
            app.admin.execute(
                f"insert into {UPLOADS} (id, {columns}) overriding system value "
                f"select 1000, {columns.replace('execution_id', chr(39) + 'run' + chr(39))} from {UPLOADS} where execution_id = 'first'"
            )
        finished.result()
    rows = app.admin.execute(f"select id, generation from {UPLOADS} where execution_id = 'run'").fetchall()
    assert rows == [{"id": 1000, "generation": 2}]

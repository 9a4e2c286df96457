"""Results that a function or a relation of the watch's owner gives, and the readers that fetch them."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from harness import wait
from harness.bridge import TABLE, Bridge
from harness.standin import User

SALES = """
create table sales (execution_id text not null, day date not null, amount numeric(12, 2), note text);
insert into sales values
    ('run-1', '2024-01-31', 12.50, 'ä'), ('run-1', '2024-02-01', null, null), ('run-2', '2024-03-01', 1, 'other');
"""
FUNCTION = """
create function rows_of(id text) returns table (day date, amount numeric, tags text[])
language sql stable set search_path from current
as $$ select day, amount, array[note, 'x'] from sales where execution_id = id order by day $$;
"""
# `hold` keeps whoever comes by until the row is gone.
GATE = """
create table gate as select 'closed' as state;
create function hold() returns boolean language plpgsql set search_path from current as $$ begin
    while exists (select from gate) loop perform pg_sleep(0.01); end loop;
    return true;
end $$;
"""
ROWS_OF_RUN_1 = [
    (datetime.date(2024, 1, 31), decimal.Decimal("12.50")),
    (datetime.date(2024, 2, 1), None),
]


@pytest.fixture
def user(bridge: Bridge) -> User:
    """A configured user whose application has sales, and nothing watched yet."""
    user = bridge.account.add_user()
    bridge.configure(user)
    bridge.app.execute("create schema authorization app")
    bridge.app.execute(SALES)
    return user


def finish(bridge: Bridge, execution_id: str, **columns: Any) -> None:
    """An execution without a result in its row."""
    bridge.start_execution(execution_id, **columns)
    bridge.app.execute(f"update {TABLE} set status = 'completed' where execution_id = %s", [execution_id])


def reader_pid(bridge: Bridge, condition: str = "") -> int:
    """The process of a running reader."""
    sql = f"select pid from pg_stat_activity where backend_type = 'snowflake_bridge reader'{condition}"
    row = wait.until(lambda: bridge.admin.execute(sql).fetchone(), "a reader runs")
    return int(row["pid"])


def test_a_function_gives_the_rows(bridge: Bridge, user: User) -> None:
    bridge.app.execute(FUNCTION)
    bridge.watch(result_function="rows_of(text)")
    finish(bridge, "run-1", user_id="ada")
    assert bridge.completed("run-1")["snowflake_row_count"] == 2
    assert bridge.results(user, ["DAY", "AMOUNT"], tail="order by day") == ROWS_OF_RUN_1
    assert set(bridge.results(user, ["EXECUTION_ID", "USER_ID"])) == {("run-1", "ada")}


def test_a_function_of_the_row_itself(bridge: Bridge, user: User) -> None:
    bridge.watch()
    bridge.app.execute(f"""
        create function of_row(run {TABLE}) returns setof sales language sql stable
        set search_path from current as $$ select * from sales s where s.execution_id = run.execution_id
              and s.day >= (run.parameters ->> 'since')::date $$""")
    bridge.watch(result_function="of_row")
    finish(bridge, "run-1", parameters={"since": "2024-02-01"})
    assert bridge.completed("run-1")["snowflake_row_count"] == 1
    # The function gives a column of that name as well; the bridge's own keeps it.
    assert bridge.results(user, ["EXECUTION_ID", "RESULT_EXECUTION_ID", "DAY"]) == [
        ("run-1", "run-1", datetime.date(2024, 2, 1))
    ]


@pytest.mark.parametrize(
    "relation",
    [
        "create view report as select execution_id, day, amount from sales",
        "create materialized view report as select execution_id, day, amount from sales",
        "create table report (execution_id text, day date, amount numeric(12, 2)) partition by list (execution_id);"
        "create table report_1 partition of report for values in ('run-1');"
        "insert into report select execution_id, day, amount from sales where execution_id = 'run-1'",
        "create table report as select execution_id::varchar(20) as execution_id, day, amount from sales",
    ],
    ids=["view", "materialized view", "partitioned table", "table"],
)
def test_a_relation_holds_the_rows(bridge: Bridge, user: User, relation: str) -> None:
    bridge.app.execute(relation)
    bridge.watch(result_relation="report")
    finish(bridge, "run-1")
    assert bridge.completed("run-1")["snowflake_row_count"] == 2
    assert bridge.results(user, ["DAY", "AMOUNT"], tail="order by day") == ROWS_OF_RUN_1


def test_values_out_of_range_are_counted(bridge: Bridge, user: User) -> None:
    bridge.app.execute("insert into sales values ('run-1', 'infinity', 1, 'z'), ('run-1', '0044-03-15 BC', 2, 'z')")
    bridge.app.execute(FUNCTION)
    bridge.watch(result_function="rows_of")
    finish(bridge, "run-1")
    message = bridge.failed("run-1")["snowflake_error_message"]
    assert "day" in message and "on_out_of_range" in message
    finish(bridge, "run-3", snowflake_options={"on_out_of_range": "null"})
    bridge.app.execute("update sales set execution_id = 'run-3'")
    bridge.app.execute(f"update {TABLE} set status = 'running' where execution_id = 'run-3'")
    bridge.app.execute(f"update {TABLE} set status = 'completed' where execution_id = 'run-3'")
    wait.until(lambda: bridge.completed("run-3")["snowflake_row_count"] == 5, "all rows are loaded")
    assert bridge.upload("run-3")["out_of_range_count"] == 2


def test_the_watch_refuses_what_could_not_be_read(bridge: Bridge, user: User) -> None:
    bridge.admin.execute("grant create on schema public to public")
    bridge.app.execute(FUNCTION)
    bridge.app.execute("create view without_key as select day from sales")
    bridge.admin.execute("create function public.of_admin(text) returns int language sql as 'select 1'")
    bridge.app.execute("create function no_argument() returns int language sql as 'select 1'")
    bridge.app.execute("create function two(text) returns int language sql as 'select 1'")
    bridge.app.execute("create function two(int) returns int language sql as 'select 1'")
    for arguments, words in [
        ({"result_function": "nobody_knows"}, 'no function "nobody_knows"'),
        ({"result_function": "two"}, "or more than one"),
        ({"result_function": "no_argument()"}, "one argument"),
        ({"result_function": "public.of_admin(text)"}, 'does not belong to role "app"'),
        ({"result_relation": "nobody_knows"}, "does not exist"),
        ({"result_relation": "without_key"}, 'no column "execution_id"'),
        ({"result_relation": "pg_catalog.pg_class"}, 'does not belong to role "app"'),
        ({"result_relation": "sales", "result_function": "rows_of"}, "either"),
    ]:
        with pytest.raises(psycopg.Error) as raised:
            bridge.watch(**arguments)
        assert words in str(raised.value), str(raised.value)


def test_what_the_function_does_is_undone_or_refused(bridge: Bridge, user: User) -> None:
    bridge.app.execute(
        "create function rows_of(id text) returns table (n int) language plpgsql set search_path from current as "
        "$$ begin insert into sales values (id, now(), 1, 'planted'); return query select 1; end $$"
    )
    bridge.watch(result_function="rows_of")
    finish(bridge, "run-1")
    assert "read-only transaction" in bridge.failed("run-1")["snowflake_error_message"]
    assert bridge.app.execute("select from sales where note = 'planted'").fetchall() == []


def test_a_function_that_relies_on_a_search_path(bridge: Bridge, user: User) -> None:
    bridge.app.execute(FUNCTION.replace("set search_path from current", ""))
    bridge.watch(result_function="rows_of")
    finish(bridge, "run-1")
    message = bridge.failed("run-1")["snowflake_error_message"]
    assert 'relation "sales" does not exist' in message and "alter function app.rows_of(text) set search_path" in message


def test_a_function_that_changes_hands_is_not_run(bridge: Bridge, user: User) -> None:
    bridge.app.execute(FUNCTION)
    bridge.watch(result_function="rows_of")
    bridge.admin.execute("alter function app.rows_of owner to postgres")
    finish(bridge, "run-1")
    assert 'does not belong to role "app"' in bridge.failed("run-1")["snowflake_error_message"]


def test_a_slow_function_delays_nobody(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge({"snowflake_bridge.snapshot_timeout": "60s"})
    user = bridge.account.add_user()
    bridge.configure(user)
    bridge.watch()
    bridge.app.execute("""
        create table slow (execution_id text primary key, status text, user_id text);
        create function slowly(id text) returns table (n int, at text) language sql
        as $$ select 1, clock_timestamp()::text from pg_sleep(30) $$""")
    bridge.call("watch", relation="slow", result_function="slowly")
    bridge.app.execute("insert into slow (execution_id, status, snowflake_enabled) values ('s', 'completed', true)")
    pid = reader_pid(bridge)
    progress = "select phase from snowflake_bridge.upload_progress() where execution_id = 's'"
    wait.until(lambda: bridge.app.execute(progress).fetchone()["phase"] == "reading", "the upload is being read")
    bridge.run("fast", [{"a": 1}])
    bridge.completed("fast")
    assert bridge.admin.execute("select from pg_stat_activity where pid = %s", [pid]).fetchone() is not None
    # Nobody is left for whom it reads.
    bridge.admin.execute("select pg_terminate_backend(%s)", [bridge.worker()])
    wait.until(
        lambda: bridge.admin.execute("select from pg_stat_activity where pid = %s", [pid]).fetchone() is None,
        "the reader has ended with its worker",
    )


def test_reading_has_a_limit(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge({"snowflake_bridge.snapshot_timeout": "1s"})
    bridge.configure(bridge.account.add_user())
    bridge.app.execute("create function app_rows(id text) returns int language sql as 'select 1 from pg_sleep(600)'")
    bridge.watch(result_function="app_rows")
    finish(bridge, "run-1")
    message = bridge.failed("run-1")["snowflake_error_message"]
    assert "snapshot_timeout" in message
    assert bridge.upload("run-1")["attempt_count"] == 1


def test_a_policy_that_sleeps_is_read_by_a_reader(make_bridge: Callable[..., Bridge]) -> None:
    """What the table's owner attaches to it runs where it delays nobody."""
    # The policy is asked for the status as well.
    bridge = make_bridge({"snowflake_bridge.mirror_timeout": "60s"})
    bridge.ready()
    bridge.app.execute(GATE)
    bridge.app.execute(f"""
        create function nap(id text) returns boolean language plpgsql set search_path from current as $$ begin
            if id <> 'sleepy' then return true; end if;
            case current_setting('application_name')
                when 'snowflake_bridge reader' then return hold();
                when 'snowflake_bridge worker' then perform pg_sleep(1);
                else null;
            end case;
            return true;
        end $$;
        alter table {TABLE} enable row level security;
        alter table {TABLE} force row level security;
        create policy naps on {TABLE} using (nap(execution_id))""")
    bridge.run("sleepy", [{"a": 1}])
    assert reader_pid(bridge) > 0
    bridge.run("awake", [{"a": 2}])
    assert bridge.completed("awake")
    assert bridge.upload("sleepy")["state"] == "claimed"
    bridge.app.execute("delete from gate")
    assert bridge.completed("sleepy", 60)


def test_policies_hold_where_the_server_has_them_switched_off(make_bridge: Callable[..., Bridge]) -> None:
    """With row_security = off, what a policy filters is an error instead."""
    bridge = make_bridge({"row_security": "off"})
    user = bridge.ready()
    bridge.app.execute("set row_security = on")
    bridge.app.execute(f"""
        create table results (execution_id text, n int, is_public boolean);
        insert into results values ('run-2', 1, true), ('run-2', 2, false);
        alter table results enable row level security;
        alter table results force row level security;
        create policy public_ones on results using (is_public);
        alter table {TABLE} enable row level security;
        alter table {TABLE} force row level security;
        create policy all_of_them on {TABLE} using (execution_id is not null)""")
    bridge.run("run-1", [{"n": 1}])
    bridge.completed("run-1")
    assert bridge.row_count(user) == 1
    bridge.watch(result_relation="results")
    finish(bridge, "run-2")
    bridge.completed("run-2")
    assert bridge.row_count(user) == 2


def test_a_reader_that_is_ended_is_tried_again(bridge: Bridge, user: User) -> None:
    bridge.app.execute(GATE)
    bridge.app.execute(
        "create function twice(id text) returns int language sql set search_path from current as 'select 1 where hold()'"
    )
    bridge.watch(result_function="twice")
    finish(bridge, "run-1")
    bridge.admin.execute("select pg_terminate_backend(%s)", [reader_pid(bridge)])
    bridge.app.execute("delete from gate")
    wait.until(lambda: bridge.upload("run-1")["attempt_count"] == 2, "a second attempt has begun")
    bridge.completed("run-1")
    assert bridge.row_count(user) == 1


def test_a_reader_that_crashes_is_the_uploads_own_crash(bridge: Bridge, user: User) -> None:
    bridge.app.execute("create function crash(id text) returns int language sql as 'select 1 from pg_sleep(600)'")
    bridge.watch(result_function="crash")
    finish(bridge, "run-1")
    for crash in (1, 2):
        # Until it runs the function, it has not read, and its crash is nobody's.
        os.kill(reader_pid(bridge, " and wait_event = 'PgSleep'"), signal.SIGKILL)
        wait.until(lambda crash=crash: crash_is_counted(bridge, crash), "the server runs again, and has counted it", 60)
    assert bridge.upload("run-1")["state"] == "failed"


def crash_is_counted(bridge: Bridge, crash: int) -> bool:
    """Looks over new connections: one that was opened while the server restarted its processes may be among them."""
    try:
        bridge.connect()
        return bridge.upload("run-1")["crash_count"] == crash
    except psycopg.OperationalError:
        return False


@pytest.mark.parametrize("result", ["function", "large"])
def test_without_a_free_process_what_is_to_be_read_waits_and_nobody_else(
    make_bridge: Callable[..., Bridge], result: str
) -> None:
    """Code of the application, and a large result in its row, are read beside everybody else."""
    # One for logical replication, one for the launcher, one for the worker, and one that somebody's parallel query has.
    bridge = make_bridge({"max_worker_processes": "4", "snowflake_bridge.databases": "shop"})
    user = bridge.account.add_user()
    bridge.configure(user)
    bridge.watch()
    rows = [{"n": number, "text": os.urandom(600).hex()} for number in range(4_000)]
    if result == "function":
        bridge.app.execute("create function one(id text) returns int language sql as 'select 1'")
        bridge.watch(result_function="one")
        rows = [{"n": 1}]
    bridge.call("watch", relation="other_executions", create_if_missing=True)
    bridge.worker()
    slots = "select ok, detail from snowflake_bridge.check() where item = 'worker_slots'"
    with contextlib.closing(bridge.cluster.connect("shop", "app")) as parallel:
        parallel.execute("set force_parallel_mode = on")
        parallel.pgconn.send_query(b"select pg_sleep(600)")
        is_there = "select from pg_stat_activity where backend_type = 'parallel worker'"
        wait.until(lambda: bridge.admin.execute(is_there).fetchall(), "all processes are taken")
        bridge.run("run-1", rows)
        wait.until(lambda: "a long result waits" in bridge.app.execute(slots).fetchone()["detail"], "check() says so")
        assert bridge.app.execute(slots).fetchone()["ok"] is False
        bridge.app.execute(
            "insert into other_executions (execution_id, status, snowflake_enabled, result_rows)"
            """ values ('other', 'completed', true, '[{"n": 1}]')"""
        )
        status = "select snowflake_status from other_executions where execution_id = 'other'"
        wait.until(lambda: bridge.app.execute(status).fetchone()["snowflake_status"] == "completed", "the other completes")
        assert bridge.upload("run-1")["state"] == "claimed"
        parallel.cancel()
    bridge.completed("run-1", 120)
    assert bridge.row_count(user) == len(rows)
    assert bridge.upload("run-1")["attempt_count"] == 1
    assert "no free background worker slot for reading" in bridge.cluster.log_text()
    wait.until(lambda: "waits" not in bridge.app.execute(slots).fetchone()["detail"], "nothing waits any more")


def test_json_columns_are_read_as_they_are_written(bridge: Bridge, user: User) -> None:
    """Of a key that comes twice jsonb would keep one value and tell nobody; digits and spaces stay as well."""
    bridge.app.execute(f"create table {TABLE} (execution_id text unique, status text, user_id text, "
                       "result_rows json, result_columns json, parameters json)")
    bridge.watch()
    for name, rows in {
        "twice": '[{"a": 1, "a": 2}]',
        "inside": '[{"a": {"b": 1, "b": 2}}]',
        "whole": '[ {"a": 1.50, "b": {"c": [1.50]}} ]',
    }.items():
        bridge.start_execution(name)
        bridge.app.execute(f"update {TABLE} set status = 'completed', result_rows = %s::json where execution_id = %s", [rows, name])
    assert "twice" in bridge.failed("twice")["snowflake_error_message"]
    assert "twice" in bridge.failed("inside")["snowflake_error_message"]
    bridge.completed("whole")
    [(a, b)] = bridge.results(user, ["A", "B"])
    assert a == decimal.Decimal("1.5")
    assert json.loads(b) == {"c": [1.5]}


def test_parameters_that_are_not_used_are_not_in_the_way(bridge: Bridge, user: User) -> None:
    """Neither by their depth nor by what else is wrong with them."""
    bridge.watch()
    deep = '{"a": ' + "[" * 300 + "]" * 300 + ', "n": 1e1000}'
    bridge.start_execution("deep")
    bridge.app.execute(f"update {TABLE} set parameters = %s::jsonb where execution_id = 'deep'", [deep])
    bridge.finish("deep", [{"a": 1}])
    bridge.completed("deep")
    bridge.start_execution("columns")
    bridge.app.execute(f"update {TABLE} set result_columns = %s::jsonb where execution_id = 'columns'", ["[" * 300 + "]" * 300])
    bridge.finish("columns", [{"a": 1}])
    assert "nested too deeply" in bridge.failed("columns")["snowflake_error_message"]

"""What is queued, however the application's rows come about: no execution is missed, none is queued twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import psycopg
import pytest

from harness import wait
from harness.bridge import TABLE, Bridge

RESULT = '[{"a": 1}]'
COLUMNS = "execution_id, status, result_rows, snowflake_enabled"
RUNS = (
    "create table runs (execution_id text, user_id text, status text, result_rows jsonb, result_columns jsonb, "
    "snowflake_enabled boolean not null default false)"
)


@pytest.fixture
def app(make_bridge: Callable[..., Bridge]) -> Bridge:
    """A watched table without a worker: what is queued stays to be looked at."""
    bridge = make_bridge({"snowflake_bridge.databases": "postgres"})
    bridge.watch()
    return bridge


def queued(bridge: Bridge) -> list[str]:
    """The executions that were queued, each as often as it was."""
    rows = bridge.admin.execute("select execution_id from snowflake_bridge.uploads order by execution_id").fetchall()
    return [row["execution_id"] for row in rows]


def missed(bridge: Bridge) -> list[str]:
    """The executions that could not be queued, and of which word was left."""
    rows = bridge.admin.execute("select execution_id from snowflake_bridge.missed order by execution_id").fetchall()
    return [row["execution_id"] for row in rows]


def pending(bridge: Bridge, table: str = TABLE) -> list[str]:
    """The executions that say so."""
    sql = f"select execution_id from {table} where snowflake_status = 'pending' order by execution_id"
    rows = bridge.app.execute(sql).fetchall()
    return [row["execution_id"] for row in rows]


def enter(bridge: Bridge, ids: Iterable[str], status: str = "running", table: str = TABLE) -> None:
    """Enabled executions, in one statement."""
    bridge.app.execute(
        f"insert into {table} ({COLUMNS}) select id, %s, %s, true from unnest(%s::text[]) id",
        [status, RESULT, list(ids)],
    )


def test_copy(bridge: Bridge) -> None:
    """From COPY to the rows in Snowflake."""
    user = bridge.ready()
    ids = [f"run-{n}" for n in range(8)]
    with bridge.app.cursor().copy(f"copy {TABLE} ({COLUMNS}) from stdin") as lines:
        for number, execution in enumerate(ids):
            lines.write_row((execution, "completed" if number % 2 else "running", RESULT, True))
    assert queued(bridge) == ids[1::2]
    for execution in ids[1::2]:
        bridge.completed(execution)
    assert sorted(row for (row,) in bridge.results(user, ["EXECUTION_ID"])) == ids[1::2]


def test_one_statement_for_many_rows(app: Bridge) -> None:
    enter(app, ["a", "b", "c"])
    enter(app, ["d", "e"], "completed")
    app.app.execute(f"update {TABLE} set status = 'completed' where execution_id in ('a', 'b', 'd')")
    assert queued(app) == pending(app) == ["a", "b", "d", "e"]


@pytest.mark.parametrize("kind", ["text", "varchar(20)", "char(20)", "filled", "progress"])
def test_kinds_of_statuses(app: Bridge, kind: str) -> None:
    """Only a row that is finished is queued, also where the status is no text."""
    app.admin.execute("create type progress as enum ('running', 'completed'); create domain filled as char(20)")
    app.app.execute(RUNS)
    app.app.execute(f"alter table runs add primary key (execution_id), alter status type {kind} using status::{kind}")
    app.call("watch", relation="runs")
    enter_runs = f"insert into runs ({COLUMNS}) values (%s, 'running', %s, %s)"
    for execution, enabled in (("one", True), ("two", True), ("other", False)):
        app.app.execute(enter_runs, [execution, RESULT, enabled])
    assert queued(app) == []
    app.app.execute("update runs set status = 'completed' where execution_id in ('one', 'other')")
    assert queued(app) == ["one"]
    app.app.execute("update runs set status = status")
    assert queued(app) == ["one"]


@pytest.mark.parametrize("kind", ["char(40)", "filled"])
def test_blanks_that_fill_up_are_no_part_of_anything(make_bridge: Callable[..., Bridge], kind: str) -> None:
    """Of a `char(n)`: it is the same execution in the queue, in Snowflake and for its status, and the same user."""
    bridge = make_bridge()
    bridge.admin.execute("create domain filled as char(40)")
    bridge.app.execute(RUNS.replace("table runs", f"table {TABLE}").replace(" text,", f" {kind},"))
    bridge.app.execute(f"alter table {TABLE} add primary key (execution_id), add snowflake_table_name {kind}")
    user = bridge.ready()
    bridge.run("run-1", [{"a": 1}], user_id="ada")
    assert bridge.completed("run-1")["snowflake_row_count"] == 1
    assert bridge.call("backfill", since=None) == 0, "it knows the execution"
    bridge.call("upload", execution_id="run-1  ")
    assert queued(bridge) == ["run-1", "run-1"]
    wait.until(lambda: bridge.upload("run-1")["state"] == "completed", "it is sent again")
    assert bridge.results(user, ["EXECUTION_ID", "USER_ID"]) == [("run-1", "ada")]


@pytest.mark.parametrize(("column", "kind"), [("execution_id", "timestamptz"), ("execution_id", "moment"), ("user_id", "bytea"), ("user_id", "real")])
def test_ids_that_each_session_writes_in_its_own_way(app: Bridge, column: str, kind: str) -> None:
    """They would be different executions, or users, for different sessions."""
    app.admin.execute("create domain moment as date")
    app.app.execute(RUNS.replace(f"{column} text", f"{column} {kind}"))
    app.app.execute("alter table runs add primary key (execution_id)")
    with pytest.raises(psycopg.errors.DatatypeMismatch, match="each session writes in its own way"):
        app.call("watch", relation="runs")


def test_a_row_that_is_not_finished_is_no_matter_of_ours(app: Bridge) -> None:
    """Also where the watch does not fit the table any more: of that is told when a result is lost by it."""
    told: list[str] = []
    app.app.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    enter(app, ["run"])
    app.admin.execute(f"alter table {TABLE} rename status to progress")
    app.app.execute(f"update {TABLE} set progress = 'running again'")
    assert told == []
    app.app.execute(f"update {TABLE} set progress = 'completed'")
    assert len(told) == 1 and 'column "status" does not exist any more' in told[0]


def test_an_execution_by_another_name(app: Bridge) -> None:
    """What the id's type takes for the same is the same execution."""
    app.app.execute(RUNS.replace("execution_id text", "execution_id bigint primary key"))
    app.call("watch", relation="runs")
    app.app.execute(f"insert into runs ({COLUMNS}) values (7, 'completed', %s, true)", [RESULT])
    app.call("upload", execution_id="007", relation="runs")
    assert queued(app) == ["7"]


def test_on_conflict(app: Bridge) -> None:
    """What became an update counts as one, what was left alone counts as nothing."""
    enter(app, ["a", "b"])
    insert = f"insert into {TABLE} ({COLUMNS}) values (%s, 'completed', %s, true) on conflict (execution_id) do "
    app.app.execute(insert + "nothing", ["a", RESULT])
    assert queued(app) == []
    app.app.execute(insert + "update set status = excluded.status, result_rows = excluded.result_rows", ["b", RESULT])
    app.app.execute(insert + "update set status = excluded.status", ["c", RESULT])
    assert queued(app) == pending(app) == ["b", "c"]


def test_merge(app: Bridge) -> None:
    enter(app, ["a", "b", "c"])
    app.app.execute(
        f"merge into {TABLE} t using (values ('a', 'completed'), ('b', 'gone'), ('d', 'completed')) s (id, status) "
        "on t.execution_id = s.id when matched and s.status = 'gone' then delete "
        "when matched then update set status = s.status "
        f"when not matched then insert ({COLUMNS}) values (s.id, s.status, '{RESULT}', true)"
    )
    assert queued(app) == pending(app) == ["a", "d"]


def test_savepoints_in_a_loop(app: Bridge) -> None:
    """Each round has a subtransaction of its own, and every other one is undone."""
    enter(app, [f"run-{n}" for n in range(10)])
    app.app.execute(
        "do $$ begin for n in 0..9 loop begin "
        f"update {TABLE} set status = 'completed' where execution_id = 'run-' || n; "
        "if n % 2 = 1 then raise exception 'undone'; end if; "
        "exception when raise_exception then null; end; end loop; end $$"
    )
    assert queued(app) == pending(app) == [f"run-{n}" for n in range(0, 10, 2)]


def test_a_constraint_that_fails_at_commit(app: Bridge) -> None:
    app.app.execute(
        f"create table days (id text primary key); alter table {TABLE} add foreign key (template_id) references days "
        "deferrable initially deferred"
    )
    enter(app, ["a", "b"])
    change = f"update {TABLE} set status = 'completed', template_id = 'monday' where execution_id = %s"
    with pytest.raises(psycopg.errors.ForeignKeyViolation), app.app.transaction():
        app.app.execute(change, ["a"])
        assert queued(app) == []
    assert queued(app) == pending(app) == []
    with app.app.transaction():
        app.app.execute(change, ["b"])
        app.app.execute("insert into days values ('monday')")
    assert queued(app) == pending(app) == ["b"]


def test_replicated_rows(app: Bridge) -> None:
    """A subscriber's triggers stay silent unless they are told otherwise; backfill finds what came meanwhile."""
    with app.admin.transaction():
        app.admin.execute("set local session_replication_role = replica")
        app.admin.execute(f"insert into {TABLE} ({COLUMNS}) values ('a', 'completed', '{RESULT}', true)")
    assert queued(app) == []
    assert app.app.execute("select snowflake_bridge.backfill(null) as n").fetchone() == {"n": 1}
    assert queued(app) == ["a"]
    for trigger in ("snowflake_bridge_pending", "snowflake_bridge_upload"):
        app.app.execute(f"alter table {TABLE} enable always trigger {trigger}")
    with app.admin.transaction():
        app.admin.execute("set local session_replication_role = replica")
        app.admin.execute(f"insert into {TABLE} ({COLUMNS}) values ('b', 'completed', '{RESULT}', true)")
    assert queued(app) == ["a", "b"]
    assert "b" in pending(app)


def test_a_trigger_of_the_application(app: Bridge) -> None:
    """Ours judge the row as it is stored."""
    app.app.execute(
        "create function judge() returns trigger language plpgsql as $$ begin "
        "new.status := case when new.error_message is null then 'completed' else 'failed' end; return new; end $$; "
        f"create trigger judge before insert or update on {TABLE} for each row when (new.status = 'ended') "
        "execute function judge()"
    )
    enter(app, ["a", "b"])
    enter(app, ["c"], "ended")
    app.app.execute(f"update {TABLE} set status = 'ended' where execution_id = 'a'")
    app.app.execute(f"update {TABLE} set status = 'ended', error_message = 'no' where execution_id = 'b'")
    assert queued(app) == pending(app) == ["a", "c"]


def test_a_trigger_that_finishes_an_execution_by_itself(app: Bridge) -> None:
    """Triggers of columns go by what the UPDATE names, so this one is not seen; backfill finds it."""
    app.app.execute(
        "create function judge() returns trigger language plpgsql as $$ begin "
        "new.status := 'completed'; return new; end $$; "
        f"create trigger judge before update of parameters on {TABLE} for each row execute function judge()"
    )
    enter(app, ["a"])
    app.app.execute(f"update {TABLE} set parameters = '{{}}'")
    assert queued(app) == []
    assert app.app.execute("select snowflake_bridge.backfill(null) as n").fetchone() == {"n": 1}
    assert queued(app) == ["a"]


def test_a_statement_takes_one_subtransaction(app: Bridge) -> None:
    """However many rows it finishes: one for each would have other sessions look up a subtransaction for every row they read."""
    enter(app, [f"run-{n:03}" for n in range(500)])
    app.app.execute(f"update {TABLE} set status = 'completed'")
    sql = "select count(*) as uploads, count(distinct u.xmin::text) as transactions from snowflake_bridge.uploads u"
    assert app.admin.execute(sql).fetchone() == {"uploads": 500, "transactions": 1}


def test_a_statement_on_one_partition_takes_one_subtransaction(app: Bridge) -> None:
    partitioned(app)
    app.app.execute("create table log (id text)")
    app.app.execute(
        "create function log() returns trigger language plpgsql as $$ begin insert into log values (new.execution_id); return null; end $$; "
        "create trigger a_log after insert or update on runs for each row execute function log()"
    )
    insert = "insert into runs_a (execution_id, status, snowflake_enabled) select {} || n, {}, true from generate_series(1, 500) n"
    app.app.execute(insert.format("'a'", "'running'"))
    app.app.execute("update runs_a set status = 'completed'")
    app.app.execute(insert.format("'a-inserted-'", "'completed'"))
    with app.app.cursor().copy("copy runs_b (execution_id, status, snowflake_enabled) from stdin") as lines:
        for number in range(500):
            lines.write_row((f"b{number}", "completed", True))
    sql = "select count(*) as uploads, count(distinct u.xmin::text) as transactions from snowflake_bridge.uploads u"
    assert app.admin.execute(sql).fetchone() == {"uploads": 1_500, "transactions": 3}
    # One that fails leaves nothing, and the next one is not taken for a part of it.
    with pytest.raises(psycopg.errors.UniqueViolation), app.app.transaction():
        app.app.execute("savepoint before")
        app.app.execute("update runs_a set result_rows = '[]'")
        app.app.execute("rollback to before")
        app.app.execute("insert into runs_b (execution_id, status, snowflake_enabled) values ('b-lost', 'completed', true)")
        app.app.execute("insert into runs_b (execution_id) values ('b0')")
    app.app.execute("insert into runs_b (execution_id, status, snowflake_enabled) values ('b-last', 'completed', true)")
    assert app.admin.execute(sql).fetchone() == {"uploads": 1_501, "transactions": 4}


def test_more_rows_than_are_gathered(app: Bridge) -> None:
    """They are entered on the way, and the statement may yet fail."""
    insert = (
        f"insert into {TABLE} ({COLUMNS}) select 'run-' || n, 'completed', '[]', true from generate_series(1, {{}}) n "
        "where 1 / ({} - n) is not null"
    )
    with pytest.raises(psycopg.errors.DivisionByZero):
        app.app.execute(insert.format(12_000, 12_000))
    assert queued(app) == []
    app.app.execute(insert.format(12_000, 0))
    assert len(set(queued(app))) == len(queued(app)) == 12_000


def test_one_that_cannot_be_entered_costs_no_other_its_upload(app: Bridge) -> None:
    app.admin.execute("alter table snowflake_bridge.uploads add constraint odd check (execution_id !~ '7$')")
    app.admin.execute("alter table snowflake_bridge.missed add constraint odd check (execution_id !~ '27$')")
    notices: list[str | None] = []
    app.app.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    ids = [f"run-{n:02}" for n in range(50)]
    enter(app, ids, "completed")
    assert queued(app) == [execution for execution in ids if not execution.endswith("7")]
    # Word is left of what can be entered later; where even that fails, all that is left is to say so.
    assert missed(app) == ["run-07", "run-17", "run-37", "run-47"]
    assert len(notices) == 1
    assert "will not be uploaded" in (notices[0] or "")


def test_several_changes_in_one_statement(app: Bridge) -> None:
    """A trigger of the application changes the row again: one upload, which covers both."""
    app.app.execute(
        "create function refine() returns trigger language plpgsql as $$ begin "
        f"update {TABLE} set result_rows = '[]' where execution_id = new.execution_id; return null; end $$; "
        f"create trigger zz_refine after update of status on {TABLE} for each row execute function refine()"
    )
    enter(app, ["a", "b"])
    app.app.execute(f"update {TABLE} set status = 'completed'")
    assert queued(app) == ["a", "b"]


def test_a_statement_within_a_statement_that_is_undone(app: Bridge) -> None:
    """What a trigger of the application undoes takes nothing with it that was finished before, and leaves nothing."""
    app.app.execute(
        "create function attempt() returns trigger language plpgsql as $$ begin "
        f"update {TABLE} set status = 'completed' where execution_id = new.name; "
        "if new.name like '%undone' then raise exception 'undone'; end if; return null; "
        "exception when raise_exception then return null; end $$; "
        f"create trigger zz_attempt after update of status on {TABLE} for each row when (new.name is not null) "
        "execute function attempt()"
    )
    enter(app, ["a", "b", "c", "also", "undone"])
    app.app.execute(
        f"update {TABLE} set name = case execution_id when 'a' then 'undone' when 'b' then 'also' end, status = 'completed' "
        "where execution_id in ('a', 'b', 'c')"
    )
    assert queued(app) == pending(app) == ["a", "also", "b", "c"]


@pytest.mark.parametrize("end", ["commit", "prepare transaction 'p'; commit prepared 'p'"])
def test_a_statement_that_does_not_tell_of_its_end(make_bridge: Callable[..., Bridge], end: str) -> None:
    """Its rows are entered at the end of the transaction."""
    bridge = make_bridge({"snowflake_bridge.databases": "postgres", "max_prepared_transactions": "1"})
    bridge.watch()
    bridge.app.execute(f"alter table {TABLE} disable trigger snowflake_bridge_end")
    enter(bridge, ["a", "b", "c"])
    bridge.app.execute("begin")
    bridge.app.execute(f"update {TABLE} set status = 'completed' where execution_id in ('a', 'b')")
    bridge.app.execute("savepoint s")
    bridge.app.execute(f"update {TABLE} set status = 'completed' where execution_id = 'c'")
    bridge.app.execute("rollback to s")
    for statement in end.split("; "):
        bridge.app.execute(statement)
    assert queued(bridge) == pending(bridge) == ["a", "b"]


def test_a_cancel_is_obeyed(app: Bridge) -> None:
    """Also while many rows are entered, one of which another transaction is at."""
    enter(app, [f"run-{n}" for n in range(20)])
    with app.cluster.connect("shop", "app") as other, other.transaction():
        other.execute("select snowflake_bridge.upload('run-7')")
        with pytest.raises(psycopg.errors.QueryCanceled), app.app.transaction():
            app.app.execute("set local statement_timeout = '200ms'")
            app.app.execute(f"update {TABLE} set status = 'completed'")
    assert queued(app) == ["run-7"]
    assert pending(app) == []


def test_another_watch_is_obeyed_at_once(app: Bridge) -> None:
    """Also by a session that has used the one before, and by a transaction whose snapshot is older."""
    enter(app, ["a", "b", "c"])
    app.app.execute(f"update {TABLE} set status = 'completed' where execution_id = 'a'")
    with app.cluster.connect("shop", "app") as old:
        old.execute("begin isolation level repeatable read")
        old.execute("select 1")
        with app.cluster.connect("shop", "app") as other:
            other.execute(f"select snowflake_bridge.watch('{TABLE}', finished => '{{done}}')")
        app.app.execute(f"update {TABLE} set status = 'completed' where execution_id = 'b'")
        app.app.execute(f"update {TABLE} set status = 'done' where execution_id = 'b'")
        old.execute(f"update {TABLE} set status = 'done' where execution_id = 'c'")
        old.execute("commit")
    assert queued(app) == pending(app) == ["a", "b", "c"]
    app.call("unwatch", relation=TABLE)
    enter(app, ["d"], "done")
    assert queued(app) == ["a", "b", "c"]


def partitioned(bridge: Bridge) -> None:
    """A table with a partition for each first letter."""
    bridge.app.execute(
        f"{RUNS} partition by range (execution_id); create unique index on runs (execution_id); "
        "create table runs_a partition of runs for values from ('a') to ('b'); "
        "create table runs_b partition of runs for values from ('b') to ('c')"
    )
    bridge.call("watch", relation="runs")


def test_partitions(app: Bridge) -> None:
    """Also by the partition's own name, and those that are attached later."""
    partitioned(app)
    enter(app, ["a1", "b1"], "completed", "runs")
    enter(app, ["a2"], "completed", "runs_a")
    assert queued(app) == pending(app, "runs") == ["a1", "a2", "b1"]
    app.app.execute("create table runs_c (like runs)")
    enter(app, ["c1"], "completed", "runs_c")
    app.app.execute("alter table runs attach partition runs_c for values from ('c') to ('d')")
    assert queued(app) == ["a1", "a2", "b1"]
    enter(app, ["c2"], "completed", "runs")
    assert queued(app) == ["a1", "a2", "b1", "c2"]
    assert app.app.execute("select snowflake_bridge.backfill(null, 'runs') as n").fetchone() == {"n": 1}
    assert queued(app) == ["a1", "a2", "b1", "c1", "c2"]


def test_a_row_that_changes_its_partition(app: Bridge) -> None:
    """It is a new row there, and queued if it is finished, also where nothing else has changed."""
    partitioned(app)
    enter(app, ["a1", "a2"], table="runs")
    app.app.execute("update runs set execution_id = 'b1', status = 'completed' where execution_id = 'a1'")
    assert queued(app) == pending(app, "runs") == ["b1"]
    app.app.execute("update runs set execution_id = 'b2' where execution_id = 'a2'")
    assert queued(app) == ["b1"]


def test_partitions_to_the_end(bridge: Bridge) -> None:
    """Results and status of rows in partitions, by the table's name."""
    user = bridge.ready()
    partitioned(bridge)
    enter(bridge, ["a1", "b1"], "completed", "runs")

    def statuses() -> list[tuple[str, str]]:
        sql = "select tableoid::regclass::text as part, snowflake_status as status from runs order by part"
        rows = bridge.app.execute(sql)
        return [(row["part"], row["status"]) for row in rows]

    completed = [("runs_a", "completed"), ("runs_b", "completed")]
    wait.until(lambda: statuses() == completed, "both are completed")
    assert bridge.row_count(user, "RUNS_RESULTS") == 2


def test_tables_that_inherit(app: Bridge) -> None:
    """Triggers are not inherited: the rows of a child are not watched. backfill finds them."""
    app.app.execute(f"{RUNS}; create unique index on runs (execution_id); create table special_runs () inherits (runs)")
    app.call("watch", relation="runs")
    enter(app, ["a"], "completed", "runs")
    enter(app, ["b"], "completed", "special_runs")
    app.app.execute("update runs set status = 'completed'")
    assert queued(app) == ["a"]
    assert app.app.execute("select snowflake_bridge.backfill(null, 'runs') as n").fetchone() == {"n": 1}
    assert queued(app) == ["a", "b"]

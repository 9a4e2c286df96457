"""The bridge as a guest in somebody's server: what it holds, for how long, and what it does when nothing is to be done."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import wait
from harness.bridge import TABLE, Bridge
from harness.standin import User

ROWS = [{"n": n} for n in range(20)]


def test_an_endless_trigger_of_the_application_delays_nobody_else(bridge: Bridge, user: User) -> None:
    """The mirror runs the application's own triggers; one that never ends costs its table the status, and nothing else."""
    bridge.app.execute("create table public.other_executions (like public.workflow_executions including all)")
    bridge.call("watch", relation="public.other_executions")
    bridge.app.execute(
        "create function spin() returns trigger language plpgsql as 'begin loop null; end loop; end';"
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
    wait.until(lambda: bridge.app.execute(status).fetchone()["snowflake_status"] == "completed", "the other is told")
    wait.until(lambda: all(bridge.upload(f"run-{number}")["state"] == "completed" for number in range(5)), "all are loaded")
    error = wait.until(lambda: bridge.upload("run-0")["mirror_error"], "the trouble is recorded")
    assert "mirror_timeout" in error
    bridge.app.execute(f"drop trigger spin on {TABLE}")
    bridge.admin.execute("update snowflake_bridge.uploads set mirror_after = now() where needs_mirror")
    for number in range(5):
        bridge.completed(f"run-{number}")


def test_a_lock_of_the_application_is_waited_for_by_nobody_else_and_costs_no_attempt(bridge: Bridge, user: User) -> None:
    bridge.app.execute("create table public.other_executions (like public.workflow_executions including all)")
    bridge.call("watch", relation="public.other_executions")
    bridge.start_execution("run-1")
    other = bridge.cluster.connect("shop", "app")
    with other.transaction():
        bridge.finish("run-1", ROWS)
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

    def activity() -> dict[str, object] | None:
        sql = "select * from pg_stat_activity where pid = %s"
        row = bridge.admin.execute(sql, [worker]).fetchone()
        assert row is not None
        return row if row["state"] == "idle" else None

    seen = wait.until(activity, "the worker is idle")
    assert (seen["backend_xmin"], seen["backend_xid"], seen["xact_start"]) == (None, None, None)
    assert seen["application_name"] == "snowflake_bridge worker"
    assert seen["query"] in ("snowflake_bridge: 1 uploads under way", "snowflake_bridge: 0 uploads under way")
    # The one lock is what makes it the only worker of this database; see LOCK_CLASS.
    locks = "select locktype, objsubid from pg_locks where pid = %s"
    assert bridge.admin.execute(locks, [worker]).fetchall() == [{"locktype": "advisory", "objsubid": 0x5342}]
    bridge.standin.clear_faults()
    bridge.completed("run-1")


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
            " and query not like '%%pg_stat_statements%%' and dbid = (select oid from pg_database where datname = current_database())"
        )
        return {row["query"]: row["calls"] for row in bridge.admin.execute(sql).fetchall()}

    polls = 4
    seen = wait.until(lambda: asked() if max(asked().values(), default=0) >= polls else None, "the worker has polled")
    assert len(seen) == 3, f"a poll claims, looks for mirrors, and looks ahead: {seen}"
    assert all(polls - 1 <= calls <= polls + 1 for calls in seen.values()), seen

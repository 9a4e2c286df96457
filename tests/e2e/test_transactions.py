"""An upload belongs to the transaction that finished its execution: with it, or not at all."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.types.json import Jsonb

from harness import wait
from harness.bridge import Bridge
from harness.standin import User


def queued(bridge: Bridge) -> int:
    """How many uploads were ever queued."""
    return bridge.admin.execute("select count(*) as n from snowflake_bridge.uploads").fetchone()["n"]


def test_rolled_back_work_leaves_nothing(bridge: Bridge, user: User) -> None:
    bridge.start_execution("run-1")
    mark = bridge.standin.audit_mark()
    with bridge.app.transaction(force_rollback=True):
        bridge.finish("run-1", [{"a": 1}])
        assert bridge.execution("run-1")["snowflake_status"] == "pending"
    assert bridge.execution("run-1")["snowflake_status"] is None
    assert queued(bridge) == 0
    # A later upload shows that the worker has had its look at the queue since.
    bridge.run("run-2", [{"a": 2}])
    bridge.completed("run-2")
    assert bridge.results(user, ["EXECUTION_ID"]) == [("run-2",)]
    assert not [record for record in bridge.standin.audit(mark) if "run-1" in (record["sql"] or "")]


def test_a_savepoint_that_was_rolled_back(bridge: Bridge, user: User) -> None:
    bridge.start_execution("kept")
    bridge.start_execution("dropped")
    with bridge.app.transaction():
        bridge.finish("kept", [{"a": 1}])
        with bridge.app.transaction(force_rollback=True):
            bridge.finish("dropped", [{"a": 2}])
    bridge.completed("kept")
    assert queued(bridge) == 1
    assert bridge.execution("dropped")["snowflake_status"] is None
    assert bridge.results(user, ["EXECUTION_ID"]) == [("kept",)]


def test_nothing_is_seen_before_commit(bridge: Bridge, user: User) -> None:
    bridge.start_execution("run-1")
    bridge.start_execution("run-2")
    mark = bridge.standin.audit_mark()
    with bridge.cluster.connect("shop", "app") as other, other.transaction():
        other.execute(
            "update workflow_executions set status = 'completed', result_rows = '[{\"a\": 1}]' where execution_id = 'run-1'"
        )
        bridge.finish("run-2", [{"a": 2}])
        bridge.completed("run-2")
        assert bridge.results(user, ["EXECUTION_ID"]) == [("run-2",)]
    bridge.completed("run-1")
    assert len(bridge.account.statements("COPY INTO", mark)) == 2


def test_rows_that_are_not_enabled_are_untouched(bridge: Bridge, user: User) -> None:
    bridge.run("off", [{"a": 1}], enabled=False)
    bridge.start_execution("failed-run")
    bridge.app.execute(
        "update workflow_executions set status = 'failed', error_message = 'x' where execution_id = 'failed-run'"
    )
    bridge.run("on", [{"a": 2}])
    bridge.completed("on")
    for execution in ("off", "failed-run"):
        row = bridge.execution(execution)
        assert [
            row[name]
            for name in row
            if name.startswith("snowflake_") and name not in ("snowflake_enabled", "snowflake_attempt_count")
        ] == [None] * 7, row
    assert queued(bridge) == 1
    assert bridge.results(user, ["EXECUTION_ID"]) == [("on",)]


def test_enabling_a_finished_execution(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", [{"a": 1}], enabled=False)
    bridge.app.execute("update workflow_executions set snowflake_enabled = true where execution_id = 'run-1'")
    bridge.completed("run-1")
    assert bridge.row_count(user) == 1


def test_a_result_that_changes_is_sent_again(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", [{"a": 1}])
    bridge.completed("run-1")
    bridge.finish("run-1", [{"a": 2}, {"a": 3}])
    wait.until(lambda: bridge.execution("run-1")["snowflake_row_count"] == 2, "the new result is uploaded")
    assert sorted(bridge.results(user, ["A"])) == [(2,), (3,)]


def test_unwatch_leaves_the_application_alone(bridge: Bridge, user: User) -> None:
    bridge.call("unwatch", relation="public.workflow_executions")
    bridge.run("run-1", [{"a": 1}])
    assert bridge.execution("run-1")["snowflake_status"] is None
    assert queued(bridge) == 0


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_what_loses_a_conflict_with_a_transaction_that_is_rolled_back_is_uploaded(
    bridge: Bridge, user: User, isolation: str
) -> None:
    """The place in the queue is taken by somebody who then leaves it empty."""
    bridge.start_execution("run-1")
    other = bridge.cluster.connect("shop", "app")
    notices: list[str | None] = []
    bridge.app.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    with other.transaction(force_rollback=True):
        other.execute("select snowflake_bridge.upload('run-1')")
        with bridge.app.transaction():
            bridge.app.execute(f"set transaction isolation level {isolation}")
            bridge.app.execute("set local lock_timeout = '50ms'")
            bridge.finish("run-1", [{"a": 1}])
    assert bridge.completed("run-1")
    assert bridge.results(user, ["EXECUTION_ID"]) == [("run-1",)]
    assert queued(bridge) == 1
    assert notices == []


def test_many_of_which_one_loses_a_conflict(bridge: Bridge, user: User) -> None:
    """None waits for longer than that one, and none is lost."""
    ids = [f"run-{n}" for n in range(5)]
    for execution in ids:
        bridge.start_execution(execution)
    notices: list[str | None] = []
    bridge.app.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    with bridge.cluster.connect("shop", "app") as other, other.transaction(force_rollback=True):
        other.execute("select snowflake_bridge.upload('run-3')")
        with bridge.app.transaction():
            bridge.app.execute("set local lock_timeout = '50ms'")
            bridge.app.execute("""update workflow_executions set status = 'completed', result_rows = '[{"a": 1}]'""")
    for execution in ids:
        bridge.completed(execution)
    assert sorted(bridge.results(user, ["EXECUTION_ID"])) == [(execution,) for execution in ids]
    assert notices == []


def test_what_cannot_see_its_place_in_the_queue_is_uploaded(bridge: Bridge, user: User) -> None:
    bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into"}, {"black_hole": True}, times=1)
    mark = bridge.standin.audit_mark()
    bridge.run("run-1", [{"a": 1}])
    bridge.uploading({"sql": "copy into"}, mark)
    # What the worker writes to the row is written before the transaction begins, which would lose a conflict with that.
    wait.until(lambda: bridge.execution("run-1")["snowflake_status"] == "uploading", "the status is written")
    wait.until(lambda: not bridge.upload("run-1")["needs_mirror"], "and that it is")
    notices: list[str | None] = []
    bridge.app.add_notice_handler(lambda notice: notices.append(notice.message_primary))

    def is_told() -> bool:
        """Unless the worker has written to the row meanwhile, with which any application could lose a conflict."""
        try:
            with bridge.app.transaction():
                bridge.app.execute("set transaction isolation level repeatable read")
                bridge.app.execute("select 1")
                with bridge.cluster.connect("shop", "app") as other:
                    # Waits for the one under way.
                    other.execute("select snowflake_bridge.upload('run-1')")
                result = [{"a": 2}]
                bridge.app.execute("update workflow_executions set result_rows = %s where execution_id = 'run-1'", [Jsonb(result)])
        except psycopg.errors.SerializationFailure:
            return False
        return True

    wait.until(is_told, "the application has changed the result")
    assert notices == []
    waits = "select from snowflake_bridge.uploads where state in ('queued', 'retry')"
    wait.until(lambda: len(bridge.admin.execute(waits).fetchall()) == 2, "it has a place of its own")
    bridge.call("cancel_upload", id=bridge.admin.execute("select min(id) as id from snowflake_bridge.uploads").fetchone()["id"])
    bridge.completed("run-1")
    assert bridge.results(user, ["A"]) == [(2,)]

"""An execution that is sent more than once, in ways that could double its rows or leave it stuck."""

from __future__ import annotations

import psycopg
import pytest

from harness.bridge import Bridge
from harness.standin import User


def test_an_older_upload_is_not_retried(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", [{"a": 1}], snowflake_options={"strategy": "no such strategy"})
    bridge.failed("run-1")
    older = bridge.upload("run-1")["id"]
    bridge.app.execute(
        "update workflow_executions set snowflake_options = null, result_rows = '[{\"a\": 2}]' where execution_id = 'run-1'"
    )
    bridge.completed("run-1")
    assert bridge.upload("run-1")["id"] > older
    assert (
        bridge.app.execute("select snowflake_bridge.retry_upload(%s) as retried", [older]).fetchone()["retried"]
        is False
    )
    assert bridge.results(user, ["A"]) == [(2,)]


def test_a_retry_takes_the_options_that_the_row_has_now(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", [{"a": 1}], snowflake_options={"strategy": "no such strategy"})
    bridge.failed("run-1")
    bridge.app.execute("update workflow_executions set snowflake_options = null where execution_id = 'run-1'")
    upload = bridge.upload("run-1")["id"]
    assert (
        bridge.app.execute("select snowflake_bridge.retry_upload(%s) as retried", [upload]).fetchone()["retried"]
        is True
    )
    assert (
        bridge.app.execute("select snowflake_bridge.wait_for_upload(%s, '30 s') as state", [upload]).fetchone()["state"]
        == "completed"
    )
    assert bridge.results(user, ["A"]) == [(1,)]


def test_a_relation_that_is_watched_again_replaces_what_it_sent(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", [{"a": 1}])
    bridge.completed("run-1")
    assert bridge.app.execute("select snowflake_bridge.unwatch('workflow_executions') as ended").fetchone()["ended"]
    bridge.watch()
    bridge.app.execute(
        "update workflow_executions set result_rows = '[{\"a\": 2}, {\"a\": 3}]' where execution_id = 'run-1'"
    )
    upload = bridge.upload("run-1")["id"]
    bridge.app.execute("select snowflake_bridge.wait_for_upload(%s, '30 s')", [upload])
    assert sorted(bridge.results(user, ["A"])) == [(2,), (3,)]


def test_a_result_that_changed_unseen_is_sent_again_on_request(bridge: Bridge, user: User) -> None:
    """As a subscriber's apply worker changes it: no trigger fires."""
    for execution in ("run-1", "run-2"):
        bridge.run(execution, [{"a": 1}])
        bridge.completed(execution)
    bridge.admin.execute(
        "begin; set local session_replication_role = replica;"
        "update workflow_executions set result_rows = '[{\"a\": 2}, {\"a\": 3}]' where execution_id = 'run-1'; commit"
    )
    assert bridge.call("backfill", since=None) == 0
    assert bridge.call("backfill", since=None, again=True, dry_run=True) == 2
    assert bridge.call("backfill", since=None, again=True) == 2
    for execution in ("run-1", "run-2"):
        bridge.call("wait_for_upload", id=bridge.upload(execution)["id"], timeout="30 s")
    assert sorted(bridge.results(user, ["EXECUTION_ID", "A"])) == [("run-1", 2), ("run-1", 3), ("run-2", 1)]


def test_a_relation_with_a_new_owner_is_not_touched_as_the_old_one(bridge: Bridge, user: User) -> None:
    bridge.admin.execute("create role heir")
    bridge.admin.execute("alter table workflow_executions owner to heir")
    bridge.admin.execute(
        "insert into workflow_executions (execution_id, status, snowflake_enabled, result_rows) "
        "values ('run-1', 'completed', true, '[{\"a\": 1}]')"
    )
    upload = bridge.upload("run-1")["id"]
    state = bridge.admin.execute("select snowflake_bridge.wait_for_upload(%s, '30 s') as state", [upload]).fetchone()[
        "state"
    ]
    assert state == "failed"
    assert "does not belong to role" in bridge.upload("run-1")["error_message"]


def test_waiting_in_a_transaction_that_cannot_see_the_end(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", [{"a": 1}])
    upload = bridge.upload("run-1")["id"]
    with bridge.app.transaction():
        bridge.app.execute("set transaction isolation level repeatable read")
        with pytest.raises(psycopg.errors.ActiveSqlTransaction, match="one snapshot"), bridge.app.transaction():
            bridge.app.execute("select snowflake_bridge.wait_for_upload(%s)", [upload])
    bridge.completed("run-1")

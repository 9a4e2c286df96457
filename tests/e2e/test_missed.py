"""What a trigger can only leave word of, since the queue cannot be written: it is entered once the cause is gone."""

from __future__ import annotations

from typing import Any

from harness import wait
from harness.bridge import TABLE, Bridge
from harness.standin import User

UPLOADS, MISSED = "snowflake_bridge.uploads", "snowflake_bridge.missed"
RESULT = [{"n": 1}]
CANNOT = "some executions cannot be entered in the queue"


def missed(bridge: Bridge) -> list[str]:
    rows = bridge.admin.execute(f"select execution_id from {MISSED} order by 1").fetchall()
    return [row["execution_id"] for row in rows]


def finding(bridge: Bridge) -> dict[str, Any]:
    [row] = bridge.app.execute("select ok, detail, hint from snowflake_bridge.check() where item = 'missed'").fetchall()
    return row


def test_some_that_cannot_be_entered_keep_nothing_else_waiting(bridge: Bridge, user: User) -> None:
    bridge.admin.execute(f"alter table {UPLOADS} add constraint broken check (execution_id !~ '^bad')")
    bridge.app.execute(
        f"insert into {TABLE} (execution_id, status, snowflake_enabled, result_rows) "
        "select id, 'completed', true, '[{\"n\": 1}]' from unnest(array['bad-1', 'good-1', 'bad-2', 'good-2']) id"
    )
    bridge.completed("good-1")
    bridge.completed("good-2")
    # What others have left word of is entered although it is beside them, in the same block and in others.
    later = [f"later-{number}-{'x' * 900}" for number in range(20)]
    for execution in later:
        bridge.start_execution(execution, result_rows=RESULT)
    columns = "user_id, owner_kind, owner_oid, row_user_id, options"
    bridge.admin.execute(
        f"insert into {MISSED} (watch_id, execution_id, {columns}) select u.watch_id, later, {columns} "
        f"from {UPLOADS} u, unnest(%s::text[]) later where u.execution_id = 'good-1'",
        [later],
    )
    wait.until(lambda: CANNOT in bridge.cluster.log_text(), "the worker has said that it cannot enter them")
    wait.until(lambda: missed(bridge) == ["bad-1", "bad-2"], "those that can be entered are", 90)
    bridge.completed(later[-1])
    for number in range(5):
        bridge.run(f"more-{number}", RESULT)
        bridge.completed(f"more-{number}")
    # At most once a second, and less and less often: each of these runs has woken the worker several times.
    assert bridge.cluster.log_text().count(CANNOT) < 10
    bridge.admin.execute(f"update {MISSED} set missed_at = now()")
    assert finding(bridge)["ok"] is True
    bridge.admin.execute(f"update {MISSED} set missed_at = missed_at - interval '2 minutes'")
    found = finding(bridge)
    assert found["ok"] is False
    assert found["detail"].startswith("2 executions")
    bridge.admin.execute(f"alter table {UPLOADS} drop constraint broken")
    bridge.reload()
    for execution in ("bad-1", "bad-2"):
        bridge.completed(execution)
    assert missed(bridge) == []
    assert finding(bridge)["ok"] is True


def test_an_index_of_the_queue_that_is_broken(bridge: Bridge, user: User) -> None:
    """A function in an index stands for whatever the disk does: nothing at all can be entered, and then everything."""
    bridge.admin.execute(
        "create function broken(text) returns text immutable language plpgsql as "
        "$$ begin if $1 <> '' then raise 'the disk is full' using errcode = 'disk_full'; end if; return $1; end $$;"
        f"create index broken on {UPLOADS} (public.broken(execution_id)) where claim_count = 0"
    )
    bridge.run("run-1", RESULT)
    bridge.app.execute("begin")
    bridge.run("run-2", RESULT)
    bridge.app.execute("rollback")
    wait.until(lambda: CANNOT in bridge.cluster.log_text(), "the worker has said that it cannot enter them")
    assert missed(bridge) == ["run-1"]
    bridge.admin.execute("drop index snowflake_bridge.broken")
    bridge.reload()
    assert bridge.completed("run-1")["snowflake_row_count"] == 1

"""A table whose own code keeps the status from being written: said, tried again, and harmful to nobody; the view has it all the same."""

from __future__ import annotations

from harness import lifecycle, wait
from harness.bridge import DATABASE, TABLE, Bridge
from harness.standin import User

VIEW = "select * from snowflake_bridge.execution_status where execution_id = %s"


def is_shown(bridge: Bridge, execution_id: str) -> None:
    """The status of what was loaded is in its row, now that nothing refuses it any more."""
    # A last refusal may be recorded only after the trouble is over, and puts it off again.
    now = "update snowflake_bridge.uploads set mirror_after = now() where needs_mirror and mirror_after > now()"

    def look() -> bool:
        bridge.admin.execute(now)
        return bridge.execution(execution_id)["snowflake_status"] == "completed"

    wait.until(look, f"the status of {execution_id} is written")
    assert bridge.completed(execution_id)["snowflake_row_count"] == 1


def test_a_table_that_refuses_statuses(bridge: Bridge, user: User) -> None:
    bridge.app.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not in my table'; end $$; "
        f"create trigger refuse before update of snowflake_status on {TABLE} for each row when (new.execution_id = 'closed') "
        "execute function refuse()"
    )
    bridge.app.execute(
        f"insert into {TABLE} (execution_id, status, snowflake_enabled, result_rows) values ('closed', 'completed', true, '[{{\"n\": 1}}]')"
    )
    bridge.run("open", [{"n": 2}])
    bridge.completed("open")
    wait.until(lambda: bridge.upload("closed")["state"] == "completed", "it is uploaded")
    wait.until(lambda: bridge.upload("closed")["mirror_error"], "the trouble is recorded")
    assert bridge.execution("closed")["snowflake_status"] == "pending"
    assert not lifecycle.finding(bridge.admin, "mirrors")["ok"]
    status = bridge.app.execute(VIEW, ["closed"]).fetchone()
    assert (status["relation"], status["status"], status["row_count"], status["attempt_count"]) == (TABLE, "completed", 1, 1)
    assert status["uploaded_at"] is not None and status["error_message"] is None
    assert "not in my table" in status["mirror_error"]
    shown = bridge.execution("open")
    status = bridge.app.execute(VIEW, ["open"]).fetchone()
    assert (shown["snowflake_status"], shown["snowflake_row_count"], shown["snowflake_uploaded_at"]) == (
        status["status"],
        status["row_count"],
        status["uploaded_at"],
    )
    bridge.admin.execute("create role stranger login; select snowflake_bridge.grant_usage('stranger')")
    with bridge.cluster.connect(DATABASE, "stranger") as stranger:
        assert stranger.execute("select * from snowflake_bridge.execution_status()").fetchall() == []
    # The trouble is over: the row is written when its time has come.
    bridge.app.execute(f"drop trigger refuse on {TABLE}")
    is_shown(bridge, "closed")


def test_a_table_that_lets_statuses_vanish(bridge: Bridge, user: User) -> None:
    """A rule puts something in the update's place, or a trigger has it do nothing: no error, and no status in the row."""
    bridge.app.execute(
        f"create table elsewhere (like {TABLE}); "
        "create function vanish() returns trigger language plpgsql as 'begin return null; end'; "
        f"create trigger vanish before update of snowflake_status on {TABLE} for each row when (new.execution_id = 'vanished') "
        "execute function vanish()"
    )
    bridge.run("vanished", [{"n": 1}])
    wait.until(lambda: bridge.upload("vanished")["mirror_error"], "the trigger is reported")
    assert "was not changed" in bridge.upload("vanished")["mirror_error"]
    bridge.app.execute(
        f"drop trigger vanish on {TABLE}; create rule elsewhere as on update to {TABLE} do instead update elsewhere e "
        "set snowflake_status = new.snowflake_status where e.execution_id = new.execution_id returning e.*"
    )
    bridge.app.execute(
        f"insert into {TABLE} (execution_id, status, snowflake_enabled, result_rows) values ('ruled', 'completed', true, '[{{\"n\": 2}}]')"
    )
    wait.until(lambda: bridge.upload("ruled")["mirror_error"], "the rule is reported")
    assert "was not changed" in bridge.upload("ruled")["mirror_error"]
    bridge.app.execute(f"drop rule elsewhere on {TABLE}")
    for execution in ("vanished", "ruled"):
        is_shown(bridge, execution)


def test_a_table_that_leaves_alone_what_changes_nothing(bridge: Bridge, user: User) -> None:
    bridge.app.execute(
        f"create trigger unchanged before update on {TABLE} for each row execute function suppress_redundant_updates_trigger()"
    )
    bridge.run("run-1", [{"n": 1}])
    bridge.completed("run-1")
    bridge.admin.execute("update snowflake_bridge.uploads set needs_mirror = true, mirror_after = now()")
    bridge.reload()
    wait.until(lambda: not bridge.upload("run-1")["needs_mirror"], "the status is found to be there")
    assert bridge.upload("run-1")["mirror_error"] is None

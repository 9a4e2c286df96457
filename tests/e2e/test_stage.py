"""What lies in Snowflake's stage: gone when it is not needed any more, put there again when somebody has removed it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from harness import reader, wait
from harness.bridge import Bridge
from harness.standin import User

ROWS = [{"n": n} for n in range(20)]
NO_REMOVE = {"error": {"code": "000603", "sqlState": "XX000", "message": "internal error"}}
BAD_VALUE = {"error": {"code": "100038", "sqlState": "22018", "message": "Numeric value is not recognized"}}


def test_files_that_somebody_removed_are_staged_again(bridge: Bridge, user: User) -> None:
    bridge.standin.fault({"kind": "query", "sql": r"^\s*describe table"}, {"black_hole": True})
    mark = bridge.standin.audit_mark()
    bridge.run("run-1", ROWS)
    bridge.uploading({"sql": "describe table"}, mark)
    assert reader.query(bridge.account, user, "remove @~/snowflake_bridge/")
    bridge.standin.clear_faults()
    bridge.completed("run-1", 60)
    assert bridge.row_count(user) == len(ROWS)
    assert len(bridge.account.statements("put", mark)) == 2


def test_a_query_whose_files_somebody_removed_is_staged_again(bridge: Bridge, user: User) -> None:
    bridge.standin.fault({"kind": "query", "sql": r"^\s*describe table"}, {"black_hole": True})
    mark = bridge.standin.audit_mark()
    number = bridge.call("upload_query", query="select 1 as n", table_name="t")
    bridge.uploading({"sql": "describe table"}, mark)
    assert reader.query(bridge.account, user, "remove @~/snowflake_bridge/")
    bridge.standin.clear_faults()
    state = "select state from snowflake_bridge.uploads where id = %s"
    wait.until(lambda: bridge.admin.execute(state, [number]).fetchone()["state"] == "completed", "it is completed", 60)
    assert bridge.row_count(user, "T") == 1


def staged(bridge: Bridge, user: User) -> list[str]:
    """The files in the user's stage."""
    return [row[0] for row in reader.query(bridge.account, user, "list @~/snowflake_bridge/")]


def left_behind(bridge: Bridge, execution_id: str) -> str:
    """An upload that completes and whose files are not removed; returns the name of their directory."""
    bridge.standin.fault({"kind": "query", "sql": r"^\s*remove"}, NO_REMOVE)
    bridge.run(execution_id, ROWS)
    bridge.completed(execution_id)
    wait.until(lambda: bridge.standin.faults_left() == 0, "removing the files has failed")
    return str(bridge.upload(execution_id)["upload_id"])


def sweep(bridge: Bridge) -> None:
    """Has the whole stage looked through, which the first upload after a reload does once it has completed."""
    mark = bridge.standin.audit_mark()
    bridge.reload()
    numbers = itertools.count(1)

    def look() -> bool:
        execution_id = f"sweep-{mark}-{next(numbers)}"
        bridge.run(execution_id, ROWS)
        bridge.completed(execution_id)
        return bool(bridge.account.statements("list", mark))

    wait.until(look, "the stage is looked through")


def test_what_could_not_be_removed_is_removed_later(bridge: Bridge, user: User) -> None:
    directory = left_behind(bridge, "run-1")
    assert any(directory in name for name in staged(bridge, user))
    assert bridge.upload("run-1")["clean_up_after"] is not None, "it is known that there is something to remove"
    bridge.admin.execute("update snowflake_bridge.uploads set clean_up_after = now()")
    bridge.reload()
    wait.until(lambda: not staged(bridge, user), "the stage is empty")
    wait.until(lambda: bridge.upload("run-1")["clean_up_after"] is None, "that is known too")
    assert bridge.row_count(user) == len(ROWS)


def test_files_of_a_failed_upload_stay_for_a_retry_and_go_then(bridge: Bridge, user: User) -> None:
    bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into"}, BAD_VALUE)
    bridge.run("run-1", ROWS)
    bridge.failed("run-1")
    upload = bridge.upload("run-1")
    assert upload["staged_claim"] == 1
    kept = bridge.admin.execute("select clean_up_after - completed_at > '23 hours' as kept from snowflake_bridge.uploads")
    assert kept.fetchone() == {"kept": True}
    bridge.admin.execute("update snowflake_bridge.uploads set clean_up_after = now()")
    bridge.reload()
    wait.until(lambda: not staged(bridge, user), "the stage is empty")
    mark = bridge.standin.audit_mark()
    assert bridge.call("retry_upload", id=upload["id"]) is True
    wait.until(lambda: bridge.upload("run-1")["state"] == "completed", "it is completed")
    assert len(bridge.account.statements("put", mark)) == 1, "what is gone was staged again"
    assert bridge.row_count(user) == len(ROWS)


def test_what_a_new_attempt_stages_outlives_the_canceled_one(bridge: Bridge, user: User) -> None:
    """Somebody cancels an upload and sends it again before what the first attempt has staged is removed."""
    for action in {"black_hole": True}, BAD_VALUE:
        bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into"}, action)
    bridge.standin.fault({"kind": "query", "sql": r"^\s*list"}, {"delay_ms": 300_000})
    mark = bridge.standin.audit_mark()
    bridge.run("run-1", ROWS)
    bridge.uploading({"sql": "copy into"}, mark)
    number = bridge.upload("run-1")["id"]
    assert bridge.call("cancel_upload", id=number) is True
    bridge.uploading({"sql": "list"}, mark)
    assert bridge.call("retry_upload", id=number) is True
    wait.until(lambda: bridge.upload("run-1")["state"] == "failed", "the new attempt has failed")
    claim = str(bridge.upload("run-1")["staged_claim"])
    assert {name.split("/")[-2] for name in staged(bridge, user)} == {"1", claim}
    bridge.standin.clear_faults()
    wait.until(lambda: not any("/1/" in name for name in staged(bridge, user)), "what the first has left is removed")
    wait.until(lambda: bridge.account.statements("remove", mark), "Snowflake was told so")
    assert [name.split("/")[-2] for name in staged(bridge, user)] == [claim]
    assert bridge.upload("run-1")["clean_up_after"] is not None, "it is known that there is something to remove"
    # It need not be staged again.
    mark = bridge.standin.audit_mark()
    assert bridge.call("retry_upload", id=number) is True
    wait.until(lambda: bridge.upload("run-1")["state"] == "completed", "it is completed")
    assert not bridge.account.statements("put", mark)
    assert bridge.row_count(user) == len(ROWS)


def test_canceled_between_two_attempts(make_bridge: Callable[..., Bridge]) -> None:
    """The worker is at nothing then, and the files are removed all the same."""
    bridge = make_bridge({"snowflake_bridge.retry_base_delay": "1h", "snowflake_bridge.retry_max_delay": "1h"})
    user = bridge.ready()
    bridge.standin.fault({"kind": "query", "sql": r"^\s*describe table"}, {"status": 503}, times=4)
    bridge.run("run-1", ROWS)
    wait.until(lambda: bridge.upload("run-1")["state"] == "retry", "the attempt has failed", 60)
    assert staged(bridge, user)
    assert bridge.call("cancel_upload", id=bridge.upload("run-1")["id"]) is True
    bridge.reload()
    wait.until(lambda: not staged(bridge, user), "the stage is empty")


def test_the_stage_is_looked_through_for_what_is_ours_and_not_needed(bridge: Bridge, user: User) -> None:
    forgotten, unknown, elsewhere = (left_behind(bridge, f"run-{number}") for number in range(3))
    bridge.admin.execute(
        "update snowflake_bridge.uploads set clean_up_after = null, completed_at = now() - interval '2 hours' where execution_id = 'run-0'"
    )
    bridge.admin.execute("delete from snowflake_bridge.uploads where execution_id = 'run-1'")
    sweep(bridge)
    wait.until(lambda: not any(forgotten in name for name in staged(bridge, user)), "what nobody needs is gone")
    for directory in unknown, elsewhere:
        assert any(directory in name for name in staged(bridge, user)), "what is new, or known to be there, is not the sweep's"
    # Another installation in the same stage: nothing of it is touched, whatever is known here.
    bridge.call("adopt", connection=bridge.admin)
    own = left_behind(bridge, "run-3")
    bridge.admin.execute("update snowflake_bridge.uploads set clean_up_after = null, completed_at = now() - interval '2 hours'")
    sweep(bridge)
    wait.until(lambda: not any(own in name for name in staged(bridge, user)), "what is its own and not needed is gone")
    assert any(elsewhere in name for name in staged(bridge, user))


def test_a_configuration_that_cannot_be_opened_keeps_no_other_stage_from_being_tidied(bridge: Bridge, user: User) -> None:
    """Nobody has its secret any more, say: what it has left is put off, and the next look is for others."""
    bridge.configure(user, name="other")
    left_behind(bridge, "run-1")
    bridge.standin.fault({"kind": "query", "sql": r"^\s*remove"}, NO_REMOVE)
    bridge.run("run-2", ROWS, snowflake_options={"config": "other"})
    bridge.completed("run-2")
    wait.until(lambda: bridge.standin.faults_left() == 0, "removing the files has failed")
    configurations, uploads = "snowflake_bridge.snowflake_configurations", "snowflake_bridge.uploads"
    bridge.admin.execute(f"update {configurations} set password_encrypted = '\\x00' where name = 'default'")
    bridge.admin.execute(
        f"update {uploads} set clean_up_after = now() - case when execution_id = 'run-1' then interval '1 hour' else '0' end"
    )
    bridge.reload()
    put_off = f"select from {uploads} where execution_id = 'run-1' and clean_up_after > now()"
    wait.until(lambda: bridge.admin.execute(put_off).fetchall(), "what cannot be removed is put off")
    wait.until(lambda: "cannot tidy a stage up" in bridge.cluster.log_text(), "it is said why")
    bridge.reload()
    wait.until(lambda: bridge.upload("run-2")["clean_up_after"] is None, "what the other has left is removed")

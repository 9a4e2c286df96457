"""`cancel_upload` in every state: what is not committed ends, in Snowflake too, and what is committed is said to be."""

from __future__ import annotations

import concurrent.futures
import os
from typing import Any

import pytest

from harness import reader, wait
from harness.bridge import RESULTS, TABLE, Bridge
from harness.standin import User

ROWS = [{"n": n} for n in range(20)]
# Until the test lets go.
HELD = {"delay_ms": 300_000}


def cancel(bridge: Bridge, execution_id: str = "run-1") -> Any:
    """Asks for the end of an execution's upload."""
    return bridge.call("cancel_upload", id=bridge.upload(execution_id)["id"])


def canceled(bridge: Bridge, execution_id: str = "run-1", seconds: float = 30.0) -> dict[str, Any]:
    """The upload once it is canceled, while what holds it does not let go."""

    def look() -> dict[str, Any] | None:
        upload = bridge.upload(execution_id)
        return upload if upload["state"] == "canceled" else None

    upload = wait.until(look, "the upload is canceled", seconds)
    assert upload["error_message"] == "canceled on request"
    assert bridge.failed(execution_id)["snowflake_error_message"] == "canceled on request"
    return upload


def tables(bridge: Bridge) -> list[str]:
    """The tables of the target schema."""
    query = "select name from snowflake_bridge.list_tables('ANALYTICS_DB', 'REPORTS')"
    return [row["name"] for row in bridge.app.execute(query).fetchall()]


@pytest.mark.parametrize(
    ("held", "begins"),
    [
        ({"kind": "objectstore", "method": "PUT"}, {"kind": "objectstore"}),
        ({"kind": "query", "sql": r"^\s*create .*table"}, {"sql": "create"}),
        ({"kind": "query", "sql": r"^\s*copy into"}, {"sql": "copy into"}),
    ],
    ids=["staging", "preparing", "copying"],
)
def test_in_flight(bridge: Bridge, user: User, held: dict[str, str], begins: dict[str, str]) -> None:
    bridge.standin.fault(held, HELD)
    mark = bridge.standin.audit_mark()
    bridge.run("run-1", ROWS)
    bridge.uploading(begins, mark)
    assert cancel(bridge) is True
    canceled(bridge)

    def looked() -> bool:
        return any((record["sql"] or "").upper().startswith("LIST") for record in bridge.standin.audit(mark))

    wait.until(looked, "what was staged is looked for")
    wait.until(lambda: not reader.query(bridge.account, user, "list @~/snowflake_bridge/"), "it is removed")
    if begins.get("sql"):

        def is_aborted() -> bool:
            return any(record["path"] == "/queries/v1/abort-request" for record in bridge.standin.audit(mark))

        wait.until(is_aborted, "the statement is aborted in Snowflake")
    assert cancel(bridge) is False, "there is nothing left to cancel"
    bridge.standin.clear_faults()
    assert bridge.call("retry_upload", id=bridge.upload("run-1")["id"]) is True
    wait.until(lambda: bridge.execution("run-1")["snowflake_status"] != "failed", "the row shows the new attempt")
    bridge.completed("run-1")
    assert bridge.row_count(user) == len(ROWS)


def test_too_late(bridge: Bridge, user: User) -> None:
    bridge.standin.fault({"kind": "query", "sql": r"^\s*commit"}, HELD)
    mark = bridge.standin.audit_mark()
    bridge.run("run-1", ROWS)
    bridge.uploading({"sql": "commit"}, mark)
    assert cancel(bridge) is True
    bridge.goes_round()
    bridge.standin.clear_faults()
    bridge.completed("run-1")
    assert bridge.row_count(user) == len(ROWS)
    assert cancel(bridge) is False


@pytest.mark.parametrize("is_committed", [True, False])
def test_between_two_attempts_after_a_lost_commit(make_bridge: Any, is_committed: bool) -> None:
    """Only Snowflake knows whether there is still something to cancel."""
    bridge = make_bridge({"snowflake_bridge.retry_base_delay": "600s", "snowflake_bridge.retry_max_delay": "600s"})
    user = bridge.ready()
    commit = {"lose_answer": True} if is_committed else {"status": 503}
    bridge.standin.fault({"kind": "query", "sql": r"^\s*commit"}, commit, times=20)
    bridge.standin.fault({"kind": "query", "sql": r"^\s*describe transaction"}, {"status": 503}, times=20)
    bridge.run("run-1", ROWS)
    wait.until(lambda: bridge.upload("run-1")["state"] == "retry", "the attempt has failed", 60)
    bridge.standin.clear_faults()
    assert cancel(bridge) is True
    if is_committed:
        bridge.completed("run-1", 60)
        assert bridge.row_count(user) == len(ROWS)
    else:
        canceled_later = wait.until(
            lambda: bridge.upload("run-1") if bridge.upload("run-1")["state"] == "canceled" else None, "it is canceled", 60
        )
        assert canceled_later["error_message"] == "canceled on request"
        assert bridge.row_count(user) == 0


LOST_COMMIT = ({"kind": "query", "sql": r"^\s*commit"}, {"kind": "query", "sql": r"^\s*describe transaction"})


def in_doubt(bridge: Bridge) -> dict[str, Any]:
    """An upload whose COMMIT nobody has an answer to, between two attempts."""
    for match in LOST_COMMIT:
        bridge.standin.fault(match, {"status": 503}, times=1_000)
    bridge.run("run-1", ROWS)
    wait.until(lambda: bridge.upload("run-1")["state"] == "retry", "the attempt has failed", 60)
    return bridge.upload("run-1")


def test_credentials_that_are_refused_meanwhile(make_bridge: Any) -> None:
    """What was asked for is not forgotten until the credentials are there again."""
    bridge = make_bridge({"snowflake_bridge.retry_base_delay": "2s", "snowflake_bridge.retry_max_delay": "2s"})
    user = bridge.ready()
    in_doubt(bridge)
    refused = {"code": "390100", "sqlState": "08001", "message": "Incorrect username or password was specified."}
    bridge.standin.fault({"kind": "login"}, {"error": refused}, times=1_000)
    assert cancel(bridge) is True

    def look() -> bool:
        # Whatever session it has, it has to log in again.
        for session in bridge.standin.admin("GET", "sessions")["sessions"]:
            if session["account"] == bridge.account.name.upper():
                bridge.standin.admin("DELETE", "sessions", {"id": session["id"]})
        return bridge.upload("run-1")["state"] == "canceled"

    wait.until(look, "it is canceled", 60)
    message = bridge.upload("run-1")["error_message"]
    assert message.startswith("canceled on request; its rows may be in table "), message
    bridge.standin.clear_faults()
    bridge.call("update_config", password=user.password)
    bridge.run("run-2", ROWS)
    bridge.completed("run-2")
    assert bridge.upload("run-1")["state"] == "canceled" and bridge.row_count(user) == len(ROWS)


def test_a_cancel_hurries_once(make_bridge: Any) -> None:
    """It is asked at once what became of the rows, and then no more often than without the cancel."""
    bridge = make_bridge({"snowflake_bridge.retry_base_delay": "600s", "snowflake_bridge.retry_max_delay": "600s"})
    bridge.ready()
    before = in_doubt(bridge)
    assert cancel(bridge) is True
    wait.until(lambda: bridge.upload("run-1")["attempt_count"] > before["attempt_count"], "it is asked again")
    wait.until(lambda: bridge.upload("run-1")["state"] == "retry", "there is no answer", 60)
    bridge.goes_round(3)
    after = bridge.upload("run-1")
    assert after["state"] == "retry" and after["attempt_count"] == before["attempt_count"] + 1


@pytest.mark.parametrize("is_canceled", [True, False])
def test_it_cannot_be_found_out(make_bridge: Any, is_canceled: bool) -> None:
    """Neither a cancel nor an upload waits without end for what Snowflake refuses to say."""
    bridge = make_bridge({"snowflake_bridge.max_attempts": "3", "snowflake_bridge.retry_max_delay": "1s"})
    user = bridge.ready()
    commit, describe = LOST_COMMIT
    bridge.standin.fault(commit, {"status": 503}, times=1_000)
    if is_canceled:
        # Nobody answers at all.
        bridge.standin.fault(describe, {"status": 503}, times=1_000)
    else:
        denied = {"code": "003001", "sqlState": "42501", "message": "Insufficient privileges to operate on transaction"}
        bridge.standin.fault(describe, {"error": denied}, times=1_000)
    bridge.run("run-1", ROWS)
    if is_canceled:
        wait.until(lambda: bridge.upload("run-1")["attempt_count"] > 3, "it is asked again and again", 60)
        assert cancel(bridge) is True
    ended = wait.until(lambda: bridge.upload("run-1") if bridge.upload("run-1")["completed_at"] else None, "it has ended", 60)
    assert ended["state"] == ("canceled" if is_canceled else "failed")
    assert "; its rows may be in table " in ended["error_message"] and "UPLOAD_ID" in ended["error_hint"]
    bridge.failed("run-1")
    bridge.standin.clear_faults()
    assert bridge.call("retry_upload", id=ended["id"]) is True
    wait.until(lambda: bridge.execution("run-1")["snowflake_status"] != "failed", "the row shows the new attempt")
    bridge.completed("run-1", 30)
    assert bridge.row_count(user) == len(ROWS)


def test_while_it_is_found_out_whether_it_was_committed(bridge: Bridge, user: User) -> None:
    """Until that is known, nobody may say that the upload is canceled."""
    held = {"sql": "describe transaction"}
    bridge.standin.fault({"kind": "query", "sql": r"^\s*commit"}, {"lose_answer": True}, times=20)
    bridge.standin.fault({"kind": "query", "sql": r"^\s*describe transaction"}, {"black_hole": True}, times=20)
    mark = bridge.standin.audit_mark()
    bridge.run("run-1", ROWS)
    bridge.uploading(held, mark)
    mark = bridge.standin.audit_mark()
    bridge.cluster.restart()
    bridge.connect()
    bridge.uploading(held, mark)
    assert cancel(bridge) is True
    bridge.goes_round()
    assert bridge.upload("run-1")["state"] != "canceled"
    bridge.standin.clear_faults()
    bridge.completed("run-1")
    assert bridge.row_count(user) == len(ROWS)


def test_while_it_is_read(bridge: Bridge, user: User) -> None:
    bridge.app.execute("create function slow(id text) returns int language sql as 'select 1 from pg_sleep(60)'")
    bridge.watch(result_function="slow")
    bridge.start_execution("run-1")
    bridge.app.execute(f"update {TABLE} set status = 'completed'")
    reader = "select pid from pg_stat_activity where backend_type = 'snowflake_bridge reader'"
    wait.until(lambda: bridge.admin.execute(reader).fetchone(), "a reader runs")
    assert cancel(bridge) is True
    canceled(bridge)
    assert bridge.admin.execute(reader).fetchone() is None
    assert bridge.upload("run-1")["attempt_count"] == 1


def test_an_open_transaction_holds_up_nobody(bridge: Bridge, user: User) -> None:
    """Whoever asks for the end and does not commit keeps no row that the worker has to write."""
    bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into"}, HELD)
    mark = bridge.standin.audit_mark()
    bridge.run("run-1", ROWS)
    bridge.uploading({"sql": "copy into"}, mark)
    worker = bridge.worker()
    other = bridge.cluster.connect("shop", "app")
    with other.transaction():
        assert bridge.call("cancel_upload", connection=other, id=bridge.upload("run-1")["id"]) is True
        bridge.standin.clear_faults()
        bridge.completed("run-1")
        bridge.run("run-2", ROWS)
        bridge.completed("run-2")
    assert bridge.worker() == worker
    requests = "select from snowflake_bridge.cancellations"
    wait.until(lambda: not bridge.admin.execute(requests).fetchall(), "a request that came late is forgotten")
    assert bridge.upload("run-1")["state"] == "completed"


@pytest.mark.parametrize("is_staged", [False, True])
def test_while_the_worker_is_down(make_bridge: Any, is_staged: bool) -> None:
    bridge = make_bridge({"snowflake_bridge.databases": "shop"})
    user = bridge.ready()
    held = {"kind": "query", "sql": r"^\s*copy into"} if is_staged else {"kind": "objectstore", "method": "PUT"}
    bridge.standin.fault(held, HELD)
    mark = bridge.standin.audit_mark()
    bridge.run("run-1", ROWS)
    bridge.uploading({"sql": "copy into"} if is_staged else {"kind": "objectstore"}, mark)
    bridge.cluster.settings["snowflake_bridge.databases"] = "postgres"
    bridge.cluster.restart()
    bridge.connect()
    assert bridge.upload("run-1")["state"] in ("claimed", "copying")
    assert cancel(bridge) is True
    bridge.standin.clear_faults()
    mark = bridge.standin.audit_mark()
    bridge.cluster.settings["snowflake_bridge.databases"] = "shop"
    bridge.cluster.restart()
    bridge.connect()
    canceled(bridge, seconds=30)
    assert bridge.account.statements("copy into", mark) == []
    assert RESULTS not in tables(bridge) or bridge.row_count(user) == 0


def test_before_it_begins(make_bridge: Any) -> None:
    bridge = make_bridge({"snowflake_bridge.max_concurrent_uploads": "1"})
    user = bridge.ready()
    bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into"}, HELD)
    mark = bridge.standin.audit_mark()
    bridge.run("run-0", ROWS)
    bridge.uploading({"sql": "copy into"}, mark)
    bridge.run("run-1", ROWS)
    assert cancel(bridge) is True
    assert bridge.upload("run-1")["state"] == "canceled"
    bridge.standin.clear_faults()
    bridge.completed("run-0")
    assert bridge.upload("run-1")["attempt_count"] == 0
    assert {row[0] for row in bridge.results(user, ["EXECUTION_ID"])} == {"run-0"}


def test_a_query_gives_up_its_files(bridge: Bridge, user: User) -> None:
    bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into"}, HELD)
    mark = bridge.standin.audit_mark()
    number = bridge.call("upload_query", query="select 1 as n", table_name="t")
    bridge.uploading({"sql": "copy into"}, mark)
    assert bridge.call("cancel_upload", id=number) is True
    state = "select state, manifest from snowflake_bridge.uploads where id = %s"
    wait.until(lambda: bridge.admin.execute(state, [number]).fetchone()["state"] == "canceled", "it is canceled")
    assert bridge.admin.execute(state, [number]).fetchone()["manifest"] is None
    spool = bridge.cluster.data / "snowflake_bridge_spool"
    wait.until(lambda: not [name for _, _, names in os.walk(spool) for name in names if name.endswith(".parquet")], "its files are gone")
    assert bridge.call("retry_upload", id=number) is False, "its rows are gone"
    assert "T" not in tables(bridge) or bridge.row_count(user, "T") == 0


def test_an_attempt_that_ends_while_it_is_looked_at(make_bridge: Any) -> None:
    """Neither one that waits when that is looked for, nor one that somebody is at when that is."""
    bridge = make_bridge({"snowflake_bridge.databases": "postgres"})
    bridge.ready()
    bridge.run("run-1", ROWS)
    change = "update snowflake_bridge.uploads set state = %s, next_attempt_at = now() + interval '1 day'"
    bridge.admin.execute(change, ["claimed"])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with bridge.cluster.connect("shop") as other, other.transaction():
            other.execute("lock table snowflake_bridge.cancellations in exclusive mode")
            upload = bridge.upload("run-1")["id"]
            answer = pool.submit(bridge.call, "cancel_upload", id=upload)
            waiting = "select from pg_locks where not granted and relation = 'snowflake_bridge.cancellations'::regclass"
            wait.until(lambda: other.execute(waiting).fetchall(), "it is about to ask the worker")
            bridge.admin.execute(change, ["retry"])
        assert answer.result(60) is True
    assert bridge.upload("run-1")["state"] == "canceled"

"""Statements that outlast their request: parked, asked for, aborted, forgotten; and asynchronous ones."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from driver import TIMEOUT, Admin, Driver, Identity

SLOW = "DELETE FROM T"


@pytest.fixture
def blocked(admin: Admin, driver: Driver, second: Driver) -> Driver:
    """A session whose DELETE waits until the other one (`release`) commits. Requests wait 30 ms only."""
    admin.post("parking", {"after_ms": 30, "poll_ms": 30})
    second.run("CREATE TABLE T (A NUMBER)")
    second.run("INSERT INTO T VALUES (1)")
    second.run("BEGIN")
    second.run("UPDATE T SET A = 2")
    return driver


def renew(driver: Driver) -> None:
    body = {"oldSessionToken": driver.token, "requestType": "RENEW"}
    data = driver.post("/session/token-request", body, token=driver.master_token).json()["data"]
    driver.token, driver.master_token = data["sessionToken"], data["masterToken"]


@contextmanager
def helper(driver: Driver) -> Iterator[Driver]:
    """The same session over another connection."""
    other = Driver(driver.admin)
    other.token = driver.token
    yield other
    other.http.close()


def abort(driver: Driver, path: str, body: dict[str, Any]) -> None:
    """Repeated while the statement is not running yet, as drivers do."""
    deadline = time.monotonic() + TIMEOUT
    while not driver.post(path, body).json()["success"]:
        assert time.monotonic() < deadline


def test_parked_then_asked_for(blocked: Driver, second: Driver) -> None:
    answer = blocked.answer(SLOW)
    query_id = answer["data"]["queryId"]
    assert (answer["code"], answer["success"], answer["message"]) == ("333333", True, None)
    assert answer["data"] == {
        "queryId": query_id,
        "getResultUrl": f"/queries/{query_id}/result",
        "queryAbortsAfterSecs": 300,
        "progressDesc": None,
    }
    again = blocked.get(answer["data"]["getResultUrl"])
    assert (again["code"], again["data"]["queryId"]) == ("333333", query_id)
    second.run("COMMIT")
    final = blocked.result(again)
    assert final["success"] and final["data"]["queryId"] == query_id
    assert final["data"]["rowset"] == [["1"]]
    # The result can be asked for again, also from another session of the user.
    assert second.get(f"/queries/{query_id}/result")["data"]["rowset"] == [["1"]]


def test_a_quick_statement_is_not_parked(blocked: Driver) -> None:
    blocked.admin.delete("parking")
    assert blocked.answer("SELECT 1")["code"] is None


@pytest.mark.parametrize(("code", "success"), [("333334", True), ("333333", False)])
def test_other_forms_of_the_answer(admin: Admin, blocked: Driver, second: Driver, code: str, success: bool) -> None:
    admin.post("parking", {"code": code, "success": success, "result_url": False})
    answer = blocked.answer(SLOW)
    assert (answer["code"], answer["success"]) == (code, success)
    assert "getResultUrl" not in answer["data"]
    second.run("COMMIT")
    assert blocked.result(answer)["data"]["rowset"] == [["1"]]


def test_a_failure_is_told_when_asked_for(blocked: Driver, second: Driver) -> None:
    answer = blocked.answer("UPDATE T SET A = 'not a number'")
    second.run("COMMIT")
    final = blocked.result(answer)
    assert (final["success"], final["data"]["queryId"]) == (False, answer["data"]["queryId"])
    assert final["code"] == final["data"]["errorCode"] == "100038"


def test_a_repeated_request_joins_the_parked_statement(blocked: Driver, second: Driver) -> None:
    request = str(uuid.uuid4())
    first = blocked.answer(SLOW, requestId=request)
    again = blocked.answer(SLOW, requestId=request, retryCount="1")
    assert (again["code"], again["data"]["queryId"]) == ("333333", first["data"]["queryId"])
    second.run("COMMIT")
    assert blocked.result(first)["data"]["rowset"] == [["1"]]
    assert blocked.answer(SLOW, requestId=request)["data"]["rowset"] == [["1"]]


def test_renewal_while_asking(admin: Admin, blocked: Driver, second: Driver) -> None:
    answer = blocked.answer(SLOW)
    admin.post("sessions", {"id": blocked.login_data["sessionId"], "expire": "session"})
    assert blocked.get(answer["data"]["getResultUrl"])["code"] == "390112"
    renew(blocked)
    second.run("COMMIT")
    assert blocked.result(answer)["data"]["rowset"] == [["1"]]


def test_abort_of_a_parked_statement(blocked: Driver, second: Driver) -> None:
    request = str(uuid.uuid4())
    answer = blocked.answer(SLOW, requestId=request)
    with helper(blocked) as other:
        abort(other, "/queries/v1/abort-request", {"requestId": request})
    final = blocked.result(answer)
    assert (final["code"], final["data"]["sqlState"]) == ("000604", "57014")
    second.run("COMMIT")
    assert blocked.one("SELECT COUNT(*) FROM T") == "1"


def test_abort_by_query_id(blocked: Driver, second: Driver) -> None:
    answer = blocked.answer(SLOW)
    abort(second, f"/queries/{answer['data']['queryId']}/abort-request", {})
    assert blocked.result(answer)["code"] == "000604"
    answer = blocked.answer(SLOW)
    assert second.one(f"SELECT SYSTEM$CANCEL_QUERY('{answer['data']['queryId']}')")
    assert blocked.result(answer)["code"] == "000604"


def test_a_forgotten_statement_is_aborted(admin: Admin, blocked: Driver, second: Driver) -> None:
    admin.post("parking", {"aborts_after_ms": 200})
    query_id = blocked.answer(SLOW)["data"]["queryId"]
    wait_for_status(second, query_id, "FAILED_WITH_ERROR")
    assert blocked.get(f"/queries/{query_id}/result")["code"] == "000604"
    second.run("COMMIT")
    assert blocked.one("SELECT COUNT(*) FROM T") == "1"


def test_a_statement_that_is_asked_for_is_not_forgotten(admin: Admin, blocked: Driver, second: Driver) -> None:
    admin.post("parking", {"poll_ms": 50, "aborts_after_ms": 200})
    answer = blocked.answer(SLOW)
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        assert blocked.get(answer["data"]["getResultUrl"])["code"] == "333333"
    second.run("COMMIT")
    assert blocked.result(answer)["data"]["rowset"] == [["1"]]


def test_asynchronous(admin: Admin, driver: Driver, second: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER)")
    body = {"sqlText": "INSERT INTO T VALUES (1), (2)", "asyncExec": True}
    answer = driver.post("/queries/v1/query-request", body).json()
    assert (answer["code"], answer["success"]) == ("333334", True)
    assert answer["message"].startswith("Asynchronous execution in progress.")
    wait_for_status(second, answer["data"]["queryId"], "SUCCESS")
    assert driver.result(answer)["data"]["rowset"] == [["2"]]


def wait_for_status(driver: Driver, query_id: str, wanted: str) -> dict[str, Any]:
    deadline = time.monotonic() + TIMEOUT
    while True:
        told = driver.get(f"/monitoring/queries/{query_id}")["data"]["queries"]
        if told and told[0]["status"] == wanted:
            return dict(told[0])
        assert time.monotonic() < deadline, told


def test_monitoring(blocked: Driver, second: Driver) -> None:
    query_id = blocked.answer(SLOW)["data"]["queryId"]
    told = wait_for_status(second, query_id, "RUNNING")
    assert (told["id"], told["sqlText"], told["endTime"]) == (query_id, SLOW, 0)
    second.run("ROLLBACK")
    assert wait_for_status(second, query_id, "SUCCESS")["endTime"] >= told["startTime"]
    failed = blocked.answer("SELECT * FROM NO_TABLE")
    query_id = blocked.result(failed)["data"]["queryId"]
    assert wait_for_status(second, query_id, "FAILED_WITH_ERROR")["errorCode"] == "002003"
    assert second.get(f"/monitoring/queries/{uuid.uuid4()}")["data"]["queries"] == []


def test_result_scan(driver: Driver) -> None:
    query_id = driver.run("SELECT 42 AS ANSWER")["queryId"]
    assert driver.table(f"select * from table(result_scan('{query_id}'))") == [{"ANSWER": "42"}]


def test_only_the_same_user_may_ask(admin: Admin, identity: Identity, driver: Driver) -> None:
    query_id = driver.run("SELECT 42")["queryId"]
    with Driver.logged_in(admin, Identity(identity.account, "OTHER", identity.password)) as stranger:
        assert stranger.get(f"/queries/{query_id}/result")["code"] == "000709"
        assert stranger.get(f"/monitoring/queries/{query_id}")["data"]["queries"] == []
    driver_token, driver.token = driver.token, "nonsense"
    assert driver.get(f"/queries/{query_id}/result")["code"] == "390104"
    driver.token = driver_token


def test_faults_of_polls(admin: Admin, blocked: Driver, second: Driver) -> None:
    answer = blocked.answer(SLOW)
    admin.fault({"error": {"code": "390112", "message": "expired"}}, kind="result")
    assert blocked.get(answer["data"]["getResultUrl"])["code"] == "390112"
    second.run("COMMIT")
    assert blocked.result(answer)["success"]


def test_closing_the_session_ends_the_parked_statement(
    admin: Admin, identity: Identity, blocked: Driver, second: Driver
) -> None:
    with Driver.logged_in(admin, identity) as other:
        query_id = other.answer(SLOW)["data"]["queryId"]
        wait_for_status(second, query_id, "RUNNING")
    wait_for_status(second, query_id, "FAILED_WITH_ERROR")
    second.run("COMMIT")
    assert blocked.one("SELECT COUNT(*) FROM T") == "1"

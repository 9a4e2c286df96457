"""Tokens, renewal, repeated requests, abort, the end of a session."""

from __future__ import annotations

import threading
import uuid

import pytest
from driver import Admin, Driver, Identity, Refused, wait_for_query


def test_without_a_valid_token(driver: Driver) -> None:
    good, driver.token = driver.token, "no such token"
    assert driver.answer("SELECT 1")["code"] == "390104"
    driver.token = good
    assert driver.one("SELECT 1") == "1"


def test_renewal_keeps_the_session(driver: Driver) -> None:
    driver.run("CREATE TEMPORARY TABLE KEPT (A NUMBER)")
    old, master = driver.token, driver.master_token
    body = {"oldSessionToken": old, "requestType": "RENEW"}
    answer = driver.post("/session/token-request", body, token=master).json()
    assert answer["success"] and answer["data"]["sessionToken"] != old
    driver.token = answer["data"]["sessionToken"]
    assert answer["data"]["sessionId"] == driver.login_data["sessionId"]
    assert driver.one("SELECT COUNT(*) FROM KEPT") == "0"
    assert driver.post("/session/token-request", body, token=master).json()["code"] == "390115"
    new, driver.token = driver.token, old
    assert driver.answer("SELECT 1")["code"] == "390112"
    driver.token = new


def test_expiry(admin: Admin, driver: Driver) -> None:
    session = driver.login_data["sessionId"]
    body = {"oldSessionToken": driver.token, "requestType": "RENEW"}
    admin.post("sessions", {"id": session, "expire": "session"})
    request = str(uuid.uuid4())
    assert driver.answer("SELECT 1", requestId=request)["code"] == "390112"
    answer = driver.post("/session/token-request", body, token=driver.master_token).json()["data"]
    driver.token, driver.master_token = answer["sessionToken"], answer["masterToken"]
    assert driver.run("SELECT 1", requestId=request)["rowset"] == [["1"]]
    admin.post("sessions", {"id": session, "expire": "master"})
    body = {"oldSessionToken": driver.token, "requestType": "RENEW"}
    assert driver.post("/session/token-request", body, token=driver.master_token).json()["code"] == "390114"


def test_heartbeat_and_close(admin: Admin, identity: Identity) -> None:
    with Driver.logged_in(admin, identity) as driver:
        assert driver.post("/session/heartbeat", {}).json()["success"]
        assert driver.post("/session", {}, delete="true").json()["success"]
        assert driver.answer("SELECT 1")["code"] == "390111"
        assert driver.post("/session/heartbeat", {}).json()["code"] == "390111"
        driver.token = None


def test_a_repeated_request_is_answered_not_run(driver: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER)")
    request = str(uuid.uuid4())
    first = driver.run("INSERT INTO T VALUES (1)", requestId=request)
    again = driver.run("INSERT INTO T VALUES (1)", requestId=request, retryCount="1")
    assert again["queryId"] == first["queryId"]
    assert driver.one("SELECT COUNT(*) FROM T") == "1"
    driver.run("INSERT INTO T VALUES (1)")
    assert driver.one("SELECT COUNT(*) FROM T") == "2"


def test_an_answer_lost_after_commit_is_found_by_repeating(admin: Admin, driver: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER)")
    request = str(uuid.uuid4())
    admin.fault({"lose_answer": True}, sql="INSERT INTO T")
    with pytest.raises(OSError):
        driver.run("INSERT INTO T VALUES (1)", requestId=request)
    assert driver.run("INSERT INTO T VALUES (1)", requestId=request)["rowset"] == [["1"]]
    assert driver.one("SELECT COUNT(*) FROM T") == "1"


def test_repeated_while_the_first_still_runs(admin: Admin, driver: Driver, second: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER)")
    second.run("BEGIN")
    second.run("DELETE FROM T")
    request, answers = str(uuid.uuid4()), []
    drivers = [driver, Driver(admin)]
    drivers[1].token = driver.token
    threads = [
        threading.Thread(target=lambda d=d: answers.append(d.run("UPDATE T SET A = 1", requestId=request)))
        for d in drivers
    ]
    for thread in threads:
        thread.start()
    second.run("COMMIT")
    for thread in threads:
        thread.join(30)
    assert len(answers) == 2 and answers[0]["queryId"] == answers[1]["queryId"]
    drivers[1].http.close()


def test_abort_by_request_id(admin: Admin, driver: Driver, second: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER)")
    driver.run("BEGIN")
    driver.run("DELETE FROM T")
    request, outcome = str(uuid.uuid4()), []

    def blocked() -> None:
        outcome.append(second.answer("DELETE FROM T", requestId=request))

    thread = threading.Thread(target=blocked)
    mark = admin.last()
    thread.start()
    wait_for_query(admin, mark, "DELETE FROM T")
    helper = Driver(admin)
    helper.token = second.token
    while not helper.post("/queries/v1/abort-request", {"requestId": request}).json()["success"]:
        assert thread.is_alive(), "the blocked statement ended by itself"
    thread.join(30)
    assert (outcome[0]["code"], outcome[0]["data"]["sqlState"]) == ("000604", "57014")
    again = helper.post("/queries/v1/abort-request", {"requestId": request}).json()
    assert again["code"] == "000605"
    helper.http.close()
    driver.run("ROLLBACK")
    assert second.one("SELECT COUNT(*) FROM T") == "0"


def test_a_waiting_statement_blocks_nobody_else(
    admin: Admin, identity: Identity, driver: Driver, second: Driver
) -> None:
    driver.run("CREATE TABLE T (A NUMBER)")
    driver.run("BEGIN")
    driver.run("DELETE FROM T")
    mark = admin.last()
    thread = threading.Thread(target=lambda: second.run("DELETE FROM T"))
    thread.start()
    wait_for_query(admin, mark, "DELETE FROM T")
    with Driver.logged_in(admin, identity) as third:
        third.run("CREATE TABLE ELSEWHERE (A NUMBER)")
        assert third.one("SELECT COUNT(*) FROM ELSEWHERE") == "0"
        assert thread.is_alive()
    driver.run("COMMIT")
    thread.join(30)
    assert not thread.is_alive()


def test_lock_timeout(admin: Admin, identity: Identity, driver: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER)")
    driver.run("BEGIN")
    driver.run("DELETE FROM T")
    with Driver.logged_in(admin, identity, parameters={"LOCK_TIMEOUT": 0}) as impatient:
        with pytest.raises(Refused) as caught:
            impatient.run("DELETE FROM T")
        assert caught.value.code == "000625"


def test_session_parameters(admin: Admin, identity: Identity) -> None:
    with Driver.logged_in(admin, identity, parameters={"QUERY_TAG": "from login"}) as driver:
        driver.run("ALTER SESSION SET STATEMENT_TIMEOUT_IN_SECONDS = 300, QUERY_TAG = 'changed'")
        sessions = admin.get("sessions")["sessions"]
        mine = next(item for item in sessions if item["id"] == driver.login_data["sessionId"])
        assert mine["parameters"]["QUERY_TAG"] == "changed"
        assert mine["parameters"]["STATEMENT_TIMEOUT_IN_SECONDS"] == "300"


def test_use(driver: Driver) -> None:
    driver.run("USE SCHEMA PUBLIC")
    assert driver.one("SELECT CURRENT_SCHEMA()") == "PUBLIC"
    driver.run('USE SCHEMA "ANALYTICS_DB"."REPORTS"')
    driver.run("USE ROLE ANALYST")
    assert driver.rows("SELECT CURRENT_SCHEMA(), CURRENT_ROLE()") == [["REPORTS", "ANALYST"]]
    for statement, code in {
        "USE WAREHOUSE NO_WH": "002043",
        "USE ROLE NO_ROLE": "003013",
        "USE DATABASE X": "002003",
    }.items():
        with pytest.raises(Refused) as caught:
            driver.run(statement)
        assert caught.value.code == code

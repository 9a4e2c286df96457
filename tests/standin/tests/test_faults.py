"""Faults do what they say, as often as they say, to the requests they name."""

from __future__ import annotations

import threading
import time

import pytest
import requests
from botocore.exceptions import ClientError, ConnectionClosedError
from botocore.exceptions import ConnectionError as StoreConnectionError
from driver import Admin, Driver, Identity, Refused, store


def test_status_for_some_requests(admin: Admin, driver: Driver) -> None:
    admin.fault({"status": 503, "body": "<html>busy</html>"}, times=2, skip=1, sql="SELECT 42")
    statuses = [
        driver.post("/queries/v1/query-request", {"sqlText": sql}).status_code
        for sql in ("SELECT 1", "SELECT 42", "SELECT 42", "SELECT 42", "SELECT 42")
    ]
    assert statuses == [200, 200, 503, 503, 200]


def test_status_at_login(admin: Admin, identity: Identity) -> None:
    admin.fault({"status": 429, "headers": {"Retry-After": "1"}}, kind="login")
    response = Driver(admin).post("/session/v1/login-request", {"data": {}})
    assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
    Driver.logged_in(admin, identity).http.close()


def test_error_without_execution(admin: Admin, driver: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER)")
    error = {"code": "000604", "sqlState": "57014", "message": "SQL execution canceled"}
    admin.fault({"error": error}, sql="INSERT INTO T")
    with pytest.raises(Refused) as caught:
        driver.run("INSERT INTO T VALUES (1)")
    assert (caught.value.code, caught.value.sqlstate) == ("000604", "57014")
    assert driver.one("SELECT COUNT(*) FROM T") == "0"


def test_delay(admin: Admin, driver: Driver) -> None:
    admin.fault({"delay_ms": 400}, sql="SELECT 1")
    started = time.monotonic()
    assert driver.one("SELECT 1") == "1"
    assert time.monotonic() - started >= 0.4


def test_lost_answer_is_executed(admin: Admin, driver: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER)")
    admin.fault({"lose_answer": True}, sql="INSERT INTO T")
    with pytest.raises(requests.ConnectionError):
        driver.run("INSERT INTO T VALUES (1)")
    assert driver.one("SELECT COUNT(*) FROM T") == "1"


def test_answer_cut_in_the_middle(admin: Admin, driver: Driver) -> None:
    admin.fault({"cut_after": 20}, sql="SELECT 1")
    with pytest.raises(requests.exceptions.RequestException):
        driver.run("SELECT 1")


def test_hostile_body(admin: Admin, driver: Driver) -> None:
    admin.fault({"status": 200, "body": '{"data": nonsense'}, sql="SELECT 1")
    with pytest.raises(requests.exceptions.JSONDecodeError):
        driver.run("SELECT 1")


def test_black_hole_until_it_is_lifted(admin: Admin, driver: Driver) -> None:
    admin.fault({"black_hole": True}, sql="SELECT 1")
    failed: list[Exception] = []

    def ask() -> None:
        try:
            driver.run("SELECT 1")
        except requests.RequestException as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    admin.delete("faults")
    thread.join(30)
    assert len(failed) == 1


def test_the_object_store_too(admin: Admin, driver: Driver) -> None:
    client, bucket, prefix = store(driver.run("PUT 'file:///x' '@~/d/'")["stageInfo"])
    admin.fault({"status": 503, "body": "<Error><Code>SlowDown</Code></Error>"}, kind="objectstore", method="PUT")
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket=bucket, Key=prefix + "x", Body=b"1")
    assert caught.value.response["Error"]["Code"] == "SlowDown"
    assert driver.rows("LIST @~/d/") == []
    admin.fault({"lose_answer": True}, kind="objectstore", method="PUT")
    with pytest.raises((ConnectionClosedError, StoreConnectionError)):
        client.put_object(Bucket=bucket, Key=prefix + "x", Body=b"1")
    assert len(driver.rows("LIST @~/d/")) == 1


def test_a_misspelt_fault_is_refused(admin: Admin) -> None:
    with pytest.raises(AssertionError, match="not a fault"):
        admin.post("faults", {"match": {"sqll": "x"}, "action": {"status": 500}})
    with pytest.raises(AssertionError, match="not a fault"):
        admin.post("faults", {"match": {}, "action": {}})

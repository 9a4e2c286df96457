"""Faults in the stores of the other clouds: S3 has its proofs beside those of the gateway."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests
from conftest import new_account
from driver import Admin, Driver, send

pytestmark = pytest.mark.parametrize("cloud", ["azure", "gcs", "gcs_presigned"])


def put_info(admin: Admin, cloud: str) -> dict[str, Any]:
    with Driver.logged_in(admin, new_account(admin, cloud=cloud)) as driver:
        return dict(driver.run("PUT 'file:///x' '@~/d/'")["stageInfo"])


def test_a_lost_answer_is_executed(admin: Admin, cloud: str) -> None:
    with Driver.logged_in(admin, new_account(admin, cloud=cloud)) as driver:
        info = driver.run("PUT 'file:///x' '@~/d/'")["stageInfo"]
        admin.fault({"lose_answer": True}, kind="objectstore", method="PUT")
        with pytest.raises(requests.ConnectionError):
            send(info, "x", b"content", {})
        assert [row[0] for row in driver.rows("LIST @~/d/")] == ["d/x"]


def test_a_request_cut_while_it_is_read_stores_nothing(admin: Admin, cloud: str) -> None:
    with Driver.logged_in(admin, new_account(admin, cloud=cloud)) as driver:
        info = driver.run("PUT 'file:///x' '@~/d/'")["stageInfo"]
        admin.fault({"cut_request_after": 1000}, kind="objectstore", method="PUT")
        with pytest.raises(requests.ConnectionError):
            send(info, "x", b"x" * 1_000_000, {})
        assert driver.rows("LIST @~/d/") == []
        send(info, "x", b"x", {}).raise_for_status()
        assert len(driver.rows("LIST @~/d/")) == 1


def test_a_slow_reader(admin: Admin, cloud: str) -> None:
    info = put_info(admin, cloud)
    admin.fault({"throttle": 100_000}, kind="objectstore", method="PUT")
    started = time.monotonic()
    send(info, "x", b"x" * 40_000, {}).raise_for_status()
    assert time.monotonic() - started >= 0.3


def test_an_error_in_the_clouds_own_words(admin: Admin, cloud: str) -> None:
    info = put_info(admin, cloud)
    admin.fault({"error": {"code": "SlowDown", "message": "slow", "status": 503}}, kind="objectstore")
    answer = send(info, "x", b"", {})
    assert answer.status_code == 503 and "<Code>SlowDown</Code>" in answer.text
    assert answer.headers["x-ms-error-code"] == "SlowDown"


def test_redirects(admin: Admin, cloud: str) -> None:
    info = put_info(admin, cloud)
    admin.fault({"status": 307, "headers": {"Location": "http://127.0.0.1:1/"}}, kind="objectstore")
    with pytest.raises(requests.ConnectionError, match="port=1"):
        send(info, "x", b"", {})

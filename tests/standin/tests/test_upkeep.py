"""What keeps a session alive, what lets it run out, and the small print of its answers."""

from __future__ import annotations

import time
from typing import Any

from driver import TIMEOUT, Admin, Driver, Identity

LOGIN = "/session/v1/login-request"
HEADER = "x-snowflake-session"


def renew(driver: Driver) -> dict[str, Any]:
    body = {"oldSessionToken": driver.token, "requestType": "RENEW"}
    answer: dict[str, Any] = driver.post("/session/token-request", body, token=driver.master_token).json()
    if answer["success"]:
        driver.token, driver.master_token = answer["data"]["sessionToken"], answer["data"]["masterToken"]
    return answer


def wait_for_expiry(driver: Driver) -> None:
    deadline = time.monotonic() + TIMEOUT
    while driver.answer("SELECT 1")["code"] != "390112":
        assert time.monotonic() < deadline


def test_validity_of_sessions_to_come(admin: Admin, identity: Identity, driver: Driver) -> None:
    admin.post("validity", {"session_seconds": 0.2, "master_seconds": 30})
    with Driver.logged_in(admin, identity) as brief:
        data = brief.login_data
        assert (data["validityInSeconds"], data["masterValidityInSeconds"]) == (0.2, 30)
        wait_for_expiry(brief)
        renewed = renew(brief)["data"]
        assert (renewed["validityInSecondsST"], renewed["validityInSecondsMT"]) == (0.2, 30)
        assert renewed["sessionId"] == data["sessionId"]
        wait_for_expiry(brief)
    assert driver.one("SELECT 1") == "1"
    admin.delete("validity")
    with Driver.logged_in(admin, identity) as usual:
        assert usual.login_data["masterValidityInSeconds"] == 14400


def test_heartbeats_prolong_the_master_token(admin: Admin, identity: Identity) -> None:
    admin.post("validity", {"session_seconds": 60, "master_seconds": 0.5})
    with Driver.logged_in(admin, identity) as kept, Driver.logged_in(admin, identity) as left:
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            assert kept.post("/session/heartbeat", {}).json()["success"]
        wait_for_expiry(left)
        assert renew(left)["code"] == "390114"
        kept.post("/session/heartbeat", {})
        assert renew(kept)["success"]


def test_a_heartbeat_too_late_is_refused(admin: Admin, driver: Driver) -> None:
    session = driver.login_data["sessionId"]
    admin.post("sessions", {"id": session, "expire": "session"})
    assert driver.post("/session/heartbeat", {}).json()["code"] == "390112"
    assert renew(driver)["success"]
    assert driver.post("/session/heartbeat", {}).json()["success"]


def test_closing_answers_with_a_number(admin: Admin, identity: Identity) -> None:
    driver = Driver.logged_in(admin, identity)
    assert driver.post("/session", {}, delete="true").json() == {"code": 200, "message": "done", "success": True}
    assert driver.answer("SELECT 1")["code"] == "390111"
    driver.http.close()


def test_affinity(admin: Admin, identity: Identity) -> None:
    data = {"ACCOUNT_NAME": identity.account, "LOGIN_NAME": identity.user, "PASSWORD": identity.password}
    driver = Driver(admin)
    answers = [driver.post(LOGIN, {"data": data}) for _ in range(2)]
    values = [answer.headers[HEADER] for answer in answers]
    assert values[0] and values[0] != values[1]
    assert HEADER not in driver.post(LOGIN, {"data": data | {"PASSWORD": "wrong"}}).headers
    driver.token = answers[0].json()["data"]["token"]
    statement = {"sqlText": "SELECT 1"}
    assert HEADER not in driver.post("/queries/v1/query-request", statement).headers
    admin.post("affinity", {"value": "elsewhere"})
    assert driver.post("/queries/v1/query-request", statement).headers[HEADER] == "elsewhere"
    assert HEADER not in driver.post("/queries/v1/query-request", statement).headers
    # What a client sends back can be seen.
    mark = admin.last()
    driver.http.headers[HEADER] = "elsewhere"
    driver.post("/session", {}, delete="true")
    assert admin.audit(mark)[0]["headers"][HEADER] == "elsewhere"
    driver.http.close()

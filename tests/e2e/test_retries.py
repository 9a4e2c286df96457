"""What can succeed by itself is tried again, and however often a load is begun, its rows are there once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import wait
from harness.bridge import TABLE, Bridge
from harness.standin import User

ROWS = [{"n": n} for n in range(50)]
# However late a test looks, there are attempts left.
PATIENT = {
    "snowflake_bridge.max_attempts": "1000",
    "snowflake_bridge.retry_base_delay": "1s",
    "snowflake_bridge.retry_max_delay": "2s",
}


def assert_once(bridge: Bridge, user: User) -> None:
    """Every row is there exactly once, under one upload id."""
    bridge.completed("run-1")
    assert sorted(n for (n,) in bridge.results(user, ["N"])) == list(range(50))
    assert {row[0] for row in bridge.results(user, ["UPLOAD_ID"])} == {str(bridge.upload("run-1")["upload_id"])}
    assert bridge.standin.faults_left() == 0, "every fault has happened"


@pytest.mark.parametrize(
    "match",
    [
        {"kind": "login"},
        {"kind": "query", "sql": "create .*table|describe|show"},
        {"kind": "query", "sql": r"^\s*put"},
        {"kind": "objectstore", "method": "PUT"},
        {"kind": "query", "sql": r"^\s*copy into"},
        {"kind": "query", "sql": r"^\s*commit"},
    ],
    ids=["login", "table", "put", "object store", "copy", "commit"],
)
def test_a_server_that_is_not_available(bridge: Bridge, user: User, match: dict[str, str]) -> None:
    bridge.standin.fault(match, {"status": 503}, times=2)
    if match["kind"] == "login":
        # The configuration was tested at its start; a worker of a restarted server has to log in anew.
        bridge.cluster.restart()
        bridge.connect()
    bridge.run("run-1", ROWS)
    assert_once(bridge, user)


@pytest.mark.parametrize(
    "match",
    [
        {"kind": "query", "sql": r"^\s*copy into"},
        {"kind": "query", "sql": r"^\s*commit"},
        {"kind": "objectstore", "method": "PUT"},
        {"kind": "query", "sql": r"^\s*begin"},
    ],
    ids=["copy", "commit", "object store", "begin"],
)
def test_an_answer_that_is_lost(bridge: Bridge, user: User, match: dict[str, str]) -> None:
    bridge.standin.fault(match, {"lose_answer": True})
    bridge.run("run-1", ROWS)
    assert_once(bridge, user)


def test_a_session_that_ends_between_two_uploads(bridge: Bridge, user: User) -> None:
    bridge.run("run-0", [{"n": -1}], snowflake_table_name="other")
    bridge.completed("run-0")
    for session in bridge.standin.admin("GET", "sessions")["sessions"]:
        if session["account"] == bridge.account.name.upper():
            bridge.standin.admin("DELETE", "sessions", {"id": session["id"]})
    bridge.run("run-1", ROWS)
    assert_once(bridge, user)


def test_giving_up(make_bridge) -> None:
    bridge = make_bridge({"snowflake_bridge.max_attempts": "2"})
    user = bridge.ready()
    # Far more than all attempts can use up, also if a single request is repeated within one attempt.
    bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into"}, {"status": 503}, times=1000)
    bridge.run("run-1", ROWS)
    message = bridge.failed("run-1")["snowflake_error_message"]
    assert "503" in message, message
    assert bridge.upload("run-1")["attempt_count"] == 2
    bridge.standin.clear_faults()
    assert bridge.row_count(user) == 0
    bridge.call("retry_upload", id=bridge.upload("run-1")["id"])
    bridge.call("wait_for_upload", id=bridge.upload("run-1")["id"], timeout="30s")
    assert_once(bridge, user)


def test_one_user_in_trouble_delays_nobody_else(bridge: Bridge) -> None:
    good = bridge.account.add_user()
    bad = bridge.account.add_user("STUCK", database="STUCK_DB")
    bridge.call("watch", connection=bridge.admin, relation=TABLE, create_if_missing=True, act_for_users=True)
    bridge.admin.execute(f"grant select, insert, update, delete on {TABLE} to app")
    bridge.configure(good, connection=bridge.admin, user_id="good")
    bridge.configure(bad, connection=bridge.admin, user_id="bad")
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "query", "sql": "STUCK_DB"}, {"delay_ms": 120_000}, times=100)
    for number in range(20):
        bridge.run(f"stuck-{number}", [{"a": number}], user_id="bad")
    bridge.uploading({"kind": "query"}, mark)
    bridge.run("run-1", [{"n": 1}], user_id="good")
    bridge.completed("run-1", seconds=20)
    assert bridge.row_count(good) == 1


@pytest.mark.parametrize("lost", [{"lose_answer": True}, {"status": 503}], ids=["committed", "not committed"])
def test_another_user_after_a_lost_commit(make_bridge: Callable[..., Bridge], lost: dict[str, object]) -> None:
    """Whoever logs in now has another stage, but the table is the same: what is in it is not loaded a second time."""
    bridge = make_bridge({"snowflake_bridge.retry_base_delay": "1s", "snowflake_bridge.retry_max_delay": "2s"})
    user = bridge.ready()
    other = bridge.account.add_user("OTHER")
    undecided(bridge, lost)
    bridge.call("update_config", username=other.name, password=other.password)
    bridge.standin.clear_faults()
    assert bridge.completed("run-1", seconds=60)["snowflake_row_count"] == len(ROWS)
    assert bridge.row_count(user) == len(ROWS)


def undecided(bridge: Bridge, lost: dict[str, object]) -> None:
    """An upload of which it is open whether it was committed, and nobody can be asked."""
    bridge.standin.fault({"kind": "query", "sql": r"^\s*commit"}, lost, times=20)
    bridge.standin.fault({"kind": "query", "sql": r"^\s*describe transaction"}, {"status": 503}, times=100)
    bridge.run("run-1", ROWS)
    wait.until(lambda: bridge.upload("run-1")["state"] == "retry", "the attempt has failed", 60)


@pytest.mark.parametrize("lost", [{"lose_answer": True}, {"status": 503}], ids=["committed", "not committed"])
def test_another_name_of_the_account_after_a_lost_commit(make_bridge: Callable[..., Bridge], lost: dict[str, object]) -> None:
    """A name for a private network, say. Nobody can know that it is the same account, but its rows are there."""
    bridge = make_bridge({"snowflake_bridge.retry_base_delay": "1s", "snowflake_bridge.retry_max_delay": "2s"})
    name = f"{bridge.account.name}.privatelink.localhost"
    bridge.also_allow(f"http://{name}:{bridge.standin.port}")
    user = bridge.ready()
    undecided(bridge, lost)
    bridge.call("update_config", account_identifier=name, password=user.password)
    bridge.standin.clear_faults()
    assert bridge.completed("run-1", seconds=60)["snowflake_row_count"] == len(ROWS)
    assert bridge.row_count(user) == len(ROWS)


def test_another_account_for_a_while_after_a_lost_commit(make_bridge: Callable[..., Bridge]) -> None:
    """It knows nothing of the rows, but that there may be some is not forgotten over it."""
    bridge = make_bridge(PATIENT)
    other = bridge.standin.new_account()
    bridge.also_allow(other.origin)
    user = bridge.ready()
    undecided(bridge, {"lose_answer": True})
    bridge.call("update_config", account_identifier=other.host, password=other.add_user().password)
    bridge.standin.clear_faults()
    bridge.standin.fault({"kind": "objectstore", "method": "PUT"}, {"status": 503}, times=1000)

    def has_tried() -> bool:
        upload = bridge.upload("run-1")
        return upload["state"] == "retry" and upload["staged_for"].startswith(other.host) and upload["transaction_id"] is None

    wait.until(has_tried, "the other account was tried", 60)
    bridge.call("update_config", account_identifier=bridge.account.host, password=user.password)
    bridge.standin.clear_faults()
    bridge.call("retry_upload", id=bridge.upload("run-1")["id"])
    bridge.completed("run-1", seconds=60)
    assert bridge.row_count(user) == len(ROWS)


@pytest.mark.parametrize("how", ["unwatched", "dropped"])
@pytest.mark.parametrize("lost", [{"lose_answer": True}, {"status": 503}], ids=["committed", "not committed"])
def test_a_watch_that_ends_after_a_lost_commit(make_bridge: Callable[..., Bridge], lost: dict[str, object], how: str) -> None:
    """Snowflake is asked all the same, and what is in the stage is still loaded."""
    bridge = make_bridge({"snowflake_bridge.retry_base_delay": "1s", "snowflake_bridge.retry_max_delay": "2s"})
    user = bridge.ready()
    undecided(bridge, lost)
    if how == "dropped":
        bridge.app.execute(f"drop table {TABLE}")
    else:
        bridge.call("unwatch", relation=TABLE)
    bridge.standin.clear_faults()
    wait.until(lambda: bridge.upload("run-1")["completed_at"], "the upload has ended", 60)
    upload = bridge.upload("run-1")
    assert (upload["state"], upload["row_count"]) == ("completed", len(ROWS)), upload
    assert bridge.row_count(user) == len(ROWS)


def test_a_cancel_when_nobody_can_be_asked_after_a_lost_commit(make_bridge: Callable[..., Bridge]) -> None:
    """The connection is gone as well: the upload ends, and says that its rows may be there."""
    bridge = make_bridge(PATIENT)
    bridge.ready()
    undecided(bridge, {"lose_answer": True})
    bridge.call("delete_config")
    assert bridge.call("cancel_upload", id=bridge.upload("run-1")["id"])
    wait.until(lambda: bridge.upload("run-1")["completed_at"], "the upload has ended", 60)
    upload = bridge.upload("run-1")
    assert upload["state"] == "canceled", upload
    assert "no Snowflake configuration" in upload["error_message"] and "may be in table" in upload["error_message"], upload
    assert upload["upload_id"] and "UPLOAD_ID" in upload["error_hint"]


def test_a_rollback_that_is_lost(make_bridge: Callable[..., Bridge]) -> None:
    """What others wait for does not stay locked until the next attempt, which may never begin if they take all slots."""
    bridge = make_bridge({"snowflake_bridge.retry_base_delay": "60s", "snowflake_bridge.retry_max_delay": "60s"})
    bridge.ready()
    for match in ({"sql": r"^\s*copy into"}, {"sql": r"^\s*rollback"}, {"path": "^/session$"}, {"kind": "abort"}):
        bridge.standin.fault(match, {"status": 503}, times=100)
    bridge.run("run-1", ROWS)
    wait.until(lambda: bridge.upload("run-1")["state"] == "retry", "the attempt has failed", 60)
    wait.until(lambda: not bridge.account.sql("show transactions in account"), "nothing is left open", 30)
    assert bridge.upload("run-1")["attempt_count"] == 1


def test_a_clock_that_was_set_back(make_bridge: Callable[..., Bridge]) -> None:
    """By a year, since the times of these uploads were written: they do not wait until it is there again."""
    bridge = make_bridge({"snowflake_bridge.databases": "postgres"})
    user = bridge.ready()
    bridge.run("queued", [{"n": 1}])
    bridge.run("tried", [{"n": 2}])
    bridge.admin.execute("update snowflake_bridge.uploads set state = 'retry', attempt_count = 1 where execution_id = 'tried'")
    bridge.admin.execute(
        "update snowflake_bridge.uploads set next_attempt_at = now() + interval '1 year', mirror_after = now() + interval '1 year', "
        "created_at = now() + interval '1 year'"
    )
    bridge.admin.execute("alter system set snowflake_bridge.databases = ''")
    bridge.cluster.settings.pop("snowflake_bridge.databases")
    bridge.cluster.restart()
    bridge.connect()
    for execution in ("queued", "tried"):
        bridge.completed(execution)
    assert bridge.row_count(user) == 2
    assert "the clock was set back" in bridge.cluster.log_text()


def test_to_be_told_to_come_later_is_no_attempt(make_bridge: Callable[..., Bridge]) -> None:
    """For a day; then it is one, and the upload fails when it has had them all."""
    bridge = make_bridge({"snowflake_bridge.max_attempts": "2"})
    user = bridge.ready()
    copy = {"kind": "query", "sql": r"^\s*copy into"}
    full = {"error": {"code": "000625", "sqlState": "57014", "message": "the number of waiters for this lock exceeds the limit"}}
    bridge.standin.fault(copy, full, times=1000)
    bridge.run("run-1", ROWS)
    wait.until(lambda: bridge.upload("run-1")["claim_count"] > 4, "it is tried more often than it may fail")
    upload = bridge.upload("run-1")
    assert upload["attempt_count"] <= 1 and upload["throttled_since"] is not None
    bridge.standin.clear_faults()
    bridge.completed("run-1")
    assert sorted(n for (n,) in bridge.results(user, ["N"])) == list(range(50))
    assert bridge.upload("run-1")["attempt_count"] == 1
    bridge.standin.fault(copy, full, times=1000)
    bridge.run("run-2", ROWS)
    wait.until(lambda: bridge.upload("run-2")["claim_count"] > 2, "it is tried")
    bridge.admin.execute(
        "update snowflake_bridge.uploads set throttled_since = throttled_since - interval '25 hours' where execution_id = 'run-2'"
    )
    assert "000625" in bridge.failed("run-2")["snowflake_error_message"]
    assert bridge.upload("run-2")["attempt_count"] == 2
    bridge.call("retry_upload", id=bridge.upload("run-2")["id"])
    claims = bridge.upload("run-2")["claim_count"]
    wait.until(lambda: bridge.upload("run-2")["claim_count"] > claims + 3, "it has another day")
    bridge.standin.clear_faults()
    bridge.completed("run-2")

"""What fails, says why, and leaves everything else as it was: the application's statement above all."""

from __future__ import annotations

import socket

import psycopg
import pytest
from psycopg.types.json import Jsonb

from harness import wait
from harness.bridge import DATABASE, TABLE, Bridge
from harness.standin import ROLE, User


def logins(bridge: Bridge) -> int:
    """How often anybody tried to log in to this test's account."""
    return sum(
        1
        for record in bridge.standin.audit()
        if record["kind"] == "login" and bridge.account.host in record["headers"].get("host", "")
    )


def closed_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_wrong_password_is_not_saved(bridge: Bridge) -> None:
    user = bridge.account.add_user()
    with pytest.raises(psycopg.Error) as error:
        bridge.configure(user, password="wrong")
    assert "password" in str(error.value).lower()
    assert logins(bridge) == 1
    assert bridge.app.execute("select count(*) as n from snowflake_bridge.snowflake_configurations").fetchone() == {
        "n": 0
    }


def test_a_wrong_password_is_tried_once(bridge: Bridge) -> None:
    user = bridge.account.add_user()
    bridge.configure(user, password="wrong", verify=False)
    bridge.watch()
    assert logins(bridge) == 0
    for number in range(4):
        bridge.run(f"run-{number}", [{"a": number}])
    for number in range(4):
        message = bridge.failed(f"run-{number}")["snowflake_error_message"]
        assert "update_config" in message, message
        assert bridge.upload(f"run-{number}")["state"] == "needs_credentials"
    assert logins(bridge) == 1, "repeated tries lock a Snowflake user out"
    # The right password wakes what waited for it.
    bridge.call("update_config", password=user.password)
    for number in range(4):
        wait.until(
            lambda n=number: bridge.execution(f"run-{n}")["snowflake_status"] == "completed", f"run-{number} completes"
        )
    assert bridge.row_count(user) == 4


def test_an_unreachable_host(make_bridge) -> None:
    port = closed_port()
    bridge = make_bridge({"snowflake_bridge.max_attempts": "3"}, hosts=[f"http://nowhere.localhost:{port}"])
    user = bridge.ready()
    bridge.configure(user, name="elsewhere", account_identifier="nowhere.localhost", verify=False)
    bridge.run("lost", [{"a": 1}], snowflake_options={"config": "elsewhere"})
    bridge.run("fine", [{"a": 2}])
    bridge.completed("fine")
    # Each of its attempts is several of the client's.
    message = bridge.failed("lost", seconds=120)["snowflake_error_message"]
    assert "nowhere.localhost" in message and "connect" in message.lower(), message
    assert bridge.upload("lost")["attempt_count"] == 3
    assert bridge.execution("lost")["status"] == "completed", "the result itself is unharmed"
    assert bridge.execution("lost")["result_rows"] == [{"a": 1}]


def test_permission_denied_then_granted(bridge: Bridge, user: User) -> None:
    bridge.account.withhold("CREATE TABLE", "SCHEMA", "ANALYTICS_DB.REPORTS")
    bridge.run("run-1", [{"a": 1}])
    message = bridge.failed("run-1")["snowflake_error_message"]
    assert ROLE in message and "CREATE TABLE" in message and "REPORTS" in message, message
    assert bridge.upload("run-1")["attempt_count"] == 1
    bridge.account.give_back("CREATE TABLE", "SCHEMA", "ANALYTICS_DB.REPORTS")
    bridge.call("retry_upload", id=bridge.upload("run-1")["id"])
    wait.until(lambda: bridge.execution("run-1")["snowflake_status"] == "completed", "the retried upload completes")
    assert bridge.row_count(user) == 1


def test_an_empty_result(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", [], result_columns=[{"name": "day", "type": "date"}, {"name": "clicks", "type": "bigint"}])
    row = bridge.completed("run-1")
    assert row["snowflake_row_count"] == 0
    assert bridge.row_count(user) == 0, "the table is there, with its columns and no rows"


@pytest.mark.parametrize(
    "result",
    [
        {"rows": "not an array"},
        "a string",
        17,
        [1, 2, 3],
        [{"a": 1}, "secret-cell-value"],
        [["too", "short"], ["x"]],
    ],
    ids=["object", "string", "number", "scalars", "mixed", "ragged"],
)
def test_a_malformed_result(bridge: Bridge, user: User, result: object) -> None:
    bridge.run("bad", result)
    bridge.run("good", [{"a": 1}])
    message = bridge.failed("bad")["snowflake_error_message"]
    assert message and "secret-cell-value" not in message
    assert bridge.upload("bad")["attempt_count"] == 1, "the same data fails again, so it is not tried again"
    bridge.completed("good")
    assert bridge.row_count(user) == 1
    assert "secret-cell-value" not in bridge.cluster.log_text()


def test_a_value_that_does_not_fit_its_column(bridge: Bridge, user: User) -> None:
    bridge.run(
        "bad", [{"day": "2024-01-01"}, {"day": "secret-cell-value"}], result_columns=[{"name": "day", "type": "date"}]
    )
    message = bridge.failed("bad")["snowflake_error_message"]
    assert "day" in message.lower() and "2" in message and "date" in message, message
    assert "secret-cell-value" not in message + bridge.cluster.log_text()


def test_no_result_at_all(bridge: Bridge, user: User) -> None:
    bridge.start_execution("run-1")
    bridge.app.execute("update workflow_executions set status = 'completed' where execution_id = 'run-1'")
    row = bridge.settled("run-1")
    # Nothing to load is not a malformed result.
    assert (row["snowflake_status"], row["snowflake_row_count"]) == ("completed", 0), row["snowflake_error_message"]


@pytest.mark.parametrize(
    "options",
    [{"strategy": "no such strategy"}, {"unknown": 1}, ["not", "an", "object"], "text", {"config": "missing"}],
    ids=["strategy", "unknown-key", "array", "string", "config"],
)
def test_bad_options_never_fail_the_application(bridge: Bridge, user: User, options: object) -> None:
    bridge.start_execution("run-1")
    bridge.finish("run-1", [{"a": 1}], snowflake_options=Jsonb(options))
    assert bridge.execution("run-1")["status"] == "completed"
    assert bridge.failed("run-1")["snowflake_error_message"]


def test_without_any_configuration(bridge: Bridge) -> None:
    bridge.watch()
    bridge.run("run-1", [{"a": 1}])
    message = bridge.failed("run-1")["snowflake_error_message"]
    assert "configuration" in message and "app" in message, message


def test_a_connection_can_be_tested_without_saving(bridge: Bridge) -> None:
    user = bridge.account.add_user()
    settings = {
        "account_identifier": bridge.account.host,
        "username": user.name,
        "password": user.password,
        "database": user.database,
    }
    good = bridge.app.execute("select * from snowflake_bridge.test_connection(%s::jsonb)", [Jsonb(settings)]).fetchone()
    assert good["success"] and good["username"] == user.name and good["database"] == user.database
    bad = bridge.app.execute(
        "select * from snowflake_bridge.test_connection(%s::jsonb)", [Jsonb(settings | {"password": "wrong"})]
    ).fetchone()
    assert not bad["success"] and bad["message"] and bad["hint"]
    assert bridge.app.execute("select count(*) as n from snowflake_bridge.snowflake_configurations").fetchone() == {
        "n": 0
    }


def test_an_execution_that_changed_while_its_credentials_were_refused(bridge: Bridge) -> None:
    """Each of its uploads comes to an end, and the newest result is what is loaded."""
    user = bridge.account.add_user()
    bridge.configure(user, password="wrong", verify=False)
    bridge.watch()
    bridge.run("run-1", [{"a": 1}])
    bridge.failed("run-1")
    older = bridge.upload("run-1")["id"]
    bridge.finish("run-1", [{"a": 2}])
    wait.until(lambda: bridge.upload("run-1")["id"] > older, "the change is queued")
    wait.until(lambda: bridge.upload("run-1")["state"] == "needs_credentials", "it waits as well")
    bridge.call("update_config", password=user.password)
    wait.until(lambda: bridge.upload("run-1")["state"] == "completed", "the newer one completes")
    wait.until(lambda: state_of(bridge, older) == "canceled", "the older one is overtaken")
    assert bridge.results(user, ["A"]) == [(2,)]
    wait.until(lambda: bridge.execution("run-1")["snowflake_status"] == "completed", "its row shows the newer one")
    [credentials] = bridge.app.execute("select ok from snowflake_bridge.check() where item = 'credentials'").fetchall()
    assert credentials["ok"] is True


def test_an_upload_that_waits_for_credentials_while_a_newer_one_completes(bridge: Bridge) -> None:
    """It does not load its old rows over the newer ones when they come."""
    user = bridge.account.add_user()
    bridge.configure(user)
    bridge.configure(user, name="other", password="wrong", verify=False)
    bridge.watch()
    bridge.run("run-1", [{"a": 1}], snowflake_options={"config": "other"})
    bridge.failed("run-1")
    older = bridge.upload("run-1")["id"]
    bridge.finish("run-1", [{"a": 2}], snowflake_options=None)
    wait.until(lambda: bridge.upload("run-1")["state"] == "completed", "the newer one completes")
    bridge.call("update_config", name="other", password=user.password)
    wait.until(lambda: state_of(bridge, older) == "canceled", "the older one is overtaken")
    assert bridge.results(user, ["A"]) == [(2,)]
    wait.until(lambda: bridge.execution("run-1")["snowflake_status"] == "completed", "its row shows the newer one")


def state_of(bridge: Bridge, upload: int) -> str:
    [row] = bridge.admin.execute("select state from snowflake_bridge.uploads where id = %s", [upload]).fetchall()
    return str(row["state"])


def test_an_upload_whose_watch_has_changed_hands(bridge: Bridge) -> None:
    """It is the new owner's, takes turns as such, and goes by that one's connection."""
    user = bridge.account.add_user()
    bridge.watch()
    bridge.run("run", [{"n": 1}, {"n": 2}])
    assert "no Snowflake configuration" in bridge.failed("run")["snowflake_error_message"]
    bridge.admin.execute(f"create role keeper login; select snowflake_bridge.grant_usage('keeper'); alter table {TABLE} owner to keeper")
    with bridge.cluster.connect(DATABASE, "keeper") as keeper:
        bridge.configure(user, connection=keeper)
        bridge.call("watch", connection=keeper, relation=TABLE)
        assert bridge.call("retry_upload", connection=keeper, id=bridge.upload("run")["id"])
        wait.until(lambda: bridge.upload("run")["state"] == "completed", "it is loaded", 60)
    assert bridge.row_count(user) == 2
    upload = bridge.upload("run")
    assert (upload["owner_kind"], upload["user_id"], upload["attempt_count"]) == ("role", "keeper", 1)

"""Logins with OAuth, whoever fetches the access token, and a password's one-time code."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from harness import wait
from harness.bridge import Bridge
from harness.standin import ROLE, OAuthClient, User

ROWS = [{"a": 1}, {"a": 2}]


def requests(bridge: Bridge, kind: str) -> list[dict[str, Any]]:
    """The requests of one kind that went to this test's account."""
    return [
        record
        for record in bridge.standin.audit()
        if record["kind"] == kind and bridge.account.host in record["headers"].get("host", "")
    ]


def stored(bridge: Bridge) -> dict[str, Any]:
    """What `get_config` shows of the one configuration there is."""
    [row] = bridge.app.execute("select * from snowflake_bridge.get_config()").fetchall()
    return row


def trial(bridge: Bridge, **settings: str) -> dict[str, Any]:
    """The answer of `test_connection` to settings that are not saved."""
    settings |= {"account_identifier": bridge.account.host}
    [row] = bridge.app.execute(
        "select * from snowflake_bridge.test_connection(settings => %s)", [Jsonb(settings)]
    ).fetchall()
    return row


@pytest.fixture
def loader(bridge: Bridge) -> User:
    """A Snowflake user, with nothing configured yet."""
    return bridge.account.add_user()


@pytest.fixture
def client(bridge: Bridge, loader: User) -> OAuthClient:
    """That user's OAuth client."""
    return bridge.account.add_oauth_client(loader)


def test_a_client_fetches_its_own_token(bridge: Bridge, loader: User, client: OAuthClient) -> None:
    # Nobody says who the user is: the token does.
    bridge.configure(loader, username=None, oauth_client_id=client.client_id, oauth_client_secret=client.secret)
    assert len(requests(bridge, "oauth")) == 1, "the connection is tested before it is saved"
    shown = stored(bridge)
    assert (shown["auth_method"], shown["username"], shown["oauth_client_id"]) == ("oauth", None, client.client_id)
    bridge.watch()
    bridge.run("run-1", ROWS)
    assert bridge.completed("run-1")["snowflake_row_count"] == 2
    assert bridge.row_count(loader) == 2
    # No token of an earlier login is kept: the worker's session began with one of its own.
    assert len(requests(bridge, "oauth")) == len(requests(bridge, "login")) == 2


def test_a_token_url_of_its_own(bridge: Bridge, loader: User, client: OAuthClient) -> None:
    url = f"{bridge.account.origin}/oauth/token-request"
    pair = {"oauth_client_id": client.client_id, "oauth_client_secret": client.secret}
    bridge.configure(loader, **pair, oauth_token_url=url, oauth_scope=f"session:role:{ROLE}")
    bridge.watch()
    bridge.run("run-1", ROWS)
    bridge.completed("run-1")
    # The secret stays with the address it was given for, and goes nowhere that nobody allowed.
    for change in ({"oauth_token_url": f"{url}?other"}, {"oauth_client_id": "other"}):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="needs the secret again"):
            bridge.call("update_config", **change)
    mark = bridge.standin.audit_mark()
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="not allowed: http://127.0.0.1:"):
        bridge.call(
            "update_config", **pair, oauth_token_url=f"http://127.0.0.1:{bridge.standin.port}/oauth/token-request"
        )
    # The worker may still be tidying up.
    assert not [request for request in bridge.standin.audit(mark) if "oauth" in request["path"]]
    assert stored(bridge)["oauth_token_url"] == url


def test_a_refused_client_is_tried_once(bridge: Bridge, loader: User, client: OAuthClient) -> None:
    pair = {"oauth_client_id": client.client_id, "oauth_client_secret": "wrong"}
    with pytest.raises(psycopg.errors.InvalidAuthorizationSpecification, match="invalid_client"):
        bridge.configure(loader, **pair)
    bridge.configure(loader, **pair, verify=False)
    bridge.watch()
    bridge.run("run-1", ROWS)
    assert "invalid_client" in bridge.failed("run-1")["snowflake_error_message"]
    assert bridge.upload("run-1")["state"] == "needs_credentials"
    assert len(requests(bridge, "oauth")) == 2
    assert not requests(bridge, "login")
    # A new secret needs nothing else, and wakes what waited for it.
    bridge.call("update_config", oauth_client_secret=client.secret)
    wait.until(lambda: bridge.execution("run-1")["snowflake_status"] == "completed", "run-1 completes")
    assert bridge.row_count(loader) == 2


@pytest.mark.parametrize("is_named", [True, False], ids=["user named", "user from the token"])
def test_a_given_token_serves_until_it_expires(bridge: Bridge, loader: User, is_named: bool) -> None:
    bridge.configure(
        loader, username=loader.name if is_named else None, oauth_token=bridge.account.access_token(loader)
    )
    bridge.watch()
    bridge.run("run-1", ROWS)
    bridge.completed("run-1")
    bridge.account.expire_access_tokens()
    # Another version of the configuration is another session, which the old token no longer opens.
    bridge.call("update_config", warehouse=stored(bridge)["warehouse"], verify=False)
    bridge.run("run-2", ROWS)
    assert "token" in bridge.failed("run-2")["snowflake_error_message"]
    assert bridge.upload("run-2")["state"] == "needs_credentials"
    bridge.call("update_config", oauth_token=bridge.account.access_token(loader))
    wait.until(lambda: bridge.execution("run-2")["snowflake_status"] == "completed", "run-2 completes")
    assert bridge.row_count(loader) == 4
    assert not requests(bridge, "oauth")


def test_files_are_staged_anew_for_whomever_the_next_token_names(bridge: Bridge, loader: User) -> None:
    bridge.account.withhold("CREATE TABLE", "SCHEMA", f"{loader.database}.{loader.schema}")
    bridge.configure(loader, username=None, oauth_token=bridge.account.access_token(loader))
    bridge.watch()
    bridge.run("run-1", ROWS)
    bridge.failed("run-1")
    assert bridge.upload("run-1")["staged_claim"] is not None, "the files are in the first user's stage"
    bridge.account.give_back("CREATE TABLE", "SCHEMA", f"{loader.database}.{loader.schema}")
    other = bridge.account.add_user("OTHER")
    bridge.call("update_config", oauth_token=bridge.account.access_token(other))
    assert bridge.call("retry_upload", id=bridge.upload("run-1")["id"])
    wait.until(lambda: bridge.execution("run-1")["snowflake_status"] == "completed", "run-1 completes")
    assert bridge.row_count(loader) == 2


def test_a_password_with_its_one_time_code(bridge: Bridge) -> None:
    user = bridge.account.add_user(passcode="123456")
    settings = {"username": user.name, "password": user.password}
    answer = trial(bridge, **settings, passcode="123456")
    assert answer["success"], answer
    assert answer["username"] == user.name
    assert not trial(bridge, **settings, passcode="654321")["success"]
    assert not trial(bridge, **settings)["success"]

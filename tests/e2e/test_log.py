"""What the server's log says about uploads, and what it, the queue and the wire never say."""

from __future__ import annotations

import json
import re

import psycopg
import pytest

from harness import keys
from harness.bridge import Bridge
from harness.standin import User
from security import hunt


def lines(bridge: Bridge, level: str, *words: str) -> list[str]:
    """Log lines of one level that hold all these words."""
    return [
        line
        for line in bridge.cluster.log_text().splitlines()
        if f" {level}:" in line and all(word in line for word in words)
    ]


def test_start_and_success(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", [{"a": 1}, {"a": 2}])
    bridge.completed("run-1")
    assert lines(bridge, "LOG", "run-1", "started")
    [success] = lines(bridge, "LOG", "run-1", "completed")
    assert "2 rows" in success and re.search(r"\d+(\.\d+)? s\b", success), success


def test_a_retry_is_a_warning(bridge: Bridge, user: User) -> None:
    bridge.standin.fault({"kind": "objectstore", "method": "PUT"}, {"status": 503}, times=10)
    bridge.run("run-1", [{"a": 1}])
    bridge.completed("run-1")
    assert [line for line in lines(bridge, "WARNING", "run-1") if "503" in line]


def test_a_failure_is_logged_with_its_cause(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", {"not": "rows"})
    message = bridge.failed("run-1")["snowflake_error_message"]
    assert lines(bridge, "LOG", "run-1", "failed")
    for level in ("ERROR", "FATAL", "PANIC"):
        assert not lines(bridge, level), f"a worker's {level} would have ended it"
    assert message.split(";")[0].split("\n")[0][:40] in bridge.cluster.log_text()


def test_no_secret_anywhere(bridge: Bridge) -> None:
    pair = keys.generate(passphrase="pass-phrase-4711")
    user = bridge.account.add_user(public_key=pair.public)
    # Literals in the statement, as a user types them in psql: the server logs statements that fail.
    with pytest.raises(psycopg.Error):
        bridge.app.execute(
            f"select snowflake_bridge.create_config(account_identifier => '{bridge.account.host}', "
            f"username => '{user.name}', password => 'wrong-password-4711')"
        )
    with pytest.raises(psycopg.Error):
        bridge.app.execute(
            f"select snowflake_bridge.create_config(account_identifier => 'not allowed/at all', "
            f"username => '{user.name}', password => 'wrong-password-4711')"
        )
    bridge.configure(user)
    bridge.configure(user, name="pair", private_key=pair.private, private_key_passphrase="pass-phrase-4711")
    client = bridge.account.add_oauth_client(user)
    bridge.configure(user, name="client", oauth_client_id=client.client_id, oauth_client_secret=client.secret)
    token = bridge.account.access_token(user)
    bridge.configure(user, name="given", oauth_token=token)
    bridge.watch()
    for config in ("default", "pair", "client", "given"):
        bridge.run(f"by {config}", [{"a": 1}], snowflake_options={"config": config})
        bridge.completed(f"by {config}")
    key_line = pair.private.splitlines()[5]
    secrets = [user.password, "wrong-password-4711", "pass-phrase-4711", key_line, client.secret, token]
    places = {
        "server log": bridge.cluster.log_text(),
        "audit": json.dumps(bridge.standin.audit()),
        "stand-in output": bridge.standin.output(),
        "uploads": str(bridge.admin.execute("select * from snowflake_bridge.uploads").fetchall()),
        "configurations": str(
            bridge.admin.execute("select * from snowflake_bridge.snowflake_configurations").fetchall()
        ),
        "get_config": str(bridge.app.execute("select snowflake_bridge.get_config() as c").fetchall()),
        "activity": str(bridge.admin.execute("select * from pg_stat_activity").fetchall()),
    }
    found = [(place, secret) for place, text in places.items() for secret in secrets if secret in text]
    assert not found
    # The data directory holds the encrypted form only: neither the tables nor the WAL ever saw the clear one.
    bridge.admin.execute("checkpoint")
    for path, content in hunt.files(bridge.cluster.data):
        assert not [secret for secret in secrets if secret.encode() in content], path

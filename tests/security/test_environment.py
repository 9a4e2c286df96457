"""What the server's environment says of proxies and credentials is not what an administrator has set: nothing of it is followed."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from harness.bridge import Bridge
from harness.standin import ROLE

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
# Where the libraries of object stores look for an address or credentials, if they are let.
STORES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_METADATA_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "STORAGE_EMULATOR_HOST")  # fmt: skip


class Listener:
    """A port that counts who comes, and shuts the door."""

    def __init__(self) -> None:
        self.count = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                self.count += 1
                client.close()

    def close(self) -> None:
        """Ends it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Who comes here was sent by the environment."""
    with contextlib.closing(Listener()) as listener:
        yield listener


@pytest.mark.parametrize("role", ["ACCOUNTADMIN", "SECURITYADMIN", "ORGADMIN", "SYSADMIN", ROLE])
def test_a_role_that_may_do_too_much_is_named(bridge: Bridge, role: str) -> None:
    """A stolen secret can do what its role may."""
    bridge.configure(bridge.account.add_user(role=role), role=role)
    [tested] = bridge.app.execute("select * from snowflake_bridge.test_connection()").fetchall()
    assert (tested["success"], tested["role"]) == (True, role)
    assert (f"Role {role} can do far more" in (tested["hint"] or "")) is (role != ROLE)


def test_a_user_without_a_network_policy_is_told(bridge: Bridge) -> None:
    """A stolen secret serves from anywhere then. Where nobody can know, nothing is said."""

    def advice() -> str | None:
        [tested] = bridge.app.execute("select * from snowflake_bridge.test_connection()").fetchall()
        assert (tested["success"], tested["message"]) == (True, "connected")
        return tested["hint"]

    user = bridge.account.add_user()
    bridge.configure(user)
    asked = {"sql": "(?i)NETWORK_POLICY"}
    assert "no network policy holds" in (advice() or "")
    # Saving asks for no advice.
    mark = bridge.account.standin.audit_mark()
    bridge.app.execute("select snowflake_bridge.update_config(role => %s)", [ROLE])
    assert not [record for record in bridge.account.standin.audit(mark) if "NETWORK_POLICY" in (record.get("sql") or "")]
    refusal = {"error": {"code": "003001", "sqlState": "42501", "message": "Insufficient privileges"}}
    bridge.account.standin.fault(asked, refusal)
    assert advice() is None
    # An answer that never comes costs a few seconds, and not the good news.
    bridge.account.standin.fault(asked, {"black_hole": True})
    assert advice() is None
    bridge.account.standin.clear_faults()
    # With OAuth the policy may be the integration's, which nobody can ask for.
    settings = {"account_identifier": bridge.account.host, "username": user.name, "oauth_token": bridge.account.access_token(user)}
    [tested] = bridge.app.execute("select * from snowflake_bridge.test_connection(%s::jsonb)", [json.dumps(settings)]).fetchall()
    assert (tested["success"], tested["hint"]) == (True, None)
    bridge.configure(bridge.account.add_user("GUARDED", network_policy="allowed"), name="guarded")
    [tested] = bridge.app.execute("select * from snowflake_bridge.test_connection('guarded')").fetchall()
    assert (tested["success"], tested["hint"]) == (True, None)


def test_the_environment_sends_nobody_anywhere(
    make_bridge: Callable[..., Bridge], listener: Listener, capfd: pytest.CaptureFixture[str]
) -> None:
    variables = dict.fromkeys((*PROXIES, *STORES), listener.url) | {"AWS_ACCESS_KEY_ID": "from-the-environment", "NO_PROXY": ""}
    bridge = make_bridge(variables=variables)
    user = bridge.ready()
    bridge.run("run-1", [{"n": 1}])
    bridge.completed("run-1")
    assert bridge.row_count(user) == 1
    assert len(bridge.app.execute("select * from snowflake_bridge.list_tables()").fetchall()) == 1
    assert listener.count == 0
    # A client that follows its environment does come.
    fetch = f"import urllib.request as r; r.urlopen('http://{bridge.account.host}:1/', timeout=5)"
    environment = {"PATH": os.environ["PATH"], **variables}
    assert subprocess.run([sys.executable, "-c", fetch], check=False, env=environment, capture_output=True).returncode != 0
    assert listener.count == 1
    with capfd.disabled():
        print(f"\nsecurity: suite=ssrf environment_variables={len(PROXIES) + len(STORES)} connections=0 reached_without_guard={listener.count}")

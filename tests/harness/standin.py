"""The Snowflake stand-in as a process: started, asked for accounts, faults and its audit, ended."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import wait

TESTS = Path(__file__).resolve().parent.parent
PACKAGE = TESTS / "standin"
# The stand-in has an environment of its own, because its libraries cannot share one with the newest official client.
PYTHON = os.environ.get("STANDIN_PYTHON", str(TESTS.parent / "target/venv/standin/bin/python"))
WAREHOUSE = "COMPUTE_WH"
ROLE = "ANALYST_ROLE"
START_SECONDS = 60.0


@dataclass(frozen=True)
class User:
    """Somebody who may log in to an account."""

    name: str
    password: str
    database: str
    schema: str


@dataclass(frozen=True)
class OAuthClient:
    """A program that fetches access tokens for itself, as an OAuth server knows it."""

    client_id: str
    secret: str


class Standin:
    """One running stand-in. Tests share it, each with accounts of its own."""

    def __init__(self) -> None:
        self.state = Path(tempfile.mkdtemp(prefix="standin-"))
        self._numbers = itertools.count(1)
        with (self.state / "output.log").open("wb") as output:
            self.process = subprocess.Popen(
                [PYTHON, "-m", "standin", "--state-dir", str(self.state), "--exit-with-parent"],
                cwd=PACKAGE,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            ready = json.loads(wait.until(self._ready, "the stand-in is ready", START_SECONDS))
        except BaseException:
            self.close()
            raise
        self.port: int = ready["port"]
        self.s3_endpoint: str = ready["s3_endpoint"]
        self._url: str = ready["url"]
        self._token: str = ready["admin_token"]

    def _ready(self) -> str:
        if self.process.poll() is not None:
            raise RuntimeError(f"the stand-in ended while starting:\n{self.output()}")
        path = self.state / "ready.json"
        return path.read_text() if path.exists() else ""

    def output(self) -> str:
        """What the process has printed."""
        return (self.state / "output.log").read_text(errors="replace")

    def close(self) -> None:
        """Ends the process and removes its files."""
        try:
            self.process.terminate()
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        finally:
            shutil.rmtree(self.state, ignore_errors=True)

    # --- the admin endpoint --------------------------------------------------------------------------------------

    def admin(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One call; an answer other than 200 is an error with the stand-in's own words."""
        request = urllib.request.Request(
            f"{self._url}/admin/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-Admin-Token": self._token, "Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from error

    def new_account(self) -> Account:
        """An account nobody else uses, with a warehouse, a role and no user yet."""
        return Account(self, f"acme-{next(self._numbers)}")

    def fault(self, match: dict[str, str], action: dict[str, Any], *, times: int = 1, skip: int = 0) -> None:
        """Spoils the next `times` requests that match, after letting `skip` of them pass."""
        self.admin("POST", "faults", {"match": match, "action": action, "times": times, "skip": skip})

    def clear_faults(self, match: dict[str, str] | None = None) -> None:
        """Forgets every fault, or those made with this `match`, and lets go of the requests that one holds."""
        self.admin("DELETE", "faults", None if match is None else {"match": match})

    def faults_left(self) -> int:
        """How many faults have still to happen."""
        return sum(fault["times"] for fault in self.admin("GET", "faults")["faults"])

    def audit(self, after: int = 0) -> list[dict[str, Any]]:
        """Every request since the one numbered `after`."""
        records: list[dict[str, Any]] = self.admin("GET", f"audit?after={after}")["records"]
        return records

    def audit_mark(self) -> int:
        """The number of the last request so far."""
        return len(self.audit())


class Account:
    """One Snowflake account of the stand-in."""

    def __init__(self, standin: Standin, name: str) -> None:
        self.standin = standin
        self.name = name
        # Any name below `localhost` means this machine, and its first label is the account's name.
        self.host = f"{name}.localhost"
        self.origin = f"http://{self.host}:{standin.port}"
        self._apply(warehouses=[WAREHOUSE], roles=[ROLE])

    def _apply(self, **spec: Any) -> None:
        self.standin.admin("POST", "accounts", {"accounts": [{"name": self.name, **spec}]})

    def add_user(
        self,
        name: str = "LOADER",
        *,
        database: str = "ANALYTICS_DB",
        schema: str = "REPORTS",
        public_key: str | None = None,
        passcode: str | None = None,
        role: str = ROLE,
        network_policy: str | None = None,
    ) -> User:
        """A user with a password that occurs nowhere else, and with a database to work in."""
        user = User(name, f"pw-{secrets.token_urlsafe(18)}", database, schema)
        self._apply(databases={database: ["PUBLIC", schema]})
        self.let_in(user, public_key=public_key, passcode=passcode, role=role, network_policy=network_policy)
        return user

    def let_in(
        self,
        user: User,
        *,
        public_key: str | None = None,
        passcode: str | None = None,
        role: str = ROLE,
        network_policy: str | None = None,
    ) -> None:
        """Who has this password, or this key, is this user from now on, and nobody else is."""
        self._apply(
            users=[
                {
                    "name": user.name,
                    "password": user.password,
                    "public_key": public_key,
                    "passcode": passcode,
                    "default_role": role,
                    "default_warehouse": WAREHOUSE,
                    "network_policy": network_policy,
                }
            ]
        )

    def add_oauth_client(self, user: User) -> OAuthClient:
        """A client whose access tokens are this user's, with the role that the users work with."""
        client = OAuthClient(f"client-{secrets.token_hex(4)}", f"cs-{secrets.token_urlsafe(18)}")
        self._apply(
            oauth_clients=[
                {
                    "client_id": client.client_id,
                    "client_secret": client.secret,
                    "user": user.name,
                    "scopes": [f"session:role:{ROLE}"],
                }
            ]
        )
        return client

    def access_token(self, user: User) -> str:
        """An access token that somebody else got for this user."""
        answer = self.standin.admin("POST", "oauth", {"account": self.name, "user": user.name, "role": ROLE})
        return str(answer["access_token"])

    def expire_access_tokens(self) -> None:
        """No access token given out so far is good for another login."""
        self.standin.admin("POST", "oauth/expire", {"account": self.name})

    def shorten_copies(self, times: int) -> None:
        """The next COPYs load a row less than there is, and say so."""
        self.standin.admin("POST", "short-copies", {"account": self.name, "times": times})

    def complete_copies(self) -> None:
        """Ends what `shorten_copies` began."""
        self.standin.admin("DELETE", "short-copies", {"account": self.name})

    def store_at(self, endpoint: str) -> None:
        """Answers to PUT name this address of the object store."""
        self._apply(cloud_options={"stage_info": {"endPoint": endpoint}})

    def sign_at(self, url: str) -> None:
        """Answers to PUT of official clients name this address as the signed one of every file."""
        self._apply(cloud_options={"stage_info": {"presignedUrl": url}})

    def withhold(self, privilege: str, on: str, name: str, *, withhold: bool = True) -> None:
        """Takes a privilege from the role that the users work with."""
        change = {
            "account": self.name,
            "role": ROLE,
            "privilege": privilege,
            "on": on,
            "name": name,
            "withhold": withhold,
        }
        self.standin.admin("POST", "privileges", change)

    def give_back(self, privilege: str, on: str, name: str) -> None:
        """Ends what `withhold` began."""
        self.withhold(privilege, on, name, withhold=False)

    def sql(self, text: str) -> list[list[Any]]:
        """Runs one statement with every right, as the account's owner would; values come as text."""
        rows: list[list[Any]] = self.standin.admin("POST", "sql", {"account": self.name, "sql": text})["rows"]
        return rows

    def statements(self, pattern: str, after: int = 0) -> list[str]:
        """The statements that clients sent and that begin with `pattern`, case aside."""
        sent = [record["sql"] for record in self.standin.audit(after) if record["account"] == self.name.upper()]
        return [sql for sql in sent if sql and sql.lstrip().upper().startswith(pattern.upper())]

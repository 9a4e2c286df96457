"""Starts the stand-in once for all tests.

Every test gets an account of its own, so that no test sees another's tables.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import localhost_names
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from driver import Admin, Driver, Identity

PACKAGE_ROOT = Path(__file__).resolve().parents[1]
START_DEADLINE = 60.0
PASSWORD = "correct horse battery staple"
_numbers = itertools.count(1)
localhost_names.resolve()


def interpreter(variable: str) -> str:
    """The interpreter that an environment variable names. Its absence is a failure: a skipped proof proves nothing."""
    value = os.environ.get(variable)
    assert value, f"{variable} must name a Python interpreter with the pinned requirements"
    return value


class Process:
    """A stand-in in a process of its own. `with` gives what its ready.json says, and fails if it told of a defect."""

    def __init__(self, state: Path, *options: str) -> None:
        self._state = state
        self._options = options

    def __enter__(self) -> dict[str, Any]:
        command = [interpreter("STANDIN_PYTHON"), "-m", "standin", "--state-dir", str(self._state)]
        with (self._state / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--exit-with-parent", *self._options],
                env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        try:
            return self._ready()
        except BaseException:
            self._end()
            raise

    def __exit__(self, *_: object) -> None:
        self._end()
        log = (self._state / "log").read_text()
        assert "Traceback" not in log, log

    def _ready(self) -> dict[str, Any]:
        ready = self._state / "ready.json"
        deadline = time.monotonic() + START_DEADLINE
        while not ready.exists():
            assert self._process.poll() is None, (self._state / "log").read_text()
            assert time.monotonic() < deadline, "the stand-in did not become ready"
            time.sleep(0.02)
        told: dict[str, Any] = json.loads(ready.read_text())
        return told

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    with Process(tmp_path_factory.mktemp("standin")) as ready:
        yield Admin(ready)


@pytest.fixture(scope="session")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="session")
def public_pem(private_key: rsa.RSAPrivateKey) -> str:
    return (
        private_key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


@pytest.fixture
def admin(stand_in: Admin) -> Iterator[Admin]:
    yield stand_in
    for what in ("faults", "parking", "chunks", "validity"):
        stand_in.delete(what)


def new_account(admin: Admin, public_pem: str | None = None, **members: Any) -> Identity:
    """A fresh account with two users, one warehouse, one database."""
    name = f"test-acct{next(_numbers)}"
    admin.post(
        "accounts",
        {
            "accounts": [
                {
                    "name": name,
                    "users": [
                        {
                            "name": "LOADER",
                            "password": PASSWORD,
                            "public_key": public_pem,
                            "default_role": "LOADER_ROLE",
                            "roles": ["LOADER_ROLE", "ANALYST"],
                        },
                        {"name": "OTHER", "password": PASSWORD, "default_role": "LOADER_ROLE"},
                    ],
                    "warehouses": ["COMPUTE_WH"],
                    "databases": {"ANALYTICS_DB": ["PUBLIC", "REPORTS"]},
                    **members,
                }
            ]
        },
    )
    return Identity(name, "LOADER", PASSWORD)


@pytest.fixture(scope="session")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    """A second stand-in, started with an accounts file and `--tls`."""
    state = tmp_path_factory.mktemp("tls")
    accounts = state / "accounts.json"
    user = {"name": "LOADER", "password": PASSWORD, "default_role": "LOADER_ROLE"}
    spec = {"users": [user], "warehouses": ["COMPUTE_WH"], "databases": {"ANALYTICS_DB": ["PUBLIC", "REPORTS"]}}
    accounts.write_text(json.dumps({"accounts": [{"name": "tls_acct", **spec}]}))
    with Process(state, "--tls", "--accounts", str(accounts)) as ready:
        yield Admin(ready)


@pytest.fixture
def identity(admin: Admin, public_pem: str) -> Identity:
    return new_account(admin, public_pem)


@pytest.fixture
def driver(admin: Admin, identity: Identity) -> Iterator[Driver]:
    """A logged-in session in ANALYTICS_DB.REPORTS."""
    with Driver.logged_in(admin, identity) as session:
        yield session


@pytest.fixture
def second(admin: Admin, identity: Identity) -> Iterator[Driver]:
    """Another session of the same user."""
    with Driver.logged_in(admin, identity) as session:
        yield session

"""The official clients, unmodified, each in its own interpreter.

They log in, create, PUT, COPY, SELECT, and read what another client wrote.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import PASSWORD, interpreter, new_account
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from driver import PARQUET, Admin, Driver, Identity, parquet

HERE = Path(__file__).resolve().parent
CLIENT_TIMEOUT = 120


# Where clients look for the CAs they trust: requests, OpenSSL and Go.
TRUST_VARIABLES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


def start_client(
    variable: str, script: str, *arguments: str, ca_file: str | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if ca_file is not None:
        environment |= dict.fromkeys(TRUST_VARIABLES, ca_file)
    return subprocess.run(
        [interpreter(variable), str(HERE / script), *arguments],
        capture_output=True,
        text=True,
        timeout=CLIENT_TIMEOUT,
        env=environment,
        check=False,
    )


def run_client(variable: str, script: str, *arguments: str, ca_file: str | None = None) -> dict[str, Any]:
    done = start_client(variable, script, *arguments, ca_file=ca_file)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.fixture
def key_file(tmp_path: Path, private_key: rsa.RSAPrivateKey) -> str:
    path = tmp_path / "key.p8"
    path.write_bytes(
        private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return str(path)


def prepare(driver: Driver) -> None:
    """A table that a client of the bridge's kind loads: encrypted upload to S3, COPY with a transformation."""
    driver.run(
        'CREATE TABLE "PREPARED" ("ID" NUMBER(38,0), "AMOUNT" NUMBER(38,10), "DOC" VARIANT, "TAGS" ARRAY, "RAW" BINARY(67108864), '
        '"AT" TIMESTAMP_TZ(6), "DAY" DATE, "RATE" FLOAT, "OK" BOOLEAN, "NAME" VARCHAR(134217728))'
    )
    content = parquet(
        {
            "ID": pa.array([1, 2], pa.decimal128(38, 0)),
            "AMOUNT": pa.array(["12345678901234567890.0123456789", None]).cast(pa.decimal128(38, 10)),
            "DOC": ['{"a":[1,{"b":null}]}', None],
            "TAGS": ["[1,2]", None],
            "RAW": pa.array([b"\x00\xff", None], pa.binary()),
            "AT": pa.array([1_700_000_000_123_456, None], pa.timestamp("us", tz="UTC")),
            "DAY": pa.array([19_675, None], pa.int32()).cast(pa.date32()),
            "RATE": [0.1, None],
            "OK": [True, None],
            "NAME": ["grüße", None],
        }
    )
    driver.upload("@~/prepared/1/", "part-00000.parquet", content)
    driver.run(
        'COPY INTO "PREPARED" FROM (SELECT $1:"ID"::NUMBER(38,0), $1:"AMOUNT"::NUMBER(38,10), PARSE_JSON($1:"DOC"), '
        'PARSE_JSON($1:"TAGS")::ARRAY, TO_BINARY($1:"RAW"), $1:"AT"::TIMESTAMP_TZ(6), $1:"DAY"::DATE, $1:"RATE"::FLOAT, '
        "$1:\"OK\"::BOOLEAN, $1:\"NAME\"::VARCHAR(134217728) FROM '@~/prepared/1/') FILES=('part-00000.parquet') "
        + PARQUET
    )


def check_prepared(rows: list[list[Any]]) -> None:
    first, second = rows
    assert [int(float(first[0])), first[1]] == [1, "12345678901234567890.0123456789"]
    assert [json.loads(first[2]), json.loads(first[3])] == [{"a": [1, {"b": None}]}, [1, 2]]
    assert "\\x00\\xff" in first[4]
    assert datetime.fromisoformat(first[5]).timestamp() == pytest.approx(1_700_000_000.123456, abs=1e-7)
    assert first[6:] == ["2023-11-14", 0.1, True, "grüße"]
    assert second[1:] == [None] * 9


@pytest.fixture(params=["http", "https"])
def place(request: pytest.FixtureRequest, public_pem: str) -> tuple[Admin, Identity]:
    """A fresh account with the prepared table, in a stand-in without TLS and in one with it."""
    admin: Admin = request.getfixturevalue("admin" if request.param == "http" else "encrypted")
    identity = new_account(admin, public_pem)
    with Driver.logged_in(admin, identity) as driver:
        prepare(driver)
    return admin, identity


def arguments_for(admin: Admin, identity: Identity) -> list[str]:
    protocol = "https" if admin.ca_file else "http"
    return [protocol, str(admin.port), identity.account, identity.user, identity.password]


@pytest.mark.parametrize(("variable", "major"), [("STANDIN_PYTHON", "4"), ("CLIENTS_PYTHON", "5")])
def test_python_connector(place: tuple[Admin, Identity], key_file: str, variable: str, major: str) -> None:
    admin, identity = place
    mark = admin.last()
    told = run_client(variable, "connector_flow.py", *arguments_for(admin, identity), key_file, ca_file=admin.ca_file)
    assert told["version"].split(".")[0] == major
    assert "Incorrect username or password" in told["refused"]
    assert told["key_pair_user"] == "LOADER"
    assert told["described"] == [
        ["ID", "NUMBER(38,0)"],
        ["DOC", "VARIANT"],
        ["NAME", "VARCHAR(134217728)"],
        ["AT", "TIMESTAMP_TZ(6)"],
    ]
    assert told["put"][0][1] == "part-00000.parquet" and told["put"][0][6] == "UPLOADED"
    assert told["listed"] == ["from_client/1/part-00000.parquet"]
    assert told["copied"] == ["from_client/1/part-00000.parquet", "LOADED", 2, 2]
    assert [row[:3] for row in told["selected"]] == [[1, 1, "grüße"], [10**37, 3, "日本"]]
    assert datetime.fromisoformat(told["selected"][0][3]).timestamp() == pytest.approx(1_700_000_000.123456, abs=1e-7)
    assert (told["deleted"], told["count"]) == (1, 2)
    assert told["missing"] == [2003, "42S02"]
    check_prepared(told["prepared"])
    # The file of the official client was encrypted, and lies in the same stage as any other.
    files = admin.post("stage", {"account": identity.account, "user": "LOADER", "location": "@~/from_client/"})["files"]
    assert "x-amz-key" in files[0]["metadata"]
    assert identity.password not in json.dumps(admin.audit(mark))


@pytest.mark.parametrize("variable", ["STANDIN_PYTHON", "CLIENTS_PYTHON"])
def test_python_connector_waits_and_fetches_chunks(
    admin: Admin, identity: Identity, driver: Driver, variable: str
) -> None:
    """Parked statements, asynchronous ones, and a JSON result in chunks, with each way to tell the key of the chunks."""
    admin.post("parking", {"after_ms": 20, "poll_ms": 20})
    admin.post("chunks", {"inline_rows": 7, "chunk_rows": 40})
    driver.run("CREATE TABLE BUSY (A NUMBER)")
    driver.run("INSERT INTO BUSY VALUES (1)")
    driver.run("BEGIN")
    driver.run("UPDATE BUSY SET A = 2")
    mark = admin.last()

    def let_go() -> None:
        deadline = time.monotonic() + CLIENT_TIMEOUT
        while len([record for record in admin.audit(mark) if record["kind"] == "result"]) < 3:
            assert time.monotonic() < deadline, "nobody asked for the parked statement"
        driver.run("COMMIT")

    thread = threading.Thread(target=let_go)
    thread.start()
    try:
        told = run_client(
            variable, "connector_waits.py", str(admin.port), identity.account, identity.user, identity.password
        )
    finally:
        thread.join(CLIENT_TIMEOUT)
    assert told["parked"] == 1
    assert told["asynchronous"] == [[42]]
    assert told["failed"]
    assert told["chunked"] == [[number, f"row {number}"] for number in range(250)]
    chunks = [record for record in admin.audit(mark) if record["kind"] == "chunk"]
    assert [record["status"] for record in chunks] == [200] * 7


def test_adbc_driver(place: tuple[Admin, Identity]) -> None:
    admin, identity = place
    told = run_client("CLIENTS_PYTHON", "adbc_flow.py", *arguments_for(admin, identity), ca_file=admin.ca_file)
    assert told["count"] == 2
    check_prepared(told["prepared"])


@pytest.mark.parametrize("variable", ["STANDIN_PYTHON", "CLIENTS_PYTHON"])
def test_python_connector_refuses_an_unknown_ca(encrypted: Admin, key_file: str, variable: str) -> None:
    """Or the proofs over TLS would prove nothing."""
    mark = encrypted.last()
    stranger = Identity("tls_acct", "LOADER", PASSWORD)
    done = start_client(variable, "connector_flow.py", *arguments_for(encrypted, stranger), key_file)
    assert done.returncode != 0
    assert encrypted.audit(mark) == []


# Version 4 asks for OAuth tokens with a trust store of its own, which no setting opens; over plain HTTP it does so too.
@pytest.mark.parametrize(("variable", "where"), [("STANDIN_PYTHON", "admin"), ("CLIENTS_PYTHON", "encrypted")])
def test_python_connector_logs_in_other_ways(
    request: pytest.FixtureRequest, public_pem: str, variable: str, where: str
) -> None:
    place: Admin = request.getfixturevalue(where)
    identity = new_account(place, public_pem)
    user = {
        "name": "SOMEBODY", "password": PASSWORD, "passcode": "123456", "roles": ["ANALYST"],
        "programmatic_access_tokens": [{"token": "a-token", "role": "ANALYST"}],
    }  # fmt: skip
    client: dict[str, Any] = {
        "client_id": f"bridge of {identity.account}", "client_secret": "s3cret", "user": "SOMEBODY", "scopes": ["session:role:ANALYST"],
    }  # fmt: skip
    place.post("accounts", {"accounts": [{"name": identity.account, "users": [user], "oauth_clients": [client]}]})
    token = place.post("oauth", {"account": identity.account, "user": "SOMEBODY", "role": "ANALYST"})
    protocol, port, account, *_ = arguments_for(place, identity)
    arguments = [protocol, port, account, "SOMEBODY", PASSWORD, "123456", "a-token", token["access_token"]]
    arguments += [client["client_id"], client["client_secret"]]
    told = run_client(variable, "connector_logins.py", *arguments, ca_file=place.ca_file)
    assert {way: outcome for way, outcome in told.items() if not outcome.startswith("refused")} == {
        "passcode": "SOMEBODY as PUBLIC",
        "passcode in password": "SOMEBODY as PUBLIC",
        "programmatic access token": "SOMEBODY as ANALYST",
        "oauth": "SOMEBODY as ANALYST",
        "client credentials": "SOMEBODY as ANALYST",
    }
    assert "MFA with TOTP is required" in told["no passcode"]
    assert "Programmatic access token is invalid" in told["wrong programmatic access token"]
    assert "Invalid OAuth access token" in told["wrong oauth"]

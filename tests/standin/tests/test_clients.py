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
from conftest import interpreter
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from driver import PARQUET, Admin, Driver, Identity, parquet

HERE = Path(__file__).resolve().parent
CLIENT_TIMEOUT = 120


def run_client(variable: str, script: str, *arguments: str) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [interpreter(variable), str(HERE / script), *arguments],
        capture_output=True,
        text=True,
        timeout=CLIENT_TIMEOUT,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def key_file(tmp_path: Path, private_key: rsa.RSAPrivateKey) -> str:
    path = tmp_path / "key.p8"
    path.write_bytes(
        private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return str(path)


@pytest.fixture
def prepared(driver: Driver) -> Driver:
    """A table that a client of the bridge's kind loaded: encrypted upload to S3, COPY with a transformation."""
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
    return driver


def check_prepared(rows: list[list[Any]]) -> None:
    first, second = rows
    assert [int(float(first[0])), first[1]] == [1, "12345678901234567890.0123456789"]
    assert [json.loads(first[2]), json.loads(first[3])] == [{"a": [1, {"b": None}]}, [1, 2]]
    assert "\\x00\\xff" in first[4]
    assert datetime.fromisoformat(first[5]).timestamp() == pytest.approx(1_700_000_000.123456, abs=1e-7)
    assert first[6:] == ["2023-11-14", 0.1, True, "grüße"]
    assert second[1:] == [None] * 9


@pytest.mark.parametrize(("variable", "major"), [("STANDIN_PYTHON", "4"), ("CLIENTS_PYTHON", "5")])
def test_python_connector(
    admin: Admin, identity: Identity, prepared: Driver, key_file: str, variable: str, major: str
) -> None:
    mark = admin.last()
    told = run_client(
        variable, "connector_flow.py", str(admin.port), identity.account, identity.user, identity.password, key_file
    )
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


def test_adbc_driver(admin: Admin, identity: Identity, prepared: Driver) -> None:
    told = run_client(
        "CLIENTS_PYTHON", "adbc_flow.py", str(admin.port), identity.account, identity.user, identity.password
    )
    assert told["count"] == 2
    check_prepared(told["prepared"])

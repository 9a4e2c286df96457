"""Official clients that are told the stores' own addresses: they upload to them as they would to the clouds."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PASSWORD, Process, interpreter, new_account
from driver import Admin
from tunnel import tunnel

SCRIPT = Path(__file__).resolve().parent / "connector_put.py"
TIMEOUT = 120
PARTS_FROM = 8 << 20  # connector 4 uploads parts of this size or more


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    """These clients speak HTTPS to stores, whatever the gateway speaks."""
    with Process(tmp_path_factory.mktemp("native"), "--tls") as ready:
        yield Admin(ready)


@pytest.fixture(scope="module")
def way(encrypted: Admin) -> Iterator[dict[str, str]]:
    """What a client's environment has to say, so that it finds the stores and trusts them."""
    trust = {"REQUESTS_CA_BUNDLE": str(encrypted.ca_file), "SSL_CERT_FILE": str(encrypted.ca_file)}
    with tunnel() as variables:
        yield variables | trust


def put(
    admin: Admin, way: dict[str, str], variable: str, cloud: str, rows: int, **options: Any
) -> tuple[dict[str, Any], Counter[str]]:
    """What the client tells of a PUT and a COPY, and the store's answers to it, counted."""
    options = {"official_clients": "native", **options}
    identity = new_account(admin, cloud=cloud, cloud_options=options)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | way
    command = [
        interpreter(variable),
        str(SCRIPT),
        str(admin.port),
        identity.account,
        identity.user,
        PASSWORD,
        str(rows),
    ]
    mark = admin.last()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr
    records = [record for record in admin.audit(mark) if record["kind"] == "objectstore"]
    return json.loads(done.stdout.splitlines()[-1]), Counter(f"{it['method']} {it['status']}" for it in records)


def check(told: dict[str, Any], version: str, rows: int) -> None:
    assert told["version"].startswith(version)
    assert (told["put"][6], told["again"][6]) == ("UPLOADED", "SKIPPED")
    assert told["listed"] == ["native/part-00000.parquet"]
    assert told["copied"] == ["native/part-00000.parquet", "LOADED", rows, rows]


@pytest.mark.parametrize(
    ("variable", "version", "cloud"),
    [
        ("STANDIN_PYTHON", "4.8", "s3"),
        ("STANDIN_PYTHON", "4.8", "azure"),
        ("STANDIN_PYTHON", "4.8", "gcs"),
        ("CLIENTS_PYTHON", "5.2", "s3"),
        ("CLIENTS_PYTHON", "5.2", "azure"),
        ("CLIENTS_PYTHON", "5.2", "gcs"),
    ],
)
def test_a_file_in_one_piece(encrypted: Admin, way: dict[str, str], variable: str, version: str, cloud: str) -> None:
    told, answers = put(encrypted, way, variable, cloud, 1000)
    check(told, version, 1000)
    assert answers["PUT 201" if cloud == "azure" else "PUT 200"] == 1


@pytest.mark.parametrize(("cloud", "parts"), [("s3", {"POST 200": 3, "PUT 200": 3}), ("azure", {"PUT 201": 4})])
def test_a_file_in_parts(encrypted: Admin, way: dict[str, str], cloud: str, parts: dict[str, int]) -> None:
    """Three of them. S3 has a request before and one after, and one for the upload that is then skipped; Azure one after."""
    rows = PARTS_FROM * 5 // 2 // 16
    told, answers = put(encrypted, way, "STANDIN_PYTHON", cloud, rows, threshold=PARTS_FROM)
    check(told, "4.8", rows)
    assert 2 * PARTS_FROM < told["size"] < 3 * PARTS_FROM
    assert {name: answers[name] for name in parts} == parts


@pytest.mark.parametrize(
    ("variable", "version", "cloud", "requests", "refusal"),
    [
        ("STANDIN_PYTHON", "4.8", "s3", 1, "PUT 400"),
        ("STANDIN_PYTHON", "4.8", "azure", 1, "PUT 403"),
        ("CLIENTS_PYTHON", "5.2", "s3", 0, "PUT 400"),
        ("CLIENTS_PYTHON", "5.2", "azure", 0, "PUT 403"),
        ("CLIENTS_PYTHON", "5.2", "gcs", 0, "PUT 401"),
    ],
)
def test_expired_credentials_are_recognised_and_renewed(
    encrypted: Admin, way: dict[str, str], variable: str, version: str, cloud: str, requests: int, refusal: str
) -> None:
    """Where a client asks first whether the file is there, that still succeeds.

    Google's cloud by connector 5 only: connector 4.8 renews the token, and goes on with the old one.
    """
    encrypted.post("expire-stage-credentials", {"after_requests": requests})
    told, answers = put(encrypted, way, variable, cloud, 1000)
    check(told, version, 1000)
    assert answers[refusal] == 1

"""Large JSON results: the first rows in the answer, the others behind links that want no token and the right key."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
import requests
from driver import Admin, Driver

SQL = "SELECT SEQ, 'row ' || SEQ AS TEXT FROM NUMBERS ORDER BY SEQ"
SSE = "x-amz-server-side-encryption-customer-"


@pytest.fixture
def numbers(driver: Driver) -> Driver:
    driver.run("CREATE TABLE NUMBERS (SEQ NUMBER)")
    driver.run(f"INSERT INTO NUMBERS VALUES {', '.join(f'({number})' for number in range(250))}")
    return driver


def fetch(url: str, headers: dict[str, str] | None = None) -> requests.Response:
    return requests.get(url, headers=headers or {}, timeout=30)


def all_rows(data: dict[str, Any], headers: dict[str, str]) -> list[list[str | None]]:
    rows = list(data["rowset"])
    for chunk in data["chunks"]:
        response = fetch(chunk["url"], headers)
        assert response.status_code == 200, response.text
        content = json.loads(b"[" + response.content + b"]")
        assert len(content) == chunk["rowCount"]
        assert len(response.content) == chunk["uncompressedSize"]
        rows += content
    return rows


EXPECTED = [[str(number), f"row {number}"] for number in range(250)]


def test_chunk_headers(admin: Admin, numbers: Driver) -> None:
    admin.post("chunks", {"inline_rows": 10, "chunk_rows": 100, "headers": "headers", "gzip": True})
    data = numbers.run(SQL)
    assert (len(data["rowset"]), [chunk["rowCount"] for chunk in data["chunks"]]) == (10, [100, 100, 40])
    assert (data["total"], data["returned"], data["queryResultFormat"]) == (250, 250, "json")
    assert "qrmk" not in data
    assert all_rows(data, data["chunkHeaders"]) == EXPECTED
    response = requests.get(data["chunks"][0]["url"], headers=data["chunkHeaders"], stream=True, timeout=30)
    packed = response.raw.read(decode_content=False)
    assert response.headers["Content-Encoding"] == "gzip"
    assert len(packed) == data["chunks"][0]["compressedSize"]
    assert gzip.decompress(packed).startswith(b'["10","row 10"],["11"')


def test_qrmk(admin: Admin, numbers: Driver) -> None:
    admin.post("chunks", {"inline_rows": 0, "chunk_rows": 1000, "headers": "qrmk", "gzip": False})
    data = numbers.run(SQL)
    assert data["rowset"] == [] and "chunkHeaders" not in data
    assert all_rows(data, {SSE + "algorithm": "AES256", SSE + "key": data["qrmk"]}) == EXPECTED
    url = data["chunks"][0]["url"]
    assert fetch(url).status_code == 400
    assert fetch(url, {SSE + "algorithm": "AES256", SSE + "key": "wrong"}).status_code == 403


def test_neither(admin: Admin, numbers: Driver) -> None:
    admin.post("chunks", {"headers": "none"})
    data = numbers.run(SQL)
    assert data["chunkHeaders"] == {} and "qrmk" not in data
    assert all_rows(data, {}) == EXPECTED


def test_a_snowflake_token_is_refused(admin: Admin, numbers: Driver) -> None:
    admin.post("chunks", {})
    data = numbers.run(SQL)
    response = fetch(
        data["chunks"][0]["url"], {**data["chunkHeaders"], "Authorization": f'Snowflake Token="{numbers.token}"'}
    )
    assert response.status_code == 400 and "InvalidArgument" in response.text


def test_links_expire_and_the_result_brings_new_ones(admin: Admin, numbers: Driver) -> None:
    admin.post("chunks", {})
    data = numbers.run(SQL)
    admin.post("chunks/expire", {})
    response = fetch(data["chunks"][0]["url"], data["chunkHeaders"])
    assert response.status_code == 403 and "Request has expired" in response.text
    fresh = numbers.get(f"/queries/{data['queryId']}/result")["data"]
    assert all_rows(fresh, fresh["chunkHeaders"]) == EXPECTED


def test_a_link_is_for_one_chunk_only(admin: Admin, numbers: Driver) -> None:
    admin.post("chunks", {})
    data = numbers.run(SQL)
    url = data["chunks"][0]["url"].replace("data_0_0_0", "data_0_0_1")
    assert fetch(url, data["chunkHeaders"]).status_code == 403


def test_small_results_and_others_stay_whole(admin: Admin, numbers: Driver) -> None:
    admin.post("chunks", {"inline_rows": 10})
    assert "chunks" not in numbers.run("SELECT 1")
    admin.delete("chunks")
    assert len(numbers.run(SQL)["rowset"]) == 250


def test_faults_and_audit(admin: Admin, numbers: Driver) -> None:
    admin.post("chunks", {})
    data = numbers.run(SQL)
    admin.fault({"status": 503}, kind="chunk")
    mark = admin.last()
    statuses = [fetch(data["chunks"][0]["url"], data["chunkHeaders"]).status_code for _ in range(2)]
    assert statuses == [503, 200]
    records = admin.audit(mark)
    assert [(record["kind"], record["status"]) for record in records] == [("chunk", 503), ("chunk", 200)]
    told = json.dumps(records)
    signature = data["chunks"][0]["url"].rsplit("=", 1)[1]
    assert signature not in told and data["chunkHeaders"][SSE + "key"] not in told


def test_misspelt_settings_are_refused(admin: Admin) -> None:
    for wrong in ({"inline": 3}, {"headers": "both"}, {"chunk_rows": 0}):
        with pytest.raises(AssertionError):
            admin.post("chunks", wrong)

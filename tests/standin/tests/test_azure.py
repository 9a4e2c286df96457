"""Accounts in Azure: the SAS and what it opens, and that COPY reads what came through Azurite."""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import parse_qs

import pytest
import requests
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobBlock, BlobClient
from conftest import new_account
from driver import Admin, Driver, parquet, sealed, send
from test_copy import STAGE, numbers, one_column, refused

TABLE = 'CREATE TABLE "T" ("A" NUMBER(38,0))'
PUT = f"PUT 'file:///x' '{STAGE}'"


def session(admin: Admin, **members: Any) -> Driver:
    return Driver.logged_in(admin, new_account(admin, cloud="azure", **members))


def put_info(admin: Admin, **members: Any) -> dict[str, Any]:
    with session(admin, **members) as driver:
        return dict(driver.run(PUT)["stageInfo"])


def code(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.headers["x-ms-error-code"]


def blob_url(info: dict[str, Any], name: str) -> str:
    return f"http://{info['storageAccount']}.{info['endPoint']}/{info['location']}{name}"


@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("encryption", ["SNOWFLAKE_FULL", "SNOWFLAKE_SSE"])
def test_a_load(admin: Admin, bits: int, encryption: str) -> None:
    with session(admin, client_encryption_key_size=bits) as driver:
        driver.run(TABLE)
        driver.run(f"CREATE TEMPORARY STAGE S ENCRYPTION=(TYPE='{encryption}')")
        answer = driver.upload("@S/d/", "part-00000.parquet", numbers(5))
        if encryption == "SNOWFLAKE_SSE":
            assert answer["encryptionMaterial"] is None
        else:
            assert len(base64.b64decode(answer["encryptionMaterial"]["queryStageMasterKey"])) == bits // 8
        assert [row[0] for row in driver.rows("LIST @S")] == ["s/d/part-00000.parquet"]
        driver.run(one_column().replace(STAGE, "@S/d/"))
        assert driver.one('SELECT SUM("A") FROM "T"') == "10"
        assert (
            driver.table(one_column(files=("part-00000.parquet",)).replace(STAGE, "@S/d/"))[0]["status"]
            == "LOAD_SKIPPED"
        )
        assert driver.rows("REMOVE @S/d/") == [["s/d/part-00000.parquet", "removed"]]
        assert driver.rows("LIST @S") == []
        assert refused(driver, one_column(force=True).replace(STAGE, "@S/d/")).code == "091016"
        driver.run("DROP STAGE S")


def test_answer(admin: Admin) -> None:
    info = put_info(admin)
    assert (info["locationType"], info["presignedUrl"]) == ("AZURE", None)
    assert re.fullmatch(r"blob\.localhost:\d+", info["endPoint"])
    assert list(info["creds"]) == ["AZURE_SAS_TOKEN"]
    sas = parse_qs(info["creds"]["AZURE_SAS_TOKEN"], strict_parsing=True)
    assert (sas["sr"], sas["sp"]) == (["c"], ["cw"])
    assert sas["se"] and sas["sig"]


@pytest.mark.parametrize(("setting", "marks"), [("never", ["..."]), ("always", ["???"]), ("alternate", ["?.?", ".?."])])
def test_question_mark_before_the_sas(admin: Admin, setting: str, marks: list[str]) -> None:
    with session(admin, cloud_options={"sas_question_mark": setting}) as driver:
        tokens = [driver.run(PUT)["stageInfo"]["creds"]["AZURE_SAS_TOKEN"] for _ in range(3)]
    assert "".join("?" if token.startswith("?") else "." for token in tokens) in marks


def test_what_a_sas_opens(admin: Admin) -> None:
    info = put_info(admin)
    assert send(info, "x", b"content", {"a": "b"}).status_code == 201
    container, _ = info["location"].split("/", 1)
    elsewhere = info | {"location": f"{container}/stages/elsewhere/"}
    assert code(send(elsewhere, "x", b"", {})) == (403, "AuthorizationPermissionMismatch")
    sas = info["creds"]["AZURE_SAS_TOKEN"].removeprefix("?")
    for method in ("GET", "HEAD", "DELETE"):
        answer = requests.request(method, f"{blob_url(info, 'x')}?{sas}", timeout=30)
        assert code(answer) == (403, "AuthorizationPermissionMismatch")
    more = info | {"creds": {"AZURE_SAS_TOKEN": sas.replace("sp=cw", "sp=rcwdl")}}
    assert code(send(more, "x", b"", {})) == (403, "AuthenticationFailed")
    none = info | {"creds": {"AZURE_SAS_TOKEN": ""}}
    assert code(send(none, "x", b"", {})) == (403, "AuthenticationFailed")


def test_expired_credentials(admin: Admin) -> None:
    info = put_info(admin)
    admin.post("expire-stage-credentials", {})
    answer = send(info, "x", b"", {})
    assert code(answer) == (403, "AuthenticationFailed")
    assert answer.reason.startswith("Server failed to authenticate the request.")
    assert "<Code>AuthenticationFailed</Code>" in answer.text


def test_two_sas_of_one_second_differ(admin: Admin) -> None:
    with session(admin) as driver:
        first, second = (driver.run(f"PUT 'file:///x' '@~/{name}/'")["stageInfo"] for name in "ab")
    assert first["creds"] != second["creds"]
    mixed = first | {"creds": second["creds"]}
    assert code(send(mixed, "x", b"", {})) == (403, "AuthorizationPermissionMismatch")


def test_blocks_by_microsofts_client(admin: Admin) -> None:
    """In blocks, with the metadata on the list that ends the upload, and credentials that end in its middle."""
    content = parquet({"A": [1], "PAD": ["x"]})
    with session(admin) as driver:
        driver.run(TABLE)
        admin.post("expire-stage-credentials", {"after_requests": 2})
        answer = driver.run(PUT)
        body, metadata = sealed(answer["encryptionMaterial"], content, "AZURE")
        blocks = [body[:100], body[100:200], body[200:]]

        def upload(answer: dict[str, Any]) -> None:
            info = answer["stageInfo"]
            url = f"{blob_url(info, 'part-00000.parquet')}?{info['creds']['AZURE_SAS_TOKEN']}"
            with BlobClient.from_blob_url(url, retry_total=0) as blob:
                names = [f"block-{number}" for number in range(len(blocks))]
                for name, block in zip(names, blocks, strict=True):
                    blob.stage_block(name, block)
                blob.commit_block_list([BlobBlock(name) for name in names], metadata=metadata)

        with pytest.raises(HttpResponseError) as caught:
            upload(answer)
        assert caught.value.status_code == 403 and "AuthenticationFailed" in str(caught.value)
        upload(driver.run(PUT))
        driver.run(one_column())
        assert driver.one('SELECT "A" FROM "T"') == "1"


def test_metadata_of_another_cloud_is_no_metadata(admin: Admin) -> None:
    with session(admin) as driver:
        driver.run(TABLE)
        answer = driver.run(PUT)
        body, metadata = sealed(answer["encryptionMaterial"], numbers(1), "GCS")
        metadata["sfc_digest"] = metadata.pop("sfc-digest")
        send(answer["stageInfo"], "part-00000.parquet", body, metadata).raise_for_status()
        assert "no sfcdigest" in refused(driver, one_column()).message


def test_encrypted_files_do_not_belong_on_an_unencrypted_stage(admin: Admin) -> None:
    with session(admin) as driver:
        driver.run(TABLE)
        driver.run("CREATE STAGE S ENCRYPTION=(TYPE='SNOWFLAKE_SSE')")
        body, metadata = sealed(driver.run(PUT)["encryptionMaterial"], numbers(1), "AZURE")
        info = driver.run("PUT 'file:///x' '@S/d/'")["stageInfo"]
        send(info, "part-00000.parquet", body, metadata).raise_for_status()
        assert "server side only" in refused(driver, one_column().replace(STAGE, "@S/d/")).message


def test_faults_and_audit(admin: Admin) -> None:
    info = put_info(admin)
    mark = admin.last()
    admin.fault({"status": 503}, kind="objectstore", host=re.escape(info["endPoint"]))
    admin.fault({"error": {"code": "ServerBusy", "message": "busy", "status": 503}}, kind="objectstore", host="blob")
    assert [send(info, "x", b"", {}).status_code for _ in range(3)] == [503, 503, 201]
    records = admin.audit(mark)
    assert [(record["kind"], record["method"], record["status"]) for record in records] == [
        ("objectstore", "PUT", 503),
        ("objectstore", "PUT", 503),
        ("objectstore", "PUT", 201),
    ]
    assert parse_qs(info["creds"]["AZURE_SAS_TOKEN"])["sig"][0] not in str(records)

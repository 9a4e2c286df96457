"""Accounts in Google's cloud: tokens and signed URLs, what they open, and that COPY reads what came through them."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from conftest import new_account
from driver import Admin, Driver, parquet, sealed, send
from test_copy import STAGE, numbers, one_column, refused

TABLE = 'CREATE TABLE "T" ("A" NUMBER(38,0))'


def session(admin: Admin, **members: Any) -> Driver:
    return Driver.logged_in(admin, new_account(admin, **members))


def code(response: requests.Response) -> tuple[int, str]:
    """The status and the code of an error as Google's XML API writes it."""
    return response.status_code, response.text.split("<Code>")[1].split("</Code>")[0]


@pytest.mark.parametrize(
    "members",
    [
        {"cloud": "gcs"},
        {"cloud": "gcs", "cloud_options": {"virtual_url": True}},
        {"cloud": "gcs", "client_encryption_key_size": 256},
        {"cloud": "gcs_presigned"},
    ],
)
@pytest.mark.parametrize("encryption", ["SNOWFLAKE_FULL", "SNOWFLAKE_SSE"])
def test_a_load(admin: Admin, members: dict[str, Any], encryption: str) -> None:
    with session(admin, **members) as driver:
        driver.run(TABLE)
        driver.run(f"CREATE TEMPORARY STAGE S ENCRYPTION=(TYPE='{encryption}')")
        answer = driver.upload("@S/d/", "part-00000.parquet", numbers(5))
        assert (answer["encryptionMaterial"] is None) == (encryption == "SNOWFLAKE_SSE")
        listed = driver.rows("LIST @S")
        assert [row[0] for row in listed] == ["s/d/part-00000.parquet"]
        driver.run(one_column().replace(STAGE, "@S/d/"))
        assert driver.one('SELECT SUM("A") FROM "T"') == "10"
        assert driver.rows("REMOVE @S/d/") == [["s/d/part-00000.parquet", "removed"]]
        driver.upload("@S/e/", "x", b"x")
        driver.run("DROP STAGE S")


def test_answer_with_a_token(admin: Admin) -> None:
    with session(admin, cloud="gcs") as driver:
        info = driver.run(f"PUT 'file:///x' '{STAGE}'")["stageInfo"]
    assert (info["locationType"], info["presignedUrl"], info["storageAccount"]) == ("GCS", None, "")
    assert info["endPoint"] == f"127.0.0.1:{admin.ready['gcs_port']}"
    assert list(info["creds"]) == ["GCS_ACCESS_TOKEN"]


def test_answer_with_a_signed_url(admin: Admin) -> None:
    with session(admin, cloud="gcs_presigned") as driver:
        info = driver.run(f"PUT 'file:///x' '{STAGE}'")["stageInfo"]
    assert (info["locationType"], info["creds"], info["endPoint"]) == ("GCS", {}, "")
    assert info["presignedUrl"].startswith(f"http://127.0.0.1:{admin.ready['gcs_port']}/")


def test_members_of_an_answer_can_be_replaced(admin: Admin) -> None:
    options = {"stage_info": {"endPoint": "", "useRegionalUrl": True, "region": "ME-CENTRAL2"}}
    with session(admin, cloud="gcs", cloud_options=options) as driver:
        info = driver.run(f"PUT 'file:///x' '{STAGE}'")["stageInfo"]
    assert (info["endPoint"], info["useRegionalUrl"], info["region"]) == ("", True, "ME-CENTRAL2")


def test_what_a_token_opens(admin: Admin) -> None:
    with session(admin, cloud="gcs") as driver:
        info = driver.run(f"PUT 'file:///x' '{STAGE}'")["stageInfo"]
    assert send(info, "x", b"content", {}).status_code == 200
    bucket, _ = info["location"].split("/", 1)
    elsewhere = info | {"location": f"{bucket}/stages/elsewhere/"}
    assert code(send(elsewhere, "x", b"", {})) == (403, "AccessDenied")
    guessed = info | {"creds": {"GCS_ACCESS_TOKEN": "guessed"}}
    assert code(send(guessed, "x", b"", {})) == (401, "AuthenticationRequired")
    anonymous = info | {"creds": {}}
    assert code(send(anonymous, "x", b"", {})) == (401, "AuthenticationRequired")
    admin.post("expire-stage-credentials", {})
    assert code(send(info, "x", b"", {})) == (401, "AuthenticationRequired")


def test_what_a_signed_url_opens(admin: Admin) -> None:
    with session(admin, cloud="gcs_presigned") as driver:
        info = driver.run(f"PUT 'file:///x' '{STAGE}'")["stageInfo"]
    url = info["presignedUrl"]
    assert requests.put(url, b"content", timeout=30).status_code == 200
    path = urlsplit(url).path
    for spoiled in (
        url.replace(path, path + "y"),
        url.replace("X-Goog-Expires=", "X-Goog-Expires=9"),
        url[:-1] + ("0" if url[-1] != "0" else "1"),
    ):
        assert code(requests.put(spoiled, b"", timeout=30)) == (403, "SignatureDoesNotMatch")
    assert code(requests.get(url, timeout=30)) == (403, "SignatureDoesNotMatch")
    both = {"Authorization": "Bearer x"}
    assert code(requests.put(url, b"", headers=both, timeout=30)) == (400, "InvalidArgument")
    admin.post("expire-stage-credentials", {})
    assert code(requests.put(url, b"", timeout=30)) == (400, "ExpiredToken")


def test_credentials_that_expire_after_some_requests(admin: Admin) -> None:
    with session(admin, cloud="gcs") as driver:
        admin.post("expire-stage-credentials", {"after_requests": 2})
        info = driver.run(f"PUT 'file:///x' '{STAGE}'")["stageInfo"]
        assert [send(info, "x", b"", {}).status_code for _ in range(4)] == [200, 200, 401, 401]
        renewed = driver.run(f"PUT 'file:///x' '{STAGE}'")["stageInfo"]
        assert send(renewed, "x", b"", {}).status_code == 200


def test_the_store_speaks_the_xml_api(admin: Admin) -> None:
    with session(admin, cloud="gcs") as driver:
        info = driver.run(f"PUT 'file:///x' '{STAGE}'")["stageInfo"]
    assert send(info, "o ü", b"content", {"a": "b"}).headers["x-goog-hash"].startswith("md5=")
    bearer = {"Authorization": f"Bearer {info['creds']['GCS_ACCESS_TOKEN']}"}
    url = f"http://{info['endPoint']}/{info['location']}o ü"
    read = requests.get(url, headers=bearer, timeout=30)
    assert (read.content, read.headers["x-goog-meta-a"]) == (b"content", "b")
    assert requests.head(url, headers=bearer, timeout=30).headers["Content-Length"] == "7"
    assert requests.head(url + "no", headers=bearer, timeout=30).status_code == 404
    assert code(requests.put(url, iter([b"chunked"]), headers=bearer, timeout=30)) == (411, "MissingContentLength")
    wrong = bearer | {"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}
    assert code(requests.put(url, b"x", headers=wrong, timeout=30)) == (400, "BadDigest")
    assert code(requests.put(url + "?partNumber=1&uploadId=x", b"x", headers=bearer, timeout=30))[0] == 400
    assert code(requests.delete(url, headers=bearer, timeout=30)) == (405, "MethodNotAllowed")


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("EncryptionMode", "PartialBlob"),
        ("EncryptionAgent", {"Protocol": "1.0", "EncryptionAlgorithm": "AES_GCM_256"}),
        ("WrappedContentKey", {"KeyId": "symmKey1"}),
        ("KeyWrappingMetadata", {}),
    ],
)
def test_encryption_data_that_no_driver_writes(admin: Admin, member: str, value: Any) -> None:
    with session(admin, cloud="gcs") as driver:
        driver.run(TABLE)
        answer = driver.run(f"PUT 'file:///x' '{STAGE}'")
        body, metadata = sealed(answer["encryptionMaterial"], numbers(1), "GCS")
        metadata["encryptiondata"] = json.dumps(json.loads(metadata["encryptiondata"]) | {member: value})
        send(answer["stageInfo"], "part-00000.parquet", body, metadata).raise_for_status()
        error = refused(driver, one_column())
        assert error.code == "091003" and "encryption data" in error.message


def test_metadata_of_another_cloud_is_no_metadata(admin: Admin) -> None:
    with session(admin, cloud="gcs") as driver:
        driver.run(TABLE)
        answer = driver.run(f"PUT 'file:///x' '{STAGE}'")
        body, metadata = sealed(answer["encryptionMaterial"], numbers(1), "S3")
        send(answer["stageInfo"], "part-00000.parquet", body, metadata).raise_for_status()
        assert "no encryption metadata" in refused(driver, one_column()).message


def test_encrypted_files_do_not_belong_on_an_unencrypted_stage(admin: Admin) -> None:
    with session(admin, cloud="gcs") as driver:
        driver.run(TABLE)
        driver.run("CREATE STAGE S ENCRYPTION=(TYPE='SNOWFLAKE_SSE')")
        material = driver.run(f"PUT 'file:///x' '{STAGE}'")["encryptionMaterial"]
        body, metadata = sealed(material, parquet({"A": [1]}), "GCS")
        info = driver.run("PUT 'file:///x' '@S/d/'")["stageInfo"]
        send(info, "part-00000.parquet", body, metadata).raise_for_status()
        error = refused(driver, one_column().replace(STAGE, "@S/d/"))
        assert error.code == "091003" and "server side only" in error.message


def test_faults_and_audit(admin: Admin) -> None:
    with session(admin, cloud="gcs") as driver:
        info = driver.run(f"PUT 'file:///x' '{STAGE}'")["stageInfo"]
        mark = admin.last()
        admin.fault({"status": 503}, kind="objectstore", host=f":{admin.ready['gcs_port']}")
        assert [send(info, "x", b"", {}).status_code for _ in range(2)] == [503, 200]
    records = admin.audit(mark)
    assert [(record["kind"], record["status"]) for record in records[:2]] == [
        ("objectstore", 503),
        ("objectstore", 200),
    ]
    assert info["creds"]["GCS_ACCESS_TOKEN"] not in str(records)


def test_a_signed_url_is_not_in_the_audit(admin: Admin) -> None:
    with session(admin, cloud="gcs_presigned") as driver:
        info = driver.run(f"PUT 'file:///x' '{STAGE}'")["stageInfo"]
        mark = admin.last()
        send(info, "x", b"", {}).raise_for_status()
    assert info["presignedUrl"].rpartition("=")[2] not in str(admin.audit(mark))


def test_connections_are_kept(admin: Admin) -> None:
    with session(admin, cloud="gcs") as driver:
        info = driver.run(f"PUT 'file:///x' '{STAGE}'")["stageInfo"]
    connection = http.client.HTTPConnection(info["endPoint"], timeout=30)
    bearer = {"Authorization": f"Bearer {info['creds']['GCS_ACCESS_TOKEN']}"}
    for _ in range(2):
        connection.request("PUT", f"/{info['location']}x", b"x", bearer)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        assert connection.sock is not None
    connection.close()

"""Everything that was asked is told, and nothing that is secret."""

from __future__ import annotations

import json
import uuid

import requests
from driver import Admin, Driver, Identity, sealed, store


def test_requests_in_order_with_what_they_asked(admin: Admin, identity: Identity) -> None:
    mark = admin.last()
    request = str(uuid.uuid4())
    with Driver.logged_in(admin, identity) as driver:
        driver.run("SELECT 1", requestId=request, retryCount="2")
        driver.answer("SELECT * FROM NOPE")
    records = admin.audit(mark)
    assert [record["kind"] for record in records] == ["login", "query", "query", "session"]
    assert [record["sequence"] for record in records] == list(range(mark + 1, mark + 5))
    login, query, failed, close = records
    assert (login["account"], login["user"], login["status"], login["code"]) == (
        identity.account.upper(), "LOADER", 200, None,
    )  # fmt: skip
    assert (query["sql"], query["query"]["requestId"], query["query"]["retryCount"]) == ("SELECT 1", request, "2")
    assert query["session"] == login["session"] == driver.login_data["sessionId"]
    assert query["headers"]["authorization"] == "[redacted]"
    assert failed["code"] == "002003"
    assert close["query"]["delete"] == "true"
    assert login["monotonic"] <= login["finished"] <= query["monotonic"]


def test_no_secret_appears(admin: Admin, identity: Identity) -> None:
    mark = admin.last()
    with Driver.logged_in(admin, identity) as other:
        answer = other.run("PUT 'file:///x' '@~/d/'")
        tokens = [other.token, other.master_token]
    client, bucket, prefix = store(answer["stageInfo"])
    body, metadata = sealed(answer["encryptionMaterial"], b"x")
    client.put_object(Bucket=bucket, Key=prefix + "x", Body=body, Metadata=metadata)
    signed = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": prefix + "x"})
    requests.get(signed, timeout=30)
    told = json.dumps(admin.audit(mark))
    assert '"objectstore"' in told
    creds = answer["stageInfo"]["creds"]
    secrets = [identity.password, *tokens, creds["AWS_SECRET_KEY"], creds["AWS_TOKEN"], "Signature="]
    secrets += [answer["encryptionMaterial"]["queryStageMasterKey"], admin.ready["admin_token"]]
    assert [secret for secret in secrets if secret in told] == []


def test_uploads_are_recorded(admin: Admin, driver: Driver) -> None:
    mark = admin.last()
    driver.upload("@~/audited/", "part-00000.parquet", b"x")
    puts = [record for record in admin.audit(mark) if record["kind"] == "objectstore"]
    assert [(put["method"], put["status"]) for put in puts] == [("PUT", 200)]
    assert puts[0]["path"].endswith("/audited/part-00000.parquet")


def test_the_admin_endpoint_wants_its_token(admin: Admin) -> None:
    for headers in ({}, {"X-Admin-Token": "guess"}):
        assert requests.get(f"{admin.url}/admin/audit", headers=headers, timeout=30).status_code == 401

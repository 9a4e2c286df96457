"""Accounts in Amazon's cloud: the forms of a PUT answer, hosts, and credentials that end in the middle of an upload."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import boto3
import pyarrow as pa
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from conftest import new_account
from driver import Admin, Driver, parquet, sealed, store
from test_copy import STAGE, numbers, one_column

TABLE = 'CREATE TABLE "T" ("A" NUMBER(38,0))'
PART_BYTES = 5 << 20  # S3 takes no smaller part but the last


def test_keys_of_256_bits(admin: Admin) -> None:
    with Driver.logged_in(admin, new_account(admin, client_encryption_key_size=256)) as driver:
        driver.run(TABLE)
        answer = driver.upload(STAGE, "part-00000.parquet", numbers(5))
        assert len(base64.b64decode(answer["encryptionMaterial"]["queryStageMasterKey"])) == 32
        driver.run(one_column())
        assert driver.one('SELECT COUNT(*) FROM "T"') == "5"


@pytest.mark.parametrize("cloud", ["s4", None])
def test_there_is_no_other_cloud(admin: Admin, cloud: Any) -> None:
    with pytest.raises(AssertionError, match="no such cloud"):
        new_account(admin, cloud=cloud)


def test_members_of_an_answer_can_be_replaced(admin: Admin) -> None:
    options = {"stage_info": {"endPoint": "", "useS3RegionalUrl": True, "region": "cn-north-1"}}
    with Driver.logged_in(admin, new_account(admin, cloud_options=options)) as driver:
        info = driver.run(f"PUT 'file:///x' '{STAGE}'")["stageInfo"]
    assert (info["endPoint"], info["useS3RegionalUrl"], info["region"]) == ("", True, "cn-north-1")
    assert (info["locationType"], info["useRegionalUrl"]) == ("S3", False)


def test_the_bucket_in_the_host(driver: Driver, admin: Admin) -> None:
    driver.run(TABLE)
    answer = driver.run(f"PUT 'file:///x' '{STAGE}'")
    info = answer["stageInfo"]
    bucket, prefix = info["location"].split("/", 1)
    client = boto3.client(
        "s3",
        endpoint_url=f"http://storage.localhost:{admin.ready['s3_port']}",
        region_name=info["region"],
        aws_access_key_id=info["creds"]["AWS_KEY_ID"],
        aws_secret_access_key=info["creds"]["AWS_SECRET_KEY"],
        aws_session_token=info["creds"]["AWS_TOKEN"],
        config=Config(s3={"addressing_style": "virtual"}, retries={"total_max_attempts": 1}, proxies={}),
    )
    body, metadata = sealed(answer["encryptionMaterial"], numbers(3))
    mark = admin.last()
    client.put_object(Bucket=bucket, Key=prefix + "part-00000.parquet", Body=body, Metadata=metadata)
    record = admin.audit(mark)[0]
    assert record["headers"]["host"] == f"{bucket}.storage.localhost:{admin.ready['s3_port']}"
    assert record["path"] == f"/{prefix}part-00000.parquet"
    driver.run(one_column())
    with pytest.raises(ClientError, match="AccessDenied"):
        client.put_object(Bucket=bucket, Key="elsewhere", Body=b"")


def test_credentials_that_expire_between_two_parts(driver: Driver, admin: Admin) -> None:
    """The upload goes on with the credentials of a second PUT statement."""
    driver.run(TABLE)
    statement = f"PUT 'file:///x' '{STAGE}'"
    admin.post("expire-stage-credentials", {"after_requests": 2})
    answer = driver.run(statement)
    client, bucket, prefix = store(answer["stageInfo"])
    place = {"Bucket": bucket, "Key": prefix + "part-00000.parquet"}
    content = parquet({"A": pa.array([7], pa.decimal128(38, 0)), "PAD": [secrets.token_bytes(PART_BYTES)]})
    body, metadata = sealed(answer["encryptionMaterial"], content)
    parts = [body[:PART_BYTES], body[PART_BYTES:]]
    upload = client.create_multipart_upload(**place, Metadata=metadata)["UploadId"]
    etags = [client.upload_part(**place, UploadId=upload, PartNumber=1, Body=parts[0])["ETag"]]
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            client.upload_part(**place, UploadId=upload, PartNumber=2, Body=parts[1])
        assert caught.value.response["Error"]["Code"] == "ExpiredToken"
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    client, _, _ = store(driver.run(statement)["stageInfo"])
    etags.append(client.upload_part(**place, UploadId=upload, PartNumber=2, Body=parts[1])["ETag"])
    done = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": done})
    driver.run(one_column())
    assert driver.one('SELECT "A" FROM "T"') == "7"


def test_encrypted_files_do_not_belong_on_an_unencrypted_stage(driver: Driver) -> None:
    driver.run(TABLE)
    driver.run("CREATE STAGE S ENCRYPTION=(TYPE='SNOWFLAKE_SSE')")
    material = driver.run(f"PUT 'file:///x' '{STAGE}'")["encryptionMaterial"]
    body, metadata = sealed(material, numbers(1))
    client, bucket, prefix = store(driver.run("PUT 'file:///x' '@S/d/'")["stageInfo"])
    client.put_object(Bucket=bucket, Key=prefix + "part-00000.parquet", Body=body, Metadata=metadata)
    error = driver.answer(one_column().replace(STAGE, "@S/d/"))
    assert error["code"] == "091003" and "server side only" in error["message"]

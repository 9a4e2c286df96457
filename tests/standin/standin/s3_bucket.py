"""A bucket of moto's S3 server as `StageObjects`. The stages of S3 and of Google accounts lie in such."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

import boto3
from botocore.config import Config

from standin.envelope import Form
from standin.stage_objects import Fetched, Listed


class Owner:
    """The stand-in's own way into moto: an access key that the guard lets pass."""

    def __init__(self, region: str) -> None:
        self.access_key = "STANDIN" + secrets.token_hex(6).upper()
        self.region = region

    def client(self, url: str, ca_file: str | None) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=url,
            verify=ca_file,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=secrets.token_urlsafe(30),
            config=Config(
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": 1},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                proxies={},
            ),
        )


class Bucket:
    def __init__(self, form: Form, bucket: str, client: Any, region: str) -> None:
        self.form: Form = form
        self.bucket = bucket
        self._client = client
        client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})

    def put(self, key: str, body: bytes, metadata: dict[str, str]) -> str:
        return str(self._client.put_object(Bucket=self.bucket, Key=key, Body=body, Metadata=metadata)["ETag"]).strip(
            '"'
        )

    def get(self, key: str) -> Fetched | None:
        try:
            answer = self._client.get_object(Bucket=self.bucket, Key=key)
        except self._client.exceptions.NoSuchKey:
            return None
        return Fetched(answer["Body"].read(), answer["Metadata"], answer["ETag"].strip('"'))

    def list(self, prefix: str) -> list[Listed]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [
            Listed(item["Key"], item["Size"], item["ETag"].strip('"'), item["LastModified"])
            for page in pages
            for item in page.get("Contents", [])
        ]

    def metadata(self, key: str) -> dict[str, str]:
        return dict(self._client.head_object(Bucket=self.bucket, Key=key)["Metadata"])

    def remove(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._client.delete_object(Bucket=self.bucket, Key=key)

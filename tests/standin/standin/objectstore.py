"""The object store behind the stages: moto's S3 on loopback, and before it a check of credentials and signatures."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from standin import signature, wsgi
from standin.audit import Audit
from standin.certificates import Tls
from standin.faults import Faults
from standin.front import Answer, Front, Record, Request, bound, xml_error
from standin.listener import Listener

REGION = "us-west-2"
CREDENTIAL_LIFE_SECONDS = 3600 * 12


@dataclass(frozen=True)
class Grant:
    """Temporary credentials and the one prefix they open."""

    access_key: str
    secret_key: str
    token: str
    prefix: str
    expires: float


class S3Front(Front):
    store: ObjectStore

    def exempt(self, request: Request) -> bool:
        return self.store.is_own(request)

    def respond(self, request: Request, record: Record) -> Answer:
        return self.store.answer(request)


class ObjectStore:
    def __init__(self, audit: Audit, faults: Faults, tls: Tls | None = None) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        self._grants: dict[str, Grant] = {}
        self._own = Grant("STANDIN" + secrets.token_hex(6).upper(), secrets.token_urlsafe(30), "", "", float("inf"))
        self._moto = DomainDispatcherApplication(create_backend_app)
        front = bound(S3Front, audit=audit, faults=faults, store=self)
        self._listener = Listener("objectstore", front, context=tls.server_context() if tls else None)
        self.port = self._listener.port
        self.endpoint = f"127.0.0.1:{self.port}"
        self.bucket = f"sfc-stage-{secrets.token_hex(6)}"

    def start(self) -> None:
        self._listener.start()
        self._client().create_bucket(Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": REGION})

    def grant(self, prefix: str) -> Grant:
        """Credentials for one PUT: they may write below `prefix` and nowhere else."""
        grant = Grant(
            "ASIA" + secrets.token_hex(8).upper(),
            secrets.token_urlsafe(30),
            secrets.token_urlsafe(60),
            prefix,
            time.time() + CREDENTIAL_LIFE_SECONDS,
        )
        with self._lock:
            self._grants[grant.access_key] = grant
        return grant

    def _client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=f"{self._listener.scheme}://{self.endpoint}",
            verify=str(self._tls.ca_file) if self._tls else None,
            region_name=REGION,
            aws_access_key_id=self._own.access_key,
            aws_secret_access_key=self._own.secret_key,
            config=Config(
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": 1},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                proxies={},
            ),
        )

    def put(self, key: str, body: bytes, metadata: dict[str, str]) -> None:
        self._client().put_object(Bucket=self.bucket, Key=key, Body=body, Metadata=metadata)

    def get(self, key: str) -> tuple[bytes, dict[str, str], str] | None:
        """Body, user metadata and ETag, or nothing where there is no such object."""
        client = self._client()
        try:
            answer = client.get_object(Bucket=self.bucket, Key=key)
        except client.exceptions.NoSuchKey:
            return None
        return answer["Body"].read(), answer["Metadata"], answer["ETag"].strip('"')

    def list(self, prefix: str) -> list[dict[str, Any]]:
        pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [item for page in pages for item in page.get("Contents", [])]

    def metadata(self, key: str) -> dict[str, str]:
        return self._client().head_object(Bucket=self.bucket, Key=key)["Metadata"]

    def remove(self, keys: Iterable[str]) -> None:
        client = self._client()
        for key in keys:
            client.delete_object(Bucket=self.bucket, Key=key)

    def is_own(self, request: Request) -> bool:
        """Does the request come from this process?"""
        return signature.access_key(request.headers) == self._own.access_key

    def answer(self, request: Request) -> Answer:
        """A request of a client is refused without valid credentials."""
        if not self.is_own(request):
            refusal = self._refusal(request) or _body_mismatch(request)
            if refusal is not None:
                return xml_error(*refusal)
        return wsgi.run(self._moto, request)

    def _refusal(self, request: Request) -> tuple[int, str, str] | None:
        headers = request.headers
        access_key = signature.access_key(headers)
        if access_key is None:
            return 403, "AccessDenied", "Access Denied"
        with self._lock:
            grant = self._grants.get(access_key)
        if grant is None:
            return (
                403,
                "InvalidAccessKeyId",
                "The AWS Access Key Id you provided does not exist in our records.",
            )
        if headers.get("x-amz-security-token") != grant.token:
            return 400, "InvalidToken", "The provided token is malformed or otherwise invalid."
        if time.time() >= grant.expires:
            return 400, "ExpiredToken", "The provided token has expired."
        if not signature.valid(request.method, request.target, headers, grant.access_key, grant.secret_key, REGION):
            return (
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided.",
            )
        key = request.path.removeprefix(f"/{self.bucket}/")
        if not key.startswith(grant.prefix):
            return 403, "AccessDenied", "Access Denied"
        return None

    def expire_grants(self) -> None:
        """Every credential given out so far is expired from now on."""
        with self._lock:
            for key, grant in self._grants.items():
                self._grants[key] = Grant(grant.access_key, grant.secret_key, grant.token, grant.prefix, 0.0)


def _body_mismatch(request: Request) -> tuple[int, str, str] | None:
    """The signature covers a digest of the body; whether the body has it is for the store to check."""
    promised = request.headers.get("x-amz-content-sha256", "")
    if not re.fullmatch(r"[0-9a-f]{64}", promised):
        return None  # UNSIGNED-PAYLOAD and the streaming forms promise nothing here
    if hashlib.sha256(request.body).hexdigest() == promised:
        return None
    return (
        400,
        "XAmzContentSHA256Mismatch",
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    )

"""The object store behind the stages: moto's S3 server on loopback.

In front of it stand a check of credentials and signatures, the faults and the audit.
"""

from __future__ import annotations

import hashlib
import io
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

import boto3
from botocore.config import Config
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from standin import signature
from standin.audit import Audit
from standin.certificates import Tls
from standin.faults import Faults, Seen

REGION = "us-west-2"
CREDENTIAL_LIFE_SECONDS = 3600 * 12

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


@dataclass(frozen=True)
class Grant:
    """Temporary credentials and the one prefix they open."""

    access_key: str
    secret_key: str
    token: str
    prefix: str
    expires: float


class _QuietHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Every request is in the audit already."""


class ObjectStore:
    def __init__(self, audit: Audit, faults: Faults, tls: Tls | None = None) -> None:
        self._tls = tls
        self._audit = audit
        self._faults = faults
        self._lock = threading.Lock()
        self._grants: dict[str, Grant] = {}
        self._own = Grant("STANDIN" + secrets.token_hex(6).upper(), secrets.token_urlsafe(30), "", "", float("inf"))
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(
            "127.0.0.1",
            0,
            self._guard,
            threaded=True,
            request_handler=_QuietHandler,
            ssl_context=tls.server_context() if tls else None,
        )
        self.port: int = self._server.server_port
        self.endpoint = f"127.0.0.1:{self.port}"
        self.bucket = f"sfc-stage-{secrets.token_hex(6)}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="objectstore", daemon=True)

    def start(self) -> None:
        self._thread.start()
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
            endpoint_url=f"{'https' if self._tls else 'http'}://{self.endpoint}",
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

    def _guard(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """One request from a client: audited, perhaps spoiled by a fault, refused without valid credentials."""
        headers = signature.headers_of(environ)
        access_key = signature.access_key(headers)
        if access_key == self._own.access_key:
            return self._moto(environ, start_response)
        record = self._audit.open(
            "objectstore",
            environ["REQUEST_METHOD"],
            unquote(environ.get("RAW_URI", environ["PATH_INFO"]).split("?", 1)[0]),
            dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)),
            headers,
        )
        seen = Seen(record["path"], "objectstore", record["method"], headers.get("host", ""), "")
        answered: dict[str, Any] = {}

        def note(status: str, response_headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            answered["status"] = int(status.split(" ", 1)[0])
            return start_response(status, response_headers, exc_info)

        fault = self._faults.take(seen)
        try:
            if fault is not None and fault.before(environ["werkzeug.socket"]):
                answered["status"] = fault.status or 0
                return fault.wsgi_answer(note)
            refusal = self._refusal(environ, headers, access_key) or _body_mismatch(environ, headers)
            if refusal is not None:
                return _error(note, *refusal)
            body = self._moto(environ, note)
            if fault is not None and fault.loses_answer():
                b"".join(body)
                answered["status"] = 0
                fault.cut(environ["werkzeug.socket"])
                return []
            return body
        finally:
            self._audit.close(record, answered.get("status", 0))

    def _refusal(
        self, environ: Environ, headers: dict[str, str], access_key: str | None
    ) -> tuple[str, str, str] | None:
        if access_key is None:
            return "403 Forbidden", "AccessDenied", "Access Denied"
        with self._lock:
            grant = self._grants.get(access_key)
        if grant is None:
            return (
                "403 Forbidden",
                "InvalidAccessKeyId",
                "The AWS Access Key Id you provided does not exist in our records.",
            )
        if headers.get("x-amz-security-token") != grant.token:
            return "400 Bad Request", "InvalidToken", "The provided token is malformed or otherwise invalid."
        if time.time() >= grant.expires:
            return "400 Bad Request", "ExpiredToken", "The provided token has expired."
        if not signature.valid(environ, headers, grant.access_key, grant.secret_key, REGION):
            return (
                "403 Forbidden",
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided.",
            )
        key = unquote(environ["PATH_INFO"].encode("latin-1").decode()).removeprefix(f"/{self.bucket}/")
        if not key.startswith(grant.prefix):
            return "403 Forbidden", "AccessDenied", "Access Denied"
        return None

    def expire_grants(self) -> None:
        """Every credential given out so far is expired from now on."""
        with self._lock:
            for key, grant in self._grants.items():
                self._grants[key] = Grant(grant.access_key, grant.secret_key, grant.token, grant.prefix, 0.0)


def _body_mismatch(environ: Environ, headers: dict[str, str]) -> tuple[str, str, str] | None:
    """The signature covers a digest of the body; whether the body has it is for the store to check."""
    promised = headers.get("x-amz-content-sha256", "")
    if not re.fullmatch(r"[0-9a-f]{64}", promised):
        return None  # UNSIGNED-PAYLOAD and the streaming forms promise nothing here
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    if hashlib.sha256(body).hexdigest() == promised:
        return None
    return (
        "400 Bad Request",
        "XAmzContentSHA256Mismatch",
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    )


def _error(start_response: StartResponse, status: str, code: str, message: str) -> list[bytes]:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    payload = body.encode()
    start_response(
        status,
        [("Content-Type", "application/xml"), ("Content-Length", str(len(payload))), ("Connection", "close")],
    )
    return [payload]

"""AWS signature version 4 of an incoming request, checked with botocore's own signer."""

from __future__ import annotations

import hmac
import re
from typing import Any

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<date>\d{8})/(?P<region>[^/]+)/s3/aws4_request,\s*"
    r"SignedHeaders=(?P<signed>[^,]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)


def access_key(headers: dict[str, str]) -> str | None:
    match = _AUTHORIZATION.match(headers.get("authorization", ""))
    return match["key"] if match else None


def valid(method: str, target: str, headers: dict[str, str], key: str, secret: str, region: str) -> bool:
    """Does the signature fit the request's method, path, query and signed headers?

    The body is bound through `x-amz-content-sha256`, which is among the signed headers.
    """
    match = _AUTHORIZATION.match(headers.get("authorization", ""))
    if not match or match["region"] != region or "x-amz-date" not in headers:
        return False
    signed = match["signed"].split(";")
    if "host" not in signed or any(name not in headers for name in signed):
        return False
    request = AWSRequest(
        method=method,
        url=f"http://{headers['host']}{target}",
        headers={name: headers[name] for name in signed},
    )
    request.context["timestamp"] = headers["x-amz-date"]
    request.context["payload_signing_enabled"] = True
    signer = _Signer(Credentials(key, secret), "s3", region)
    canonical = signer.canonical_request(request)
    expected = signer.signature(signer.string_to_sign(request, canonical), request)
    return hmac.compare_digest(expected, match["signature"])


class _Signer(S3SigV4Auth):
    """Canonicalises exactly the headers the client says it signed."""

    def headers_to_sign(self, request: AWSRequest) -> Any:
        return request.headers

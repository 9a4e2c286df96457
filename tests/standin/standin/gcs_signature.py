"""Signed URLs of Google's XML API, version 4, made and checked with an HMAC key of the stand-in."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlencode

ALGORITHM = "GOOG4-HMAC-SHA256"
SIGNATURE = "X-Goog-Signature"
_STAMP = "%Y%m%dT%H%M%SZ"


class SignedUrls:
    def __init__(self, region: str) -> None:
        self._access_id = "GOOG1" + secrets.token_hex(16).upper()
        self._secret = secrets.token_urlsafe(30)
        self._region = region

    def sign(self, method: str, host: str, path: str, life_seconds: int) -> tuple[str, str]:
        """Path and query that let their holder do this one thing, and the signature among them."""
        stamp = datetime.now(UTC).strftime(_STAMP)
        query = [
            ("X-Goog-Algorithm", ALGORITHM),
            ("X-Goog-Credential", f"{self._access_id}/{self._scope(stamp)}"),
            ("X-Goog-Date", stamp),
            ("X-Goog-Expires", str(life_seconds)),
            ("X-Goog-SignedHeaders", "host"),
            ("X-Nonce", secrets.token_hex(8)),  # so that no two URLs of one second are the same
        ]
        escaped = quote(path)
        signature = self._signature(method, host, escaped, query)
        return f"{escaped}?{urlencode([*query, (SIGNATURE, signature)], quote_via=quote)}", signature

    def valid(self, method: str, host: str, target: str) -> bool:
        """Was exactly this signed? Until when it is good, its grant knows."""
        path, _, text = target.partition("?")
        pairs = parse_qsl(text, keep_blank_values=True)
        signatures = [value for name, value in pairs if name == SIGNATURE]
        if len(signatures) != 1 or "X-Goog-Date" not in dict(pairs):
            return False
        signed = [pair for pair in pairs if pair[0] != SIGNATURE]
        return hmac.compare_digest(self._signature(method, host, path, signed), signatures[0])

    def _scope(self, stamp: str) -> str:
        return f"{stamp[:8]}/{self._region}/storage/goog4_request"

    def _signature(self, method: str, host: str, path: str, query: list[tuple[str, str]]) -> str:
        stamp = dict(query)["X-Goog-Date"]
        ordered = urlencode(sorted(query), quote_via=quote, safe="")
        canonical = "\n".join([method, path, ordered, f"host:{host}", "", "host", "UNSIGNED-PAYLOAD"])
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = "\n".join([ALGORITHM, stamp, self._scope(stamp), digest])
        key = ("GOOG4" + self._secret).encode()
        for part in (stamp[:8], self._region, "storage", "goog4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

"""Chunks: where the rows of a large JSON result lie, behind links to a store that knows nothing of Snowflake's tokens.

The links are like Amazon's presigned ones: whoever holds one may fetch, for a while, and nobody may show other credentials.
Results are cut only while a test asks for it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import secrets
import ssl
import threading
from dataclasses import dataclass
from typing import Any

from standin.audit import Audit
from standin.faults import Faults
from standin.front import Answer, Front, Record, Request, bound, xml_error
from standin.listener import Listener

LIFE_SECONDS = 21_599  # X-Amz-Expires of the links that drivers report
_PREFIX = "x-amz-server-side-encryption-customer-"
_HEADERS = {"headers", "qrmk", "none"}


@dataclass(frozen=True)
class Cutting:
    """How results are cut: rows in the answer itself, rows in each chunk, how the key of the chunks is told."""

    inline_rows: int = 10
    chunk_rows: int = 100
    headers: str = "headers"
    gzip: bool = True

    def __post_init__(self) -> None:
        if self.headers not in _HEADERS or self.chunk_rows < 1 or self.inline_rows < 0:
            raise ValueError(f"not a way to cut results: {self}")


@dataclass
class _Chunk:
    body: bytes
    packed: bool
    wanted: dict[str, str]
    expired: bool = False


class ChunkFront(Front):
    store: Chunks

    def kind(self, request: Request) -> str:
        return "chunk"

    def respond(self, request: Request, record: Record) -> Answer:
        return self.store.answer(request)


class Chunks:
    def __init__(self, audit: Audit, faults: Faults, context: ssl.SSLContext | None) -> None:
        self.cutting: Cutting | None = None
        self._lock = threading.Lock()
        self._chunks: dict[str, _Chunk] = {}
        self._listener = Listener("chunks", bound(ChunkFront, audit=audit, faults=faults, store=self), context=context)
        self.port = self._listener.port

    def start(self) -> None:
        self._listener.start()

    def cut(self, query_id: str, rows: list[list[str | None]]) -> dict[str, Any]:
        """The members of the answer that carry the rows."""
        cutting = self.cutting
        if cutting is None or len(rows) <= cutting.inline_rows:
            return {"rowset": rows}
        key = secrets.token_bytes(32)
        encoded = base64.b64encode(key).decode()
        digest = base64.b64encode(hashlib.md5(key, usedforsecurity=False).digest()).decode()
        told: dict[str, Any] = {"rowset": rows[: cutting.inline_rows]}
        wanted = {_PREFIX + "algorithm": "AES256", _PREFIX + "key": encoded}
        if cutting.headers == "headers":
            wanted[_PREFIX + "key-md5"] = digest
            told["chunkHeaders"] = wanted
        elif cutting.headers == "qrmk":
            told["qrmk"] = encoded
        else:
            wanted = {}
            told["chunkHeaders"] = {}
        told["chunks"] = [
            self._store(query_id, number, rows[start : start + cutting.chunk_rows], cutting, wanted)
            for number, start in enumerate(range(cutting.inline_rows, len(rows), cutting.chunk_rows))
        ]
        return told

    def _store(
        self, query_id: str, number: int, rows: list[list[str | None]], cutting: Cutting, wanted: dict[str, str]
    ) -> dict[str, Any]:
        """Rows with commas between them, and no brackets around."""
        plain = json.dumps(rows, separators=(",", ":"))[1:-1].encode()
        body = gzip.compress(plain) if cutting.gzip else plain
        ticket = secrets.token_hex(32)
        path = f"/results/{query_id}/main/data_0_0_{number}"
        with self._lock:
            self._chunks[path + ticket] = _Chunk(body, cutting.gzip, wanted)
        query = f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires={LIFE_SECONDS}&X-Amz-Signature={ticket}"
        return {
            "url": f"{self._listener.scheme}://127.0.0.1:{self.port}{path}?{query}",
            "rowCount": len(rows),
            "uncompressedSize": len(plain),
            "compressedSize": len(body),
        }

    def expire(self) -> None:
        """All links given out so far are too old from now on."""
        with self._lock:
            for chunk in self._chunks.values():
                chunk.expired = True

    def answer(self, request: Request) -> Answer:
        if "authorization" in request.headers:
            return xml_error(
                400,
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string "
                "parameter or the Authorization header should be specified",
            )
        with self._lock:
            chunk = self._chunks.get(request.path + request.query.get("X-Amz-Signature", ""))
        if chunk is None:
            return xml_error(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
        if chunk.expired:
            return xml_error(403, "AccessDenied", "Request has expired")
        missing = [name for name in chunk.wanted if name not in request.headers]
        if missing:
            return xml_error(
                400,
                "InvalidRequest",
                "The object was stored using a form of Server Side Encryption. The correct parameters must be provided "
                "to retrieve the object.",
            )
        if any(request.headers[name] != value for name, value in chunk.wanted.items()):
            return xml_error(403, "AccessDenied", "Access Denied")
        encoding = [("Content-Encoding", "gzip")] if chunk.packed else []
        return Answer(200, chunk.body, "application/octet-stream", encoding)

"""The audit: every request that came in, in order, without its secrets."""

from __future__ import annotations

import threading
import time
from typing import Any

# Headers and query parameters whose values are credentials or signatures.
_SECRET_HEADERS = {
    "authorization",
    "x-amz-security-token",
    "x-amz-server-side-encryption-customer-key",
    "x-admin-token",
    "cookie",
}
_SECRET_PARAMETERS = {"x-amz-signature", "x-amz-security-token", "x-amz-credential", "x-goog-signature", "sig", "token"}
REDACTED = "[redacted]"


class Audit:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._records: list[dict[str, Any]] = []

    def open(self, kind: str, method: str, path: str, query: dict[str, str], headers: dict[str, str]) -> dict[str, Any]:
        """Record a request as soon as its head is read; `close` adds the answer."""
        record: dict[str, Any] = {
            "kind": kind,
            "monotonic": time.monotonic(),
            "time": time.time(),
            "method": method,
            "path": path,
            "query": {name: REDACTED if name.lower() in _SECRET_PARAMETERS else value for name, value in query.items()},
            "headers": {
                name: REDACTED if name.lower() in _SECRET_HEADERS else value for name, value in headers.items()
            },
            "account": None,
            "user": None,
            "session": None,
            "sql": None,
            "status": None,
            "code": None,
            "finished": None,
        }
        with self._changed:
            record["sequence"] = len(self._records) + 1
            self._records.append(record)
        return record

    def close(self, record: dict[str, Any], status: int, code: str | None = None) -> None:
        """`status` 0 means that the connection was cut instead of answered."""
        with self._changed:
            record["status"] = status
            record["code"] = code
            record["finished"] = time.monotonic()
            self._changed.notify_all()

    def records(self, after: int = 0) -> list[dict[str, Any]]:
        with self._changed:
            return [dict(record) for record in self._records[after:]]

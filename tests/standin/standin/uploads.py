"""Presigned uploads: one-file URLs on the gateway itself, for clients that talk to Amazon only under Amazon's names."""

from __future__ import annotations

import secrets
import threading

from standin.objectstore import ObjectStore

PATH = "/stage-upload/"
_METADATA_PREFIX = "x-goog-meta-"


class Uploads:
    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._keys: dict[str, str] = {}
        self.base_url = ""

    def url(self, key: str) -> str:
        """A URL that only who holds it can write to, and only this one object."""
        ticket = secrets.token_urlsafe(24)
        with self._lock:
            self._keys[ticket] = key
        return f"{self.base_url}{PATH}{ticket}"

    def receive(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """Store an uploaded body with its metadata; the HTTP status to answer."""
        with self._lock:
            key = self._keys.get(path.removeprefix(PATH).split("/", 1)[0])
        if key is None:
            return 403
        metadata = {
            name.removeprefix(_METADATA_PREFIX): value
            for name, value in headers.items()
            if name.startswith(_METADATA_PREFIX)
        }
        self._store.put(key, body, metadata)
        return 200

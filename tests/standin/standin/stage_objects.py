"""Where the files of stages lie, whatever the cloud: what COPY, LIST and REMOVE ask of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from standin.envelope import Form


@dataclass(frozen=True)
class Listed:
    key: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True)
class Fetched:
    body: bytes
    metadata: dict[str, str]
    etag: str


class StageObjects(Protocol):
    """One bucket or container, seen from inside: no credentials, no audit, no faults."""

    form: Form
    bucket: str

    def put(self, key: str, body: bytes, metadata: dict[str, str]) -> str:
        """Store an object and answer its ETag."""

    def get(self, key: str) -> Fetched | None: ...

    def list(self, prefix: str) -> list[Listed]: ...

    def metadata(self, key: str) -> dict[str, str]: ...

    def remove(self, keys: Iterable[str]) -> None: ...

"""Load history: which file, with which ETag, each table has already loaded.

docs.snowflake.com "COPY INTO <table>", option FORCE, and "Load metadata": kept with the target table, by path and ETag;
gone with the table and after TRUNCATE. Entries of a rolled-back transaction are never recorded, since the rows are not
there either.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

from standin.names import TableName


@dataclass(frozen=True)
class LoadEntry:
    table: TableName
    path: str
    etag: str
    rows: int
    loaded_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class LoadHistory:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[TableName, dict[str, LoadEntry]] = {}

    def knows(self, table: TableName, path: str, etag: str, uncommitted: list[LoadEntry]) -> bool:
        with self._lock:
            entry = self._entries.get(table, {}).get(path)
        for candidate in uncommitted:
            if candidate.table == table and candidate.path == path:
                entry = candidate
        return entry is not None and entry.etag == etag

    def record(self, entries: list[LoadEntry]) -> None:
        with self._lock:
            for entry in entries:
                self._entries.setdefault(entry.table, {})[entry.path] = entry

    def forget(self, table: TableName) -> None:
        with self._lock:
            self._entries.pop(table, None)

    def rename(self, old: TableName, new: TableName) -> None:
        with self._lock:
            if old in self._entries:
                self._entries[new] = self._entries.pop(old)

    def entries(self, table: TableName) -> list[LoadEntry]:
        with self._lock:
            return list(self._entries.get(table, {}).values())

"""What exists, and the declared types of columns, which DuckDB's own types cannot tell."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

import duckdb

from standin.names import TableName
from standin.sqltypes import SqlType, from_duckdb

HIDDEN_DATABASES = {"memory", "system", "temp", "_fs_global"}
HIDDEN_SCHEMAS = {"main", "information_schema", "pg_catalog", "_fs_information_schema"}
TEMPORARY_MARK = "$temporary$"  # part of the stored name of a temporary table; no client can see or write it


@dataclass
class TableInfo:
    """What the stand-in remembers of a table beyond DuckDB's catalog."""

    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    owner: str = "ACCOUNTADMIN"
    comment: str = ""
    cluster_by: str = ""
    types: dict[str, SqlType] = field(default_factory=dict)
    column_comments: dict[str, str] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)
    primary_key: set[str] = field(default_factory=set)


@dataclass
class ColumnInfo:
    name: str
    type: SqlType
    nullable: bool
    default: str | None
    comment: str | None
    is_primary_key: bool


class Catalog:
    """Reads DuckDB's catalog through its own connection, so it never sees another session's uncommitted objects."""

    def __init__(self, root: duckdb.DuckDBPyConnection) -> None:
        self._connection = root.cursor()
        self._lock = threading.RLock()
        self._tables: dict[TableName, TableInfo] = {}

    def _rows(self, sql: str, params: list[str] | None = None) -> list[tuple]:
        with self._lock:
            return self._connection.execute(sql, params or []).fetchall()

    def databases(self) -> list[str]:
        rows = self._rows("SELECT database_name FROM duckdb_databases() ORDER BY 1")
        return [name for (name,) in rows if name not in HIDDEN_DATABASES]

    def schemas(self, database: str) -> list[str]:
        rows = self._rows("SELECT schema_name FROM duckdb_schemas() WHERE database_name = ? ORDER BY 1", [database])
        return [name for (name,) in rows if name not in HIDDEN_SCHEMAS]

    def has_schema(self, database: str, schema: str) -> bool:
        return schema.upper() == "INFORMATION_SCHEMA" or schema in self.schemas(database)

    def is_table(self, name: TableName) -> bool:
        """Exact case: DuckDB would match `t` for `T`, Snowflake does not."""
        return name in self.tables(name.database, name.schema)

    def is_view(self, name: TableName) -> bool:
        rows = self._rows(
            "SELECT 1 FROM duckdb_views() WHERE database_name = ? AND schema_name = ? AND view_name = ?", list(name)
        )
        return bool(rows)

    def tables(self, database: str | None = None, schema: str | None = None) -> list[TableName]:
        rows = self._rows(
            "SELECT database_name, schema_name, table_name FROM duckdb_tables() WHERE NOT temporary "
            "AND database_name = coalesce(?, database_name) AND schema_name = coalesce(?, schema_name) "
            "ORDER BY 1, 2, 3",
            [database, schema],  # type: ignore[list-item]
        )
        return [TableName(*row) for row in rows if row[0] not in HIDDEN_DATABASES and row[1] not in HIDDEN_SCHEMAS]

    def info(self, name: TableName) -> TableInfo:
        with self._lock:
            return self._tables.setdefault(name, TableInfo())

    def remember(self, name: TableName, info: TableInfo) -> None:
        with self._lock:
            self._tables[name] = info

    def forget(self, name: TableName) -> None:
        with self._lock:
            self._tables.pop(name, None)

    def rename(self, old: TableName, new: TableName) -> None:
        with self._lock:
            self._tables[new] = self._tables.pop(old, TableInfo())

    def columns(self, name: TableName) -> list[ColumnInfo]:
        rows = self._rows(
            "SELECT column_name, data_type, is_nullable, column_default FROM duckdb_columns() "
            "WHERE database_name = ? AND schema_name = ? AND table_name = ? ORDER BY column_index",
            list(name),
        )
        info = self.info(name)
        return [
            ColumnInfo(
                column,
                self._declared(info, column, kind),
                nullable,
                info.identities.get(column, default),
                info.column_comments.get(column),
                column in info.primary_key,
            )
            for column, kind, nullable, default in rows
        ]

    @staticmethod
    def _declared(info: TableInfo, column: str, duck_type: str) -> SqlType:
        declared = info.types.get(column)
        if declared is not None and declared.duckdb() == duck_type:
            return declared
        return from_duckdb(duck_type)

    def row_count(self, name: TableName) -> int:
        rows = self._rows(f"SELECT count(*) FROM {name.sql()}")
        return rows[0][0] if rows else 0

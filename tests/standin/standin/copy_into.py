"""COPY INTO <table>: fetch, decrypt, convert, and only then write, all files or none."""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from sqlglot import exp

from standin import copy_statement, results, sqlerrors
from standin.catalog import ColumnInfo
from standin.copy_statement import CopyStatement
from standin.copy_transform import Transform
from standin.dml import open_write
from standin.errors import SnowflakeError, cancelled, invalid_identifier, unsupported
from standin.load_history import LoadEntry
from standin.names import TableName, literal, quote
from standin.resolve import complete, existing_table
from standin.staged_file import StagedFile, fetch
from standin.stages import Location, locate
from standin.transactions import write

if TYPE_CHECKING:
    from standin.results import Result
    from standin.sessions import Session
    from standin.stage_objects import StageObjects
    from standin.stores import Stores

_CONTINUE_HINT = (
    "\n  If you would like to continue loading when an error is encountered, use other values such as 'SKIP_FILE' or "
    "'CONTINUE' for the ON_ERROR option. For more information on loading options, please run 'info loading_data' in a "
    "SQL client."
)


@dataclass
class Loaded:
    """One file of the statement, with its converted rows unless it is skipped."""

    name: str
    path: str
    etag: str
    rows: pa.Table | None

    def count(self) -> int:
        return 0 if self.rows is None else self.rows.num_rows


def run(session: Session, sql: str, stores: Stores, scratch: str, query: threading.Event) -> Result:
    statement = copy_statement.parse(sql)
    name = complete(session, statement.table)
    stored = existing_table(session, name)
    _check_options(statement)
    columns = _targets(session, stored, statement)
    location = locate(session, statement.location)
    objects = stores.objects(session.account)
    keys = _keys(statement, location, objects)
    if not keys:
        return results.status("Copy executed with 0 files processed.", results.COPY)
    open_write(session, name, "INSERT", False, query)
    files = _load(session, statement, stored, columns, location, keys, objects, scratch, query)
    _shorten(session, files)
    _write(session, stored, columns, files)
    if statement.flag("PURGE"):
        objects.remove(key for key, file in zip(keys, files, strict=True) if file.rows is not None)
    if all(file.rows is None for file in files) and statement.files() is None:
        return results.status("Copy executed with 0 files processed.", results.COPY)
    return _report(files)


def _check_options(statement: CopyStatement) -> None:
    if "PATTERN" in statement.options or "SIZE_LIMIT" in statement.options:
        raise unsupported("COPY with PATTERN or SIZE_LIMIT")
    if statement.word("ON_ERROR", "ABORT_STATEMENT") != "ABORT_STATEMENT":
        raise unsupported("COPY with ON_ERROR other than ABORT_STATEMENT")
    file_format = statement.options.get("FILE_FORMAT", {})
    if not isinstance(file_format, dict) or str(file_format.get("TYPE", "CSV")).upper() != "PARQUET":
        raise unsupported("COPY of anything but FILE_FORMAT=(TYPE=PARQUET …)")
    matching = statement.word("MATCH_BY_COLUMN_NAME", "NONE")
    if matching != "NONE" and statement.projections is not None:
        raise SnowflakeError(
            "002140", "0A000", "SQL compilation error:\nMATCH_BY_COLUMN_NAME cannot be used with a transformation."
        )
    if matching == "NONE" and statement.projections is None:
        raise SnowflakeError(
            "002019",
            "0A000",
            "SQL compilation error:\nPARQUET file format can produce one and only one column of type variant, object, or "
            "array. Load data into separate columns using the MATCH_BY_COLUMN_NAME copy option or copy with transformation.",
        )


def _targets(session: Session, stored: TableName, statement: CopyStatement) -> list[ColumnInfo]:
    """The columns to fill. Names are compared exactly, as Snowflake does."""
    present = {column.name: column for column in session.engine.catalog.columns(stored)}
    if statement.columns is None:
        chosen = list(present.values())
    else:
        missing = [column for column in statement.columns if column not in present]
        if missing:
            raise invalid_identifier(missing[0])
        chosen = [present[column] for column in statement.columns]
    if statement.projections is not None and len(statement.projections) != len(chosen):
        raise SnowflakeError(
            "002020",
            "21S01",
            f"SQL compilation error:\nInsert value list does not match column list expecting {len(chosen)} but got "
            f"{len(statement.projections)}",
        )
    return chosen


def _keys(statement: CopyStatement, location: Location, objects: StageObjects) -> list[str]:
    names = statement.files()
    if names is None:
        return [item.key for item in objects.list(location.prefix())]
    base = location.prefix()
    if location.path and not base.endswith("/"):
        base += "/"
    return [base + name for name in names]


def _load(
    session: Session,
    statement: CopyStatement,
    stored: TableName,
    columns: list[ColumnInfo],
    location: Location,
    keys: list[str],
    objects: StageObjects,
    scratch: str,
    query: threading.Event,
) -> list[Loaded]:
    """Everything that can fail for the sake of the data happens here, before the transaction is touched."""
    uncommitted = session.transaction.loads if session.transaction else []
    loaded = []
    for key in keys:
        if query.is_set():
            raise cancelled()
        path = key.removeprefix(location.stage.folder)
        name = location.stage.label + path
        staged = fetch(objects, session.engine.stages, location.stage, key, name)
        known = session.engine.history.knows(stored, key, staged.etag, uncommitted)
        rows = None
        if statement.flag("FORCE") or not known:
            rows = _convert(session, statement, stored, columns, staged, scratch)
        loaded.append(Loaded(name, key, staged.etag, rows))
    return loaded


def _shorten(session: Session, files: list[Loaded]) -> None:
    """A test may want rows to be lost on the way; what is told is what was loaded."""
    full = next((file for file in files if file.count() > 0), None)
    if full is not None and full.rows is not None and session.account.short_copies.acquire(blocking=False):
        full.rows = full.rows.slice(1)


def _convert(
    session: Session,
    statement: CopyStatement,
    stored: TableName,
    columns: list[ColumnInfo],
    staged: StagedFile,
    scratch: str,
) -> pa.Table:
    """The rows of one file, each column already of its target's type. Runs on a connection of its own."""
    connection = session.engine.side_connection()
    handle, local = tempfile.mkstemp(suffix=".parquet", dir=scratch)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(staged.content)
        connection.execute("SET TimeZone = 'UTC'")
        source = f"read_parquet({literal(local)})"
        described = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
        file_columns = {row[0]: row[1] for row in described}
        projections = statement.projections or _matched(statement, columns, file_columns)
        transform = Transform(file_columns, staged.name)
        expressions = [
            f"{transform.into(projection, column.type, column.name)} AS {quote(column.name)}"
            for projection, column in zip(projections, columns, strict=True)
        ]
        table = connection.sql(f"SELECT {', '.join(expressions)} FROM {source}").to_arrow_table()
        for column in columns:
            _check_values(table, column)
        return table
    except duckdb.InvalidInputException as error:
        if "parquet" in str(error).lower() or "PAR1" in str(error):
            raise SnowflakeError(
                "100152",
                "22000",
                f"Error parsing the parquet file: {str(error).splitlines()[0]}\n  File '{staged.name}'",
            ) from None
        raise _load_error(error, staged.name, stored) from None
    except duckdb.Error as error:
        raise _load_error(error, staged.name, stored) from None
    finally:
        connection.close()
        os.unlink(local)


def _matched(statement: CopyStatement, columns: list[ColumnInfo], file_columns: dict[str, str]) -> list[exp.Expr]:
    """MATCH_BY_COLUMN_NAME: the file's column of the same name, NULL where it has none."""
    sensitive = statement.word("MATCH_BY_COLUMN_NAME", "NONE") == "CASE_SENSITIVE"
    by_name = {name if sensitive else name.upper(): name for name in file_columns}
    found = []
    for column in columns:
        name = by_name.get(column.name if sensitive else column.name.upper(), "")
        path = exp.JSONPath(expressions=[exp.JSONPathRoot(), exp.JSONPathKey(this=name)])
        found.append(exp.JSONExtract(this=exp.Parameter(this=exp.Literal.number(1)), expression=path))
    return found


def _check_values(table: pa.Table, column: ColumnInfo) -> None:
    """What the conversion does not check."""
    values = table.column(column.name)
    if not column.nullable and values.null_count:
        raise SnowflakeError("100072", "22000", f"NULL result in a non-nullable column\n  Column {column.name}")


def _load_error(error: duckdb.Error, file: str, stored: TableName) -> SnowflakeError:
    translated = sqlerrors.translate(error)
    return SnowflakeError(
        translated.code,
        translated.sqlstate,
        f"{translated.message}\n  File '{file}'\n  Table {stored.name}{_CONTINUE_HINT}",
    )


def _write(session: Session, stored: TableName, columns: list[ColumnInfo], files: list[Loaded]) -> None:
    names = ", ".join(quote(column.name) for column in columns)
    entries = [LoadEntry(stored, file.path, file.etag, file.count()) for file in files if file.rows is not None]
    tables = [file.rows for file in files if file.rows is not None]

    def work(connection: duckdb.DuckDBPyConnection) -> Any:
        total = 0
        for rows in tables:
            connection.register("standin_rows", rows)
            try:
                inserted = connection.execute(f"INSERT INTO {stored.sql()} ({names}) SELECT * FROM standin_rows")
                total += inserted.fetchall()[0][0]
            finally:
                connection.unregister("standin_rows")
        return total

    write(session.duck, session.transaction, work)
    if session.transaction is not None:
        session.transaction.loads += entries
    else:
        session.engine.history.record(entries)


def _report(files: list[Loaded]) -> Result:
    columns = [
        results.text("file"),
        results.text("status"),
        results.number("rows_parsed"),
        results.number("rows_loaded"),
        results.number("error_limit"),
        results.number("errors_seen"),
        results.text("first_error"),
        results.number("first_error_line"),
        results.number("first_error_character"),
        results.text("first_error_column_name"),
    ]
    rows: list[tuple[Any, ...]] = []
    for file in files:
        if file.rows is None:
            rows.append((file.name, "LOAD_SKIPPED", 0, 0, 1, 1, "File was loaded before.", None, None, None))
        else:
            count = file.count()
            rows.append((file.name, "LOADED", count, count, 1, 0, None, None, None, None))
    return results.from_rows(columns, rows, results.COPY)

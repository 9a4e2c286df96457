"""SHOW and DESCRIBE. They need no warehouse."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from standin import results
from standin.catalog import TEMPORARY_MARK
from standin.errors import SnowflakeError, missing_database, missing_schema, syntax_error
from standin.names import TableName, split_qualified, unescape
from standin.privileges import require_usage
from standin.resolve import existing_table, name_of
from standin.results import Column, Result

if TYPE_CHECKING:
    from standin.sessions import Session

_NAME = r"(?:\"(?:[^\"]|\"\")+\"|[\w$]+)"
_SHOW = re.compile(
    r"SHOW\s+(?:TERSE\s+)?(?P<kind>TABLES|SCHEMAS|DATABASES|WAREHOUSES|STAGES)(?:\s+HISTORY)?"
    r"(?:\s+LIKE\s+'(?P<like>(?:[^'\\]|\\.|'')*)')?"
    r"(?:\s+IN\s+(?P<scope>ACCOUNT|DATABASE|SCHEMA)?\s*(?P<name>" + _NAME + r"(?:\." + _NAME + r")?)?)?"
    r"(?:\s+STARTS\s+WITH\s+'(?P<starts>(?:[^'\\]|\\.|'')*)')?"
    r"(?:\s+LIMIT\s+(?P<limit>\d+)(?:\s+FROM\s+'(?P<from>(?:[^'\\]|\\.|'')*)')?)?\s*;?\s*\Z",
    re.IGNORECASE | re.DOTALL,
)
_DESCRIBE_TRANSACTION = re.compile(r"DESC(?:RIBE)?\s+TRANSACTION\s+(\d+)\s*;?\s*\Z", re.IGNORECASE)
BYTES_PER_VALUE = 8  # SHOW TABLES' `bytes` is an estimate here: rows × columns × this


def like(pattern: str, text: str) -> bool:
    """SHOW … LIKE: `%` and `_`, whatever the case."""
    expression = "".join({"%": ".*", "_": "."}.get(char, re.escape(char)) for char in pattern)
    return re.fullmatch(expression, text, re.IGNORECASE | re.DOTALL) is not None


def moment(name: str) -> Column:
    return Column(name, "timestamp_ltz", precision=0, scale=3)


def show(session: Session, sql: str) -> Result | None:
    """The answer, or nothing for a kind of SHOW that fakesnow answers."""
    match = _SHOW.match(sql)
    if not match:
        return None
    kind = match["kind"].upper()
    if kind == "TABLES":
        return _tables(session, match)
    if kind == "SCHEMAS":
        return _schemas(session, match)
    rows: list[tuple[Any, ...]]
    if kind == "DATABASES":
        rows = [(None, name, "N", "N", "", "ACCOUNTADMIN", "", "", "1", "STANDARD") for name in _databases(session)]
        names = ("name", "is_default", "is_current", "origin", "owner", "comment", "options", "retention_time", "kind")
        return _listing(match, [moment("created_on"), *map(results.text, names)], rows)
    if kind == "WAREHOUSES":
        names = sorted(session.account.warehouses)
        return _listing(match, [results.text("name"), results.text("state")], [(name, "STARTED") for name in names], 0)
    stages = session.engine.stages.visible(session.id)
    rows = [
        (stage.created, stage.name.name, stage.name.database, stage.name.schema, "", stage.comment, "INTERNAL"
         + (" TEMPORARY" if stage.session_id is not None else ""))
        for stage in stages
        if stage.name is not None
    ]  # fmt: skip
    names = ("name", "database_name", "schema_name", "url", "comment", "type")
    return _listing(match, [moment("created_on"), *map(results.text, names)], rows)


def _listing(match: re.Match[str], columns: list[Column], rows: list[tuple[Any, ...]], at: int = 1) -> Result:
    """The rows that LIKE, STARTS WITH and LIMIT leave; `at` is where the name stands."""
    chosen = rows
    if match["like"] is not None:
        chosen = [row for row in chosen if like(unescape(match["like"]), row[at])]
    if match["starts"] is not None:
        chosen = [row for row in chosen if row[at].startswith(unescape(match["starts"]))]
    if match["from"] is not None:
        chosen = [row for row in chosen if row[at] > unescape(match["from"])]
    if match["limit"] is not None:
        chosen = chosen[: int(match["limit"])]
    return results.from_rows(columns, chosen, results.SHOW)


def _scope(session: Session, match: re.Match[str]) -> tuple[str | None, str | None]:
    """Database and schema to look in; nothing means everywhere."""
    scope = (match["scope"] or "").upper()
    parts = split_qualified(match["name"])[0] if match["name"] else []
    if scope == "ACCOUNT":
        return None, None
    if not scope and not parts:
        return session.database, session.schema
    if scope == "DATABASE":
        database, schema = (parts[0] if parts else session.database), None
    elif len(parts) == 2:
        database, schema = parts[0], parts[1]
    else:
        database, schema = session.database, (parts[0] if parts else session.schema)
    if database is None or database not in session.engine.catalog.databases():
        raise missing_database(database or "")
    require_usage(session, database, schema)
    if schema is not None and not session.engine.catalog.has_schema(database, schema):
        raise missing_schema(f"{database}.{schema}")
    return database, schema


def _tables(session: Session, match: re.Match[str]) -> Result:
    text_columns = ("name", "database_name", "schema_name", "kind", "comment", "cluster_by")
    more = (
        "owner", "retention_time", "automatic_clustering", "change_tracking", "is_external", "enable_schema_evolution",
        "owner_role_type", "is_event", "budget", "is_hybrid", "is_iceberg", "is_dynamic", "is_immutable",
    )  # fmt: skip
    columns = [
        moment("created_on"),
        *map(results.text, text_columns),
        results.number("rows"),
        results.number("bytes"),
        *map(results.text, more),
    ]
    database, schema = _scope(session, match)
    rows = []
    for stored in session.engine.catalog.tables(database, schema):
        name, temporary = stored.name, TEMPORARY_MARK in stored.name
        if temporary:
            name, owner = stored.name.rsplit(TEMPORARY_MARK, 1)
            if owner != str(session.id):
                continue
        if _hidden(session, stored.database, stored.schema):
            continue
        info = session.engine.catalog.info(stored)
        count = session.engine.catalog.row_count(stored)
        size = count * len(session.engine.catalog.columns(stored)) * BYTES_PER_VALUE
        rows.append(
            (
                info.created, name, stored.database, stored.schema, "TEMPORARY" if temporary else "TABLE", info.comment,
                info.cluster_by, count, size, info.owner, "1", "ON" if info.cluster_by else "OFF", "OFF", "N", "N",
                "ROLE", "N", None, "N", "N", "N", "N",
            )
        )  # fmt: skip
    return _listing(match, columns, rows)


def _hidden(session: Session, database: str, schema: str) -> bool:
    try:
        require_usage(session, database, schema)
    except SnowflakeError:
        return True
    return False


def _databases(session: Session) -> list[str]:
    withheld = session.account.withheld
    return [
        name for name in session.engine.catalog.databases() if (session.role, "USAGE", "DATABASE", name) not in withheld
    ]


def _schemas(session: Session, match: re.Match[str]) -> Result:
    parts = split_qualified(match["name"])[0] if match["name"] else []
    databases = [parts[0]] if parts else [session.database] if session.database else _databases(session)
    rows: list[tuple[Any, ...]] = []
    for database in databases:
        if database not in session.engine.catalog.databases():
            raise missing_database(database)
        rows += [
            (None, schema, "N", "N", database, "ACCOUNTADMIN", "", "", "1")
            for schema in ["INFORMATION_SCHEMA", *session.engine.catalog.schemas(database)]
        ]
    names = ("name", "is_default", "is_current", "database_name", "owner", "comment", "options", "retention_time")
    return _listing(match, [moment("created_on"), *map(results.text, names)], rows)


def describe_table(session: Session, expression: exp.Describe) -> Result:
    if not isinstance(expression.this, exp.Table):
        raise syntax_error("syntax error in DESCRIBE TABLE.")
    stored: TableName = existing_table(session, name_of(session, expression.this))
    names = (
        "name", "type", "kind", "null?", "default", "primary key", "unique key", "check", "expression", "comment",
        "policy name", "privacy domain",
    )  # fmt: skip
    rows = [
        (
            column.name, column.type.display(), "COLUMN", "Y" if column.nullable else "N", column.default,
            "Y" if column.is_primary_key else "N", "N", None, None, column.comment, None, None,
        )
        for column in session.engine.catalog.columns(stored)
    ]  # fmt: skip
    return results.from_rows([results.text(name) for name in names], rows, results.DESCRIBE)


def describe_transaction(session: Session, sql: str) -> Result:
    match = _DESCRIBE_TRANSACTION.match(sql)
    if not match:
        raise syntax_error("syntax error in DESCRIBE TRANSACTION.")
    transaction = session.engine.transactions.find(int(match[1]))
    if transaction is None:
        raise SnowflakeError(
            "002003", "02000", f"SQL compilation error:\nTransaction '{match[1]}' does not exist or not authorized."
        )
    columns = [
        results.number("id"),
        results.text("user"),
        results.number("session"),
        results.text("name"),
        moment("started_on"),
        results.text("state"),
        moment("ended_on"),
    ]
    row = (
        transaction.id,
        transaction.user,
        transaction.session_id,
        transaction.name,
        transaction.started,
        transaction.state,
        transaction.ended,
    )
    return results.from_rows(columns, [row], results.DESCRIBE)


def show_transactions(session: Session) -> Result:
    columns = [
        results.number("id"),
        results.text("user"),
        results.number("session"),
        results.text("name"),
        moment("started_on"),
        results.text("state"),
        results.text("scope"),
    ]
    rows = [
        (item.id, item.user, item.session_id, item.name, item.started, item.state, "0")
        for item in session.engine.transactions.all()
        if item.state == "running" and (item.user == session.user.name or session.role == "ACCOUNTADMIN")
    ]
    return results.from_rows(columns, rows, results.SHOW)

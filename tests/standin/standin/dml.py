"""INSERT, UPDATE, DELETE, MERGE, TRUNCATE: written through the transaction, answered with Snowflake's counts."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import duckdb
from sqlglot import Expr, exp

from standin import results
from standin.errors import unsupported
from standin.names import TableName, quote
from standin.privileges import require_on_table
from standin.resolve import existing_table, name_of, resolve
from standin.results import DEFAULT_TEXT_LENGTH
from standin.sqlerrors import too_long
from standin.transactions import write

if TYPE_CHECKING:
    from standin.results import Result
    from standin.sessions import Session


_ASIDE = "standin_overwrite"


def run(session: Session, expression: Expr, query: threading.Event) -> Result:
    if isinstance(expression, exp.Merge):
        return _merge(session, expression, query)
    if isinstance(expression, (exp.Insert, exp.Update, exp.Delete)):
        return _change(session, expression, query)
    raise unsupported(expression.key.upper())


def target_of(session: Session, expression: Expr) -> TableName:
    target = expression.this.this if isinstance(expression.this, exp.Schema) else expression.this
    if not isinstance(target, exp.Table):
        raise unsupported(f"{expression.key.upper()} into {target.sql()}")
    return name_of(session, target)


def open_write(session: Session, target: TableName, privilege: str, exclusive: bool, query: threading.Event) -> None:
    """What every write does first: privilege, an implicit BEGIN when AUTOCOMMIT is off, the lock."""
    require_on_table(session, privilege, target)
    if not session.autocommit:
        session.begin(None)
    session.lock_table(session.stored(target), exclusive, query)


def _change(session: Session, expression: Expr, query: threading.Event) -> Result:
    target = target_of(session, expression)
    resolved, named = resolve(session, expression)
    _require_select(session, named, target)
    overwrite = bool(expression.args.get("overwrite"))
    privilege = expression.key.upper()
    open_write(session, target, privilege, overwrite or privilege != "INSERT", query)
    statements = _overwrite(session, resolved) if overwrite else _translated(session, resolved)

    check = _length_check(session, target)

    def work(connection: duckdb.DuckDBPyConnection) -> Any:
        for statement in statements:
            connection.execute(statement)
        count = connection.fetchall()[0][0]
        if check:
            connection.execute(check)
        return count

    count = write(session.duck, session.transaction, work)
    if privilege == "INSERT":
        return results.counts([("number of rows inserted", count)], results.INSERT)
    if privilege == "UPDATE":
        pairs = [("number of rows updated", count), ("number of multi-joined rows updated", 0)]
        return results.counts(pairs, results.UPDATE)
    return results.counts([("number of rows deleted", count)], results.DELETE)


def _require_select(session: Session, named: list[TableName], target: TableName) -> None:
    for name in named:
        if name != target:
            require_on_table(session, "SELECT", name)


def _translated(session: Session, expression: Expr) -> list[str]:
    return [part.sql(dialect="duckdb") for part in session.cursor().translate(expression)]


def _overwrite(session: Session, expression: Expr) -> list[str]:
    """INSERT OVERWRITE may read the table it replaces, so the rows are kept aside before the old ones go."""
    target = expression.this.this if isinstance(expression.this, exp.Schema) else expression.this
    insert = expression.copy()
    insert.set("overwrite", None)
    insert.set("expression", exp.select("*").from_(exp.to_identifier(_ASIDE)))
    return [
        f"CREATE OR REPLACE TEMPORARY TABLE {_ASIDE} AS {'; '.join(_translated(session, expression.expression))}",
        f"DELETE FROM {target.sql(dialect='duckdb')}",
        insert.sql(dialect="duckdb"),
    ]


def _merge(session: Session, expression: exp.Merge, query: threading.Event) -> Result:
    target = target_of(session, expression)
    existing_table(session, target, "42S02")
    whens = expression.args["whens"].expressions
    kinds = [_kind(when) for when in whens]
    for kind in set(kinds):
        require_on_table(session, kind, target)
    open_write(session, target, kinds[0], True, query)
    resolved, named = resolve(session, expression)
    _require_select(session, named, target)
    translated = session.cursor()._transform(resolved, None)  # noqa: SLF001 - MERGE whole, not fakesnow's split of it
    for when in translated.args["whens"].expressions:
        _drop_target_qualifiers(when)
    statement = translated.sql(dialect="duckdb") + " RETURNING merge_action"
    check = _length_check(session, target)

    def work(connection: duckdb.DuckDBPyConnection) -> Any:
        # DuckDB refuses a target row met twice, as ERROR_ON_NONDETERMINISTIC_MERGE does (and for deletes too).
        actions = [action for (action,) in connection.execute(statement).fetchall()]
        if check:
            connection.execute(check)
        return {kind: actions.count(kind) for kind in ("INSERT", "UPDATE", "DELETE")}

    counted = write(session.duck, session.transaction, work)
    words = {"INSERT": "inserted", "UPDATE": "updated", "DELETE": "deleted"}
    pairs = [(f"number of rows {word}", counted[kind]) for kind, word in words.items() if kind in kinds]
    return results.counts(pairs, results.MERGE)


def _length_check(session: Session, target: TableName) -> str | None:
    """A query that fails when a text is longer than declared, which DuckDB does not look at."""
    stored = session.stored(target)
    parts = [
        f"SELECT {too_long(quote(column.name))} FROM {stored.sql()} WHERE length({quote(column.name)}) > {column.type.length}"
        for column in session.engine.catalog.columns(stored)
        if column.type.base == "VARCHAR" and (column.type.length or DEFAULT_TEXT_LENGTH) < DEFAULT_TEXT_LENGTH
    ]
    return " UNION ALL ".join(parts) or None


def _kind(when: exp.When) -> str:
    then = when.args["then"]
    if isinstance(then, exp.Update):
        return "UPDATE"
    return "INSERT" if isinstance(then, exp.Insert) else "DELETE"


def _drop_target_qualifiers(when: exp.When) -> None:
    """DuckDB wants bare column names where values are assigned."""
    then = when.args["then"]
    if isinstance(then, exp.Update):
        for assignment in then.expressions:
            if isinstance(assignment, exp.EQ):
                assignment.this.set("table", None)
    elif isinstance(then, exp.Insert) and isinstance(then.this, exp.Tuple):
        for column in then.this.expressions:
            if isinstance(column, exp.Column):
                column.set("table", None)

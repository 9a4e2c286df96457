"""INSERT, UPDATE, DELETE, MERGE, TRUNCATE: written through the transaction, answered with Snowflake's counts."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import duckdb
from sqlglot import Expr, exp

from standin import results
from standin.errors import SnowflakeError, unsupported
from standin.names import TableName
from standin.privileges import require_on_table
from standin.resolve import existing_table, name_of, resolve
from standin.transactions import write

if TYPE_CHECKING:
    from standin.results import Result
    from standin.sessions import Session


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
    resolved, _ = resolve(session, expression)
    overwrite = bool(expression.args.get("overwrite"))
    privilege = {exp.Insert: "INSERT", exp.Update: "UPDATE", exp.Delete: "DELETE"}[type(expression)]
    open_write(session, target, privilege, overwrite or privilege != "INSERT", query)
    statements = [part.sql(dialect="duckdb") for part in session.cursor().translate(resolved)]

    def work(connection: duckdb.DuckDBPyConnection) -> Any:
        count = 0
        for statement in statements:
            count = connection.execute(statement).fetchall()[0][0]
        return count

    count = write(session.duck, session.transaction, work)
    if privilege == "INSERT":
        return results.counts([("number of rows inserted", count)], results.INSERT)
    if privilege == "UPDATE":
        pairs = [("number of rows updated", count), ("number of multi-joined rows updated", 0)]
        return results.counts(pairs, results.UPDATE)
    return results.counts([("number of rows deleted", count)], results.DELETE)


def _merge(session: Session, expression: exp.Merge, query: threading.Event) -> Result:
    target = target_of(session, expression)
    existing_table(session, target, "42S02")
    whens = expression.args["whens"].expressions
    kinds = [_kind(when) for when in whens]
    for kind in set(kinds):
        require_on_table(session, kind, target)
    open_write(session, target, kinds[0], True, query)
    resolved, _ = resolve(session, expression)
    translated = session.cursor()._transform(resolved, None)  # noqa: SLF001 - MERGE whole, not fakesnow's split of it
    for when in translated.args["whens"].expressions:
        _drop_target_qualifiers(when)
    check = _duplicates(translated, kinds)
    statement = translated.sql(dialect="duckdb") + " RETURNING merge_action"

    def work(connection: duckdb.DuckDBPyConnection) -> Any:
        if check is not None and connection.execute(check).fetchall()[0][0]:
            raise SnowflakeError("100090", "42P18", "Duplicate row detected during DML action")
        actions = [action for (action,) in connection.execute(statement).fetchall()]
        return {kind: actions.count(kind) for kind in ("INSERT", "UPDATE", "DELETE")}

    counted = write(session.duck, session.transaction, work)
    words = {"INSERT": "inserted", "UPDATE": "updated", "DELETE": "deleted"}
    pairs = [(f"number of rows {word}", counted[kind]) for kind, word in words.items() if kind in kinds]
    return results.counts(pairs, results.MERGE)


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


def _duplicates(merge: Expr, kinds: list[str]) -> str | None:
    """Counts target rows that more than one source row would update: ERROR_ON_NONDETERMINISTIC_MERGE is TRUE by default.

    Deletes alone may meet a row twice.
    """
    if "UPDATE" not in kinds:
        return None
    target, source = merge.this.sql("duckdb"), merge.args["using"].sql("duckdb")
    target_name = exp.to_identifier(merge.this.alias_or_name, quoted=True).sql("duckdb")
    conditions = [
        when.args["condition"].sql("duckdb") if when.args.get("condition") else "TRUE"
        for when in merge.args["whens"].expressions
        if when.args.get("matched")
    ]
    on = merge.args["on"].sql("duckdb")
    return (
        f"SELECT count(*) > 0 FROM (SELECT {target_name}.rowid FROM {target} JOIN {source} ON {on} "
        f"WHERE {' OR '.join(f'({condition})' for condition in conditions)} GROUP BY 1 HAVING count(*) > 1)"
    )

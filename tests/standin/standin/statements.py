"""One statement of a session: told apart by its first words, run by the module that knows it, answered or refused."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import sqlglot
from sqlglot import exp

from standin import bindings as binding
from standin import context, copy_into, ddl, dml, results, show, sqlerrors, stages
from standin.errors import no_warehouse, unsupported
from standin.functions import evaluate
from standin.names import unescape
from standin.objectstore import ObjectStore
from standin.resolve import resolve
from standin.results import Column, Result, column_of
from standin.sessions import Session, Sessions
from standin.transactions import read
from standin.uploads import Uploads

_COMMENT = re.compile(r"\A(?:\s+|--[^\n]*(?:\n|\Z)|//[^\n]*(?:\n|\Z)|/\*.*?\*/)+", re.DOTALL)
_IDENTIFIER_CALL = re.compile(r"\bIDENTIFIER\s*\(\s*'((?:[^'\\]|\\.|'')*)'\s*\)", re.IGNORECASE)


class Statements:
    """Runs statements. Knows the things that belong to the process and not to a session."""

    def __init__(self, sessions: Sessions, store: ObjectStore, uploads: Uploads, scratch: str) -> None:
        self._sessions = sessions
        self._store = store
        self._uploads = uploads
        self._scratch = scratch

    def execute(
        self, session: Session, sql: str, bindings: dict[str, Any] | None, query_id: str, describe_only: bool = False
    ) -> Result:
        """Run one statement; every failure comes out as a SnowflakeError."""
        with session.lock:
            cancelled = threading.Event()
            session.running[query_id] = cancelled
            try:
                if binding.is_batch(bindings):
                    return self._batch(session, sql, bindings or {}, query_id, cancelled)
                text = binding.substitute(_COMMENT.sub("", sql), bindings)
                return self._run(session, text, query_id, cancelled, describe_only)
            except Exception as error:
                raise sqlerrors.translate(error) from error
            finally:
                session.running.pop(query_id, None)
                session.release_statement_locks()

    def _batch(
        self, session: Session, sql: str, bindings: dict[str, Any], query_id: str, cancelled: threading.Event
    ) -> Result:
        """An array binding is one statement: all rows or none, and the sum of the counts."""
        own = session.transaction is None
        if own:
            session.begin(None)
        total = 0
        try:
            for row in binding.rows(bindings):
                text = binding.substitute(_COMMENT.sub("", sql), row)
                total += int(self._run(session, text, query_id, cancelled, False).json_rows()[0][0] or 0)
        except BaseException:
            if own:
                session.rollback()
            raise
        if own and session.autocommit:
            session.commit()
        return results.counts([("number of rows inserted", total)], results.INSERT)

    def _run(self, session: Session, sql: str, query_id: str, cancelled: threading.Event, describe_only: bool) -> Result:
        sql = _IDENTIFIER_CALL.sub(lambda match: unescape(match[1]), sql).strip()
        for pattern, handler in self._by_text:
            if pattern.match(sql):
                return handler(self, session, sql, query_id, cancelled)
        if re.match(r"SHOW\b", sql, re.IGNORECASE):
            answer = show.show(session, sql)
            if answer is not None:
                return answer
        expression = sqlglot.parse_one(sql, read="snowflake")
        if isinstance(expression, exp.Describe) and str(expression.args.get("kind") or "").upper() == "TABLE":
            return show.describe_table(session, expression)
        if isinstance(expression, exp.Alter) and expression.args.get("kind") == "SESSION":
            return context.alter_session(session, expression)
        if isinstance(expression, (exp.Insert, exp.Update, exp.Delete, exp.Merge)):
            self._require_warehouse(session)
            return dml.run(session, evaluate(session, self._sessions, expression), cancelled)
        if isinstance(expression, (exp.Create, exp.Alter, exp.Drop, exp.TruncateTable)):
            return ddl.run(session, evaluate(session, self._sessions, expression), cancelled)
        if isinstance(expression, exp.Query):
            return self._query(session, expression, describe_only)
        return self._fallback(session, expression)

    @staticmethod
    def _require_warehouse(session: Session) -> None:
        if session.warehouse is None:
            raise no_warehouse()

    def _query(self, session: Session, expression: exp.Expr, describe_only: bool) -> Result:
        expression = evaluate(session, self._sessions, expression)
        resolved, tables = resolve(session, expression)
        if tables:
            self._require_warehouse(session)
        declared = _declared_columns(session, expression, tables)
        _name_columns(resolved, expression)
        statement = "; ".join(part.sql(dialect="duckdb") for part in session.cursor().translate(resolved))
        if describe_only:
            statement = f"SELECT * FROM ({statement}) LIMIT 0"

        def work(connection: Any) -> Result:
            relation = connection.sql(statement)
            described = zip(relation.columns, map(str, relation.types), strict=True)
            columns = [declared.get(name) or column_of(name, kind) for name, kind in described]
            return Result(columns, relation.to_arrow_table(), results.SELECT)

        return read(session.duck, session.transaction, work)

    def _fallback(self, session: Session, expression: exp.Expr) -> Result:
        """Whatever else fakesnow can do: variables, DESCRIBE VIEW, other kinds of SHOW."""
        cursor = session.cursor()
        cursor.check_db_and_schema(expression)
        cursor.run(expression)
        table = cursor._arrow_table  # noqa: SLF001
        if table is None:
            raise unsupported(expression.key.upper())
        described = [(item[0], str(item[1])) for item in session.duck.description or []]
        return Result([column_of(name, kind) for name, kind in described], table, results.SHOW)

    def _put(self, session: Session, sql: str, query_id: str, _: threading.Event) -> Result:
        return stages.put(session, sql, query_id, self._store, self._uploads)

    def _list(self, session: Session, sql: str, _q: str, _c: threading.Event) -> Result:
        return stages.list_files(session, sql, self._store)

    def _remove(self, session: Session, sql: str, _q: str, _c: threading.Event) -> Result:
        return stages.remove(session, sql, self._store)

    def _drop_stage(self, session: Session, sql: str, _q: str, _c: threading.Event) -> Result:
        return stages.drop(session, sql, self._store)

    def _copy(self, session: Session, sql: str, _q: str, cancelled: threading.Event) -> Result:
        self._require_warehouse(session)
        return copy_into.run(session, sql, self._store, self._scratch, cancelled)

    def _refuse(self, _s: Session, sql: str, _q: str, _c: threading.Event) -> Result:
        raise unsupported(sql.split(None, 1)[0].upper())

    _by_text: tuple[tuple[re.Pattern[str], Callable[..., Result]], ...] = tuple(
        (re.compile(pattern, re.IGNORECASE), handler)
        for pattern, handler in (
            (r"(?:BEGIN|START\s+TRANSACTION)\b", lambda self, session, sql, q, c: context.begin(session, sql)),
            (r"COMMIT\b", lambda self, session, sql, q, c: context.commit(session)),
            (r"ROLLBACK\b", lambda self, session, sql, q, c: context.rollback(session)),
            (r"PUT\b", _put),
            (r"(?:LIST|LS)\b", _list),
            (r"(?:REMOVE|RM)\b", _remove),
            (r"GET\b", _refuse),
            (r"COPY\s+INTO\b", _copy),
            (
                r"CREATE\s+(?:OR\s+REPLACE\s+)?(?:(?:SCOPED\s+)?TEMP(?:ORARY)?\s+)?STAGE\b",
                lambda self, session, sql, q, c: stages.create(session, sql),
            ),
            (r"DROP\s+STAGE\b", _drop_stage),
            (r"DESC(?:RIBE)?\s+TRANSACTION\b", lambda self, session, sql, q, c: show.describe_transaction(session, sql)),
            (r"SHOW\s+TRANSACTIONS\b", lambda self, session, sql, q, c: show.show_transactions(session)),
            (r"USE\b", lambda self, session, sql, q, c: context.use(session, sql)),
        )
    )


def _name_columns(resolved: exp.Expr, original: exp.Expr) -> None:
    """An expression without an alias is named by its own text, in upper case."""
    if not isinstance(resolved, exp.Select) or not isinstance(original, exp.Select):
        return
    named = []
    for projection, written in zip(resolved.expressions, original.expressions, strict=True):
        plain = isinstance(projection, (exp.Alias, exp.Column, exp.Star)) or projection.is_star
        named.append(projection if plain else exp.alias_(projection, written.sql("snowflake").upper(), quoted=True))
    resolved.set("expressions", named)


def _declared_columns(session: Session, expression: exp.Expr, tables: list[Any]) -> dict[str, Column]:
    """For a plain query of one table: the declared types of the columns it selects, which DuckDB's types blur."""
    if not isinstance(expression, exp.Select) or len(tables) != 1 or expression.args.get("joins"):
        return {}
    source = expression.args.get("from_")
    if source is None or not isinstance(source.this, exp.Table):
        return {}
    stored = session.stored(tables[0])
    if not session.engine.catalog.is_table(stored):
        return {}
    by_name = {column.name: column for column in session.engine.catalog.columns(stored)}
    chosen: dict[str, Column] = {}
    for projection in expression.expressions:
        node = projection.unalias()
        if isinstance(node, exp.Star):
            chosen |= {name: column.type.column(name, column.nullable) for name, column in by_name.items()}
        elif isinstance(node, exp.Column) and isinstance(node.this, exp.Identifier):
            source_name = node.name if node.this.args.get("quoted") else node.name.upper()
            if source_name in by_name:
                alias = projection.args.get("alias")
                quoted = isinstance(alias, exp.Identifier) and alias.args.get("quoted")
                name = source_name if alias is None else (alias.name if quoted else alias.name.upper())
                found = by_name[source_name]
                chosen[name] = found.type.column(name, found.nullable)
    return chosen



"""One statement of a session: told apart by its first words, run by the module that knows it, answered or refused."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.tokens import TokenType

from standin import bindings as binding
from standin import context, copy_into, ddl, dml, results, show, sqlerrors, stages
from standin.errors import SnowflakeError, no_warehouse, unsupported
from standin.functions import evaluate
from standin.names import unescape
from standin.parameters import SHOW_NETWORK_POLICY, show_network_policy
from standin.privileges import require_on_table
from standin.resolve import resolve
from standin.results import Column, Result, column_of
from standin.sessions import Session, Sessions
from standin.stores import Stores
from standin.transactions import read

_COMMENT = re.compile(r"\A(?:\s+|--[^\n]*(?:\n|\Z)|//[^\n]*(?:\n|\Z)|/\*.*?\*/)+", re.DOTALL)
_IDENTIFIER_CALL = re.compile(r"\bIDENTIFIER\s*\(\s*'((?:[^'\\]|\\.|'')*)'\s*\)", re.IGNORECASE)


class Statements:
    """Runs statements. Knows the things that belong to the process and not to a session."""

    def __init__(self, sessions: Sessions, stores: Stores, scratch: str) -> None:
        self._sessions = sessions
        self._stores = stores
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

    def _run(
        self, session: Session, sql: str, query_id: str, cancelled: threading.Event, describe_only: bool
    ) -> Result:
        _require_single(sql)
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
            return self._query(session, expression, sql, describe_only)
        return self._fallback(session, expression)

    @staticmethod
    def _require_warehouse(session: Session) -> None:
        if session.warehouse is None:
            raise no_warehouse()

    def _query(self, session: Session, expression: exp.Expr, sql: str, describe_only: bool) -> Result:
        expression = evaluate(session, self._sessions, expression)
        resolved, tables = resolve(session, expression)
        for table in tables:
            require_on_table(session, "SELECT", table)
        if tables:
            self._require_warehouse(session)
        declared = _declared_columns(session, expression, tables)
        _name_columns(resolved, sql)
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
        """What fakesnow answers by itself: DESCRIBE VIEW and the other kinds of SHOW."""
        is_show = isinstance(expression, exp.Command) and str(expression.this).upper() == "SHOW"
        if not is_show and not isinstance(expression, (exp.Show, exp.Describe)):
            raise unsupported(str(getattr(expression, "this", "") or expression.key).upper()[:40])
        cursor = session.cursor()
        cursor.check_db_and_schema(expression)
        cursor.run(expression)
        table = cursor._arrow_table  # noqa: SLF001
        if table is None:
            raise unsupported(expression.key.upper())
        described = [(item[0], str(item[1])) for item in session.duck.description or []]
        return Result([column_of(name, kind) for name, kind in described], table, results.SHOW)

    def _put(self, session: Session, sql: str, query_id: str, _: threading.Event) -> Result:
        return stages.put(session, sql, query_id, self._stores)

    def _list(self, session: Session, sql: str, _q: str, _c: threading.Event) -> Result:
        return stages.list_files(session, sql, self._stores)

    def _remove(self, session: Session, sql: str, _q: str, _c: threading.Event) -> Result:
        return stages.remove(session, sql, self._stores)

    def _drop_stage(self, session: Session, sql: str, _q: str, _c: threading.Event) -> Result:
        return stages.drop(session, sql, self._stores)

    def _copy(self, session: Session, sql: str, _q: str, cancelled: threading.Event) -> Result:
        self._require_warehouse(session)
        return copy_into.run(session, sql, self._stores, self._scratch, cancelled)

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
            (
                r"DESC(?:RIBE)?\s+TRANSACTION\b",
                lambda self, session, sql, q, c: show.describe_transaction(session, sql),
            ),
            (r"SHOW\s+TRANSACTIONS\b", lambda self, session, sql, q, c: show.show_transactions(session)),
            (SHOW_NETWORK_POLICY, lambda self, session, sql, q, c: show_network_policy(session, sql)),
            (r"USE\b", lambda self, session, sql, q, c: context.use(session, sql)),
        )
    )


def _require_single(sql: str) -> None:
    """MULTI_STATEMENT_COUNT is 1 unless a client says otherwise, so a second statement is refused, not run."""
    if re.match(r"PUT\b", sql, re.IGNORECASE):
        return  # a file URL has what the tokenizer takes for a comment
    kinds = [token.token_type for token in sqlglot.tokenize(sql, read="snowflake")]
    while kinds and kinds[-1] == TokenType.SEMICOLON:
        kinds.pop()
    count = kinds.count(TokenType.SEMICOLON) + 1
    if count > 1:
        raise SnowflakeError(
            "000008", "0A000", f"Actual statement count {count} did not match the desired statement count 1."
        )


def _name_columns(resolved: exp.Expr, sql: str) -> None:
    """An expression without an alias is named by its own text, in upper case."""
    if not isinstance(resolved, exp.Select):
        return
    texts = _projection_texts(sql)
    if len(texts) != len(resolved.expressions):
        return
    named = []
    for projection, text in zip(resolved.expressions, texts, strict=True):
        plain = isinstance(projection, (exp.Alias, exp.Column, exp.Star)) or projection.is_star
        named.append(projection if plain else exp.alias_(projection, text.upper(), quoted=True))
    resolved.set("expressions", named)


def _projection_texts(sql: str) -> list[str]:
    """The items of the select list as written. Nothing where the statement does not begin with SELECT."""
    tokens = sqlglot.tokenize(sql, read="snowflake")
    if not tokens or tokens[0].token_type != TokenType.SELECT:
        return []
    opening = {TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE, TokenType.CASE}
    closing = {TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.END}
    texts: list[str] = []
    depth, start = 0, tokens[0].end + 1
    for token in tokens[1:]:
        if depth == 0 and token.token_type in {TokenType.COMMA, TokenType.FROM}:
            texts.append(sql[start : token.start].strip())
            start = token.end + 1
            if token.token_type == TokenType.FROM:
                return texts
        depth += (token.token_type in opening) - (token.token_type in closing)
    return [*texts, sql[start:].strip().rstrip(";").strip()]


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

"""Functions that only the session can answer: CURRENT_…, SYSTEM$….

They are evaluated here and stand as literals in what DuckDB runs.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlglot import Expr, exp

from standin.errors import SnowflakeError, insufficient_privileges, missing_object
from standin.login import SERVER_VERSION
from standin.transactions import RUNNING

if TYPE_CHECKING:
    from standin.sessions import Session, Sessions

ABORT_WAIT_SECONDS = 30  # bounds the wait when two sessions abort each other

_CONTEXT: dict[type[Expr], tuple[str, Callable[[Session], str | None]]] = {
    exp.CurrentVersion: ("CURRENT_VERSION()", lambda session: SERVER_VERSION),
    exp.CurrentAccount: ("CURRENT_ACCOUNT()", lambda session: session.account.name),
    exp.CurrentUser: ("CURRENT_USER()", lambda session: session.user.name),
    exp.CurrentRole: ("CURRENT_ROLE()", lambda session: session.role),
    exp.CurrentWarehouse: ("CURRENT_WAREHOUSE()", lambda session: session.warehouse),
    exp.CurrentDatabase: ("CURRENT_DATABASE()", lambda session: session.database),
    exp.CurrentSchema: ("CURRENT_SCHEMA()", lambda session: session.schema),
    exp.CurrentSession: ("CURRENT_SESSION()", lambda session: str(session.id)),
    exp.CurrentTransaction: (
        "CURRENT_TRANSACTION()",
        lambda session: str(session.transaction.id) if session.transaction else None,
    ),
}


def evaluate(session: Session, sessions: Sessions, expression: Expr) -> Expr:
    """The statement with these functions replaced. SYSTEM$ functions take effect here."""
    now = datetime.now(UTC)

    def replace(node: Expr) -> Expr:
        known = _CONTEXT.get(type(node))
        if known:
            return _named(node, known[0], _text(known[1](session)))
        if isinstance(node, exp.CurrentTimestamp) and not isinstance(node.parent, exp.DefaultColumnConstraint):
            literal = exp.cast(exp.Literal.string(now.isoformat(sep=" ")), exp.DataType.Type.TIMESTAMPTZ)
            return _named(node, "CURRENT_TIMESTAMP()", literal)
        if isinstance(node, exp.Anonymous) and str(node.this).upper().startswith("SYSTEM$"):
            name = str(node.this).upper()
            arguments = [argument.name for argument in node.expressions]
            return _named(node, f"{name}({', '.join(arguments)})", _text(_system(session, sessions, name, arguments)))
        return node

    return expression.transform(replace)


def _text(value: str | None) -> Expr:
    return exp.Null() if value is None else exp.Literal.string(value)


def _named(node: Expr, name: str, value: Expr) -> Expr:
    """Keep the column name that the function would have had."""
    return exp.alias_(value, name, quoted=True) if isinstance(node.parent, exp.Select) else value


def _system(session: Session, sessions: Sessions, name: str, arguments: list[str]) -> str:
    if name == "SYSTEM$ABORT_TRANSACTION" and len(arguments) == 1:
        return abort_transaction(session, sessions, arguments[0])
    if name == "SYSTEM$CANCEL_QUERY" and len(arguments) == 1:
        return cancel_query(session, sessions, arguments[0])
    raise SnowflakeError("002140", "42601", f"SQL compilation error:\nUnknown function {name}")


def abort_transaction(session: Session, sessions: Sessions, text: str) -> str:
    """Roll back a running transaction of any session of the same user; one that has ended is left as it is."""
    transaction = session.engine.transactions.find(int(text)) if text.isdigit() else None
    if transaction is None:
        raise missing_object(f"transaction {text}")
    if transaction.user != session.user.name and session.role != "ACCOUNTADMIN":
        raise insufficient_privileges("transaction", text)
    owner = sessions.find(transaction.session_id)
    if transaction.state == RUNNING and owner is not None and owner.account is session.account:
        if owner is not session:
            owner.cancel()
        if not owner.lock.acquire(timeout=ABORT_WAIT_SECONDS):
            raise SnowflakeError("000625", "57014", f"Transaction {text} could not be aborted: its session is busy.")
        try:
            # It may have committed while we waited; then its state is not altered.
            if owner.transaction is transaction:
                owner.rollback()
        finally:
            owner.lock.release()
    return f"Aborted transaction id: {text}"


def cancel_query(session: Session, sessions: Sessions, query_id: str) -> str:
    for other in sessions.all():
        same_user = other.account is session.account and other.user.name == session.user.name
        if same_user and other is not session and other.cancel(query_id):
            return f"query [{query_id}] terminated."
    raise SnowflakeError("000605", None, "Identified SQL statement is not currently executing.")

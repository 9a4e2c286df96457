"""Statements that change only the session: ALTER SESSION, USE, and those that begin and end transactions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sqlglot import exp

from standin import results
from standin.errors import SnowflakeError, missing_database, missing_schema, syntax_error
from standin.names import fold, split_qualified
from standin.privileges import require_usage

if TYPE_CHECKING:
    from standin.results import Result
    from standin.sessions import Session

DONE = "Statement executed successfully."
_BEGIN = re.compile(
    r"(?:BEGIN(?:\s+(?:WORK|TRANSACTION))?|START\s+TRANSACTION)"
    r"(?:\s+NAME\s+(?P<name>\"(?:[^\"]|\"\")+\"|[\w$]+))?\s*;?\s*\Z",
    re.IGNORECASE,
)
_USE = re.compile(
    r"USE\s+(?:(?P<kind>ROLE|WAREHOUSE|DATABASE|SCHEMA|SECONDARY\s+ROLES)\s+)?(?P<name>.+?)\s*;?\s*\Z",
    re.IGNORECASE | re.DOTALL,
)


def begin(session: Session, sql: str) -> Result:
    match = _BEGIN.match(sql)
    if not match:
        raise syntax_error("syntax error in BEGIN.")
    session.begin(fold(match["name"]) if match["name"] else None)
    return results.status(DONE, results.TRANSACTION)


def commit(session: Session) -> Result:
    session.commit()
    return results.status(DONE, results.TRANSACTION)


def rollback(session: Session) -> Result:
    session.rollback()
    return results.status(DONE, results.TRANSACTION)


def alter_session(session: Session, expression: exp.Alter) -> Result:
    node = expression.find(exp.AlterSession)
    if node is None:
        raise syntax_error("syntax error in ALTER SESSION.")
    for item in node.expressions:
        if node.args.get("unset"):
            session.parameters.pop(item.name.upper() or item.this.name.upper(), None)
            continue
        name = item.this.this.name.upper()
        value = item.this.expression
        if name == "AUTOCOMMIT":
            session.commit()
        session.parameters[name] = value.this if isinstance(value, exp.Boolean) else value.name
        if name == "TIMEZONE":
            session.apply_time_zone()
    return results.status(DONE, results.SESSION)


def use(session: Session, sql: str) -> Result:
    match = _USE.match(sql)
    if not match:
        raise syntax_error("syntax error in USE.")
    kind = (match["kind"] or "DATABASE").upper()
    if kind == "SECONDARY ROLES" or kind.startswith("SECONDARY"):
        return results.status(DONE, results.SESSION)
    parts, _ = split_qualified(match["name"])
    if kind == "ROLE":
        if parts[0] not in session.user.roles:
            raise SnowflakeError(
                "003013",
                "42501",
                f"SQL access control error:\nRequested role '{parts[0]}' is not assigned to the executing user. Specify "
                "another role to activate.",
            )
        session.role = parts[0]
    elif kind == "WAREHOUSE":
        withheld = (session.role, "USAGE", "WAREHOUSE", parts[0]) in session.account.withheld
        if parts[0] not in session.account.warehouses or withheld:
            raise SnowflakeError(
                "002043",
                "02000",
                "SQL compilation error:\nObject does not exist, or operation cannot be performed.",
            )
        session.warehouse = parts[0]
    else:
        _use_schema(session, kind, parts, bool(match["kind"]))
    return results.status(DONE, results.SESSION)


def _use_schema(session: Session, kind: str, parts: list[str], said: bool) -> None:
    catalog = session.engine.catalog
    if kind == "DATABASE" and (said or len(parts) == 1):
        database, schema = parts[0], "PUBLIC"
    else:
        database, schema = (parts[0] if len(parts) == 2 else session.database), parts[-1]
    if database is None or database not in catalog.databases():
        raise missing_database(database or "")
    require_usage(session, database, schema)
    if not catalog.has_schema(database, schema):
        raise missing_schema(f"{database}.{schema}")
    session.set_schema(database, schema)

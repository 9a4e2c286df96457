"""Privileges. Every role may do everything until the admin endpoint withholds something from it."""

from __future__ import annotations

from standin.errors import insufficient_privileges, missing_database, missing_schema
from standin.names import TableName
from standin.sessions import Session


def _withheld(session: Session, privilege: str, kind: str, name: str) -> bool:
    return (session.role or "PUBLIC", privilege, kind, name) in session.account.withheld


def require_usage(session: Session, database: str, schema: str | None) -> None:
    """Without USAGE an object cannot be told from a missing one."""
    if _withheld(session, "USAGE", "DATABASE", database):
        raise missing_database(database)
    if schema is not None and _withheld(session, "USAGE", "SCHEMA", f"{database}.{schema}"):
        raise missing_schema(f"{database}.{schema}")


def require_on_schema(session: Session, privilege: str, table: TableName) -> None:
    require_usage(session, table.database, table.schema)
    if _withheld(session, privilege, "SCHEMA", f"{table.database}.{table.schema}"):
        raise insufficient_privileges("schema", table.schema)


def require_on_table(session: Session, privilege: str, table: TableName) -> None:
    require_usage(session, table.database, table.schema)
    if _withheld(session, privilege, "TABLE", table.dotted()):
        raise insufficient_privileges("table", table.name)

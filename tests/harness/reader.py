"""Snowflake's side as its users see it: tables read with the official, unmodified Python connector."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import snowflake.connector

from harness.standin import ROLE, WAREHOUSE, Account, User


@contextlib.contextmanager
def session(account: Account, user: User) -> Iterator[snowflake.connector.SnowflakeConnection]:
    """A session of the official client."""
    connection = snowflake.connector.connect(
        account=account.name.upper(),
        user=user.name,
        password=user.password,
        host="127.0.0.1",
        port=account.standin.port,
        protocol="http",
        warehouse=WAREHOUSE,
        role=ROLE,
        database=user.database,
        schema=user.schema,
        enable_server_session_keep_alive_auto_detection=False,
    )
    try:
        yield connection
    finally:
        connection.close()


def query(account: Account, user: User, sql: str) -> list[tuple[Any, ...]]:
    """The rows of one statement."""
    with session(account, user) as connection, connection.cursor() as cursor:
        return cursor.execute(sql).fetchall()


def columns(account: Account, user: User, table: str) -> dict[str, str]:
    """The table's columns and their types, in order."""
    return {row[0]: row[1] for row in query(account, user, f"describe table {table}")}

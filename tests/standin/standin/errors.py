"""Snowflake's logical errors: HTTP 200, `success: false`, a six-digit code and a SQLSTATE."""

from __future__ import annotations

from typing import Any


class SnowflakeError(Exception):
    """An error that the client sees in Snowflake's envelope."""

    def __init__(self, code: str, sqlstate: str | None, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.sqlstate = sqlstate
        self.message = message
        # `data` of the answer where it is not made from the error; a refused login often has none.
        self.data: dict[str, Any] | None = None


def login_refused(code: str, message: str, data: dict[str, Any] | None = None) -> SnowflakeError:
    error = SnowflakeError(code, None, message)
    error.data = data
    return error


def syntax_error(detail: str) -> SnowflakeError:
    return SnowflakeError("001003", "42000", f"SQL compilation error:\n{detail}")


def unsupported(what: str) -> SnowflakeError:
    """What the stand-in does not do is refused in words, never half done."""
    return SnowflakeError("000002", "0A000", f"Unsupported feature '{what}' (this stand-in does not do it).")


def missing_object(name: str, sqlstate: str = "02000") -> SnowflakeError:
    """Missing and forbidden look the same, as in Snowflake. SELECT and DML report SQLSTATE 42S02 instead."""
    return SnowflakeError(
        "002003", sqlstate, f"SQL compilation error:\nObject '{name}' does not exist or not authorized."
    )


def missing_schema(name: str) -> SnowflakeError:
    return SnowflakeError(
        "002003", "02000", f"SQL compilation error:\nSchema '{name}' does not exist or not authorized."
    )


def missing_database(name: str) -> SnowflakeError:
    return SnowflakeError(
        "002003", "02000", f"SQL compilation error:\nDatabase '{name}' does not exist or not authorized."
    )


def missing_stage(name: str) -> SnowflakeError:
    return SnowflakeError(
        "002003", "02000", f"SQL compilation error:\nStage '{name}' does not exist or not authorized."
    )


def object_exists(name: str) -> SnowflakeError:
    return SnowflakeError("002002", "42710", f"SQL compilation error:\nObject '{name}' already exists.")


def invalid_identifier(name: str) -> SnowflakeError:
    return SnowflakeError(
        "000904", "42000", f"SQL compilation error: error line 1 at position 0\ninvalid identifier '{name}'"
    )


def insufficient_privileges(kind: str, name: str) -> SnowflakeError:
    return SnowflakeError(
        "003001", "42501", f"SQL access control error:\nInsufficient privileges to operate on {kind} '{name}'."
    )


def no_warehouse() -> SnowflakeError:
    return SnowflakeError(
        "000606",
        "57P03",
        "No active warehouse selected in the current session.  Select an active warehouse with the 'use warehouse' command.\n",
    )


def cancelled() -> SnowflakeError:
    return SnowflakeError("000604", "57014", "SQL execution canceled")

"""DuckDB's errors, told as Snowflake would tell them.

The texts follow Snowflake's wording; only code and SQLSTATE are meant to be exact.
"""

from __future__ import annotations

import re

import duckdb
import snowflake.connector.errors as connector_errors
from sqlglot.errors import ParseError, TokenError

from standin.errors import SnowflakeError, cancelled, invalid_identifier, missing_object, syntax_error

PREVIEW_LENGTH = 40  # how much of a value an error message shows


def too_long(text: str) -> str:
    """The DuckDB expression that fails with Snowflake's words for a text beyond its declared length."""
    return f"error('String ''' || left({text}, {PREVIEW_LENGTH}) || ''' is too long and would be truncated')"


_TOO_LONG = re.compile(r"String '.*' is too long and would be truncated", re.DOTALL)
_COLUMN = re.compile(r'(?:Referenced column|column named|Column with name|column) "([^"]+)"')
_TABLE = re.compile(r"Table with name (\S+) does not exist")
_CONVERSION = re.compile(r"""(?:string|value|Type \w+ with value) ["']?(.*?)["']? (?:to|can't be cast)""", re.DOTALL)


def translate(error: BaseException) -> SnowflakeError:
    if isinstance(error, SnowflakeError):
        return error
    if isinstance(error, (ParseError, TokenError)):
        return syntax_error(re.sub(r"\x1b\[\d+m", "", str(error)))
    if isinstance(error, connector_errors.Error):
        if error.__cause__ is not None and isinstance(error.__cause__, duckdb.Error):
            return translate(error.__cause__)
        return SnowflakeError(f"{error.errno:06d}", error.sqlstate, error.msg or str(error))
    message = str(error).split("\nLINE ", 1)[0].strip()
    if isinstance(error, duckdb.InterruptException):
        return cancelled()
    if isinstance(error, duckdb.ConstraintException):
        if "NOT NULL" in message:
            return SnowflakeError("100072", "22000", f"NULL result in a non-nullable column ({message})")
        return SnowflakeError("200001", "22000", message)
    found = _TOO_LONG.search(message)
    if found:
        return SnowflakeError("100078", "22000", found[0])
    if "cannot affect the same target row" in message:
        return SnowflakeError("100090", "42P18", "Duplicate row detected during DML action")
    if isinstance(error, duckdb.CatalogException):
        table = _TABLE.search(message)
        return missing_object(table[1], "42S02") if table else SnowflakeError("002003", "42S02", message)
    if isinstance(error, duckdb.BinderException):
        column = _COLUMN.search(message)
        if column:
            return invalid_identifier(column[1])
        return SnowflakeError("001007", "22023", f"SQL compilation error:\n{message}")
    if isinstance(error, duckdb.ParserException):
        return syntax_error(message)
    if isinstance(error, (duckdb.OutOfRangeException,)) or "out of range" in message:
        return SnowflakeError("100046", "22003", f"Number out of representable range: {message}")
    if isinstance(error, (duckdb.ConversionException, duckdb.InvalidInputException)):
        return _conversion(message)
    if isinstance(error, (duckdb.Error, NotImplementedError)):
        return SnowflakeError("000603", "XX000", f"Stand-in: {type(error).__name__}: {message}")
    raise error


def _conversion(message: str) -> SnowflakeError:
    found = _CONVERSION.search(message)
    value = found[1] if found else message
    lower = message.lower()
    if "malformed json" in lower:
        return SnowflakeError("100069", "22P02", f"Error parsing JSON: {message}")
    if "timestamp" in lower:
        return SnowflakeError("100035", "22007", f"Timestamp '{value}' is not recognized")
    if "date" in lower:
        return SnowflakeError("100040", "22007", f"Date '{value}' is not recognized")
    if "could not cast value" in lower or "could not convert double" in lower:
        return SnowflakeError("100046", "22003", f"Number out of representable range: {message}")
    if "boolean" in lower or "bool" in lower:
        return SnowflakeError("100037", "22018", f"Boolean value '{value}' is not recognized")
    return SnowflakeError("100038", "22018", f"Numeric value '{value}' is not recognized")

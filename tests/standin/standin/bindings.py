"""Bindings of a query-request, written into the statement as literals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from sqlglot import tokenize
from sqlglot.tokens import TokenType

from standin.errors import SnowflakeError

Binding = dict[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_batch(bindings: dict[str, Binding] | None) -> bool:
    return bindings is not None and any(isinstance(binding.get("value"), list) for binding in bindings.values())


def rows(bindings: dict[str, Binding]) -> list[dict[str, Binding]]:
    """One set of scalar bindings per row of an array binding."""
    length = max(len(binding["value"]) for binding in bindings.values())
    return [
        {key: {**binding, "value": binding["value"][index]} for key, binding in bindings.items()}
        for index in range(length)
    ]


def substitute(sql: str, bindings: dict[str, Binding] | None) -> str:
    """The statement with each `?` and `:n` replaced by its value."""
    if not bindings:
        return sql
    pieces: list[str] = []
    position = 0
    next_mark = 1
    tokens = tokenize(sql, read="snowflake")
    for index, token in enumerate(tokens):
        end = token.end + 1
        if token.token_type == TokenType.PLACEHOLDER or token.text == "?":
            key = str(next_mark)
            next_mark += 1
        elif (
            token.token_type == TokenType.COLON
            and index + 1 < len(tokens)
            and tokens[index + 1].token_type == TokenType.NUMBER
            and tokens[index + 1].start == end
        ):
            key = tokens[index + 1].text
            end = tokens[index + 1].end + 1
        else:
            continue
        if key not in bindings:
            raise SnowflakeError("002049", "42601", f"SQL compilation error: error\nBind variable {key} not set.")
        pieces += [sql[position : token.start], _literal(bindings[key])]
        position = end
    return "".join(pieces) + sql[position:]


def _literal(binding: Binding) -> str:
    kind, value = str(binding.get("type", "TEXT")).upper(), binding.get("value")
    if value is None:
        return "NULL"
    text = str(value)
    if kind == "FIXED":
        return text if text.lstrip("+-").replace(".", "", 1).isdigit() else _quoted(text)
    if kind == "REAL":
        return f"{_quoted(text)}::DOUBLE"
    if kind == "BOOLEAN":
        return "TRUE" if text.lower() in {"true", "1"} else "FALSE"
    if kind == "BINARY":
        return f"TO_BINARY({_quoted(text)}, 'HEX')"
    if kind == "DATE":
        return f"{_quoted((_EPOCH + timedelta(milliseconds=int(text))).date().isoformat())}::DATE"
    if kind == "TIME":
        moment = _EPOCH + timedelta(microseconds=int(text) // 1000)
        return f"{_quoted(moment.strftime('%H:%M:%S.%f'))}::TIME"
    if kind == "TIMESTAMP_NTZ":
        return f"{_quoted(_moment(text).strftime('%Y-%m-%d %H:%M:%S.%f'))}::TIMESTAMP_NTZ"
    if kind in {"TIMESTAMP_LTZ", "TIMESTAMP_TZ"}:
        nanos, _, offset = text.partition(" ")
        zone = timezone(timedelta(minutes=int(offset) - 1440)) if offset else UTC
        return f"{_quoted(_moment(nanos).astimezone(zone).isoformat(sep=' '))}::{kind}"
    return _quoted(text)


def _moment(nanos: str) -> datetime:
    return _EPOCH + timedelta(microseconds=int(nanos) // 1000)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"

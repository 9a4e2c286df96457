"""Identifiers and string literals: how Snowflake folds, quotes and compares names."""

from __future__ import annotations

import re
from typing import NamedTuple

from standin.errors import syntax_error

MAX_IDENTIFIER_LENGTH = 255  # docs.snowflake.com, "Identifier requirements"

_PART = re.compile(r'"((?:[^"]|"")+)"|([A-Za-z_][A-Za-z0-9_$]*)')


class TableName(NamedTuple):
    """A fully qualified object name, each part as stored (already folded)."""

    database: str
    schema: str
    name: str

    def dotted(self) -> str:
        return f"{self.database}.{self.schema}.{self.name}"

    def sql(self) -> str:
        return ".".join(quote(part) for part in self)


def fold(name: str) -> str:
    """A name as the user wrote it, as Snowflake stores it."""
    if len(name) >= 2 and name.startswith('"') and name.endswith('"'):
        return name[1:-1].replace('""', '"')
    return name.upper()


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A DuckDB string literal: only the quote needs doubling there."""
    return "'" + text.replace("'", "''") + "'"


def split_qualified(text: str) -> tuple[list[str], str]:
    """Leading dotted name of `text` and what follows it."""
    parts: list[str] = []
    rest = text
    while True:
        match = _PART.match(rest)
        if not match:
            raise syntax_error(f"syntax error: expected a name at '{rest[:40]}'.")
        parts.append(fold(match.group(0)))
        rest = rest[match.end() :]
        if not rest.startswith("."):
            return parts, rest
        rest = rest[1:]


def unescape(body: str) -> str:
    """The text of a single-quoted Snowflake literal; `body` is what stands between the quotes."""
    escapes = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f"}
    return re.sub(
        r"\\(.)|''",
        lambda m: "'" if m.group(0) == "''" else escapes.get(m.group(1), m.group(1)),
        body,
        flags=re.DOTALL,
    )

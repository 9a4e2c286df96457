"""The text of a COPY INTO <table> statement, taken apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import sqlglot
from sqlglot import Expr, tokenize
from sqlglot.tokens import Token, TokenType

from standin.errors import SnowflakeError, syntax_error, unsupported
from standin.names import fold, unescape

MAX_FILES = 1000  # docs.snowflake.com, COPY INTO <table>, FILES
_KNOWN_OPTIONS = {
    "FILES", "FILE_FORMAT", "ON_ERROR", "PURGE", "FORCE", "MATCH_BY_COLUMN_NAME", "TRUNCATECOLUMNS", "ENFORCE_LENGTH",
    "SIZE_LIMIT", "RETURN_FAILED_ONLY", "PATTERN", "LOAD_UNCERTAIN_FILES",
}  # fmt: skip


@dataclass
class CopyStatement:
    table: list[str]
    columns: list[str] | None
    projections: list[Expr] | None
    location: str
    options: dict[str, Any] = field(default_factory=dict)

    def flag(self, name: str) -> bool:
        return str(self.options.get(name, "FALSE")).upper() == "TRUE"

    def word(self, name: str, default: str) -> str:
        return str(self.options.get(name, default)).upper()

    def files(self) -> list[str] | None:
        files = self.options.get("FILES")
        if files is None:
            return None
        if len(files) > MAX_FILES:
            raise SnowflakeError(
                "001003",
                "42000",
                f"SQL compilation error:\nThe number of files in FILES ({len(files)}) exceeds the maximum of {MAX_FILES}.",
            )
        return [str(name) for name in files]


class _Reader:
    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.tokens = [token for token in tokenize(sql, read="snowflake") if token.token_type != TokenType.SEMICOLON]
        self.at = 0

    def peek(self, offset: int = 0) -> Token | None:
        index = self.at + offset
        return self.tokens[index] if index < len(self.tokens) else None

    def next(self) -> Token:
        token = self.peek()
        if token is None:
            raise syntax_error("syntax error: unexpected end of COPY.")
        self.at += 1
        return token

    def is_word(self, word: str, offset: int = 0) -> bool:
        token = self.peek(offset)
        return (
            token is not None
            and token.token_type not in (TokenType.STRING, TokenType.IDENTIFIER)
            and token.text.upper() == word
        )

    def is_type(self, kind: TokenType) -> bool:
        token = self.peek()
        return token is not None and token.token_type == kind

    def expect_word(self, word: str) -> None:
        if not self.is_word(word):
            raise syntax_error(f"syntax error in COPY: expected {word}.")
        self.at += 1

    def expect(self, kind: TokenType) -> None:
        if not self.is_type(kind):
            raise syntax_error(f"syntax error in COPY: expected {kind.value}.")
        self.at += 1

    def name(self) -> str:
        token = self.next()
        return token.text if token.token_type == TokenType.IDENTIFIER else token.text.upper()

    def text_between(self, first: Token, after: Token | None) -> str:
        return self.sql[first.start : after.start if after else len(self.sql)].rstrip()


def parse(sql: str) -> CopyStatement:
    reader = _Reader(sql)
    reader.expect_word("COPY")
    reader.expect_word("INTO")
    table = _table(reader)
    columns = None
    if reader.is_type(TokenType.L_PAREN):
        reader.next()
        columns = [reader.name()]
        while reader.is_type(TokenType.COMMA):
            reader.next()
            columns.append(reader.name())
        reader.expect(TokenType.R_PAREN)
    reader.expect_word("FROM")
    projections = None
    if reader.is_type(TokenType.L_PAREN):
        reader.next()
        projections = _projections(reader)
        location = _location(reader)
        while not reader.is_type(TokenType.R_PAREN):
            if reader.peek() and reader.peek().text.upper() in {"WHERE", "ORDER", "LIMIT", "JOIN", "GROUP"}:
                raise unsupported(f"{reader.peek().text.upper()} in a COPY transformation")
            reader.next()  # an alias of the stage
        reader.expect(TokenType.R_PAREN)
    else:
        location = _location(reader)
    statement = CopyStatement(table, columns, projections, location)
    while reader.peek() is not None:
        name = reader.next().text.upper()
        if name not in _KNOWN_OPTIONS:
            raise syntax_error(f"syntax error in COPY: unexpected '{name}'.")
        reader.expect(TokenType.EQ)
        statement.options[name] = _value(reader)
    return statement


def _table(reader: _Reader) -> list[str]:
    token = reader.peek()
    if token is not None and token.text == "@":
        raise unsupported("COPY INTO a location")
    parts = [reader.name()]
    while reader.is_type(TokenType.DOT):
        reader.next()
        parts.append(reader.name())
    return parts


def _projections(reader: _Reader) -> list[Expr]:
    first = reader.peek()
    reader.expect_word("SELECT")
    depth = 0
    while not (depth == 0 and reader.is_word("FROM")):
        token = reader.next()
        depth += {TokenType.L_PAREN: 1, TokenType.R_PAREN: -1}.get(token.token_type, 0)
    text = reader.text_between(first, reader.peek())
    reader.expect_word("FROM")
    return list(sqlglot.parse_one(text, read="snowflake").expressions)


def _location(reader: _Reader) -> str:
    """A quoted location, or everything that stands together without a space."""
    first = reader.next()
    if first.token_type == TokenType.STRING:
        raw = reader.sql[first.start : first.end + 1]
        return unescape(raw[1:-1]) if raw.startswith("'") else first.text
    end = first.end
    while reader.peek() is not None and reader.peek().start == end + 1:
        if reader.is_type(TokenType.R_PAREN):
            break
        end = reader.next().end
    return reader.sql[first.start : end + 1]


def _value(reader: _Reader) -> Any:
    """A word, a string, a list in parentheses, or options in parentheses."""
    if not reader.is_type(TokenType.L_PAREN):
        token = reader.next()
        return fold(token.text) if token.token_type not in (TokenType.STRING, TokenType.NUMBER) else token.text
    reader.next()
    if reader.is_type(TokenType.R_PAREN):
        reader.next()
        return []
    following = reader.peek(1)
    if following is not None and following.token_type == TokenType.EQ:
        options: dict[str, Any] = {}
        while not reader.is_type(TokenType.R_PAREN):
            name = reader.next().text.upper()
            reader.expect(TokenType.EQ)
            options[name] = _value(reader)
            if reader.is_type(TokenType.COMMA):
                reader.next()
        reader.next()
        return options
    values = [reader.next().text]
    while reader.is_type(TokenType.COMMA):
        reader.next()
        values.append(reader.next().text)
    reader.expect(TokenType.R_PAREN)
    return values

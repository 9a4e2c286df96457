"""Databases whose text is not UTF-8: converted where the server knows how, and refused where nobody does."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from harness import wait
from harness.bridge import TABLE, Bridge
from harness.standin import User

# A byte that is ü in Latin-1, and no text in UTF-8.
BYTE = "chr(252)"
UNKNOWN = "the result holds text that is not valid UTF-8"


@pytest.fixture
def user(bridge: Bridge) -> User:
    """A Snowflake user that is configured in each database that a test makes."""
    return bridge.account.add_user()


@contextlib.contextmanager
def database(bridge: Bridge, user: User, encoding: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a database of that encoding, which has the extension and the user's configuration."""
    bridge.admin.execute(f"create database {encoding} encoding '{encoding}' locale 'C' template template0")
    with bridge.cluster.connect(encoding) as connection:
        connection.execute("set client_encoding = 'UTF8'; create extension snowflake_bridge")
        bridge.configure(user, connection=connection)
        yield connection


def upload(bridge: Bridge, connection: psycopg.Connection[Any], query: str, table: str) -> None:
    """The query's result, until it has arrived."""
    number = bridge.call("upload_query", connection=connection, query=query, table_name=table)
    assert bridge.call("wait_for_upload", connection=connection, id=number, timeout="60s") == "completed"


def test_text_of_another_encoding_is_converted(bridge: Bridge, user: User) -> None:
    query = """select 'Grüße' as "größe", '{"ä": "ö"}'::jsonb as j, array['ü'] as a, '{"ß": 1}'::json as k"""
    with database(bridge, user, "latin1") as latin:
        upload(bridge, latin, query, "t")
    [(text, *rest)] = bridge.results(user, ["GRÖSSE", "J", "A", "K"], "T")
    assert (text, *map(json.loads, rest)) == ("Grüße", {"ä": "ö"}, ["ü"], {"ß": 1})


def test_bytes_of_which_nobody_says_what_they_mean(bridge: Bridge, user: User) -> None:
    with database(bridge, user, "sql_ascii") as unknown:
        unknown.execute("create type pair as (n int, t text)")
        unknown.execute("create domain word as text")
        unknown.execute("create type span as range (subtype = text)")
        unknown.execute(f"do $$ begin execute format('create type mood as enum (%L)', {BYTE}); end $$")
        for value in (
            BYTE,
            f"{BYTE}::varchar(3)",
            f"{BYTE}::char(3)",
            f"{BYTE}::name",
            f"{BYTE}::word",
            f"array[['a', {BYTE}]]",
            f"row(1, {BYTE})::pair",
            f"array[row(1, {BYTE})::pair]",
            f"span('a', {BYTE})",
            "(enum_range(null::mood))[1]",
            "enum_range(null::mood)",
            f"""('"' || {BYTE} || '"')::json""",
            f"""('{{"' || {BYTE} || '": 1}}')::json""",
            f"to_tsvector('simple', 'a') || array_to_tsvector(array[{BYTE}])",
        ):
            with pytest.raises(psycopg.Error) as caught:
                bridge.call("upload_query", connection=unknown, query=f"select 1 as n, {value} as x", table_name="t")
            diagnosis = caught.value.diag
            assert (diagnosis.sqlstate, diagnosis.message_primary) == ("22023", f'column "X", row 1: {UNKNOWN}'), value
            assert "convert_from(convert(" in (diagnosis.message_hint or ""), value
        # The byte itself has a type that needs no meaning.
        upload(bridge, unknown, f"select convert_to({BYTE}, 'SQL_ASCII') as b, array['ü', 'x'] as a", "bytes")
        said = f"convert_from(convert(convert_to({BYTE}, 'SQL_ASCII'), 'LATIN1', 'UTF8'), 'UTF8')"
        upload(bridge, unknown, f"""select {said} as x, row({said}) as r, json_build_object('k', {said}) as j""", "said")
    [(byte, array)] = bridge.results(user, ["B", "A"], "BYTES")
    assert (byte, json.loads(array)) == (b"\xfc", ["ü", "x"])
    [(text, *rest)] = bridge.results(user, ["X", "R", "J"], "SAID")
    assert (text, *map(json.loads, rest)) == ("ü", {"f1": "ü"}, {"k": "ü"})


def test_names_of_which_nobody_says_what_they_mean(bridge: Bridge, user: User) -> None:
    with database(bridge, user, "sql_ascii") as unknown:
        unknown.execute(f"do $$ begin execute format('create view odd as select 1 as %I', {BYTE}); end $$")
        with pytest.raises(psycopg.Error, match="UTF-8") as caught:
            bridge.call("upload_query", connection=unknown, query="table odd", table_name="t")
        assert caught.value.diag.sqlstate == "22023"
        upload(bridge, unknown, "select * from odd as odd (n)", "t")
    assert bridge.results(user, ["N"], "T") == [(1,)]


def test_executions_of_which_nobody_says_what_they_mean(bridge: Bridge, user: User) -> None:
    with database(bridge, user, "sql_ascii") as unknown:
        bridge.call("watch", connection=unknown, relation=TABLE, create_if_missing=True)
        insert = f"insert into {TABLE} (execution_id, status, snowflake_enabled, result_rows) values (%s, 'completed', true, "
        bad = f"""('[{{"a": "' || {BYTE} || '"}}]')::jsonb"""
        unknown.execute(insert + bad + ")", ["bad"])
        unknown.execute(insert + """'[{"a": "ü"}]')""", ["good"])
        for execution_id, expected in (("bad", "failed"), ("good", "completed")):
            ends = "select snowflake_bridge.wait_for_upload(id, '60s') as state from snowflake_bridge.uploads where execution_id = %s"
            assert unknown.execute(ends, [execution_id]).fetchone() == {"state": expected}, execution_id
        sql = f"select snowflake_error_message as said from {TABLE} where execution_id = 'bad'"
        said = wait.until(lambda: unknown.execute(sql).fetchone()["said"], "the row says why")
        assert UNKNOWN in said
    assert bridge.results(user, ["A"]) == [("ü",)]

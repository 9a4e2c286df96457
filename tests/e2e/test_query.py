"""`upload_query` and `upload_table`: what the caller reads is what arrives, value by value, and nothing is left behind."""

from __future__ import annotations

import datetime
import json
import math
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from harness import wait
from harness.bridge import APPLICATION, DATABASE, Bridge
from harness.reader import columns
from harness.standin import User

UTC = datetime.UTC
TEXT = "VARCHAR(134217728)"
NINES = "9" * 38


@pytest.fixture
def bridge(make_bridge: Callable[..., Bridge]) -> Bridge:
    """A server on which nothing is given up."""
    return make_bridge({"snowflake_bridge.max_attempts": "100"})


@pytest.fixture
def user(bridge: Bridge) -> User:
    """A Snowflake user that is configured; no table is watched."""
    user = bridge.account.add_user()
    bridge.configure(user)
    return user


def upload(bridge: Bridge, query: str, table: str = "t", **arguments: Any) -> dict[str, Any]:
    """The upload's row once it has completed."""
    number = bridge.call("upload_query", query=query, table_name=table, **arguments)
    return completed(bridge, number)


def completed(bridge: Bridge, number: int) -> dict[str, Any]:
    """The upload's row, which must complete."""
    state = bridge.call("wait_for_upload", id=number, timeout="60s")
    row = look(bridge, number)
    assert state == "completed", row
    return row


def look(bridge: Bridge, number: int) -> dict[str, Any]:
    """The upload's row as it is."""
    row = bridge.admin.execute("select * from snowflake_bridge.uploads where id = %s", [number]).fetchone()
    assert row is not None
    return row


def spool(bridge: Bridge) -> list[Path]:
    """The directories of uploads that lie in the spool."""
    return [path for path in bridge.cluster.data.glob("snowflake_bridge_spool/*/*") if path.is_dir()]


def spool_is_empty(bridge: Bridge) -> None:
    """Waits until nothing lies in the spool: the worker tidies up just after it has told."""
    wait.until(lambda: not spool(bridge), "the spool is empty")


def test_files_are_nobody_elses(bridge: Bridge) -> None:
    """Rows that wait can be read by the server's user alone, also where the data directory can by its group."""
    bridge.ready()
    bridge.cluster.stop()
    bridge.cluster.data.chmod(0o750)
    bridge.cluster.start()
    bridge.connect()
    with bridge.cluster.connect("shop", "app") as connection, connection.transaction():
        bridge.call("upload_query", connection=connection, query="select 1 as n", table_name="t")
        root = bridge.cluster.data / "snowflake_bridge_spool"
        modes = {path.stat().st_mode & 0o777 for path in [root, *root.rglob("*")] if path.is_dir()}
        assert modes == {0o700}
        assert [path.stat().st_mode & 0o777 for path in root.rglob("*.parquet")] == [0o600]


# An expression, the type of its column, and what the official client reads.
VALUES: list[tuple[str, str, Any]] = [
    ("true", "BOOLEAN", True),
    ("null::bool", "BOOLEAN", None),
    ("(-32768)::int2", "NUMBER(5,0)", -32768),
    ("(-2147483648)::int4", "NUMBER(10,0)", -(2**31)),
    ("(-9223372036854775808)::int8", "NUMBER(19,0)", -(2**63)),
    ("9223372036854775807::int8", "NUMBER(19,0)", 2**63 - 1),
    ("4294967295::oid", "NUMBER(10,0)", 2**32 - 1),
    ("0.1::float4", "FLOAT", 0.10000000149011612),
    ("0.1::float8", "FLOAT", 0.1),
    ("1.7976931348623157e308::float8", "FLOAT", 1.7976931348623157e308),
    ("5e-324::float8", "FLOAT", 5e-324),
    ("'nan'::float8", "FLOAT", math.nan),
    ("'-infinity'::float8", "FLOAT", -math.inf),
    ("12.30::numeric(10,2)", "NUMBER(10,2)", Decimal("12.30")),
    ("(-0.01)::numeric(10,2)", "NUMBER(10,2)", Decimal("-0.01")),
    (f"{NINES}::numeric(38)", "NUMBER(38,0)", int(NINES)),
    (f"(-0.{NINES[:37]})::numeric(38,37)", "NUMBER(38,37)", Decimal(f"-0.{NINES[:37]}")),
    ("12345::numeric(3,-2)", "NUMBER(5,0)", 12300),
    ("0.00012::numeric(2,5)", "NUMBER(5,5)", Decimal("0.00012")),
    ("10000::numeric(38,10)", "NUMBER(38,10)", Decimal(10000)),
    ("99990000.00010::numeric(20,5)", "NUMBER(20,5)", Decimal("99990000.0001")),
    ("1.5::numeric", "NUMBER(38,10)", Decimal("1.5")),
    ("1::numeric / 3", "NUMBER(38,20)", Decimal("0.33333333333333333333")),
    ("1e28::numeric", "NUMBER(38,9)", Decimal(10) ** 28),
    (f"{NINES}::numeric", "NUMBER(38,0)", int(NINES)),
    ("null::numeric", "NUMBER(38,10)", None),
    ("'-92233720368547758.08'::money", "NUMBER(19,2)", Decimal("-92233720368547758.08")),
    ("'Grüße\\N\t日本'::text", TEXT, "Grüße\\N\t日本"),
    ("''::text", TEXT, ""),
    ("'ab'::varchar(10)", TEXT, "ab"),
    ("'ab'::char(4)", TEXT, "ab  "),
    ("'a'::\"char\"", TEXT, "a"),
    ("'pg_class'::name", TEXT, "pg_class"),
    ("'\\x00ff10'::bytea", "BINARY(67108864)", b"\x00\xff\x10"),
    ("''::bytea", "BINARY(67108864)", b""),
    ("'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::uuid", TEXT, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("'0001-01-01'::date", "DATE", datetime.date(1, 1, 1)),
    ("'9999-12-31'::date", "DATE", datetime.date(9999, 12, 31)),
    ("'23:59:59.999999'::time", "TIME(6)", datetime.time(23, 59, 59, 999999)),
    (
        "'1969-12-31 23:59:59.999999'::timestamp",
        "TIMESTAMP_NTZ(6)",
        datetime.datetime(1969, 12, 31, 23, 59, 59, 999999),
    ),
    (
        "'2024-02-29 01:02:03.000004+05:30'::timestamptz",
        "TIMESTAMP_TZ(6)",
        datetime.datetime(2024, 2, 28, 19, 32, 3, 4, tzinfo=UTC),
    ),
    ("'12:34:56.789+05:30'::timetz", TEXT, "12:34:56.789+05:30"),
    ("'1 year -2 mons 3 days 04:05:06.7'::interval", TEXT, "P10M3DT4H5M6.7S"),
    ("b'10110'", TEXT, "10110"),
    ("'101'::varbit", TEXT, "101"),
    ("'192.168.0.1/24'::inet", TEXT, "192.168.0.1/24"),
    ("'10.0.0.0/8'::cidr", TEXT, "10.0.0.0/8"),
    ("'08:00:2b:01:02:03'::macaddr", TEXT, "08:00:2b:01:02:03"),
    ("'<a>b</a>'::xml", TEXT, "<a>b</a>"),
    ("'a fat cat'::tsvector", TEXT, "'a' 'cat' 'fat'"),
    ("'(1,2)'::point", TEXT, "(1,2)"),
    ("'pg_catalog.pg_class'::regclass", TEXT, "pg_class"),
    ("'public.mood'::regtype", TEXT, "public.mood"),
    ("int4range(1, 5)", TEXT, "[1,5)"),
    ("'{[1,3),[5,7)}'::int4multirange", TEXT, "{[1,3),[5,7)}"),
    ("tstzrange('2024-01-01 01:00+01', null)", TEXT, '["2024-01-01 00:00:00+00",)'),
    ("'happy'::mood", TEXT, "happy"),
    ("'CaSe'::citext", TEXT, "CaSe"),
    ("7::positive", "NUMBER(10,0)", 7),
]

# An expression whose column is JSON, its type, and the value.
JSONS: list[tuple[str, str, Any]] = [
    ('\'{"a": [1, 2.50, null, "x"]}\'::jsonb', "VARIANT", {"a": [1, 2.5, None, "x"]}),
    ('\'{"b": 1, "a": {"b": []}}\'::json', "VARIANT", {"b": 1, "a": {"b": []}}),
    ("'12345678901234567890123456789012345678'::jsonb", "VARIANT", 12345678901234567890123456789012345678),
    ("'a=>1, b=>NULL'::hstore", "VARIANT", {"a": "1", "b": None}),
    ("array[1, null, 3]", "ARRAY", [1, None, 3]),
    ("'{}'::text[]", "ARRAY", []),
    ("array[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]", "ARRAY", [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]),
    ("'[1:2]={a,NULL}'::text[]", "ARRAY", ["a", None]),
    ("array['{\"k\": 1}'::jsonb, 'null']", "ARRAY", [{"k": 1}, None]),
    ("array[1.50, 'nan']::numeric[]", "ARRAY", [1.5, "NaN"]),
    ("array[0.1, 'infinity']::float8[]", "ARRAY", [0.1, "Infinity"]),
    ("array[0.1]::real[]", "ARRAY", [0.10000000149011612]),
    ("array[-1234.50, 0.05]::money[]", "ARRAY", [-1234.5, 0.05]),
    ("array[1e-40]::numeric[]", "ARRAY", [1e-40]),
    ("array['2024-01-01', 'infinity']::date[]", "ARRAY", ["2024-01-01", "infinity"]),
    (
        "array['2024-01-01 12:00+02']::timestamptz[]",
        "ARRAY",
        ["2024-01-01T10:00:00+00:00"],
    ),
    ("array['1 day'::interval]", "ARRAY", ["P1D"]),
    ("array['\\x00ff'::bytea]", "ARRAY", ["\\x00ff"]),
    ("array['happy']::mood[]", "ARRAY", ["happy"]),
    ("array[3, 4]::positive[]", "ARRAY", [3, 4]),
    ("'3 4'::int2vector", "ARRAY", [3, 4]),
    ("array[int4range(1, 3)]", "ARRAY", ["[1,3)"]),
    ("array['k=>v'::hstore]", "ARRAY", [{"k": "v"}]),
    ("array[row(1, 2), row(3, null)]", "ARRAY", [{"f1": 1, "f2": 2}, {"f1": 3, "f2": None}]),
    ("(select v from (select 1 as a, array[true] as b) v)", "VARIANT", {"a": 1, "b": [True]}),
    ("row(1, 'a', null)", "VARIANT", {"f1": 1, "f2": "a", "f3": None}),
    (
        "row(1, array[row('x', '2024-01-01')::part], true)::whole",
        "VARIANT",
        {"id": 1, "parts": [{"name": "x", "day": "2024-01-01"}], "Is it?": True},
    ),
]

TYPES = """
create extension citext;
create extension hstore;
create type mood as enum ('happy', 'sad');
create domain positive as int check (value > 0);
create table part (name text, gone int, day date);
alter table part drop column gone;
create type whole as (id int, parts part[], "Is it?" bool);
"""


def same(found: Any, expected: Any) -> bool:
    """Equal, and NaN equals itself."""
    if isinstance(expected, float) and math.isnan(expected):
        return isinstance(found, float) and math.isnan(found)
    return type(found) in (type(expected), bytearray, int, Decimal) and found == expected


def test_every_type(bridge: Bridge, user: User) -> None:
    bridge.admin.execute(TYPES)
    # What a session has set changes nothing of what arrives.
    bridge.app.execute(
        "set datestyle = 'German'; set intervalstyle = 'sql_standard'; set timezone = 'Asia/Tokyo'; "
        "set extra_float_digits = 0; set bytea_output = 'escape'; set quote_all_identifiers = on; set search_path = public"
    )
    cases = VALUES + JSONS
    query = "select " + ", ".join(f"{sql} as c{place}" for place, (sql, _, _) in enumerate(cases))
    row = upload(bridge, query)
    assert row["row_count"] == 1
    assert row["out_of_range_count"] == 0
    described = columns(bridge.account, user, "T")
    [found] = bridge.results(user, [f"C{place}" for place in range(len(cases))], "T")
    wrong = []
    for place, (sql, column_type, expected) in enumerate(cases):
        value = found[place]
        if (sql, column_type, expected) in JSONS:
            value = json.loads(value, parse_float=float)
            equal = value == expected
        else:
            equal = same(value, expected)
        if not equal:
            wrong.append(f"{sql}: {value!r} is not {expected!r}")
        if not described[f"C{place}"].startswith(column_type):
            wrong.append(f"{sql}: {described[f'C{place}']} is not {column_type}")
    assert not wrong, "\n".join(wrong)
    assert bridge.app.execute("show datestyle").fetchone() == {"DateStyle": "German, DMY"}


def test_json_null_is_not_sql_null(bridge: Bridge, user: User) -> None:
    upload(bridge, "select n, j from (values (1, 'null'::jsonb), (2, null)) v (n, j)")
    found = bridge.results(user, "N, J is null", "T", "order by n")
    assert found == [(1, False), (2, True)]


CHANGING_TYPE = """
    create schema moving;
    create type moving.t as (a {before});
    create function moving.make(n int) returns text language plpgsql as $$
    begin
        if n = 300 then alter type moving.t alter attribute a type {after}; end if;
        return '(16384)';
    end $$;
"""


@pytest.mark.parametrize(("before", "after"), [("bytea", "bigint"), ("bigint", "bytea")])
@pytest.mark.parametrize("order", ["", " order by n"])
def test_a_type_that_a_query_changes(bridge: Bridge, user: User, before: str, after: str, order: str) -> None:
    """Rows of both forms lie about, and the one's bytes would be a pointer of the other."""
    bridge.app.execute(CHANGING_TYPE.format(before=before, after=after))
    query = f"select n, moving.make(n)::moving.t as v from generate_series(1, 700) n{order}"
    with pytest.raises(psycopg.errors.ObjectInUse, match="was changed while its values were read"):
        bridge.call("upload_query", query=query, table_name="t")
    spool_is_empty(bridge)


def test_nobody_else_changes_a_type_while_its_values_are_read(bridge: Bridge, user: User) -> None:
    bridge.app.execute(CHANGING_TYPE.format(before="bytea", after="bigint"))
    bridge.admin.execute("set lock_timeout = '100ms'")
    with bridge.app.transaction():
        bridge.call("upload_query", query="select array[row('\\x00')::moving.t] as v", table_name="t")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            bridge.admin.execute("alter type moving.t add attribute b int")
    bridge.admin.execute("alter type moving.t add attribute b int")


UNHELD = [
    ("'infinity'::date", "infinite"),
    ("'-infinity'::timestamptz", "infinite"),
    ("'0044-03-15 BC'::date", "outside of the years 1 to 9999"),
    ("'10000-01-01'::timestamp", "outside of the years 1 to 9999"),
    ("'24:00:00'::time", "24:00"),
    ("'nan'::numeric", "NaN"),
    ("'infinity'::numeric", "infinite"),
    ("1e39::numeric", "38 digits"),
    ("1e-38::numeric", "38 digits, 37 of them after the point"),
]


@pytest.mark.parametrize(("value", "problem"), UNHELD)
def test_what_snowflake_cannot_hold(bridge: Bridge, user: User, value: str, problem: str) -> None:
    query = f"select n, case when n = 2 then {value} end as odd from generate_series(1, 3) n"
    with pytest.raises(psycopg.errors.DataException) as caught:
        upload(bridge, query)
    message = caught.value.diag.message_primary
    assert message is not None
    assert message.startswith('column "ODD", row 2: ')
    assert problem in message
    assert caught.value.diag.message_hint
    assert spool(bridge) == []

    notices: list[str] = []
    bridge.app.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    row = upload(bridge, query, "nulls", options=Jsonb({"on_out_of_range": "null"}))
    assert row["out_of_range_count"] == 1
    assert 'column "ODD": 1 values that Snowflake cannot hold are loaded as NULL' in notices
    assert bridge.results(user, ["N", "ODD"], "NULLS", "order by n") == [(1, None), (2, None), (3, None)]

    row = upload(bridge, query, "texts", options=Jsonb({"on_out_of_range": "text"}))
    assert row["out_of_range_count"] == 1
    with bridge.cluster.connect(DATABASE) as other:
        other.execute("set datestyle = 'ISO'; set timezone = 'UTC'")
        expected = other.execute(f"select ({value})::text as text").fetchone()
    assert expected is not None
    assert bridge.results(user, ["ODD"], "TEXTS", "where n = 2") == [(expected["text"],)]


def test_numbers_together_need_too_many_digits(bridge: Bridge, user: User) -> None:
    query = "select x from (values (1e30::numeric), (1e-9)) v (x)"
    with pytest.raises(psycopg.errors.DataException, match=r"31 before the point and 9 after it"):
        upload(bridge, query)
    upload(bridge, query, options=Jsonb({"numeric": "varchar"}))
    assert sorted(bridge.results(user, ["X"], "T")) == [("0.000000001",), ("1" + "0" * 30,)]


def test_numbers_as_text_for_a_table_that_has_a_number(bridge: Bridge, user: User) -> None:
    upload(bridge, "select 0.5::numeric(12,2) as x")
    as_text = Jsonb({"numeric": "varchar"})
    upload(bridge, "select x from (values (1.25::numeric), (null), (10.00000)) v (x)", options=as_text)
    assert columns(bridge.account, user, "T")["X"] == "NUMBER(12,2)"
    found = {value for (value,) in bridge.results(user, ["X"], "T")}
    assert found == {Decimal("0.5"), Decimal("1.25"), Decimal(10), None}
    # What is no number at all, no NUMBER takes.
    number = bridge.call("upload_query", query="select 'NaN'::numeric as x", table_name="t", options=as_text)
    assert bridge.call("wait_for_upload", id=number, timeout="60s") == "failed"
    assert "NUMBER(12,2)" in look(bridge, number)["error_message"]


def test_json_that_snowflake_would_change(bridge: Bridge, user: User) -> None:
    for value, problem in [
        ('\'{"a": 1, "a": 2}\'::json', "same key twice"),
        ("'123456789012345678901234567890123456789'::jsonb", "38 digits"),
        ("array[1 + 1e-60::numeric]", "38 digits"),
    ]:
        with pytest.raises(psycopg.errors.DataException, match=problem):
            upload(bridge, f"select {value} as v")


def test_results_without_rows_or_columns(bridge: Bridge, user: User) -> None:
    row = upload(bridge, "select 1 as a, 'x' as b where false")
    assert row["row_count"] == 0
    assert list(columns(bridge.account, user, "T"))[:2] == ["A", "B"]
    assert bridge.row_count(user, "T") == 0
    row = upload(bridge, "select from generate_series(1, 3)", "bare", execution_id="nothing")
    assert row["row_count"] == 3
    assert bridge.results(user, ["EXECUTION_ID"], "BARE") == [("nothing",)] * 3


def test_column_names(bridge: Bridge, user: User) -> None:
    upload(bridge, 'select 1 as "a.b", 2 as "q""q", 3 as "Käse", 4 as user_id, 5')
    names = ["A.B", 'Q"Q', "KÄSE", "RESULT_USER_ID", "?COLUMN?"]
    assert list(columns(bridge.account, user, "T"))[:5] == names
    selected = ", ".join('"{}"'.format(name.replace('"', '""')) for name in names)
    assert bridge.results(user, selected, "T") == [(1, 2, 3, 4, 5)]
    with pytest.raises(psycopg.errors.DataException, match='would both be named "A"'):
        upload(bridge, 'select 1 as a, 2 as "A"')
    upload(bridge, 'select 1 as "aB"', "kept", options=Jsonb({"column_case": "preserve"}))
    assert bridge.results(user, ["aB"], "KEPT") == [(1,)]


def test_every_row_says_where_it_comes_from(bridge: Bridge, user: User) -> None:
    row = upload(bridge, "values (1), (2)")
    found = bridge.results(user, ["EXECUTION_ID", "USER_ID", "UPLOAD_ID"], "T")
    assert found == [(str(row["upload_id"]), APPLICATION, str(row["upload_id"]))] * 2
    upload(bridge, "values (1), (2)", execution_id="mine")
    assert bridge.row_count(user, "T") == 4, "each call adds its rows"
    assert ("mine",) in bridge.results(user, ["EXECUTION_ID"], "T")


def test_no_sql_is_stored(bridge: Bridge, user: User) -> None:
    upload(bridge, "select 'needle in a haystack' || 1 as x")
    for table in ("uploads", "watches", "snowflake_configurations"):
        rows = bridge.admin.execute(f"select t::text as row from snowflake_bridge.{table} t").fetchall()
        assert not any("haystack" in row["row"] for row in rows)


def test_statements_that_return_rows(bridge: Bridge, user: User) -> None:
    bridge.app.execute("create table item (id int primary key, name text)")
    for query, count in [
        ("insert into item values (1, 'a'), (2, 'b'), (3, 'c') returning *", 3),
        ("update item set name = name || '!' where id > 1 returning id, name", 2),
        ("with gone as (delete from item where id = 3 returning id, name) select * from gone", 1),
        ("table item", 2),
        ("values (9, 'z')", 1),
        ("with recursive n (id) as (values (1) union all select id + 1 from n where id < 5) select id from n", 5),
        ("select id, name from item for update", 2),
    ]:
        assert upload(bridge, query)["row_count"] == count, query
    names = sorted(name for (name,) in bridge.results(user, ["NAME"], "T") if name is not None)
    assert names == ["a", "a", "a", "b", "b!", "b!", "b!", "c", "c!", "c!"]


def test_strategies(bridge: Bridge, user: User) -> None:
    options = Jsonb({"strategy": "upsert", "key_columns": ["id"]})
    for query in (
        "select id, price from (values (1, 1.5), (2, 2.25)) v (id, price)",
        "select id, price from (values (2, 0.125::numeric), (3, 1::numeric / 3)) v (id, price)",
    ):
        upload(bridge, query, "kept", options=options)
    assert bridge.results(user, ["ID", "PRICE"], "KEPT", "order by id") == [
        (1, Decimal("1.5")),
        (2, Decimal("0.125")),
        (3, Decimal("0.33333333333333333333")),
    ]
    with pytest.raises(psycopg.Error, match="nothing"):
        upload(bridge, "select 1 as id", "kept", options=Jsonb({"strategy": "upsert", "key_columns": ["nothing"]}))
    by_dates = {"strategy": "upsert", "on_out_of_range": "text"}
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="makes dates text"):
        upload(bridge, "select now() as at, date '2024-01-01' as report_date", "kept", options=Jsonb(by_dates))
    spool_is_empty(bridge)
    upload(bridge, "select 7 as id", "kept", options=Jsonb({"strategy": "replace"}))
    assert bridge.results(user, ["ID"], "KEPT") == [(7,)]


def test_a_table_with_its_name(bridge: Bridge, user: User) -> None:
    bridge.app.execute('create table "Odd name" (id int, gone int, body text)')
    bridge.app.execute('alter table "Odd name" drop column gone')
    bridge.app.execute("""insert into "Odd name" select n, repeat('x', 10000) from generate_series(1, 500) n""")
    number = bridge.call("upload_table", relation='"Odd name"')
    assert completed(bridge, number)["row_count"] == 500
    assert bridge.results(user, "count(*), sum(id), min(length(body))", "ODD NAME") == [(500, 125250, 10000)]
    bridge.app.execute('create view seen as select id from "Odd name" where id < 3')
    number = bridge.call("upload_table", relation="seen", table_name="other")
    completed(bridge, number)
    assert sorted(bridge.results(user, ["ID"], "OTHER")) == [(1,), (2,)]


def test_the_caller_sees_what_the_caller_sees(bridge: Bridge, user: User) -> None:
    bridge.admin.execute("create table secret (id int)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        upload(bridge, "select * from secret")
    bridge.app.execute("create table note (id int, owner text default current_user)")
    bridge.app.execute("alter table note enable row level security; alter table note force row level security")
    bridge.app.execute("create policy own on note using (id > 1)")
    bridge.admin.execute("insert into note values (1), (2)")
    assert upload(bridge, "select id from note")["row_count"] == 1
    # A snapshot of the whole transaction, its own changes included.
    with bridge.app.transaction():
        bridge.app.execute("set transaction isolation level repeatable read")
        bridge.app.execute("select 1")
        bridge.admin.execute("insert into note values (3)")
        bridge.app.execute("insert into note values (4)")
        number = bridge.call("upload_query", query="select id from note", table_name="snap")
    completed(bridge, number)
    assert sorted(bridge.results(user, ["ID"], "SNAP")) == [(2,), (4,)]


@pytest.mark.parametrize("how", ["rollback", "error", "savepoint", "disconnect"])
def test_a_rollback_leaves_nothing(bridge: Bridge, user: User, how: str) -> None:
    query = "select n from generate_series(1, 20000) n"
    connection = bridge.cluster.connect(DATABASE, APPLICATION)
    connection.execute("begin")
    if how == "savepoint":
        connection.execute("savepoint one; savepoint two")
    bridge.call("upload_query", connection=connection, query=query, table_name="t")
    assert len(spool(bridge)) == 1
    if how == "rollback":
        connection.execute("rollback")
    elif how == "error":
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("select 1 / 0")
    elif how == "savepoint":
        connection.execute("release two")
        kept = bridge.call("upload_query", connection=connection, query="values (1)", table_name="kept")
        connection.execute("rollback to one")
        assert spool(bridge) == []
        kept = bridge.call("upload_query", connection=connection, query="values (2)", table_name="kept")
        connection.execute("commit")
        completed(bridge, kept)
        assert bridge.row_count(user, "KEPT") == 1
    else:
        connection.close()
    wait.until(lambda: not spool(bridge), "the files are gone")
    uploads = bridge.admin.execute("select state from snowflake_bridge.uploads").fetchall()
    assert uploads == ([{"state": "completed"}] if how == "savepoint" else [])


def test_a_prepared_transaction(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge({"max_prepared_transactions": "2"})
    bridge.configure(bridge.account.add_user())
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        bridge.app.execute("begin; select snowflake_bridge.upload_query('values (1)', 't'); prepare transaction 'x'")
    bridge.app.execute("rollback")
    assert spool(bridge) == []


@pytest.fixture
def held(bridge: Bridge, user: User) -> Iterator[None]:
    """Nobody may log in for now."""
    bridge.standin.fault({"kind": "login"}, {"status": 503}, times=1000)
    yield
    bridge.standin.clear_faults()


def test_a_restart_with_an_upload_queued(bridge: Bridge, user: User, held: None) -> None:
    number = bridge.call("upload_query", query="select n from generate_series(1, 20000) n", table_name="t")
    wait.until(lambda: look(bridge, number)["state"] == "retry", "the upload waits for its next attempt")
    bridge.cluster.stop()
    bridge.cluster.start()
    bridge.connect()
    assert len(spool(bridge)) == 1
    bridge.standin.clear_faults()
    completed(bridge, number)
    assert bridge.results(user, "count(*), sum(n)", "T") == [(20000, 200010000)]
    spool_is_empty(bridge)


def test_a_worker_that_starts_while_a_caller_reads(bridge: Bridge, user: User) -> None:
    first = bridge.worker()
    with bridge.app.transaction():
        number = bridge.call("upload_query", query="values (1)", table_name="t")
        bridge.admin.execute("select pg_terminate_backend(%s)", [first])
        wait.until(lambda: bridge.worker() != first, "another worker runs")
        wait.until(lambda: "worker started" in bridge.cluster.log_text().split("terminating")[-1], "it has begun")
        assert len(spool(bridge)) == 1
    completed(bridge, number)
    assert bridge.row_count(user, "T") == 1


def test_files_that_are_gone(bridge: Bridge, user: User, held: None) -> None:
    number = bridge.call("upload_query", query="values (1)", table_name="t")
    wait.until(lambda: look(bridge, number)["state"] == "retry", "the upload waits for its next attempt")
    for file in spool(bridge)[0].glob("*/*"):
        file.unlink()
    bridge.standin.clear_faults()
    assert bridge.call("wait_for_upload", id=number, timeout="60s") == "failed"
    row = look(bridge, number)
    assert row["error_message"] == "the rows of this upload are not in the spool directory any more"
    assert "call upload_query or upload_table again" in row["error_hint"]


def test_cancel(make_bridge: Callable[..., Bridge]) -> None:
    """Between two attempts, of which the next does not come in this test."""
    bridge = make_bridge({"snowflake_bridge.retry_base_delay": "1h", "snowflake_bridge.retry_max_delay": "1h"})
    bridge.configure(bridge.account.add_user())
    bridge.standin.fault({"kind": "login"}, {"status": 503}, times=1000)
    number = bridge.call("upload_query", query="values (1)", table_name="t")
    wait.until(lambda: look(bridge, number)["state"] == "retry", "the upload waits for its next attempt")
    with bridge.app.transaction(force_rollback=True):
        assert bridge.call("cancel_upload", id=number) is True
    assert len(spool(bridge)) == 1
    assert bridge.call("cancel_upload", id=number) is True
    assert look(bridge, number)["state"] == "canceled"
    assert spool(bridge) == []
    assert bridge.call("retry_upload", id=number) is False


def test_a_failed_upload_can_be_mended(bridge: Bridge, user: User) -> None:
    upload(bridge, "select 'text' as x")
    number = bridge.call("upload_query", query="select current_date as x", table_name="t")
    assert bridge.call("wait_for_upload", id=number, timeout="60s") == "failed"
    assert len(spool(bridge)) == 1
    bridge.account.sql(f'drop table "{user.database}"."{user.schema}".T')
    assert bridge.call("retry_upload", id=number) is True
    completed(bridge, number)
    assert bridge.row_count(user, "T") == 1
    spool_is_empty(bridge)


def test_a_configuration_that_is_deleted(bridge: Bridge, user: User, held: None) -> None:
    number = bridge.call("upload_query", query="values (1)", table_name="t")
    wait.until(lambda: look(bridge, number)["state"] == "retry", "the upload waits for its next attempt")
    bridge.call("delete_config", name="default")
    wait.until(lambda: look(bridge, number)["state"] == "failed", "the upload has failed")
    with pytest.raises(psycopg.errors.UndefinedObject, match="no Snowflake configuration"):
        bridge.call("upload_query", query="values (1)", table_name="t")


def test_acting_for_a_user(bridge: Bridge) -> None:
    user = bridge.account.add_user()
    bridge.configure(user, connection=bridge.admin, user_id="alice")
    number = bridge.call("upload_query", connection=bridge.admin, query="values (1)", table_name="t", user_id="alice")
    bridge.call("wait_for_upload", connection=bridge.admin, id=number, timeout="60s")
    assert look(bridge, number)["state"] == "completed"
    assert bridge.results(user, ["USER_ID"], "T") == [("alice",)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        bridge.call("upload_query", query="values (1)", table_name="t", user_id="alice")


def test_nobody_sees_the_uploads_of_others(bridge: Bridge, user: User) -> None:
    number = bridge.call("upload_query", query="values (1)", table_name="t")
    bridge.admin.execute("create role other login")
    bridge.admin.execute("select snowflake_bridge.grant_usage('other')")
    with bridge.cluster.connect(DATABASE, "other") as other:
        assert other.execute("select * from snowflake_bridge.uploads").fetchall() == []
        with pytest.raises(psycopg.errors.UndefinedObject):
            bridge.call("cancel_upload", connection=other, id=number)
    completed(bridge, number)


def test_a_cancel_while_rows_are_read(bridge: Bridge, user: User) -> None:
    connection = bridge.cluster.connect(DATABASE, APPLICATION)
    pid = connection.info.backend_pid
    connection.execute("set statement_timeout = '1s'")
    began = time.monotonic()
    with pytest.raises(psycopg.errors.QueryCanceled):
        bridge.call(
            "upload_query",
            connection=connection,
            query="select n, md5(n::text) as a, repeat(md5(n::text), 20) as b from generate_series(1, 100000000) n",
            table_name="t",
        )
    # The time-out is a second. An answer to it comes within 200 ms, on a machine that has nothing else to do.
    assert time.monotonic() - began < 20
    assert spool(bridge) == []
    assert connection.info.backend_pid == pid


def test_wide_rows_stay_within_memory(bridge: Bridge, user: User) -> None:
    # 100 values of 8 MB each: 800 MB, were they fetched together.
    query = "select n, repeat('x', 8000000) || n as wide from generate_series(1, 100) n"
    connection = bridge.cluster.connect(DATABASE, APPLICATION)
    number = bridge.call("upload_query", connection=connection, query=query, table_name="t")
    status = Path(f"/proc/{connection.info.backend_pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < 300_000, f"the backend took {peak} kB"
    completed(bridge, number)
    assert bridge.results(user, "count(*), min(length(wide)), max(length(wide))", "T") == [(100, 8000001, 8000003)]

"""What lies at the edge of what Snowflake, the server or a file holds: sizes, several files, types of extensions."""

from __future__ import annotations

import json
from collections.abc import Callable

import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg.types.json import Jsonb

from harness import lifecycle
from harness.bridge import RESULTS, Bridge
from harness.reader import columns
from harness.standin import User

MB = 1024 * 1024
# As many as a relation has at most.
WIDE = [f"col_{place}" for place in range(1600)]


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("repeat('x', {size})", 128 * MB),
        ("repeat('ä', {size} / 2) || repeat('x', {size} % 2)", 128 * MB),
        ("decode(repeat('00', {size}), 'hex')", 64 * MB),
        ("to_jsonb(repeat('x', {size} - 2))", 128 * MB),
        ("array[repeat('x', {size} - 4)]", 128 * MB),
        ("row(repeat('x', {size} - 9))", 128 * MB),
    ],
    ids=["text", "characters of two bytes", "bytea", "jsonb", "array", "row"],
)
def test_values_at_the_limit_of_their_size(bridge: Bridge, user: User, value: str, size: int) -> None:
    def query(size: int) -> str:
        return f"select {value.format(size=size)} as v"

    # Nobody has to load what fits: it is rolled back.
    with bridge.app.transaction(force_rollback=True):
        assert bridge.call("upload_query", query=query(size), table_name="t") > 0
    with pytest.raises(psycopg.errors.DataException) as caught:
        bridge.call("upload_query", query=query(size + 1), table_name="t")
    message = caught.value.diag.message_primary or ""
    assert message.startswith('column "V", row 1: ') and str(size) in message
    assert "on_out_of_range" in (caught.value.diag.message_hint or "")


def test_values_beyond_the_limit_can_be_left_out(bridge: Bridge, user: User) -> None:
    query = f"select n, repeat('x', n) as v, array[repeat('x', n)] as a from (values (1), ({128 * MB + 1})) v (n)"
    options = Jsonb({"on_out_of_range": "null"})
    number = bridge.call("upload_query", query=query, table_name="t", options=options)
    assert bridge.call("wait_for_upload", id=number, timeout="60s") == "completed"
    assert bridge.results(user, "count(*), count(v), count(a)", "T") == [(2, 1, 1)]
    row = bridge.admin.execute("select out_of_range_count from snowflake_bridge.uploads").fetchone()
    assert row == {"out_of_range_count": 2}


def test_a_row_that_memory_does_not_hold(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge({"snowflake_bridge.max_memory": "64MB"})
    bridge.configure(bridge.account.add_user())
    texts = ", ".join(f"repeat('x', 3000000) as c{place}" for place in range(5))
    with pytest.raises(psycopg.errors.DataException, match="^row 1: besides the largest of its values") as caught:
        bridge.call("upload_query", query=f"select {texts}", table_name="t")
    assert "max_memory" in (caught.value.diag.message_hint or "")
    roomy = make_bridge()
    roomy.configure(roomy.account.add_user())
    with roomy.app.transaction(force_rollback=True):
        roomy.call("upload_query", query=f"select {texts}", table_name="t")


def test_a_result_of_several_files_is_loaded_by_one_statement(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge({"snowflake_bridge.target_file_size": "1MB"})
    user = bridge.account.add_user()
    bridge.configure(user)
    noise = "md5(n::text) || md5((-n)::text) || md5(n || '/')"
    query = f"select n, {noise} as noise from generate_series(1, 100000) n"
    number = bridge.call("upload_query", query=query, table_name="t")
    assert bridge.call("wait_for_upload", id=number, timeout="60s") == "completed"
    [copy] = bridge.account.statements("COPY INTO")
    assert 3 <= copy.count(".parquet") <= 10, copy
    expected = [(100000, 100000, 100000 * 100001 // 2)]
    assert bridge.results(user, "count(*), count(distinct noise), sum(n)", "T") == expected


def test_a_query_of_as_many_columns_as_a_relation_has(bridge: Bridge, user: User) -> None:
    uploaded(bridge, "select " + ", ".join(f"{place} as {name}" for place, name in enumerate(WIDE)))
    [found] = bridge.results(user, [name.upper() for name in WIDE], "T")
    assert found == tuple(range(len(WIDE)))


@pytest.mark.parametrize("strategy", ["append", "upsert", "replace"])
def test_inline_results_of_as_many_columns(bridge: Bridge, user: User, strategy: str) -> None:
    bridge.watch()
    options = {"strategy": strategy} | ({"key_columns": WIDE[:2]} if strategy == "upsert" else {})
    for number in (0, 1):
        rows = [{name: row if place < 2 else number * row * place for place, name in enumerate(WIDE)} for row in (1, 2)]
        if number:
            # As wide as it was, and one column more.
            rows = [{**row, "late": "x"} for row in rows]
        bridge.run(f"run-{number}", rows, snowflake_options=options)
        assert bridge.completed(f"run-{number}")["snowflake_row_count"] == 2
    found = bridge.results(user, [*(name.upper() for name in WIDE), "LATE"], RESULTS, f"order by {WIDE[-1]}, {WIDE[0]}")
    first = [(*([row] * 2), *([0] * (len(WIDE) - 2)), None) for row in (1, 2)]
    second = [(*([row] * 2), *(row * place for place in range(2, len(WIDE))), "x") for row in (1, 2)]
    assert found == (first + second if strategy == "append" else second)


def test_a_new_table_says_where_it_comes_from(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", [{"a": 1}])
    bridge.completed("run-1")
    number = bridge.call("upload_query", query="select 1 as a", table_name="of_a_query")
    assert bridge.call("wait_for_upload", id=number, timeout="60s") == "completed"
    bridge.app.execute("create table public.customers as select 1 as a")
    number = bridge.call("upload_table", relation="customers")
    assert bridge.call("wait_for_upload", id=number, timeout="60s") == "completed"
    names = (RESULTS, "OF_A_QUERY", "CUSTOMERS")
    created = {name: text for text in bridge.account.statements("CREATE TABLE") for name in names if name in text}
    assert "COMMENT = 'Loaded by snowflake_bridge from public.customers'" in created["CUSTOMERS"]
    assert "COMMENT = 'Loaded by snowflake_bridge from public.workflow_executions'" in created[RESULTS]
    assert "COMMENT = 'Loaded by snowflake_bridge from a query'" in created["OF_A_QUERY"]


@pytest.mark.parametrize(("setting", "codec"), [("zstd", "ZSTD"), ("zstd:9", "ZSTD"), ("none", "UNCOMPRESSED")])
def test_files_are_compressed_as_the_setting_says(make_bridge: Callable[..., Bridge], setting: str, codec: str) -> None:
    bridge = make_bridge({"snowflake_bridge.compression": setting})
    user = bridge.ready()
    with bridge.app.transaction():
        # The worker sees the upload once this commits; until then its file is here to be read.
        number = bridge.call("upload_query", query="select repeat('a', n) as a from generate_series(1, 100) n", table_name="t")
        [file] = bridge.spooled_files(number)
        group = pq.read_metadata(file).row_group(0)
        assert {group.column(index).compression for index in range(group.num_columns)} == {codec}
    assert bridge.call("wait_for_upload", id=number, timeout="60s") == "completed"
    mark = lifecycle.hold(bridge)
    bridge.run("run-1", lifecycle.ROWS)
    bridge.uploading(lifecycle.COPY, mark)
    [row] = bridge.app.execute("select id from snowflake_bridge.uploads where execution_id = 'run-1'").fetchall()
    [file] = bridge.spooled_files(row["id"])
    assert pq.read_metadata(file).row_group(0).column(0).compression == codec
    bridge.standin.clear_faults()
    bridge.completed("run-1")
    assert bridge.row_count(user) == len(lifecycle.ROWS)
    assert [len(a) for (a,) in bridge.results(user, ["A"], "T", "order by length(a)")] == [*range(1, 101)]


def test_a_compression_that_there_is_not_is_refused(bridge: Bridge) -> None:
    for setting in ("gzip", "zstd:0", "zstd:10", "zstd:x", ""):
        with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
            bridge.admin.execute(f"alter system set snowflake_bridge.compression = '{setting}'")
        assert "1 to 9" in str(caught.value.diag.message_hint)


def uploaded(bridge: Bridge, query: str) -> None:
    number = bridge.call("upload_query", query=query, table_name="t")
    assert bridge.call("wait_for_upload", id=number, timeout="60s") == "completed"


def test_geometry(bridge: Bridge, user: User) -> None:
    bridge.admin.execute("create extension postgis")
    query = (
        "select 'SRID=4326;POINT Z (1 2 3)'::geometry as g, 'POINT(1 2)'::geography as e, "
        "array['POINT(1 2)'::geometry] as a, null::geometry as n"
    )
    uploaded(bridge, query)
    assert all(columns(bridge.account, user, "T")[name] == "BINARY(67108864)" for name in "GEN")
    [made] = bridge.app.execute(f"select st_asewkb(g) as g, st_asewkb(e::geometry) as e, a[1]::text as a from ({query}) q").fetchall()
    [(g, e, a, n)] = bridge.results(user, ["G", "E", "A", "N"], "T")
    assert (g, e, json.loads(a), n) == (made["g"], made["e"], [made["a"]], None)


def test_geometry_of_somebody_else(bridge: Bridge, user: User) -> None:
    """A type of that name which no PostGIS has brought, and with another binary form than its text."""
    bridge.admin.execute("""
        create type geometry;
        create function geometry_in(cstring) returns geometry language internal immutable strict as 'byteain';
        create function geometry_out(geometry) returns cstring language internal immutable strict as 'byteaout';
        create function geometry_send(geometry) returns bytea language internal immutable strict as 'byteasend';
        create type geometry (input = geometry_in, output = geometry_out, send = geometry_send, internallength = variable, storage = extended);
    """)
    uploaded(bridge, "select '\\x0100ff'::geometry as g")
    assert columns(bridge.account, user, "T")["G"].startswith("VARCHAR")
    assert bridge.results(user, ["G"], "T") == [("\\x0100ff",)]

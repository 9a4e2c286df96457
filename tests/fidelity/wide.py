"""All types side by side in one relation, on the three ways that a watch's results take: what a relation of the watch's owner
has under an execution's id, what a function of theirs gives for it, and JSON in the execution's own row with every type
declared, each compared in Snowflake and in the files; and what the strategies that replace rows make of a table that has some."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from fidelity import compare, spooled
from fidelity.arrivals import Miscount, by_number
from fidelity.catalogue import Type
from harness import lifecycle, reader
from harness.bridge import TABLE, Bridge
from harness.standin import User

# What an application declares for types whose names say nothing outside of their database.
DECLARED = {
    "fidelity_mood": "text",
    "fidelity_positive": "integer",
    "fidelity_pair": "jsonb",
    "fidelity_arrays": "jsonb",
    "fidelity_amount": "numeric(12,2)",
    "fidelity_price": "numeric(12,2)",
    "fidelity_day": "date",
    "fidelity_numbers": "integer[]",
    "fidelity_clean_pair": "jsonb",
    "fidelity_nested": "jsonb",
    "fidelity_span": "text",
    "fidelity_span_multirange": "text",
    "information_schema.cardinal_number": "integer",
    "information_schema.time_stamp": "timestamptz",
    "information_schema.character_data": "text",
    "information_schema.sql_identifier": "text",
    "information_schema.yes_or_no": "text",
    # What JSON has for them is GeoJSON.
    "geometry": "jsonb",
    "geography": "jsonb",
    "geometry(PointZ,4326)": "jsonb",
    "geography(Point,4326)": "jsonb",
    "box2d": "text",
    "box3d": "text",
}


@dataclass(frozen=True)
class Column:
    """A type with the values that its column has, from the first row on."""

    kind: Type
    values: Sequence[str]

    @property
    def name(self) -> str:
        return f"v_{self.kind.name}"

    @property
    def count(self) -> int:
        return len(self.values) + len(self.kind.made)

    @property
    def declared(self) -> str:
        return DECLARED.get(self.kind.sql, self.kind.sql)


def check(bridge: Bridge, user: User, columns: Sequence[Column]) -> Iterator[tuple[str, str]]:
    """What became of each value on all ways: exact or wrong."""
    create(bridge, columns)
    bridge.call("watch", relation="wide_runs", create_if_missing=True, result_relation="wide")
    statement = "insert into wide_runs (execution_id, status, snowflake_enabled) values ('wide', 'completed', true)"
    yield from arrived(bridge, user, columns, "wide", "wide_runs_results", statement)
    for strategy in ({"strategy": "replace"}, {"strategy": "upsert", "key_columns": ["n"]}):
        spoil(bridge, user, columns, "wide_runs_results")
        upload = bridge.call("upload_table", relation="wide", table_name="wide_runs_results", options=Jsonb(strategy))
        yield from loaded(bridge, user, columns, upload, strategy["strategy"], "wide_runs_results")
    bridge.app.execute(
        "create function wide_of(id text) returns setof wide language sql stable set search_path from current "
        "as $$ select * from wide where execution_id = 'wide' and id = 'called' $$"
    )
    bridge.call("watch", relation="wide_calls", create_if_missing=True, result_function="wide_of(text)")
    statement = "insert into wide_calls (execution_id, status, snowflake_enabled) values ('called', 'completed', true)"
    yield from arrived(bridge, user, columns, "called", "wide_calls_results", statement)
    declared = [{"name": "n", "type": "int"}, *({"name": column.name, "type": column.declared} for column in columns)]
    statement = (
        f"insert into {TABLE} (execution_id, status, snowflake_enabled, snowflake_table_name, result_columns, result_rows) "
        "select 'inline', 'completed', true, 'inline', %s, jsonb_agg(to_jsonb(w) - 'execution_id') from wide w"
    )
    yield from arrived(bridge, user, columns, "inline", "inline", statement, [Jsonb(declared)])


def create(bridge: Bridge, columns: Sequence[Column]) -> None:
    """The relation: one row more than the longest column has values, which are followed by NULLs."""
    bridge.app.execute(
        "create table wide (execution_id text, n integer, " + ", ".join(f"{column.name} {column.kind.sql}" for column in columns) + ")"
    )
    for n in range(1 + max(column.count for column in columns)):
        having = [column for column in columns if n < len(column.values)]
        names = ["execution_id", "n", *(column.name for column in having)]
        values = ["'wide'", "%s", *(f"%s::text::{column.kind.sql}" for column in having)]
        bridge.app.execute(
            f"insert into wide ({', '.join(names)}) values ({', '.join(values)})", [n, *(column.values[n] for column in having)]
        )
    for column in columns:
        for n, made in enumerate(column.kind.made, start=len(column.values)):
            bridge.admin.execute(f"update wide set {column.name} = {made} where n = {n}")


def spoil(bridge: Bridge, user: User, columns: Sequence[Column], target: str) -> None:
    """Takes every other row from the table and all values from the others: to load nothing is not enough."""
    table = f'"{user.database}"."{user.schema}"."{target.upper()}"'
    bridge.account.sql(f'delete from {table} where "N" % 2 = 1')
    bridge.account.sql(f"update {table} set " + ", ".join(f'"{column.name.upper()}" = null' for column in columns))


def arrived(
    bridge: Bridge,
    user: User,
    columns: Sequence[Column],
    execution: str,
    target: str,
    statement: str,
    arguments: Sequence[Any] = (),
) -> Iterator[tuple[str, str]]:
    """Enters the execution; while its rows are being loaded, its files are here to be read."""
    mark = lifecycle.hold(bridge)
    bridge.app.execute(statement, arguments)
    bridge.uploading(lifecycle.COPY, mark, seconds=60)
    [row] = bridge.app.execute("select id from snowflake_bridge.uploads where execution_id = %s", [execution]).fetchall()
    in_file = spooled.rows(bridge, row["id"], ["N", *(column.name.upper() for column in columns)])
    bridge.standin.clear_faults()
    yield from loaded(bridge, user, columns, row["id"], execution, target, in_file)


def loaded(
    bridge: Bridge,
    user: User,
    columns: Sequence[Column],
    upload: int,
    execution: str,
    target: str,
    spooled_rows: Sequence[Sequence[Any]] | None = None,
) -> Iterator[tuple[str, str]]:
    inline = execution == "inline"
    state = bridge.call("wait_for_upload", id=upload, timeout="120 s")
    if state != "completed":
        [row] = bridge.app.execute("select to_jsonb(u) as u from snowflake_bridge.uploads u where id = %s", [upload]).fetchall()
        yield "wrong", f"the upload of {execution} ended as {state}: {row['u'].get('last_error', row['u'])}"
        return
    names = ", ".join(f'"{column.name.upper()}"' for column in columns)
    rows = reader.query(bridge.account, user, f'select "N", {names} from "{user.database}"."{user.schema}"."{target.upper()}"')
    sent = [row["n"] for row in bridge.app.execute("select n from wide")]
    try:
        in_snowflake = by_number(rows, sent, "Snowflake")
        in_file = None if spooled_rows is None else by_number(spooled_rows, sent, "the files")
    except Miscount as error:
        yield "wrong", f"{error}, by {execution}"
        return
    for index, column in enumerate(columns):
        to_json = "to_jsonb" if inline else "to_json"
        source = bridge.app.execute(
            f"select n, {column.name}::text as text, {to_json}({column.name})::text as json from wide where n <= %s", [column.count]
        ).fetchall()
        for row in source:
            wrong = [
                f"{value!r} in {where}"
                for where, rows in (("Snowflake", in_snowflake), ("the file", in_file))
                if rows is not None and not is_same(column, row, value := rows[row["n"]][index], inline)
            ]
            yield ("wrong", f"{column.kind.sql} by {execution}: {row['text']!r} is {'; '.join(wrong)}") if wrong else ("exact", "")


def is_same(column: Column, row: dict[str, Any], value: Any, inline: bool) -> bool:
    if inline:
        return same_as_json(column, row["json"], row["text"], value)
    return column.kind.is_same(row["text"], row["json"], value)


def same_as_json(column: Column, as_json: str | None, text: str | None, value: Any) -> bool:
    """Inline results are JSON: what counts is what PostgreSQL's own JSON has, without the sign of zero, and null is NULL."""
    if text is None or as_json is None or as_json == "null":
        return value is None
    if column.declared.endswith("[]") or column.declared in ("int2vector", "oidvector"):
        return compare.document(text, as_json, value)
    if column.declared == "jsonb":
        return compare.document(text, as_json, value)
    if column.declared in ("real", "double precision"):
        return column.kind.is_same(str(json.loads(as_json)), as_json, value)
    if column.declared == "money":
        return compare.text(text, as_json, value)
    return column.kind.is_same(text, as_json, value)

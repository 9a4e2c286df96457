"""`python -m fidelity`: each type's values from a table to Snowflake, read back there and from the Parquet file.

SEED chooses the values that are drawn, VALUES how many there are for each type. Ends with one line,
`fidelity: seed=… types=… values=… exact=… refused=… wrong=… documented=…`, and fails unless wrong=0; the last counts the columns
that are those of docs/types.md.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain

import psycopg
from psycopg.types.json import Jsonb

from fidelity import spooled
from fidelity.arrivals import Miscount, by_number
from fidelity.catalogue import INSIDE_INDEXES, TYPES, WITHOUT_INPUT, Type
from fidelity.documented import Documentation
from fidelity.inferred import check as check_inferred
from fidelity.wide import Column
from fidelity.wide import check as check_wide
from harness import reader
from harness.bridge import Bridge
from harness.standin import Standin, User

SETUP = """
    create type fidelity_mood as enum ('sad', 'it''s ok', 'ÄÖ');
    create domain fidelity_positive as integer check (value > 0);
    create type fidelity_pair as (number int, words text);
    create type fidelity_arrays as (numbers int[]);
    create domain fidelity_amount as numeric(12,2);
    create domain fidelity_price as fidelity_amount check (value > 0);
    create domain fidelity_day as date;
    create domain fidelity_numbers as integer[];
    create domain fidelity_clean_pair as fidelity_pair check ((value).words <> 'never');
    create type fidelity_nested as (
        pair fidelity_pair, document jsonb, day date, amount fidelity_amount, positive fidelity_positive
    );
    create type fidelity_span as range (subtype = double precision);
"""
# What has a default, and statistics of every kind.
MADE = """
    create table fidelity_statistics (a int default 1 + 2, b int);
    insert into fidelity_statistics select n % 10, n % 10 from generate_series(1, 1000) n;
    create statistics fidelity_ndistinct (ndistinct) on a, b from fidelity_statistics;
    create statistics fidelity_dependencies (dependencies) on a, b from fidelity_statistics;
    create statistics fidelity_mcv (mcv) on a, b from fidelity_statistics;
    analyze fidelity_statistics;
"""
# Types that a server of this version has without any extension, but for arrays: those have their elements' names.
BUILT_IN = """
    select t.oid::regtype::text as name from pg_type t
     where t.typnamespace = 'pg_catalog'::regnamespace and t.typtype in ('b', 'r', 'm') and t.typname !~ '^_'
        or t.typnamespace = 'information_schema'::regnamespace and t.typtype = 'd'
"""


# Types of which on_out_of_range => 'text' makes text; no NUMBER has the digits of the last.
TEXT_IF_ASKED = ("date", "time", "timestamp", "timestamptz", "numeric", "numeric(50,45)", "numeric(38,38)", "fidelity_day")


def main() -> int:
    seed = int(os.environ.get("SEED") or random.randrange(2**32))
    drawn = int(os.environ.get("VALUES") or 20)
    counts: Counter[str] = Counter()
    with contextlib.closing(Standin()) as standin, contextlib.closing(Bridge(standin)) as bridge:
        user = bridge.ready()
        for extension in ("citext", "hstore", "postgis"):
            bridge.admin.execute(f"create extension {extension}")
        # Tables change their columns under statements of the same text.
        bridge.app.prepare_threshold = None
        bridge.app.execute(SETUP)
        bridge.admin.execute(MADE)
        bridge.app.execute("set timezone = 'UTC'")
        bridge.app.execute("set lc_monetary = 'C'")
        # What arrives does not depend on these settings; what it is compared with does.
        bridge.app.execute("set intervalstyle = 'iso_8601'")
        for name in forgotten(bridge):
            counts["wrong"] += 1
            print(f"wrong: nothing tries the type {name}", flush=True)
        documentation = Documentation(bridge)
        rng = random.Random(seed)
        wide: list[Column] = []
        for kind in TYPES:
            values = [*kind.values, *(kind.draw(rng) for _ in range(drawn if kind.draw else 0))]
            if kind.has_json:
                wide.append(Column(kind, values))
            for outcome, what in check(bridge, user, documentation, kind, values):
                counts[outcome] += 1
                if outcome == "wrong":
                    print(f"wrong: seed={seed} {kind.sql}: {what}", flush=True)
        for outcome, what in chain(check_wide(bridge, user, wide), check_inferred(bridge, user, wide)):
            counts[outcome] += 1
            if outcome == "wrong":
                print(f"wrong: seed={seed} {what}", flush=True)
    values = counts["exact"] + counts["refused"] + counts["wrong"]
    print(
        f"fidelity: seed={seed} types={len(TYPES)} values={values} exact={counts['exact']} "
        f"refused={counts['refused']} wrong={counts['wrong']} documented={counts['documented']}"
    )
    return 1 if counts["wrong"] or not counts["exact"] else 0


def forgotten(bridge: Bridge) -> list[str]:
    """The built-in types that the catalogue lacks, alone or in arrays."""
    tried = {name for kind in TYPES for name in names(bridge, kind)}
    wanted = {row["name"] for row in bridge.app.execute(BUILT_IN)} - {*INSIDE_INDEXES}
    # A vector is an array already, and what has no input has none in arrays either.
    lone = {"int2vector", "oidvector", *(kind.sql for kind in WITHOUT_INPUT)}
    return sorted((wanted | {f"{name}[]" for name in wanted - lone}) - tried)


def names(bridge: Bridge, kind: Type) -> set[str]:
    """What PostgreSQL calls the type, without its modifier."""
    [row] = bridge.app.execute("select %s::regtype::text as name", [re.sub(r"\([^)]*\)", "", kind.sql)]).fetchall()
    return {row["name"]}


def check(
    bridge: Bridge, user: User, documentation: Documentation, kind: Type, values: list[str]
) -> Iterator[tuple[str, str]]:
    """What became of each value of a type: exact, refused as it must be, or wrong; and of the type itself."""
    try:
        yield from travel(bridge, user, kind, values)
        described = reader.columns(bridge.account, user, f"T_{kind.name}".upper())["V"]
        if documentation.is_right(kind, described):
            yield "documented", ""
        else:
            yield "wrong", f"its column is {described}, and {documentation.column(kind)} is documented"
    except psycopg.Error as error:
        bridge.app.rollback()
        yield "wrong", f"the upload failed: {error}"
    except Miscount as error:
        yield "wrong", str(error)
    for value in kind.refused:
        create(bridge, kind, "refused", [value])
        try:
            bridge.call("upload_table", relation="refused", table_name=f"R_{kind.name}")
        except psycopg.errors.DataError as error:
            if 'column "V", row 1' in str(error):
                yield "refused", value
            else:
                yield "wrong", f"{value!r} is refused without its place: {error}"
        else:
            yield "wrong", f"{value!r} was taken"
    for options, is_text in (({"on_out_of_range": "null"}, False), ({"on_out_of_range": "text"}, True)):
        if kind.refused:
            yield from excused(bridge, user, kind, options, is_text)
    if kind.sql == "numeric":
        yield from excused(bridge, user, kind, {"numeric": "varchar"}, True)


def excused(bridge: Bridge, user: User, kind: Type, options: dict[str, str], is_text: bool) -> Iterator[tuple[str, str]]:
    """What becomes of the values that are refused otherwise: NULL, or with all others of their type the text that they are."""
    create(bridge, kind, "excused", [*kind.values, *kind.refused])
    target = f"E_{kind.name}_{'_'.join(options.values())}".upper()
    arguments = {"relation": "excused", "table_name": target, "options": Jsonb(options)}
    if is_text and kind.sql not in TEXT_IF_ASKED:
        try:
            bridge.call("upload_table", **arguments)
        except psycopg.errors.DataError:
            yield "refused", ""
        else:
            yield "wrong", f"a value was taken with {options}"
        return
    upload = bridge.call("upload_table", **arguments)
    state = bridge.call("wait_for_upload", id=upload, timeout="60 s")
    if state != "completed":
        yield "wrong", f"the upload with {options} ended as {state}"
        return
    [row] = bridge.app.execute("select out_of_range_count as count from snowflake_bridge.uploads where id = %s", [upload]).fetchall()
    if row["count"] != (len(kind.refused) if "on_out_of_range" in options else 0):
        yield "wrong", f"out_of_range_count is {row['count']} with {options}"
    rows = reader.query(bridge.account, user, f'select n, v from "{user.database}"."{user.schema}"."{target}"')
    try:
        in_snowflake = by_number(rows, [-1, *range(len(kind.values) + len(kind.refused))], "Snowflake")
    except Miscount as error:
        yield "wrong", f"{error}, with {options}"
        return
    for row in bridge.app.execute("select n, v::text as text, to_json(v)::text as json from excused").fetchall():
        [value] = in_snowflake[row["n"]]
        if is_text:
            same = value == row["text"]
        elif row["n"] >= len(kind.values):
            same = value is None
        else:
            same = kind.is_same(row["text"], row["json"], value)
        yield ("exact", "") if same else ("wrong", f"{row['text']!r} is {value!r} with {options}")


def create(bridge: Bridge, kind: Type, table: str, values: list[str]) -> None:
    bridge.app.execute(f"drop table if exists {table}")
    bridge.app.execute(f"create table {table} (n integer, v {kind.sql})")
    with bridge.app.cursor() as cursor:
        cursor.executemany(f"insert into {table} values (%s, %s::text::{kind.sql})", list(enumerate(values)))
    bridge.app.execute(f"insert into {table} values (-1, null)")
    for number, made in enumerate(kind.made, start=len(values)):
        bridge.admin.execute(f"insert into {table} values ({number}, {made})")


def travel(bridge: Bridge, user: User, kind: Type, values: list[str]) -> Iterator[tuple[str, str]]:
    create(bridge, kind, "source", values)
    target = f"T_{kind.name}".upper()
    with bridge.app.transaction():
        # The worker sees the upload once this commits; until then its files are here to be read.
        upload = bridge.call("upload_table", relation="source", table_name=target)
        spooled_rows = spooled.rows(bridge, upload, ["N", "V"])
    state = bridge.call("wait_for_upload", id=upload, timeout="60 s")
    if state != "completed":
        yield "wrong", f"the upload ended as {state}"
        return
    as_json = "to_json(v)::text" if kind.has_json else "null"
    rows = bridge.app.execute(f"select n, v::text as text, {as_json} as json from source").fetchall()
    sent = [row["n"] for row in rows]
    table = f'"{user.database}"."{user.schema}"."{target}"'
    in_snowflake = by_number(reader.query(bridge.account, user, f"select n, v from {table}"), sent, "Snowflake")
    in_file = by_number(spooled_rows, sent, "the file")
    for row in rows:
        wrong = [
            f"{row['text']!r} is {value!r} in {where}"
            for where, [value] in (("Snowflake", in_snowflake[row["n"]]), ("the file", in_file[row["n"]]))
            if not kind.is_same(row["text"], row["json"], value)
        ]
        yield ("wrong", "; ".join(wrong)) if wrong else ("exact", "")


if __name__ == "__main__":
    sys.exit(main())

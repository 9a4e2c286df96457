"""Inline results that nobody declared: each column is what docs/types.md says of its values, and holds them.

The rule is written down here a second time, over PostgreSQL's own JSON; what it says at its edges is written by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from psycopg.types.json import Jsonb

from fidelity import compare, spooled
from fidelity.arrivals import Miscount, by_number
from fidelity.compare import read
from fidelity.wide import Column
from harness import lifecycle, reader
from harness.bridge import TABLE, Bridge
from harness.standin import User

# What every table has.
STAMP = {"EXECUTION_ID", "UPLOADED_AT", "USER_ID", "UPLOAD_ID"}
TEXT = "VARCHAR(134217728)"
ALL_NINES = "9" * 38
TINY = "0." + "0" * 36 + "1"

# The values of a column, one in each row from the first on, and the column; none where all are null.
EDGES: dict[str, tuple[tuple[str, ...], str | None]] = {
    "integers": (("0", "-1", "null", "10.0", "1e3"), "NUMBER(38,0)"),
    "integers_38": ((ALL_NINES, f"-{ALL_NINES}", "0"), "NUMBER(38,0)"),
    "decimals": (("1.10", "-2", "0.0000000001"), "NUMBER(38,10)"),
    "decimals_12": (("0.123456789012", "7"), "NUMBER(38,12)"),
    "decimals_37": ((TINY, f"-9.{'9' * 37}", "1e-37"), "NUMBER(38,37)"),
    "decimals_before_28": (("1" * 28, "0.5"), "NUMBER(38,10)"),
    "decimals_before_30": (("1" * 30, "0.5"), "NUMBER(38,8)"),
    "decimals_before_37": (("1" * 37, "0.5"), "NUMBER(38,1)"),
    "booleans": (("true", "null", "false"), "BOOLEAN"),
    "strings": (('"2024-01-31"', '""', '"1"', '"true"', '"null"'), TEXT),
    "nulls": (("null",), None),
    "objects": (("{}", '{"a": [1.50, null, "b"]}', "null"), "VARIANT"),
    "arrays": (("[]", "[[], {}, null]"), "VARIANT"),
    "every_kind": (("1", '"1"', "true", "null", "[1]", '{"a": 1}', "1.5", '"null"'), "VARIANT"),
    "numbers_and_strings": (('"NaN"', "1.50", ALL_NINES, "1e300", "5e-324", TINY), "VARIANT"),
    "numbers_and_booleans": (("1", "true", "0", "false"), "VARIANT"),
}
# Results that no column holds exactly, and what the error says.
REFUSED: dict[str, tuple[str, str]] = {
    "integer_39": (f'[{{"v": {ALL_NINES}0}}]', "39 before the point and 0 after"),
    "scale_38": (f'[{{"v": {TINY[:-1]}01}}]', "0 before the point and 38 after"),
    "digits_together": (f'[{{"v": {ALL_NINES}}}, {{"v": 0.5}}]', "38 before the point and 1 after"),
    "beyond_double": ('[{"v": 1e400}]', "401 before the point and 0 after"),
    "beyond_double_in_variant": ('[{"v": "a"}, {"v": 1e400}]', "row 2"),
    "digits_in_variant": (f'[{{"v": {{}}}}, {{"v": {ALL_NINES}9}}]', "row 2"),
}


def inferred(values: Sequence[Any]) -> str | None:
    """The column that docs/types.md says such values get."""
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return None
    if kinds == {bool}:
        return "BOOLEAN"
    if kinds == {str}:
        return TEXT
    if kinds != {Decimal}:
        return "VARIANT"
    parts = [format(value.copy_abs(), "f").partition(".") for value in values if value is not None]
    before = max(len(whole.lstrip("0")) for whole, _, _ in parts)
    after = max(len(fraction.rstrip("0")) for _, _, fraction in parts)
    return f"NUMBER(38,{min(max(after, 10), 38 - before) if after else 0})"


@dataclass(frozen=True)
class Result:
    """An execution's result as JSON text. The first of its columns, which it may name, numbers the rows."""

    execution: str
    text: str
    columns: Sequence[str]
    named: Sequence[str] | None = None

    def rows(self) -> list[dict[str, Any]]:
        rows = read(self.text)
        return [row if isinstance(row, dict) else dict(zip(self.columns, row, strict=True)) for row in rows]


def check(bridge: Bridge, user: User, columns: Sequence[Column]) -> Iterator[tuple[str, str]]:
    """What became of the rows of `wide` and of the edges: exact, refused as it must be, or wrong."""
    names = ["n", *(column.name for column in columns)]
    [wide] = bridge.app.execute("select jsonb_agg(to_jsonb(w) - 'execution_id')::text as rows from wide w").fetchall()
    yield from arrived(bridge, user, Result("inferred_objects", wide["rows"], names))
    [wide] = bridge.app.execute(
        "select jsonb_agg((select jsonb_agg(value order by array_position(%s::text[], key)) "
        "from jsonb_each(to_jsonb(w) - 'execution_id')))::text as rows from wide w",
        [names],
    ).fetchall()
    numbered = [f"column_{position}" for position in range(1, 1 + len(names))]
    yield from arrived(bridge, user, Result("inferred_arrays", wide["rows"], numbered))
    yield from edges(bridge, user)
    for execution, (text, words) in REFUSED.items():
        enter(bridge, Result(execution, text, ["v"]))
        row = bridge.settled(execution)
        message = row["snowflake_error_message"] or ""
        if row["snowflake_status"] == "failed" and words in message and '"v"' in message.lower():
            yield "refused", ""
        else:
            yield "wrong", f"{execution} is {row['snowflake_status']}: {message}"


def edges(bridge: Bridge, user: User) -> Iterator[tuple[str, str]]:
    names = ["n", *EDGES]
    count = max(len(values) for values, _ in EDGES.values())
    rows = [
        [str(n), *(values[n] if n < len(values) else "null" for values, _ in EDGES.values())] for n in range(count)
    ]
    objects = ", ".join("{" + ", ".join(f'"{name}": {value}' for name, value in zip(names, row, strict=True)) + "}" for row in rows)
    arrays = ", ".join(f"[{', '.join(row)}]" for row in rows)
    for result in (Result("edges", f"[{objects}]", names), Result("named_edges", f"[{arrays}]", names, names)):
        yield from arrived(bridge, user, result)
        found = types(bridge, user, result)
        for name, (_, wanted) in EDGES.items():
            if found.get(name.upper()) == wanted:
                yield "documented", ""
            else:
                yield "wrong", f"{name} of {result.execution} is {found.get(name.upper())}, not {wanted}"
    empty = Result("no_columns", "[{}, {}]", [])
    enter(bridge, empty)
    bridge.completed(empty.execution)
    if (found := types(bridge, user, empty)) or (count := bridge.row_count(user, empty.execution.upper())) != 2:
        yield "wrong", f"two rows without columns are {count}, with the columns {found}"
    else:
        yield "exact", ""


def enter(bridge: Bridge, result: Result) -> None:
    bridge.app.execute(
        f"insert into {TABLE} (execution_id, status, snowflake_enabled, snowflake_table_name, result_columns, result_rows) "
        "values (%s, 'completed', true, %s, %s, %s::text::jsonb)",
        [result.execution, result.execution, result.named and Jsonb(list(result.named)), result.text],
    )


def types(bridge: Bridge, user: User, result: Result) -> dict[str, str]:
    """The columns that the table has for the result."""
    found = reader.columns(bridge.account, user, result.execution.upper())
    return {name: kind for name, kind in found.items() if name not in STAMP}


def arrived(bridge: Bridge, user: User, result: Result) -> Iterator[tuple[str, str]]:
    """Enters the result; while its rows are being loaded, its files are here to be read."""
    rows = result.rows()
    wanted = {name.upper(): kind for name in result.columns if (kind := inferred([row.get(name) for row in rows]))}
    mark = lifecycle.hold(bridge)
    enter(bridge, result)
    bridge.uploading(lifecycle.COPY, mark, seconds=60)
    spooled_rows = spooled.rows(bridge, bridge.upload(result.execution)["id"], list(wanted))
    bridge.standin.clear_faults()
    bridge.completed(result.execution, seconds=120)
    if (found := types(bridge, user, result)) != wanted:
        differing = dict(found.items() ^ wanted.items())
        yield "wrong", f"{result.execution} has other columns than are documented, among them {differing}"
        return
    yield from (("documented", "") for _ in wanted)
    names = ", ".join(f'"{name}"' for name in wanted)
    loaded = reader.query(
        bridge.account, user, f'select {names} from "{user.database}"."{user.schema}"."{result.execution.upper()}"'
    )
    numbers = [int(row[result.columns[0]]) for row in rows]
    try:
        places = {"Snowflake": by_number(loaded, numbers, "Snowflake"), "the files": by_number(spooled_rows, numbers, "the files")}
    except Miscount as error:
        yield "wrong", f"{error}, of {result.execution}"
        return
    sources = {name.upper(): name for name in result.columns}
    for number, row in zip(numbers, rows, strict=True):
        for index, (name, kind) in enumerate(list(wanted.items())[1:]):
            value = row.get(sources[name])
            wrong = [
                f"{there!r} in {place}"
                for place, arrived in places.items()
                if not is_same(kind, value, there := arrived[number][index])
            ]
            yield ("wrong", f"{name} of {result.execution}: {value!r} is {'; '.join(wrong)}") if wrong else ("exact", "")


def is_same(kind: str, value: Any, arrived: Any) -> bool:
    """Whether this is the value in a column of that kind; null is NULL in all of them."""
    if value is None or arrived is None:
        return value is arrived
    if kind == "VARIANT":
        return isinstance(arrived, str) and compare.is_alike(read(arrived), value)
    if isinstance(value, Decimal):
        return compare.number(str(value), "", arrived)
    return type(arrived) is type(value) and arrived == value

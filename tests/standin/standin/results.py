"""Results of statements: the column metadata and the JSON or Arrow encoding that clients read."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

DEFAULT_TEXT_LENGTH = 16_777_216  # a VARCHAR without a length, docs.snowflake.com "String & binary data types"
DEFAULT_BINARY_LENGTH = 8_388_608
UTC_OFFSET_MINUTES = 1440  # timestamp_tz carries its offset as minutes + 1440

# Statement type ids, from STATEMENT_TYPE_ID_* of the official drivers.
SELECT = 0x1000
INSERT = 0x3100
UPDATE = 0x3200
DELETE = 0x3300
MERGE = 0x3400
COPY = 0x3600
SESSION = 0x4000
SHOW = 0x4400
DESCRIBE = 0x4500
TRANSACTION = 0x5000
DDL = 0x6000
PUT = 0x7102
REMOVE = 0x7103


@dataclass
class Column:
    name: str
    type: str
    precision: int | None = None
    scale: int | None = None
    length: int | None = None
    nullable: bool = True

    def describe(self, database: str | None, schema: str | None) -> dict[str, Any]:
        byte_length = self.length
        if self.type == "text" and self.length is not None:
            byte_length = min(self.length * 4, 134_217_728)
        return {
            "name": self.name,
            "database": database or "",
            "schema": schema or "",
            "table": "",
            "nullable": self.nullable,
            "type": self.type,
            "byteLength": byte_length,
            "length": self.length,
            "scale": self.scale,
            "precision": self.precision,
            "collation": None,
        }


def text(name: str) -> Column:
    return Column(name, "text", length=DEFAULT_TEXT_LENGTH)


def number(name: str) -> Column:
    return Column(name, "fixed", precision=38, scale=0)


@dataclass
class Result:
    """The outcome of one statement, before it is encoded for a client."""

    columns: list[Column]
    table: pa.Table
    type_id: int = SELECT
    put_answer: dict[str, Any] | None = None
    prefers_json: bool = field(default=False)

    def json_rows(self) -> list[list[str | None]]:
        encoded = [
            _json_column(column, values) for column, values in zip(self.columns, self.table.columns, strict=True)
        ]
        return [list(row) for row in zip(*encoded, strict=True)] if encoded else []

    def arrow_base64(self) -> str:
        arrays, fields = [], []
        for column, values in zip(self.columns, self.table.columns, strict=True):
            array, logical = _arrow_column(column, values)
            arrays.append(array)
            fields.append(
                pa.field(
                    column.name,
                    array.type,
                    metadata={
                        "logicalType": logical,
                        "precision": str(column.precision if column.precision is not None else 38),
                        "scale": str(column.scale or 0),
                        "charLength": str(column.length or 0),
                    },
                )
            )
        table = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return b64encode(sink.getvalue().to_pybytes()).decode()


def from_rows(columns: list[Column], rows: list[tuple[Any, ...]], type_id: int) -> Result:
    """A small result made by the stand-in itself: text and numbers."""
    arrays = []
    for index, column in enumerate(columns):
        values = [row[index] for row in rows]
        if column.type == "fixed":
            arrays.append(pa.array(values, type=pa.int64()))
        elif column.type.startswith("timestamp"):
            arrays.append(pa.array(values, type=pa.timestamp("us", tz="UTC")))
        else:
            arrays.append(pa.array(values, type=pa.string()))
    table = pa.Table.from_arrays(arrays, names=[str(index) for index in range(len(columns))])
    return Result(columns, table, type_id, prefers_json=True)


def status(message: str, type_id: int = DDL) -> Result:
    return from_rows([text("status")], [(message,)], type_id)


def counts(pairs: list[tuple[str, int]], type_id: int) -> Result:
    """A DML answer: one row of counts, always JSON because drivers read `rowset` for them."""
    return from_rows([number(name) for name, _ in pairs], [tuple(count for _, count in pairs)], type_id)


def column_of(name: str, duck_type: str) -> Column:
    """The Snowflake column that a DuckDB result column is."""
    upper = duck_type.upper()
    if upper.startswith("DECIMAL"):
        precision, scale = upper[upper.index("(") + 1 : -1].split(",")
        return Column(name, "fixed", precision=int(precision), scale=int(scale))
    if upper in {"BIGINT", "INTEGER", "SMALLINT", "TINYINT", "HUGEINT", "UBIGINT", "UINTEGER", "UHUGEINT"}:
        return Column(name, "fixed", precision=38, scale=0)
    if upper in {"DOUBLE", "FLOAT"}:
        return Column(name, "real")
    simple = {
        "BOOLEAN": "boolean",
        "DATE": "date",
        "JSON": "variant",
        "UUID": "text",
        '"NULL"': "text",
        "VARCHAR": "text",
    }
    if upper in simple:
        kind = simple[upper]
        return Column(name, kind, length=DEFAULT_TEXT_LENGTH if kind == "text" else None)
    if upper == "BLOB":
        return Column(name, "binary", length=DEFAULT_BINARY_LENGTH)
    if upper in {"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ"}:
        return Column(name, "timestamp_tz", precision=0, scale=9)
    if upper.startswith("TIMESTAMP"):
        return Column(name, "timestamp_ntz", precision=0, scale=9)
    if upper.startswith("TIME"):
        return Column(name, "time", precision=0, scale=9)
    return Column(name, "variant")


def _seconds(nanos: int, scale: int) -> str:
    """Seconds with exactly `scale` digits after the point: drivers cut the text by the column's scale."""
    sign = "-" if nanos < 0 else ""
    whole, fraction = divmod(abs(nanos), 1_000_000_000)
    return f"{sign}{whole}.{fraction:09d}"[: -9 + scale or None] if scale else f"{sign}{whole}"


def _nanos(values: pa.ChunkedArray) -> list[int | None]:
    factor = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[values.type.unit]
    ints = values.cast(pa.int32()).cast(pa.int64()) if values.type.bit_width == 32 else values.cast(pa.int64())
    return [None if value is None else value * factor for value in ints.to_pylist()]


def _real(value: float) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    return repr(value)


def _json_column(column: Column, values: pa.ChunkedArray) -> list[str | None]:
    kind = values.type
    scale = 9 if column.scale is None else column.scale
    if pa.types.is_timestamp(kind):
        suffix = f" {UTC_OFFSET_MINUTES}" if column.type == "timestamp_tz" else ""
        return [None if value is None else _seconds(value, scale) + suffix for value in _nanos(values)]
    if pa.types.is_time(kind):
        return [None if value is None else _seconds(value, scale) for value in _nanos(values)]
    if pa.types.is_date(kind):
        return [None if value is None else str(value) for value in values.cast(pa.int32()).to_pylist()]
    if pa.types.is_boolean(kind):
        return [None if value is None else ("1" if value else "0") for value in values.to_pylist()]
    if pa.types.is_floating(kind):
        return [None if value is None else _real(value) for value in values.to_pylist()]
    if pa.types.is_decimal(kind):
        return [None if value is None else format(value, "f") for value in values.to_pylist()]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [None if value is None else value.hex().upper() for value in values.to_pylist()]
    return [None if value is None else str(value) for value in values.to_pylist()]


def _arrow_column(column: Column, values: pa.ChunkedArray) -> tuple[pa.Array, str]:
    array = values.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], type=values.type)
    logical = column.type.upper()
    kind = array.type
    if pa.types.is_timestamp(kind):
        return _timestamp_struct(array, column.type == "timestamp_tz"), logical
    if pa.types.is_time(kind):
        return pa.array(_nanos(pa.chunked_array([array])), type=pa.int64()), logical
    if pa.types.is_null(kind):
        return array.cast(pa.string()), logical
    if pa.types.is_unsigned_integer(kind):
        return array.cast(pa.int64()), logical
    if pa.types.is_decimal(kind) and kind.scale == 0:
        # Snowflake sends whole numbers as the smallest integer that holds them all.
        try:
            return array.cast(pa.int64()), logical
        except pa.ArrowInvalid:
            return array, logical
    return array, logical


def _timestamp_struct(array: pa.Array, with_zone: bool) -> pa.Array:
    """Snowflake's Arrow timestamps are structs of epoch seconds and nanoseconds."""
    micros = array.cast(pa.timestamp("us", tz=array.type.tz)).cast(pa.int64())
    floored = pc.floor_temporal(array.cast(pa.timestamp("us")), unit="second").cast(pa.int64())
    epoch = pc.divide(floored, 1_000_000)
    fraction = pc.multiply(pc.subtract(micros, floored), 1000).cast(pa.int32())
    arrays = [epoch, fraction]
    fields = [pa.field("epoch", pa.int64(), nullable=False), pa.field("fraction", pa.int32(), nullable=False)]
    if with_zone:
        arrays.append(pa.array([UTC_OFFSET_MINUTES] * len(array), type=pa.int32()))
        fields.append(pa.field("timezone", pa.int32(), nullable=False))
    return pa.StructArray.from_arrays([pc.fill_null(part, 0) for part in arrays], fields=fields, mask=pc.is_null(array))

"""Snowflake's column types: as declared, as DESCRIBE prints them, and the DuckDB type that holds them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlglot import exp

from standin.errors import SnowflakeError, unsupported
from standin.results import DEFAULT_BINARY_LENGTH, DEFAULT_TEXT_LENGTH, Column

MAX_TEXT_LENGTH = 134_217_728  # docs.snowflake.com, "String & binary data types"
MAX_BINARY_LENGTH = 67_108_864
MAX_PRECISION = 38
DEFAULT_TIME_PRECISION = 9

_T = exp.DataType.Type
_BASES = {
    **dict.fromkeys((_T.DECIMAL, _T.INT, _T.BIGINT, _T.SMALLINT, _T.TINYINT), "NUMBER"),
    **dict.fromkeys((_T.FLOAT, _T.DOUBLE), "FLOAT"),
    **dict.fromkeys((_T.VARCHAR, _T.TEXT, _T.CHAR, _T.NCHAR, _T.NVARCHAR), "VARCHAR"),
    **dict.fromkeys((_T.BINARY, _T.VARBINARY), "BINARY"),
    **dict.fromkeys((_T.TIMESTAMP, _T.TIMESTAMPNTZ, _T.DATETIME), "TIMESTAMP_NTZ"),
    _T.TIMESTAMPTZ: "TIMESTAMP_TZ",
    _T.TIMESTAMPLTZ: "TIMESTAMP_LTZ",
    _T.BOOLEAN: "BOOLEAN",
    _T.DATE: "DATE",
    _T.TIME: "TIME",
    _T.VARIANT: "VARIANT",
    _T.ARRAY: "ARRAY",
    _T.OBJECT: "OBJECT",
}
_DUCK = {
    "FLOAT": "DOUBLE",
    "VARCHAR": "VARCHAR",
    "BINARY": "BLOB",
    "TIMESTAMP_NTZ": "TIMESTAMP",
    "TIMESTAMP_LTZ": "TIMESTAMP WITH TIME ZONE",
    "TIMESTAMP_TZ": "TIMESTAMP WITH TIME ZONE",
    "BOOLEAN": "BOOLEAN",
    "DATE": "DATE",
    "TIME": "TIME",
    "VARIANT": "JSON",
    "ARRAY": "JSON",
    "OBJECT": "JSON",
}
_ROWTYPE = {"NUMBER": "fixed", "FLOAT": "real", "VARCHAR": "text"}


@dataclass(frozen=True)
class SqlType:
    base: str
    precision: int | None = None
    scale: int | None = None
    length: int | None = None

    def display(self) -> str:
        if self.base == "NUMBER":
            return f"NUMBER({self.precision},{self.scale})"
        if self.base in {"VARCHAR", "BINARY"}:
            return f"{self.base}({self.length})"
        if self.base.startswith("TIME"):
            return f"{self.base}({self.precision})"
        return self.base

    def duckdb(self) -> str:
        if self.base == "NUMBER":
            return f"DECIMAL({self.precision},{self.scale})"
        return _DUCK[self.base]

    def is_semi_structured(self) -> bool:
        return self.base in {"VARIANT", "ARRAY", "OBJECT"}

    def column(self, name: str, nullable: bool = True) -> Column:
        kind = _ROWTYPE.get(self.base, self.base.lower())
        if self.base.startswith("TIME"):
            return Column(name, kind, precision=0, scale=self.precision, nullable=nullable)
        return Column(name, kind, self.precision, self.scale, self.length, nullable)


def from_expression(node: exp.DataType) -> SqlType:
    """The declared type. Lengths and precisions are checked against Snowflake's limits."""
    base = _BASES.get(node.this)
    if base is None:
        raise unsupported(f"data type {node.sql(dialect='snowflake')}")
    params = [int(param.name) for param in node.expressions if isinstance(param, exp.DataTypeParam)]
    if base == "NUMBER":
        is_integer = node.this != _T.DECIMAL
        precision = params[0] if params and not is_integer else MAX_PRECISION
        scale = params[1] if len(params) > 1 else 0
        if not 1 <= precision <= MAX_PRECISION or not 0 <= scale <= min(precision, 37):
            raise _out_of_range(f"NUMBER({precision},{scale})")
        return SqlType(base, precision=precision, scale=scale)
    if base == "VARCHAR":
        default = 1 if node.this in {_T.CHAR, _T.NCHAR} else DEFAULT_TEXT_LENGTH
        return SqlType(base, length=_within(params, default, MAX_TEXT_LENGTH, "VARCHAR"))
    if base == "BINARY":
        return SqlType(base, length=_within(params, DEFAULT_BINARY_LENGTH, MAX_BINARY_LENGTH, "BINARY"))
    if base.startswith("TIME"):
        precision = params[0] if params else DEFAULT_TIME_PRECISION
        if not 0 <= precision <= DEFAULT_TIME_PRECISION:
            raise _out_of_range(f"{base}({precision})")
        return SqlType(base, precision=precision)
    return SqlType(base)


def from_duckdb(duck_type: str) -> SqlType:
    """The type of a column that was not declared through the stand-in (CREATE TABLE AS)."""
    upper = duck_type.upper()
    if upper.startswith("DECIMAL"):
        precision, scale = upper[upper.index("(") + 1 : -1].split(",")
        return SqlType("NUMBER", precision=int(precision), scale=int(scale))
    if upper == "VARCHAR":
        return SqlType("VARCHAR", length=DEFAULT_TEXT_LENGTH)
    if upper == "BLOB":
        return SqlType("BINARY", length=DEFAULT_BINARY_LENGTH)
    if "INT" in upper:
        return SqlType("NUMBER", precision=MAX_PRECISION, scale=0)
    if upper.startswith("TIME"):
        base = "TIME" if upper == "TIME" else "TIMESTAMP_TZ" if "ZONE" in upper else "TIMESTAMP_NTZ"
        return SqlType(base, precision=DEFAULT_TIME_PRECISION)
    simple = {"DOUBLE": "FLOAT", "FLOAT": "FLOAT", "BOOLEAN": "BOOLEAN", "DATE": "DATE"}
    return SqlType(simple.get(upper, "VARIANT"))


def change(name: str, old: SqlType, new: SqlType) -> SqlType:
    """ALTER COLUMN SET DATA TYPE: what Snowflake allows, else its refusal.

    docs.snowflake.com, "ALTER TABLE … ALTER COLUMN": a VARCHAR may be enlarged, a NUMBER's precision may grow, its scale
    may not change, nothing changes its kind. Narrowing, which Snowflake allows where the data fits, is refused here.
    """
    refusal = SnowflakeError(
        "002108",
        "22000",
        f"SQL compilation error: cannot change column {name} from type {old.display()} to {new.display()}",
    )
    if old.base != new.base:
        raise refusal
    if old.base == "NUMBER":
        if old.scale != new.scale:
            raise refusal
        if (new.precision or 0) < (old.precision or 0):
            raise refusal
        return new
    if old.base == "VARCHAR":
        if (new.length or 0) < (old.length or 0):
            raise refusal
        return new
    if old == new:
        return replace(old)
    raise refusal


def _within(params: list[int], default: int, maximum: int, kind: str) -> int:
    length = params[0] if params else default
    if not 1 <= length <= maximum:
        raise _out_of_range(f"{kind}({length})")
    return length


def _out_of_range(what: str) -> SnowflakeError:
    return SnowflakeError("002062", "42601", f"SQL compilation error:\ninvalid length or precision in type '{what}'.")

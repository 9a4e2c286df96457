"""Where fakesnow's translation of expressions differs from Snowflake, and what replaces it.

Only whole transforms are exchanged, by name, in this process. Everything else of fakesnow runs as released.
"""

from __future__ import annotations

from fakesnow import transforms
from sqlglot import Expr, exp

_T = exp.DataType.Type
_INTEGERS = {_T.INT, _T.BIGINT, _T.SMALLINT, _T.TINYINT}


def exact_numbers(expression: Expr) -> Expr:
    """NUMBER(38,0) and the integer types hold 38 digits; fakesnow makes them BIGINT, which holds 18."""
    if isinstance(expression, exp.DataType) and (
        expression.this in _INTEGERS or (expression.this == _T.DECIMAL and not expression.expressions)
    ):
        return exp.DataType.build("DECIMAL(38, 0)", dialect="duckdb")
    return expression


def keep(expression: Expr) -> Expr:
    """Sums stay exact: fakesnow casts the arguments of SUM, AVG and their like to DOUBLE."""
    return expression


def plain_types(expression: Expr) -> Expr:
    """Lengths of text and binary, and fractional digits of times, mean nothing to DuckDB."""
    if isinstance(expression, exp.DataType) and expression.this in {
        _T.VARCHAR, _T.TEXT, _T.CHAR, _T.NCHAR, _T.NVARCHAR, _T.BINARY, _T.VARBINARY,
        _T.TIME, _T.TIMESTAMP, _T.TIMESTAMPNTZ, _T.TIMESTAMPTZ, _T.TIMESTAMPLTZ,
    }:  # fmt: skip
        expression.set("expressions", [])
    return expression


def install() -> None:
    transforms.integer_precision = exact_numbers
    transforms.numeric_agg_implicit_cast = keep

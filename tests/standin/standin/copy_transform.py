"""The SELECT of a COPY: expressions over `$1`, translated to DuckDB expressions over the columns of a Parquet file."""

from __future__ import annotations

from sqlglot import Expr, exp

from standin import json_numbers
from standin.errors import SnowflakeError, unsupported
from standin.names import literal, quote
from standin.results import DEFAULT_TEXT_LENGTH
from standin.sqlerrors import too_long
from standin.sqltypes import SqlType, from_expression

_FORBIDDEN = (exp.AggFunc, exp.Subquery, exp.Select, exp.Window)


class Transform:
    """Expressions for one file, whose columns and DuckDB types are known."""

    def __init__(self, file_columns: dict[str, str], file_name: str) -> None:
        self._columns = file_columns
        self._file_name = file_name

    def into(self, projection: Expr, target: SqlType, column: str) -> str:
        """The DuckDB expression whose value is stored in `column`."""
        node = projection.unalias()
        sql, kind = self._translate(node)
        if target.base == "BINARY" and self._is_path(node) and kind != "BLOB":
            raise SnowflakeError(
                "002023",
                "22000",
                "SQL compilation error:\nExpression type does not match column data type, expecting "
                f"{target.display()} but got VARIANT for column {column}",
            )
        if target.is_semi_structured():
            if target.base == "ARRAY" and kind == "JSON":
                return _as_array(sql)
            return sql if kind == "JSON" else f"to_json({sql})"
        if target.base == "VARCHAR":
            return _text(sql, kind, target)
        return f"CAST({sql} AS {target.duckdb()})"

    def _translate(self, node: Expr) -> tuple[str, str]:
        """DuckDB text and type of a Snowflake expression."""
        if isinstance(node, _FORBIDDEN):
            raise unsupported(f"{node.key.upper()} in a COPY transformation")
        if isinstance(node, exp.Paren):
            sql, kind = self._translate(node.this)
            return f"({sql})", kind
        if self._is_path(node):
            return self._path(node)
        if isinstance(node, (exp.Cast, exp.TryCast)):
            return self._cast(node)
        if isinstance(node, exp.ParseJSON):
            sql, kind = self._translate(node.this)
            if kind == "JSON":
                return sql, kind
            # An empty string is SQL NULL for PARSE_JSON, not an error.
            word = "TRY_CAST" if node.args.get("safe") else "CAST"
            text = json_numbers.rounded(f"trim(CAST({sql} AS VARCHAR))")
            return f"{word}(nullif({text}, '') AS JSON)", "JSON"
        if isinstance(node, exp.ToBinary):
            sql, kind = self._translate(node.this)
            return (sql if kind == "BLOB" else f"unhex({sql})"), "BLOB"
        if isinstance(node, exp.ToVariant):
            sql, kind = self._translate(node.this)
            return (sql if kind == "JSON" else f"to_json({sql})"), "JSON"
        if isinstance(node, exp.Column) and node.name.upper() == "METADATA$FILENAME":
            return literal(self._file_name), "VARCHAR"
        if isinstance(node, exp.Literal):
            return (literal(node.name), "VARCHAR") if node.is_string else (node.name, "DECIMAL")
        if isinstance(node, exp.Null):
            return "NULL", "NULL"
        if isinstance(node, exp.Boolean):
            return str(node.this).upper(), "BOOLEAN"
        if isinstance(node, exp.If):
            condition, _ = self._translate(node.this)
            yes, kind = self._translate(node.args["true"])
            no, other = self._translate(node.args["false"])
            return f"CASE WHEN {condition} THEN {yes} ELSE {no} END", other if kind == "NULL" else kind
        if isinstance(node, exp.Is):
            left, _ = self._translate(node.this)
            right, _ = self._translate(node.expression)
            return f"{left} IS {right}", "BOOLEAN"
        if isinstance(node, exp.Not):
            sql, _ = self._translate(node.this)
            return f"NOT ({sql})", "BOOLEAN"
        if isinstance(node, exp.Nullif):
            left, kind = self._translate(node.this)
            right, _ = self._translate(node.expression)
            return f"nullif({left}, {right})", kind
        if isinstance(node, exp.Trim) and node.args.get("position") == "TRAILING" and node.expression:
            text, _ = self._translate(node.this)
            characters, _ = self._translate(node.expression)
            return f"rtrim({text}, {characters})", "VARCHAR"
        raise unsupported(f"'{node.sql(dialect='snowflake')}' in a COPY transformation")

    @staticmethod
    def _is_path(node: Expr) -> bool:
        return isinstance(node, exp.JSONExtract) and isinstance(node.this, exp.Parameter)

    def _path(self, node: Expr) -> tuple[str, str]:
        """`$1:"name"` is the Parquet column of exactly that name, or NULL where the file has none."""
        if node.this.name != "1":
            raise SnowflakeError("000904", "42000", f"SQL compilation error: invalid identifier '${node.this.name}'")
        keys = [
            part for part in node.expression.expressions if isinstance(part, (exp.JSONPathKey, exp.JSONPathSubscript))
        ]
        name = str(keys[0].this)
        kind = self._columns.get(name)
        if kind is None:
            return "NULL", "NULL"
        column = quote(name)
        if len(keys) == 1:
            return (f"to_json({column})", "JSON") if _is_nested(kind) else (column, kind)
        path = "$" + "".join(
            f'."{key.this}"' if isinstance(key, exp.JSONPathKey) else f"[{key.this}]" for key in keys[1:]
        )
        return f"json_extract(to_json({column}), {literal(path)})", "JSON"

    def _cast(self, node: exp.Cast) -> tuple[str, str]:
        sql, kind = self._translate(node.this)
        target = from_expression(node.to)
        word = "TRY_CAST" if isinstance(node, exp.TryCast) else "CAST"
        if target.is_semi_structured():
            value = sql if kind == "JSON" else f"to_json({sql})"
            return (_as_array(value) if target.base == "ARRAY" else value), "JSON"
        if target.base == "BINARY" and kind not in {"BLOB", "NULL"}:
            return f"unhex(CAST({sql} AS VARCHAR))", "BLOB"
        if target.base == "VARCHAR":
            return _text(sql, kind, target), "VARCHAR"
        return f"{word}({sql} AS {target.duckdb()})", target.duckdb()


def _is_nested(duck_type: str) -> bool:
    return duck_type.endswith("[]") or duck_type.startswith(("STRUCT", "MAP"))


def _text(sql: str, kind: str, target: SqlType) -> str:
    """Text of at most the declared length. Snowflake refuses what is longer, it does not cut."""
    text = f"(({sql}) ->> '$')" if kind == "JSON" else f"CAST({sql} AS VARCHAR)"
    if target.length is None or target.length >= DEFAULT_TEXT_LENGTH:
        return text
    return f"CASE WHEN length({text}) > {target.length} THEN {too_long(text)} ELSE {text} END"


def _as_array(json: str) -> str:
    """A VARIANT that is no array becomes an array of that one value; JSON null stays null."""
    whole = f"json_type({json}) IN ('ARRAY', 'NULL')"
    return f"CASE WHEN {json} IS NULL THEN NULL WHEN {whole} THEN {json} ELSE json_array({json}) END"

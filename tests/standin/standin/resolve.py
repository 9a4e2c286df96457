"""Names in a statement: completed by the session's context, checked to exist, and led to where the data is."""

from __future__ import annotations

from sqlglot import Expr, exp

from standin.engine import table_expression
from standin.errors import SnowflakeError, invalid_identifier, missing_database, missing_object, missing_schema
from standin.names import TableName, split_qualified
from standin.privileges import require_usage
from standin.sessions import Session


def _part(identifier: Expr | None) -> str | None:
    if identifier is None:
        return None
    return identifier.name if identifier.args.get("quoted") else identifier.name.upper()


def complete(session: Session, parts: list[str]) -> TableName:
    """A name of one to three parts, with the session's database and schema before it."""
    if len(parts) > 3:
        raise SnowflakeError("001003", "42000", f"SQL compilation error:\ninvalid name {'.'.join(parts)}.")
    database = parts[-3] if len(parts) == 3 else session.database
    schema = parts[-2] if len(parts) >= 2 else session.schema
    if database is None:
        raise SnowflakeError(
            "090105",
            "22000",
            "Cannot perform operation. This session does not have a current database. Call 'USE DATABASE', or use a qualified name.",
        )
    if schema is None:
        raise SnowflakeError(
            "090106",
            "22000",
            "Cannot perform operation. This session does not have a current schema. Call 'USE SCHEMA', or use a qualified name.",
        )
    return TableName(database, schema, parts[-1])


def name_of(session: Session, table: exp.Table) -> TableName:
    parts = [_part(table.args.get("catalog")), _part(table.args.get("db")), _part(table.this)]
    return complete(session, [part for part in parts if part])


def name_from_text(session: Session, text: str) -> TableName:
    parts, _ = split_qualified(text.strip())
    return complete(session, parts)


def require_schema(session: Session, name: TableName) -> None:
    require_usage(session, name.database, name.schema)
    catalog = session.engine.catalog
    if name.database not in catalog.databases():
        raise missing_database(name.database)
    if not catalog.has_schema(name.database, name.schema):
        raise missing_schema(f"{name.database}.{name.schema}")


def existing_table(session: Session, name: TableName, sqlstate: str = "02000") -> TableName:
    """The stored name of a table that exists, or the error that says it does not."""
    require_usage(session, name.database, name.schema)
    stored = session.stored(name)
    if not session.engine.catalog.is_table(stored):
        raise missing_object(name.dotted(), sqlstate)
    return stored


def resolve(session: Session, expression: Expr) -> tuple[Expr, list[TableName]]:
    """The statement with every table fully named, and the tables it names (as the user knows them)."""
    expression = expression.copy()
    common = {_part(cte.args["alias"].this) for cte in expression.find_all(exp.CTE) if cte.args.get("alias")}
    named: list[TableName] = []
    for table in list(expression.find_all(exp.Table)):
        if not isinstance(table.this, exp.Identifier):
            continue
        if table.args.get("db") is None and _part(table.this) in common:
            continue
        if (_part(table.args.get("db")) or "").upper() == "INFORMATION_SCHEMA":
            continue
        name = name_of(session, table)
        catalog = session.engine.catalog
        require_usage(session, name.database, name.schema)
        stored = session.stored(name)
        if not catalog.is_table(stored) and not catalog.is_view(stored):
            raise missing_object(name.dotted(), "42S02")
        named.append(name)
        replacement = table_expression(stored)
        for key in ("alias", "joins", "sample", "pivots", "laterals"):
            if table.args.get(key):
                replacement.set(key, table.args[key])
        is_target = isinstance(table.parent, (exp.Insert, exp.Schema))
        if stored != name and not replacement.args.get("alias") and not is_target:
            replacement.set("alias", exp.TableAlias(this=exp.to_identifier(name.name, quoted=True)))
        if table is expression:
            expression = replacement
        else:
            table.replace(replacement)
    _check_columns(session, expression, named)
    return expression, named


def _check_columns(session: Session, expression: Expr, tables: list[TableName]) -> None:
    """DuckDB finds "id" where the column is ID. Snowflake does not, and a test must see that."""
    known: set[str] = set()
    for name in tables:
        stored = session.stored(name)
        if session.engine.catalog.is_view(stored):
            return
        known |= {column.name for column in session.engine.catalog.columns(stored)}
    folded = {name.upper() for name in known}
    aliases = {_part(node.args["alias"]) for node in expression.find_all(exp.Alias)}
    aliases |= {
        _part(column) for node in expression.find_all(exp.TableAlias) for column in node.args.get("columns") or []
    }
    used = [node.this for node in expression.find_all(exp.Column)]
    used += [part for node in expression.find_all(exp.Schema) for part in node.expressions]
    for identifier in used:
        if not isinstance(identifier, exp.Identifier):
            continue
        column = _part(identifier) or ""
        if column not in known and column not in aliases and column.upper() in folded:
            raise invalid_identifier(column)

"""CREATE, ALTER, DROP and TRUNCATE of tables, and the other DDL, which fakesnow does.

Every DDL commits the open transaction first and is a transaction of its own.
"""

from __future__ import annotations

import threading
import uuid
from copy import deepcopy
from typing import TYPE_CHECKING

from sqlglot import Expr, exp

from standin import results, sqltypes
from standin.catalog import TableInfo
from standin.errors import SnowflakeError, invalid_identifier, object_exists, syntax_error, unsupported
from standin.names import MAX_IDENTIFIER_LENGTH, TableName, literal, quote
from standin.privileges import require_on_schema, require_on_table
from standin.resolve import existing_table, name_of, require_schema, resolve
from standin.sqltypes import SqlType

if TYPE_CHECKING:
    from standin.results import Result
    from standin.sessions import Session


def run(session: Session, expression: Expr, query: threading.Event) -> Result:
    session.commit()
    try:
        if isinstance(expression, exp.Create) and expression.kind == "TABLE":
            return _create_table(session, expression, query)
        if isinstance(expression, exp.Alter) and expression.args.get("kind") == "TABLE":
            return _alter_table(session, expression, query)
        if isinstance(expression, exp.Drop) and expression.args.get("kind") == "TABLE":
            return _drop_table(session, expression, query)
        if isinstance(expression, exp.TruncateTable):
            return _truncate(session, expression, query)
        return _other(session, expression)
    finally:
        session.release_statement_locks()


def _other(session: Session, expression: Expr) -> Result:
    if isinstance(expression, exp.Create) and expression.kind == "DATABASE":
        return _create_database(session, expression)
    kind = str(expression.args.get("kind") or "").upper()
    if kind not in {"VIEW", "SCHEMA", "DATABASE"}:
        raise unsupported(f"{expression.key.upper()} {kind}")
    cursor = session.cursor()
    cursor.check_db_and_schema(expression)
    if isinstance(expression, exp.Create) and expression.kind == "VIEW":
        expression.set("expression", resolve(session, expression.expression)[0])
    cursor.run(expression)
    message = cursor.fetchall()[0][0]
    return results.status(str(message))


def _create_database(session: Session, expression: exp.Create) -> Result:
    """A new database has a schema PUBLIC and becomes the current one."""
    name = _fold(expression.this.this)
    if name in session.engine.catalog.databases():
        if not expression.args.get("exists"):
            raise object_exists(name)
        return results.status(f"{name} already exists, statement succeeded.")
    session.engine.create_database(name, [])
    session.set_schema(name, "PUBLIC")
    return results.status(f"Database {name} successfully created.")


def _create_table(session: Session, expression: exp.Create, query: threading.Event) -> Result:
    schema = expression.this
    node = schema.this if isinstance(schema, exp.Schema) else schema
    name = name_of(session, node)
    _check_length(name.name)
    require_schema(session, name)
    properties = expression.args.get("properties")
    found = list(properties.expressions) if properties else []
    temporary = any(isinstance(item, exp.TemporaryProperty) for item in found)
    require_on_schema(session, "CREATE TABLE", name)
    session.lock_table(name, True, query)
    if session.engine.catalog.is_table(session.stored(name)) and (name in session.temporary) == temporary:
        if expression.args.get("exists"):
            return results.status(f"{name.name} already exists, statement succeeded.")
        if not expression.args.get("replace"):
            raise object_exists(name.dotted())
        _drop(session, name, query)
    like = next((item for item in found if isinstance(item, exp.LikeProperty)), None)
    clone = expression.args.get("clone")
    info = TableInfo(owner=session.role or "PUBLIC")
    info.comment = next((item.this.name for item in found if isinstance(item, exp.SchemaCommentProperty)), "")
    cluster = next((item for item in found if isinstance(item, exp.ClusterProperty)), None)
    if cluster is not None:
        info.cluster_by = _cluster_key(cluster)
    if temporary:
        source_alias = session.stored(name)
        session.temporary.add(name)
    stored = session.stored(name)
    try:
        if like is not None or clone is not None:
            source_name = name_of(session, (like or clone).this)
            source = source_alias if temporary and source_name == name else existing_table(session, source_name)
            _copy_definition(session, source, stored, info, with_rows=clone is not None)
        elif expression.expression is not None and not isinstance(schema, exp.Schema):
            select, _ = resolve(session, expression.expression)
            body = "; ".join(part.sql(dialect="duckdb") for part in session.cursor().translate(select))
            session.duck.execute(f"CREATE TABLE {stored.sql()} AS {body}")
        elif isinstance(schema, exp.Schema) and expression.expression is None:
            _create_columns(session, schema, stored, info)
        else:
            raise unsupported("CREATE TABLE of this form")
    except BaseException:
        if temporary:
            session.temporary.discard(name)
        raise
    session.engine.catalog.remember(stored, info)
    session.engine.history.forget(stored)
    return results.status(f"Table {name.name} successfully created.")


def _create_columns(session: Session, schema: exp.Schema, stored: TableName, info: TableInfo) -> None:
    """The columns as declared. Of a primary key Snowflake enforces that it is not NULL; of others nothing, so they are left out."""
    for node in schema.find_all(exp.PrimaryKey, exp.PrimaryKeyColumnConstraint):
        named = node.expressions or [node.find_ancestor(exp.ColumnDef).this]
        info.primary_key.update(_fold(column) for column in named)
    columns = [item for item in schema.expressions if isinstance(item, exp.ColumnDef)]
    parts = [_column(session, item, info, stored) for item in columns]
    session.duck.execute(f"CREATE TABLE {stored.sql()} ({', '.join(parts)})")


def _column(session: Session, item: exp.ColumnDef, info: TableInfo, stored: TableName) -> str:
    column = _fold(item.this)
    _check_length(column)
    if column in info.types:
        raise invalid_identifier(column)
    declared = sqltypes.from_expression(item.args["kind"])
    info.types[column] = declared
    pieces = [quote(column), declared.duckdb()]
    if column in info.primary_key:
        pieces.append("NOT NULL")
    for constraint in item.args.get("constraints") or []:
        kind = constraint.args.get("kind")
        if isinstance(kind, exp.NotNullColumnConstraint) and not kind.args.get("allow_null"):
            pieces.append("NOT NULL")
        elif isinstance(kind, exp.DefaultColumnConstraint):
            value = session.cursor().translate(exp.select(kind.this.copy()))[0].expressions[0]
            pieces.append(f"DEFAULT ({value.unalias().sql(dialect='duckdb')})")
        elif isinstance(kind, exp.CommentColumnConstraint):
            info.column_comments[column] = kind.this.name
        elif isinstance(kind, (exp.AutoIncrementColumnConstraint, exp.GeneratedAsIdentityColumnConstraint)):
            pieces.append(f"DEFAULT ({_identity(session, column, kind, info, stored)})")
    return " ".join(pieces)


def _identity(session: Session, column: str, kind: Expr, info: TableInfo, stored: TableName) -> str:
    """AUTOINCREMENT and IDENTITY, as a sequence of their own, which nobody sees."""
    start, step = (int(kind.args[name].name) if kind.args.get(name) else 1 for name in ("start", "increment"))
    sequence = stored._replace(name=f"{stored.name}$identity${uuid.uuid4().hex}")
    session.duck.execute(f"CREATE SEQUENCE {sequence.sql()} START {start} INCREMENT {step}")
    info.identities[column] = f"IDENTITY START {start} INCREMENT {step} NOORDER"
    return f"nextval({literal(sequence.sql())})"


def _copy_definition(session: Session, source: TableName, stored: TableName, info: TableInfo, with_rows: bool) -> None:
    columns = session.engine.catalog.columns(source)
    original = session.engine.catalog.info(source)
    if original.identities:
        raise unsupported("LIKE or CLONE of a table with AUTOINCREMENT")
    parts = []
    for column in columns:
        default = f" DEFAULT ({column.default})" if column.default else ""
        parts.append(f"{quote(column.name)} {column.type.duckdb()}{'' if column.nullable else ' NOT NULL'}{default}")
        info.types[column.name] = column.type
    info.column_comments = deepcopy(original.column_comments)
    info.cluster_by = original.cluster_by
    info.primary_key = set(original.primary_key)
    session.duck.execute(f"CREATE TABLE {stored.sql()} ({', '.join(parts)})")
    if with_rows:
        session.duck.execute(f"INSERT INTO {stored.sql()} SELECT * FROM {source.sql()}")


def _alter_table(session: Session, expression: exp.Alter, query: threading.Event) -> Result:
    name = name_of(session, expression.this)
    stored = session.stored(name)
    if expression.args.get("exists") and not session.engine.catalog.is_table(stored):
        return results.status("Statement executed successfully.")
    existing_table(session, name)
    require_on_table(session, "OWNERSHIP", name)
    session.lock_table(stored, True, query)
    for action in expression.args["actions"]:
        _alter(session, name, stored, action)
    return results.status("Statement executed successfully.")


def _alter(session: Session, name: TableName, stored: TableName, action: Expr) -> None:
    catalog = session.engine.catalog
    info = catalog.info(stored)
    present = {column.name: column for column in catalog.columns(stored)}
    table = stored.sql()
    if isinstance(action, exp.ColumnDef):
        column = _fold(action.this)
        if column in present:
            if action.args.get("exists"):
                return
            raise _column_exists(column)
        if action.args.get("exists") and action.find(exp.DefaultColumnConstraint):
            raise syntax_error("IF NOT EXISTS cannot be combined with DEFAULT.")
        # Known once it is there: the statement may be aborted.
        extended = deepcopy(info)
        session.duck.execute(f"ALTER TABLE {table} ADD COLUMN {_column(session, action, extended, stored)}")
        catalog.remember(stored, extended)
    elif isinstance(action, exp.AlterColumn):
        _alter_column(session, stored, info, present, action)
    elif isinstance(action, exp.AlterRename):
        target = name_of(session, action.this)
        if catalog.is_table(session.stored(target)):
            raise object_exists(target.dotted())
        if target[:2] != name[:2] or name in session.temporary:
            raise unsupported("RENAME to another schema, or of a temporary table")
        session.duck.execute(f"ALTER TABLE {table} RENAME TO {quote(target.name)}")
        catalog.rename(stored, target)
        session.engine.history.rename(stored, target)
        session.engine.stages.rename_table(stored, target)
    elif isinstance(action, exp.RenameColumn):
        old, new = _fold(action.this), _fold(action.args["to"])
        _require_column(present, old)
        if new in present:
            raise _column_exists(new)
        session.duck.execute(f"ALTER TABLE {table} RENAME COLUMN {quote(old)} TO {quote(new)}")
        if old in info.types:
            info.types[new] = info.types.pop(old)
        if old in info.identities:
            info.identities[new] = info.identities.pop(old)
        if old in info.primary_key:
            info.primary_key = {new if name == old else name for name in info.primary_key}
    elif isinstance(action, exp.Drop) and action.args.get("kind") == "COLUMN":
        for node in action.args.get("tables") or [action.this]:
            column = _fold(node)
            if column not in present and action.args.get("exists"):
                continue
            _require_column(present, column)
            session.duck.execute(f"ALTER TABLE {table} DROP COLUMN {quote(column)}")
            info.types.pop(column, None)
            info.primary_key.discard(column)
    elif isinstance(action, (exp.ClusterProperty, exp.Cluster)):
        info.cluster_by = _cluster_key(action)
    else:
        raise unsupported(f"ALTER TABLE … {action.sql(dialect='snowflake')}")


def _alter_column(session: Session, stored: TableName, info: TableInfo, present: dict, action: exp.AlterColumn) -> None:
    column = _fold(action.this)
    _require_column(present, column)
    if action.args.get("dtype") is not None:
        old: SqlType = present[column].type
        new = sqltypes.change(column, old, sqltypes.from_expression(action.args["dtype"]))
        if new.duckdb() != old.duckdb():
            session.duck.execute(
                f"ALTER TABLE {stored.sql()} ALTER COLUMN {quote(column)} SET DATA TYPE {new.duckdb()}"
            )
        info.types[column] = new
    elif action.args.get("allow_null") is not None:
        verb = "DROP" if action.args.get("drop") or action.args["allow_null"] else "SET"
        session.duck.execute(f"ALTER TABLE {stored.sql()} ALTER COLUMN {quote(column)} {verb} NOT NULL")
    elif action.args.get("drop"):
        session.duck.execute(f"ALTER TABLE {stored.sql()} ALTER COLUMN {quote(column)} DROP NOT NULL")
    else:
        raise unsupported(f"ALTER COLUMN {action.sql(dialect='snowflake')}")


def _drop_table(session: Session, expression: exp.Drop, query: threading.Event) -> Result:
    nodes = expression.args.get("tables") or [expression.this]
    name = name_of(session, nodes[0])
    if not session.engine.catalog.is_table(session.stored(name)):
        if expression.args.get("exists"):
            return results.status("Drop statement executed successfully (" + name.name + " already dropped).")
        existing_table(session, name)
    require_on_table(session, "OWNERSHIP", name)
    _drop(session, name, query)
    return results.status(f"{name.name} successfully dropped.")


def _drop(session: Session, name: TableName, query: threading.Event) -> None:
    stored = session.stored(name)
    session.lock_table(stored, True, query)
    session.duck.execute(f"DROP TABLE {stored.sql()}")
    session.temporary.discard(name)
    session.engine.catalog.forget(stored)
    session.engine.history.forget(stored)
    session.engine.stages.forget_table(stored)


def _truncate(session: Session, expression: exp.TruncateTable, query: threading.Event) -> Result:
    for node in expression.expressions:
        name = name_of(session, node)
        stored = existing_table(session, name)
        require_on_table(session, "TRUNCATE", name)
        session.lock_table(stored, True, query)
        session.duck.execute(f"DELETE FROM {stored.sql()}")
        session.engine.history.forget(stored)
    return results.status("Statement executed successfully.")


def _column_exists(column: str) -> SnowflakeError:
    return SnowflakeError("001430", "42601", f"SQL compilation error:\ncolumn '{column}' already exists")


def _require_column(present: dict, column: str) -> None:
    if column not in present:
        raise invalid_identifier(column)


def _fold(node: Expr) -> str:
    identifier = node.this if isinstance(node, exp.Column) else node
    return identifier.name if identifier.args.get("quoted") else identifier.name.upper()


def _check_length(name: str) -> None:
    if len(name) > MAX_IDENTIFIER_LENGTH:
        raise invalid_identifier(name[:40] + "…")


def _cluster_key(node: Expr) -> str:
    return "LINEAR(" + ", ".join(part.sql(dialect="snowflake") for part in node.expressions) + ")"

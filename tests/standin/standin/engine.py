"""The SQL engine of one account: a DuckDB instance behind fakesnow's translation of Snowflake SQL."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import duckdb
from fakesnow.cursor import FakeSnowflakeCursor
from fakesnow.instance import FakeSnow
from sqlglot import Expr, exp

from standin import corrections
from standin.catalog import Catalog
from standin.load_history import LoadHistory
from standin.locks import TableLocks
from standin.names import TableName, literal, quote
from standin.stage_store import StageRegistry
from standin.transactions import Transactions

corrections.install()
# fakesnow's way of reading results works; DuckDB would have it otherwise, on every statement.
warnings.filterwarnings("ignore", message="Arrow output on a DB-API result", module=r"fakesnow\.")


class EngineCursor(FakeSnowflakeCursor):
    """fakesnow's cursor, taken apart: translate here, run there."""

    def translate(self, expression: Expr) -> list[Expr]:
        """The DuckDB statements for one Snowflake statement. Adds no bindings: those are literals by now."""
        expression = expression.transform(corrections.plain_types)
        return [self._transform(part, None) for part in self._transform_explode(expression)]

    def run(self, expression: Expr) -> None:
        """Run a statement the whole fakesnow way, with its bookkeeping (CREATE VIEW, SHOW, USE…)."""
        for part in self.translate(expression):
            self._execute(part, None)


class Engine:
    """Data, catalog, locks, transactions, stages and load history of one account."""

    def __init__(self) -> None:
        self._fake = FakeSnow(create_database_on_connect=False, create_schema_on_connect=False)
        self._setup = threading.Lock()
        self._opening = threading.Lock()
        self.root: duckdb.DuckDBPyConnection = self._fake.duck_conn
        self._setup_connection = self.root.cursor()
        self.catalog = Catalog(self.root)
        self.locks = TableLocks()
        self.transactions = Transactions()
        self.stages = StageRegistry()
        self.history = LoadHistory()

    def connect(self, database: str | None, schema: str | None) -> Any:
        """A fakesnow connection on its own DuckDB connection."""
        with self._opening:
            return self._fake.connect(database, schema)

    def side_connection(self) -> duckdb.DuckDBPyConnection:
        """A connection outside every session and transaction. The caller closes it."""
        with self._opening:
            return self.root.cursor()

    def create_database(self, name: str, schemas: list[str]) -> None:
        """Create what is missing. Used at start and by the admin endpoint."""
        with self._setup:
            if name not in self.catalog.databases():
                connection = self.connect(None, None)
                cursor = EngineCursor(connection, connection._duck_conn)  # noqa: SLF001
                cursor.execute(f"CREATE DATABASE {quote(name)}")
                connection.close()
            for schema in dict.fromkeys(["PUBLIC", *schemas]):
                self._setup_connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(name)}.{quote(schema)}")


def table_expression(name: TableName, alias: str | None = None) -> exp.Table:
    """A fully qualified, quoted table node."""
    node = exp.Table(
        this=exp.to_identifier(name.name, quoted=True),
        db=exp.to_identifier(name.schema, quoted=True),
        catalog=exp.to_identifier(name.database, quoted=True),
    )
    if alias is not None:
        node.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
    return node


__all__ = ["Engine", "EngineCursor", "literal", "table_expression"]

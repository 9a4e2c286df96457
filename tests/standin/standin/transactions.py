"""Snowflake's transactions over DuckDB's.

A failed statement undoes only itself in Snowflake and leaves the transaction open, where DuckDB aborts the whole
transaction. So every successful write of a transaction is kept as a repeatable piece of work; after a failure the DuckDB
transaction is rolled back and the pieces run again, in order. Each must come to the outcome it had before, else the
transaction is given up loudly.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb

from standin.errors import SnowflakeError
from standin.load_history import LoadEntry

RUNNING = "running"
COMMITTED = "committed"
ROLLED_BACK = "rolled back"

# DuckDB refuses what meets somebody's ALTER TABLE, for which Snowflake waits: it is done again on the new state.
MAX_TRIES = 20

# A piece of work writes through the DuckDB connection it is given and returns an outcome that a repetition must equal.
Work = Callable[[duckdb.DuckDBPyConnection], Any]


@dataclass
class Transaction:
    id: int
    name: str
    user: str
    session_id: int
    started: datetime
    state: str = RUNNING
    ended: datetime | None = None
    done: list[tuple[Work, Any]] = field(default_factory=list)
    loads: list[LoadEntry] = field(default_factory=list)

    def end(self, state: str) -> None:
        """What it wrote is needed no longer; that it was, and how it ended, stays known."""
        self.state = state
        self.ended = datetime.now(UTC)
        self.done.clear()


class Transactions:
    """Every transaction of the account, also the ended ones: DESCRIBE TRANSACTION is asked from other sessions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_id: dict[int, Transaction] = {}
        self._last_id = 0

    def open(self, name: str | None, user: str, session_id: int) -> Transaction:
        with self._lock:
            self._last_id = max(self._last_id + 1, time.time_ns())
            transaction = Transaction(self._last_id, name or str(self._last_id), user, session_id, datetime.now(UTC))
            self._by_id[transaction.id] = transaction
            return transaction

    def find(self, transaction_id: int) -> Transaction | None:
        with self._lock:
            return self._by_id.get(transaction_id)

    def all(self) -> list[Transaction]:
        with self._lock:
            return list(self._by_id.values())


def write(connection: duckdb.DuckDBPyConnection, transaction: Transaction | None, work: Work) -> Any:
    """Run `work` in the open transaction, or in one of its own. A failure undoes this piece of work and nothing else."""
    if transaction is None:
        connection.execute("BEGIN TRANSACTION")
        try:
            outcome = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise
        return outcome
    for tries_left in reversed(range(MAX_TRIES)):
        _refresh(connection, transaction)
        try:
            outcome = work(connection)
            break
        except duckdb.TransactionException:
            if tries_left == 0 or transaction.done:
                _repeat(connection, transaction)
                raise
        except BaseException:
            _repeat(connection, transaction)
            raise
    transaction.done.append((work, outcome))
    return outcome


def read(connection: duckdb.DuckDBPyConnection, transaction: Transaction | None, work: Work) -> Any:
    """Run a query. Inside a transaction its failure must not poison what was written before."""
    if transaction is not None:
        _refresh(connection, transaction)
    try:
        return work(connection)
    except BaseException:
        if transaction is not None:
            _repeat(connection, transaction)
        raise


def _refresh(connection: duckdb.DuckDBPyConnection, transaction: Transaction) -> None:
    """A new snapshot for each statement, as READ COMMITTED has it, as long as nothing was written that it would lose."""
    if not transaction.done:
        _roll_back(connection)
        connection.execute("BEGIN TRANSACTION")


def _repeat(connection: duckdb.DuckDBPyConnection, transaction: Transaction) -> None:
    _roll_back(connection)
    connection.execute("BEGIN TRANSACTION")
    for work, outcome in transaction.done:
        if work(connection) != outcome:
            raise SnowflakeError(
                "300002",
                "XX000",
                "Stand-in: after a failed statement, an earlier statement of the transaction could not be repeated with "
                "the same outcome. The transaction cannot be continued.",
            )


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.TransactionException:
        pass  # DuckDB had already ended it, which is what is wanted here

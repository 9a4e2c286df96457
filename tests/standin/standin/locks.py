"""Table locks, as Snowflake takes them: appends run side by side, everything that changes rows waits its turn.

docs.snowflake.com "Transactions", section on resource locking: UPDATE, DELETE and MERGE block one another; INSERT and COPY
mostly do not. DDL waits for open transactions that wrote the table. DuckDB has no locks and would answer with a conflict
at COMMIT instead.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

from standin.errors import SnowflakeError
from standin.names import TableName

POLL_SECONDS = 0.05  # how soon a waiting statement notices that it was cancelled


class TableLocks:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holders: dict[TableName, dict[Hashable, bool]] = {}

    def acquire(
        self, table: TableName, owner: Hashable, exclusive: bool, timeout: float, check: Callable[[], None]
    ) -> None:
        """Take the lock for `owner`, or upgrade it. `check` raises when the waiting statement was cancelled."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._blocked(table, owner, exclusive):
                check()
                if time.monotonic() >= deadline:
                    raise SnowflakeError(
                        "000625",
                        "57014",
                        f"Statement was aborted: lock on {table.dotted()} was not granted within {timeout:g} seconds "
                        "because it is held by another transaction.",
                    )
                self._changed.wait(POLL_SECONDS)
            # Whoever released the lock may have woken a statement that was cancelled a moment before.
            check()
            held = self._holders.setdefault(table, {})
            held[owner] = exclusive or held.get(owner, False)

    def release(self, owner: Hashable) -> None:
        with self._changed:
            for table in list(self._holders):
                self._holders[table].pop(owner, None)
                if not self._holders[table]:
                    del self._holders[table]
            self._changed.notify_all()

    def _blocked(self, table: TableName, owner: Hashable, exclusive: bool) -> bool:
        others = {who: mode for who, mode in self._holders.get(table, {}).items() if who != owner}
        return bool(others) and (exclusive or any(others.values()))

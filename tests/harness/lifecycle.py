"""What the tests of the worker's life share: uploads that stand still where a test wants them, and workers that come and go."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from typing import Any

from harness import wait
from harness.bridge import Bridge
from harness.cluster import Cluster

COPY = {"kind": "query", "sql": "COPY INTO"}
ROWS = [{"n": n} for n in range(10)]
# Far longer than any test waits; `Standin.clear_faults` lets go.
HELD_MS = 300_000


def hold(bridge: Bridge, match: Mapping[str, str] = COPY, times: int = 1) -> int:
    """Holds the next requests that match. Returns a mark for `Bridge.uploading`."""
    bridge.standin.fault({name: rf"^\s*{text}" for name, text in match.items()}, {"delay_ms": HELD_MS}, times=times)
    return bridge.standin.audit_mark()


def in_flight(bridge: Bridge, execution_id: str, match: Mapping[str, str] = COPY, **columns: Any) -> None:
    """An upload that has got as far as this request, which is not answered."""
    mark = hold(bridge, match)
    bridge.run(execution_id, ROWS, **columns)
    bridge.uploading(match, mark)


def watch_slowly(bridge: Bridge) -> None:
    """A second watched table, whose results a process of its own reads: they never come."""
    bridge.app.execute(
        "create function slowly(id text) returns table (n int) language sql stable set search_path from current "
        "as $$ select 1 from pg_sleep(3600) $$"
    )
    bridge.call("watch", relation="public.slow_runs", create_if_missing=True, result_function="slowly(text)")


def being_read(bridge: Bridge, execution_id: str) -> int:
    """An upload whose result is being read. Returns the reader's process id."""
    bridge.app.execute(
        "insert into slow_runs (execution_id, status, snowflake_enabled) values (%s, 'completed', true)", [execution_id]
    )
    [reader] = wait.until(lambda: bridge.cluster.backends("snowflake_bridge reader"), "somebody reads the result")
    return reader


def workers(cluster: Cluster, database: str) -> list[int]:
    """Process ids of the workers of a database: one, or none."""
    with cluster.connect() as connection:
        rows = connection.execute(
            "select pid from pg_stat_activity where datname = %s and backend_type = 'snowflake_bridge worker'", [database]
        )
        return [row["pid"] for row in rows]


def worker(cluster: Cluster, database: str, *, other_than: int = 0, seconds: float = 30.0) -> int:
    """The worker of a database, once there is one that is not `other_than`."""

    def look() -> list[int]:
        return [pid for pid in workers(cluster, database) if pid != other_than]

    [pid] = wait.until(look, f"a worker runs in database {database}", seconds)
    return pid


def seconds_to_stop(bridge: Bridge, how: signal.Signals = signal.SIGINT) -> float:
    """How long the server takes to end. A smart shutdown (SIGTERM) waits for clients, so there are none."""
    bridge.app.close()
    bridge.admin.close()
    began = time.monotonic()
    bridge.cluster.stop(how)
    return time.monotonic() - began


def has_ended(pid: int) -> bool:
    """Whether there is no such process any more."""
    return not os.path.exists(f"/proc/{pid}")


def finding(connection: Any, item: str) -> dict[str, Any]:
    """What `check()` finds of one item."""
    row = connection.execute("select * from snowflake_bridge.check() where item = %s", [item]).fetchone()
    assert row is not None, f"check() says nothing of {item}"
    return row


def status(connection: Any) -> dict[str, Any]:
    """The one row of `worker_status()`."""
    return connection.execute("select * from snowflake_bridge.worker_status()").fetchone()

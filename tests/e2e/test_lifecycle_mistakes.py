"""A second worker for the same database, and a launcher that waits for one it may not start."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

from harness import lifecycle, wait
from harness.bridge import DATABASE, Bridge
from harness.cluster import children

SECONDS_OF_WAITING = 10


def started_workers(bridge: Bridge) -> list[int]:
    """Processes started as workers of the database, those included that wait to be let into it."""
    found = []
    for pid in children(bridge.cluster.process.pid):
        with contextlib.suppress(OSError):
            if f"snowflake_bridge worker: {DATABASE}" in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
    return found


def test_two_workers_started_by_mistake(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge({"max_prepared_transactions": "1"})
    user = bridge.ready()
    former = bridge.worker()
    bridge.app.close()
    bridge.admin.close()
    with bridge.cluster.connect() as server:
        # A prepared transaction keeps everybody out of the database, also the worker that returns to it.
        server.execute("begin")
        server.execute(f"alter database {DATABASE} rename to boutique")
        server.execute("prepare transaction 'renamed'")

        def entering() -> list[int]:
            # The process of one that has left the database may still be there.
            return [pid for pid in started_workers(bridge) if pid != former]

        [first] = wait.until(entering, "a worker wants to enter")
        # Another launcher does not know of it.
        [launcher] = bridge.cluster.backends("snowflake_bridge launcher")
        os.kill(launcher, signal.SIGTERM)
        both = wait.until(lambda: pids if len(pids := entering()) > 1 else None, "another one does too", 60)
        assert first in both
        server.execute("rollback prepared 'renamed'")
    bridge.connect()
    wait.until(lambda: len([pid for pid in both if lifecycle.has_ended(pid)]) == 1, "one of them has left")
    worker = bridge.worker()
    assert worker in both
    mark = lifecycle.hold(bridge)
    bridge.run("run-1", lifecycle.ROWS)
    bridge.uploading(lifecycle.COPY, mark)
    bridge.standin.clear_faults()
    bridge.completed("run-1")
    assert len(bridge.account.statements("COPY INTO", mark)) == 1
    assert bridge.upload("run-1")["attempt_count"] == 1
    assert bridge.row_count(user) == len(lifecycle.ROWS)
    assert bridge.worker() == worker and started_workers(bridge) == [worker]
    assert lifecycle.finding(bridge.admin, "worker")["ok"]


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_launcher_that_waits_for_a_statement_sleeps(bridge: Bridge) -> None:
    bridge.ready()
    bridge.app.close()
    bridge.admin.close()
    [launcher] = bridge.cluster.backends("snowflake_bridge launcher")
    with bridge.cluster.connect() as server, server.transaction(force_rollback=True):
        server.execute(f"alter database {DATABASE} rename to boutique")
        # By then the launcher would start a worker again, if it might.
        server.execute("select pg_sleep(%s)", [SECONDS_OF_WAITING])
        used = cpu_seconds(launcher)
    assert used < 0.3, f"the launcher has used {used:g} s of processor time"
    bridge.connect()
    bridge.worker()

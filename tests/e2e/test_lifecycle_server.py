"""The server around the worker: shutdowns, crashes, reloads, signals, and processes or roles that are missing."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from harness import lifecycle, wait
from harness.bridge import DATABASE, Bridge
from harness.cluster import children
from harness.standin import User

# What uploads in flight may add to a shutdown. The goodbye to Snowflake takes a second at most; the rest is for a machine busy with
# other things. An answer or a result that was waited for would take minutes.
STOP_SECONDS = 20.0
# The promise is 1 s after the postmaster's death.
ORPHAN_SECONDS = 30.0


def comes_back(bridge: Bridge) -> None:
    """Waits until the server has restarted its processes after a crash."""

    def answers() -> bool:
        try:
            bridge.connect()
            return True
        except psycopg.OperationalError:
            return False

    wait.until(answers, "the server is back")


# --- shutdown and crash -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT], ids=["smart", "fast", "immediate"])
def test_a_shutdown_with_uploads_in_flight(bridge: Bridge, user: User, how: signal.Signals) -> None:
    idle = lifecycle.seconds_to_stop(bridge, how)
    bridge.cluster.start()
    bridge.connect()
    lifecycle.watch_slowly(bridge)
    lifecycle.in_flight(bridge, "run-1")
    lifecycle.being_read(bridge, "slow-1")
    bridge.app.execute("update workflow_executions set user_id = 'somebody'")
    assert lifecycle.seconds_to_stop(bridge, how) < idle + STOP_SECONDS
    if how != signal.SIGQUIT:
        nothing = "show transactions in account"
        wait.until(lambda: not bridge.account.sql(nothing), "no transaction is left in Snowflake")
    bridge.standin.clear_faults()
    bridge.cluster.start()
    bridge.connect()
    bridge.admin.execute("select snowflake_bridge.cancel_upload(id) from snowflake_bridge.uploads where execution_id = 'slow-1'")
    bridge.completed("run-1")
    assert bridge.row_count(user) == len(lifecycle.ROWS)
    assert bridge.upload("run-1")["crash_count"] == 0, "the server was stopped, nothing has crashed"


def test_another_process_that_crashes(bridge: Bridge, user: User) -> None:
    lifecycle.in_flight(bridge, "run-1")
    launcher = bridge.cluster.backends("snowflake_bridge launcher")
    victim = bridge.app.info.backend_pid
    os.kill(victim, signal.SIGKILL)
    wait.until(lambda: all(lifecycle.has_ended(pid) for pid in launcher), "every process has been restarted")
    comes_back(bridge)
    bridge.standin.clear_faults()
    bridge.completed("run-1", seconds=60)
    assert bridge.row_count(user) == len(lifecycle.ROWS)
    bridge.run("run-2", lifecycle.ROWS)
    bridge.completed("run-2")


def test_the_launcher_that_crashes(bridge: Bridge, user: User) -> None:
    # An orderly end: the worker stays, and a launcher that comes later starts no second one.
    [launcher] = bridge.cluster.backends("snowflake_bridge launcher")
    worker = bridge.worker()
    os.kill(launcher, signal.SIGTERM)
    wait.until(lambda: bridge.cluster.backends("snowflake_bridge launcher") not in ([], [launcher]), "another launcher runs")
    bridge.run("run-1", lifecycle.ROWS)
    bridge.completed("run-1")
    assert lifecycle.workers(bridge.cluster, DATABASE) == [worker]


def test_no_process_outlives_the_postmaster(bridge: Bridge, user: User) -> None:
    lifecycle.watch_slowly(bridge)
    lifecycle.in_flight(bridge, "run-1")
    reader = lifecycle.being_read(bridge, "slow-1")
    ours = [bridge.worker(), reader, *bridge.cluster.backends("snowflake_bridge launcher")]
    everybody = children(bridge.cluster.process.pid)
    assert set(ours) <= set(everybody)
    bridge.cluster.process.kill()
    bridge.cluster.process.wait()
    bridge.cluster.process = None
    began = time.monotonic()
    wait.until(lambda: all(lifecycle.has_ended(pid) for pid in ours), "worker, reader and launcher have ended", ORPHAN_SECONDS)
    print(f"after the postmaster's death the last of them ended within {time.monotonic() - began:.2f} s")
    wait.until(lambda: all(lifecycle.has_ended(pid) for pid in everybody), "every process has ended")
    bridge.standin.clear_faults()
    (bridge.cluster.data / "postmaster.pid").unlink()
    bridge.cluster.start()
    bridge.connect()
    bridge.completed("run-1")
    assert bridge.row_count(user) == len(lifecycle.ROWS)


# --- reload and signals -----------------------------------------------------------------------------------------------


def reload(bridge: Bridge, **settings: str) -> None:
    """Changes settings as ALTER SYSTEM does. Those on the server's command line come first, so it takes others."""
    for name, value in settings.items():
        bridge.admin.execute(f"alter system set snowflake_bridge.{name} = '{value}'")
    bridge.admin.execute("select pg_reload_conf()")


def test_the_setting_databases(bridge: Bridge, user: User) -> None:
    lifecycle.in_flight(bridge, "run-1")
    worker = bridge.worker()
    reload(bridge, databases="another, and_another")
    wait.until(lambda: lifecycle.has_ended(worker), "the worker has ended")
    found = lifecycle.finding(bridge.admin, "worker")
    assert not found["ok"] and "snowflake_bridge.databases" in found["detail"]
    bridge.standin.clear_faults()
    mark = bridge.standin.audit_mark()
    bridge.run("run-2", lifecycle.ROWS)
    assert bridge.upload("run-2")["state"] == "queued"
    assert not lifecycle.workers(bridge.cluster, DATABASE) and not bridge.account.statements("COPY", mark)
    reload(bridge, databases=f"another, {DATABASE}")
    bridge.completed("run-1")
    bridge.completed("run-2")
    assert bridge.upload("run-1")["crash_count"] == 0


def test_a_wake_up_while_a_wait_ends_is_not_lost(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge({"snowflake_bridge.poll_interval": "1h"})
    user = bridge.ready()
    worker = bridge.worker()
    # Until its next poll, as far as it knows, and with no lock that would keep the application waiting.
    idle = "select from pg_stat_activity where pid = %s and state = 'idle' and state_change < clock_timestamp() - interval '1 s'"
    wait.until(lambda: bridge.admin.execute(idle, [worker]).fetchall(), "the worker waits")
    os.kill(worker, signal.SIGSTOP)
    try:
        bridge.run("run-1", lifecycle.ROWS)
        # Waits are cut into pieces, for interrupts. This one is over before the worker can see that it was woken.
        bridge.admin.execute("select pg_sleep(0.5)")
    finally:
        os.kill(worker, signal.SIGCONT)
    bridge.completed("run-1")
    assert bridge.row_count(user) == len(lifecycle.ROWS)


def test_a_storm_of_signals_while_uploads_run(bridge: Bridge, user: User) -> None:
    # Reloads, interrupts for other processes' barriers, and latches, all at once and at random.
    count = 100_000
    mark = lifecycle.hold(bridge)
    bridge.run("held", lifecycle.ROWS)
    bridge.uploading(lifecycle.COPY, mark)
    worker = bridge.worker()
    threads = os.listdir(f"/proc/{worker}/task")
    draw = random.Random(1)
    for number in range(count):
        os.kill(worker, draw.choice([signal.SIGUSR1, signal.SIGURG, signal.SIGUSR1, signal.SIGURG, signal.SIGHUP]))
        if number % (count // 10) == 0:
            bridge.run(f"run-{number}", lifecycle.ROWS)
    bridge.standin.clear_faults()
    for number in range(0, count, count // 10):
        bridge.completed(f"run-{number}", seconds=120)
    bridge.completed("held", seconds=60)
    assert bridge.worker() == worker
    assert set(threads) <= set(os.listdir(f"/proc/{worker}/task")), "a thread has died"
    # No wake-up is lost afterwards: the next commit is answered long before the next poll.
    reload(bridge, max_attempts="5")
    bridge.run("afterwards", lifecycle.ROWS)
    bridge.completed("afterwards")


# --- what is missing --------------------------------------------------------------------------------------------------


def test_no_background_worker_process_is_free(make_bridge: Callable[..., Bridge]) -> None:
    # One for logical replication and one for the launcher.
    bridge = make_bridge({"max_worker_processes": "2"})
    user = bridge.ready()
    bridge.run("run-1", lifecycle.ROWS)
    wait.until(lambda: "no free background worker slot" in bridge.cluster.log_text(), "the log says so")
    wait.until(lambda: "no background worker process" in lifecycle.finding(bridge.admin, "worker")["detail"], "check() says so")
    assert "max_worker_processes" in lifecycle.finding(bridge.admin, "worker")["hint"]
    assert not lifecycle.finding(bridge.admin, "worker_slots")["ok"]
    # It looks again every few seconds, and repeats itself in no log.
    bridge.admin.execute("select pg_sleep(6)")
    assert bridge.cluster.log_text().count("no free background worker slot") == 1
    bridge.cluster.settings["max_worker_processes"] = "8"
    bridge.cluster.restart()
    bridge.connect()
    bridge.completed("run-1")
    assert bridge.row_count(user) == len(lifecycle.ROWS)


def test_a_process_that_becomes_free(make_bridge: Callable[..., Bridge]) -> None:
    # One for logical replication, one for the launcher and one for a worker, and two databases that want one.
    bridge = make_bridge({"max_worker_processes": "3", "snowflake_bridge.max_reader_processes": "0"})
    bridge.ready()
    with bridge.cluster.connect() as server:
        server.execute("create database second")
    with bridge.cluster.connect("second") as second:
        first = bridge.worker()
        second.execute("create extension snowflake_bridge")
        wait.until(
            lambda: "no background worker process" in lifecycle.finding(second, "worker")["detail"], "check() says so"
        )
        bridge.admin.execute("drop extension snowflake_bridge cascade")
        lifecycle.worker(bridge.cluster, "second", other_than=first)
        assert lifecycle.finding(second, "worker")["ok"]


def test_a_role_that_the_workers_cannot_have(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge({"snowflake_bridge.databases": DATABASE, "snowflake_bridge.worker_role": "bridge_worker"})
    user = bridge.ready()
    bridge.admin.execute("create role bridge_worker superuser login")
    bridge.reload()
    worker = bridge.worker()
    bridge.admin.execute("alter role bridge_worker rename to former_worker")
    os.kill(worker, signal.SIGTERM)
    bridge.run("run-1", lifecycle.ROWS)

    def starts() -> list[datetime]:
        log = bridge.cluster.log_text()[before:]
        lines = [line for line in log.splitlines() if 'role "bridge_worker" does not exist' in line]
        return [datetime.fromisoformat(" ".join(line.split()[:2])) for line in lines]

    def said() -> dict[str, Any] | None:
        found = lifecycle.finding(bridge.admin, "worker")
        return found if "times in a row" in found["detail"] else None

    found = wait.until(said, "check() says so")
    assert not found["ok"] and "worker_role" in found["hint"]
    # From here on the waits begin anew.
    before = len(bridge.cluster.log_text())
    bridge.reload()
    wait.until(lambda: len(starts()) >= 3, "it is started three times", 90)
    _, second, third = starts()[:3]
    # 5 s before the second start, and 10 s before the third; a busy machine adds to either.
    assert third - second > timedelta(seconds=7.5), "the second wait is longer than the first is"
    wait.until(lambda: "3 times in a row" in lifecycle.finding(bridge.admin, "worker")["detail"], "the last has ended")
    bridge.admin.execute("alter role former_worker rename to bridge_worker")
    # The next start would be far away; whoever has mended something says so.
    bridge.reload()
    bridge.completed("run-1", seconds=15)
    assert bridge.row_count(user) == len(lifecycle.ROWS)

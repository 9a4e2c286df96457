"""The data directory's own disk is full while uploads are queued and one is under way. Once there is room again they go on: nothing is lost or
doubled, and until then the worker stays where it is."""

from __future__ import annotations

import re
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from harness import disks, lifecycle, wait
from harness.bridge import RESULTS, Bridge
from harness.standin import User

ROWS = [{"n": n, "noise": secrets.token_hex(50)} for n in range(500)]
# Beyond what the data directory has in it: less than a segment of WAL.
ROOM_MB = 8
ENOUGH = "512m"
QUEUED = 5
# What the worker says of an upload that it has no room for.
NO_ROOM = re.compile(r" worker .*snowflake_bridge: .*upload (\d+) .*(?:No space left on device|could not extend file)")


@pytest.fixture
def small(make_bridge: Callable[..., Bridge]) -> Iterator[Bridge]:
    """A server whose data directory has a small disk for itself. Nothing else limits what is written there."""
    settings = {
        "snowflake_bridge.min_free_space": "0",
        "snowflake_bridge.max_concurrent_uploads": "1",
        # It lasts longer than five attempts do here.
        "snowflake_bridge.max_attempts": "100",
    }
    bridge = make_bridge(settings)
    bridge.app.close()
    bridge.admin.close()
    cluster = bridge.cluster
    cluster.stop()
    kept = cluster.data.rename(cluster.root / "kept")
    cluster.data.mkdir()
    taken = subprocess.run(["du", "--summarize", "--block-size=1M", str(kept)], check=True, stdout=subprocess.PIPE).stdout
    with disks.mounted(cluster.data, f"{int(taken.split()[0]) + ROOM_MB}m"):
        subprocess.run(["cp", "--archive", f"{kept}/.", str(cluster.data)], check=True)
        cluster.start()
        bridge.connect()
        yield bridge
        cluster.stop(signal.SIGQUIT)


def fill(disk: Path) -> None:
    """Takes all the room there is, also what the server has given back since the last time."""
    with (disk / "ballast").open("ab", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(1 << 20))


def queued(bridge: Bridge, name: str) -> list[str]:
    """Executions that have finished, as many as can be written down."""
    executions: list[str] = []
    with pytest.raises(psycopg.errors.DiskFull):
        while True:
            bridge.run(f"{name}-{len(executions)}", ROWS)
            executions.append(f"{name}-{len(executions)}")
    return executions


@pytest.fixture
def full(small: Bridge) -> tuple[Bridge, User, list[str]]:
    """One upload is under way and others wait when there is no room any more; a few can still be queued."""
    user = small.ready()
    small.run("done", ROWS)
    small.completed("done")
    mark = lifecycle.hold(small)
    small.run("under way", ROWS)
    small.uploading(lifecycle.COPY, mark)
    before = [f"before-{number}" for number in range(QUEUED)]
    for execution in before:
        small.run(execution, ROWS)
    fill(small.cluster.data)
    assert disks.free(small.cluster.data) == 0
    return small, user, ["done", "under way", *before, *queued(small, "since")]


def without_room(bridge: Bridge) -> set[str]:
    """The uploads for which there was no room, by their numbers."""
    return set(NO_ROOM.findall(bridge.cluster.log_text()))


def are_loaded_once(bridge: Bridge, user: User, executions: list[str]) -> None:
    """In the end every execution's rows are there, and its row says so."""
    for execution in executions:
        wait.until(lambda of=execution: bridge.execution(of)["snowflake_status"] == "completed", f"{execution} completes", 60)
        assert bridge.upload(execution)["row_count"] == len(ROWS)
    counts = bridge.results(user, "EXECUTION_ID, count(*), count(distinct N)", RESULTS, "group by EXECUTION_ID")
    assert sorted(counts) == sorted((execution, len(ROWS), len(ROWS)) for execution in executions)


def test_the_worker_waits_until_there_is_room(full: tuple[Bridge, User, list[str]]) -> None:
    bridge, user, executions = full
    worker = bridge.worker()
    bridge.standin.clear_faults()

    def is_stuck() -> bool:
        """One has ended, which cannot be written down, and the next, and there is no room to take another."""
        fill(bridge.cluster.data)
        return len(without_room(bridge)) > 1

    wait.until(is_stuck, "there is no room for what waits", 60)
    assert bridge.worker() == worker
    disks.resize(bridge.cluster.data, ENOUGH)
    are_loaded_once(bridge, user, executions)
    assert bridge.worker() == worker
    broken = "select from snowflake_bridge.uploads where crash_count > 0 or state <> 'completed'"
    assert not bridge.admin.execute(broken).fetchall()
    bridge.run("afterwards", ROWS)
    bridge.completed("afterwards")


def test_a_server_that_has_stopped_for_want_of_room(full: tuple[Bridge, User, list[str]]) -> None:
    bridge, user, executions = full
    bridge.standin.clear_faults()
    wait.until(lambda: without_room(bridge), "there is no room for what waits", 60)
    server = bridge.cluster.process
    assert server is not None
    # Without room for its WAL a server cannot even recover.
    with pytest.raises(psycopg.OperationalError):
        while True:
            bridge.admin.execute("select pg_switch_wal()")
    wait.until(lambda: server.poll() is not None, "the server has given up", 60)
    disks.resize(bridge.cluster.data, ENOUGH)
    bridge.cluster.restart()
    bridge.connect()
    are_loaded_once(bridge, user, executions)

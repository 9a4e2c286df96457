"""More databases with the extension than can have workers: the one that gets none says so."""

from __future__ import annotations

from collections.abc import Callable

from harness import wait
from harness.bridge import Bridge

MOST = 64


def test_one_database_more_than_can_have_workers(make_bridge: Callable[..., Bridge]) -> None:
    """Each that wants one has its place, also while there is no process for it."""
    bridge = make_bridge({"max_worker_processes": "3"})
    bridge.worker()
    names = [f"shop_{number}" for number in range(MOST)]
    with bridge.cluster.connect() as server:
        for name in names:
            server.execute(f"create database {name} template template0")
            with bridge.cluster.connect(name) as database:
                database.execute("create extension snowflake_bridge")

        def detail() -> str:
            with bridge.cluster.connect(names[-1]) as database:
                [row] = database.execute("select detail, hint from snowflake_bridge.check() where item = 'worker'").fetchall()
                return f"{row['detail']}. {row['hint']}"

        found = wait.until(lambda: "64 other databases have workers" in detail() and detail(), "there is no place for it")
        assert "snowflake_bridge.databases" in found
        server.execute(f"drop database {names[0]}")
        bridge.reload()
        wait.until(lambda: "64 other databases have workers" not in detail(), "there is one")

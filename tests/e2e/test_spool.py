"""Several servers with one spool directory: each sees its own files, and finds them again."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from harness import cluster, lifecycle, wait
from harness.bridge import Bridge
from harness.standin import User

QUERY = {"query": "select n from generate_series(1, 10) n", "table_name": "t"}


@pytest.fixture
def spool() -> Iterator[Path]:
    """A directory that any server of the tests can use."""
    path = cluster.give(cluster.scratch(), 0o700)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def waiting(make_bridge: Callable[..., Bridge], spool: Path) -> tuple[Bridge, User]:
    """A server with rows of a query in the directory, which nobody sends yet."""
    bridge = make_bridge({"snowflake_bridge.spool_directory": str(spool), "snowflake_bridge.databases": "postgres"})
    user = bridge.account.add_user()
    bridge.configure(user)
    bridge.call("upload_query", **QUERY)
    return bridge, user


def directory(spool: Path, bridge: Bridge) -> Path:
    """Where the files of a server's database are."""
    sql = (
        "select s.system_identifier::text as server, d.oid::text as database from pg_control_system() s, pg_database d "
        "where d.datname = current_database()"
    )
    row = bridge.admin.execute(sql).fetchone()
    return spool / row["server"] / row["database"]


def goes_on(bridge: Bridge, user: User) -> None:
    """Restarts the server with its worker, which sends what waits in the directory."""
    bridge.cluster.settings["snowflake_bridge.databases"] = "shop"
    bridge.cluster.restart()
    bridge.connect()
    states = "select state, error_message from snowflake_bridge.uploads"
    row = wait.until(lambda: row if (row := bridge.admin.execute(states).fetchone())["state"] in ("completed", "failed") else None, "it ends")
    assert row["state"] == "completed", row["error_message"]
    assert bridge.row_count(user, "T") == 10


def test_servers_share_a_spool_directory(
    make_bridge: Callable[..., Bridge], spool: Path, waiting: tuple[Bridge, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another initdb is another server.
    monkeypatch.setattr(cluster, "pattern", cluster.pattern.__wrapped__)
    other = make_bridge({"snowflake_bridge.spool_directory": str(spool)})
    other.ready()
    own, others = (directory(spool, bridge) for bridge in (waiting[0], other))
    assert own.name == others.name, "their databases have the same number"
    kept = list(own.rglob("*.parquet"))
    wait.until(others.is_dir, "the other server's worker has its place")
    crashed = others / str(uuid.uuid4())
    crashed.mkdir()
    cluster.give(crashed, 0o700)
    other.reload()
    wait.until(lambda: not crashed.exists(), "the other server tidies up")
    assert kept and all(path.exists() for path in kept), "what is not its own it leaves alone"
    other.close()
    goes_on(*waiting)


def test_a_copy_of_a_running_server_is_kept_out(make_bridge: Callable[..., Bridge], spool: Path, waiting: tuple[Bridge, User]) -> None:
    original, user = waiting
    # All servers of the tests are copies of one.
    copy = make_bridge({"snowflake_bridge.spool_directory": str(spool)})
    copy.configure(copy.account.add_user())
    with pytest.raises(psycopg.errors.ObjectInUse, match="copy") as refused:
        copy.call("upload_query", **QUERY)
    assert "spool_directory" in refused.value.diag.message_hint
    assert not lifecycle.finding(copy.admin, "spool_directory")["ok"]
    wait.until(lambda: "worker cannot start: the spool directory is used" in copy.cluster.log_text(), "nor does its worker use it")
    goes_on(original, user)
    # Where the original is gone, the copy may take its place.
    original.cluster.stop()
    number = wait.until(lambda: copy.call("upload_query", **QUERY), "it may now")
    state = "select state from snowflake_bridge.uploads where id = %s"
    wait.until(lambda: copy.admin.execute(state, [number]).fetchone()["state"] == "completed", "and its worker too", 300)
    assert lifecycle.finding(copy.admin, "spool_directory")["ok"]

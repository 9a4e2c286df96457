"""Each failure costs its own upload: what else waits goes on, and a process that dies is held against nobody else."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import psycopg

from harness import wait
from harness.bridge import TABLE, Bridge
from harness.standin import User


def kill(bridge: Bridge, pid: int) -> None:
    """kill -9, which makes the postmaster restart all its children, and waits until it has."""
    before = bridge.worker()
    os.kill(pid, signal.SIGKILL)

    def answers() -> bool:
        try:
            bridge.connect()
            return bridge.worker() != before
        except psycopg.OperationalError:
            return False

    wait.until(answers, "the server is back, with another worker")


def crashes(bridge: Bridge, *executions: str) -> list[int]:
    return [bridge.upload(execution)["crash_count"] for execution in executions]


def blamed(bridge: Bridge, expected: dict[str, int]) -> None:
    """The next worker has counted the crash; all counts change in one transaction of its, so they are read in one statement."""

    def counted() -> bool:
        sql = "select execution_id, crash_count from snowflake_bridge.uploads where execution_id = any(%s)"
        rows = bridge.admin.execute(sql, [list(expected)]).fetchall()
        return {row["execution_id"]: row["crash_count"] for row in rows} == expected

    wait.until(counted, f"the crash is counted: {expected}")


def watch_function(bridge: Bridge) -> None:
    """A watch whose rows a function gives, which takes as long as the execution's name says."""
    bridge.app.execute(f"create table {TABLE.removeprefix('public.')} (execution_id text unique, user_id text, status text)")
    bridge.app.execute(
        "create function rows_of(id text) returns table (n int) language sql volatile set search_path from current as "
        "$$ select 1 from pg_catalog.pg_sleep(case when id like 'slow%' then 600 else 0 end) $$"
    )
    bridge.call("watch", relation=TABLE, result_function="rows_of(text)")


def run(bridge: Bridge, *executions: str) -> None:
    for execution in executions:
        bridge.app.execute(
            f"insert into {TABLE} (execution_id, status, snowflake_enabled) values (%s, 'completed', true)", [execution]
        )


def readers(bridge: Bridge) -> list[int]:
    """Those that have begun to read."""
    sql = "select pid from pg_stat_activity where backend_type = 'snowflake_bridge reader' and wait_event = 'PgSleep'"
    return [row["pid"] for row in bridge.admin.execute(sql).fetchall()]


def test_a_readers_death_is_held_against_what_it_read(bridge: Bridge) -> None:
    user = bridge.account.add_user()
    bridge.configure(user)
    watch_function(bridge)
    bridge.standin.fault({"kind": "objectstore", "method": "PUT"}, {"delay_ms": 120_000})
    mark = bridge.standin.audit_mark()
    run(bridge, "innocent")
    bridge.uploading({"kind": "objectstore", "method": "PUT"}, mark)
    run(bridge, "slow-poison")
    for crash in (1, 2):
        [victim] = wait.until(lambda: readers(bridge), "somebody reads the poison")
        kill(bridge, victim)
        blamed(bridge, {"innocent": 0, "slow-poison": crash})
        bridge.standin.clear_faults()
    message = bridge.failed("slow-poison")["snowflake_error_message"]
    assert "crashed" in message, message
    assert bridge.completed("innocent")["snowflake_row_count"] == 1
    assert bridge.upload("innocent")["attempt_count"] == 1, "what was not to blame spends no attempt"
    assert not list((bridge.cluster.data / "snowflake_bridge_spool").glob("*/witness-*"))


def test_somebody_elses_crash_is_held_against_no_upload(bridge: Bridge, user: User) -> None:
    bridge.standin.fault({"kind": "objectstore", "method": "PUT"}, {"delay_ms": 120_000}, times=3)
    mark = bridge.standin.audit_mark()
    bridge.run("innocent", [{"n": 1}])
    for _ in range(3):
        mark = bridge.uploading({"kind": "objectstore", "method": "PUT"}, mark)["sequence"]
        kill(bridge, bridge.admin.info.backend_pid)
    bridge.standin.clear_faults()
    bridge.completed("innocent")
    upload = bridge.upload("innocent")
    assert (upload["crash_count"], upload["attempt_count"]) == (0, 1)


def test_the_upload_among_many_that_kills_the_worker(make_bridge: Callable[..., Bridge]) -> None:
    """On the network nobody can tell which it was: all are suspects, and are then tried one at a time."""
    bridge = make_bridge({"snowflake_bridge.max_shared_uploads": "1"})
    user = bridge.ready()
    tables = {f"run-{number}": f"t{number}" for number in range(3)}
    # All stand still on their way until the first crash, and after it the first that is tried again.
    bridge.standin.fault({"kind": "objectstore", "method": "PUT"}, {"delay_ms": 120_000}, times=len(tables) + 2)
    mark = bridge.standin.audit_mark()
    for execution in ["poison", *tables]:
        bridge.run(execution, [{"n": 1}])

    def held() -> int:
        return sum(
            1
            for record in bridge.standin.audit(mark)
            if record["kind"] == "objectstore" and record["finished"] is None
        )

    wait.until(lambda: held() == len(tables) + 1, "all are on their way")
    mark = bridge.standin.audit_mark()
    kill(bridge, bridge.worker())
    blamed(bridge, dict.fromkeys(["poison", *tables], 1))
    bridge.uploading({"kind": "objectstore", "method": "PUT"}, mark)
    # Somebody without a history goes on beside the suspect, and is not blamed for what it does.
    bridge.run("fresh", [{"n": 1}])
    bridge.completed("fresh")
    kill(bridge, bridge.worker())
    bridge.standin.clear_faults()
    for execution in ["poison", *tables, "fresh"]:
        bridge.settled(execution, seconds=60)
    assert sorted(crashes(bridge, "poison", *tables)) == [1] * len(tables) + [2]
    states = sorted(bridge.upload(execution)["state"] for execution in ["poison", *tables, "fresh"])
    assert states == ["completed"] * (len(tables) + 1) + ["failed"]


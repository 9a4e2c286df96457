"""Processes that die and servers that stop: nothing is lost, nothing is doubled, nobody waits."""

from __future__ import annotations

import os
import signal
import time

import psycopg
import pytest

from harness import lifecycle, wait
from harness.bridge import Bridge
from harness.standin import User

ROWS = [{"n": n} for n in range(1000)]
# What an upload in flight may add to a shutdown. The goodbye to Snowflake takes a second at most; the rest is for a machine that is
# busy with other things, and far below the answer that would be waited for. What it takes is measured by `make bench WHAT=shutdown`.
STOP_SECONDS = 20.0
# An exit of the worker alone, within which there is the same goodbye.
EXIT_SECONDS = 30.0
# What a worker waits for when it dies.
at_each_request = pytest.mark.parametrize(
    "match",
    [
        {"kind": "objectstore", "method": "PUT"},
        {"kind": "query", "sql": "COPY INTO"},
        {"kind": "query", "sql": "COMMIT"},
    ],
    ids=["object store", "copy", "commit"],
)


def kill_worker(bridge: Bridge) -> None:
    """kill -9, which makes the postmaster restart all its children, and waits until it has."""
    victim = bridge.worker()
    os.kill(victim, signal.SIGKILL)

    def answers() -> bool:
        try:
            bridge.connect()
            return bridge.worker() != victim
        except psycopg.OperationalError:
            return False

    wait.until(answers, "the server is back, with another worker")


@at_each_request
def test_a_worker_killed_during_an_upload(bridge: Bridge, user: User, match: dict[str, str]) -> None:
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({name: "^\\s*" + text for name, text in match.items()}, {"delay_ms": 120_000})
    bridge.run("run-1", ROWS)
    bridge.uploading(match, mark)
    kill_worker(bridge)
    # The request that was held goes on now, although nobody waits for its answer any more.
    bridge.standin.clear_faults()
    row = bridge.completed("run-1", seconds=60)
    assert row["snowflake_row_count"] == len(ROWS)
    assert sorted(n for (n,) in bridge.results(user, ["N"])) == list(range(len(ROWS)))
    upload = bridge.upload("run-1")
    assert upload["crash_count"] == 1
    assert upload["attempt_count"] == 2


@pytest.mark.parametrize("late", ["COPY INTO", "DELETE"])
def test_a_statement_that_arrives_after_its_worker_and_its_transaction_have_gone(bridge: Bridge, user: User, late: str) -> None:
    """It finds its session without the transaction, and must neither double nor delete what was loaded since."""
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "query", "sql": rf"^\s*{late}"}, {"delay_ms": 120_000})
    if late == "DELETE":
        # Only a repeated load begins with one; as often as this the first attempt asks.
        bridge.standin.fault({"kind": "query", "sql": r"^\s*COPY INTO"}, {"status": 503}, times=4)
    bridge.run("run-1", ROWS)
    bridge.uploading({"kind": "query", "sql": late}, mark, seconds=60)
    kill_worker(bridge)
    bridge.completed("run-1", seconds=60)
    assert bridge.row_count(user) == len(ROWS)
    bridge.standin.clear_faults()
    wait.until(lambda: all(record["finished"] for record in bridge.standin.audit(mark)), "nothing is held any more")
    assert sorted(n for (n,) in bridge.results(user, ["N"])) == list(range(len(ROWS)))


@pytest.mark.parametrize(
    ("statement", "options"),
    [
        ("INSERT OVERWRITE", {"strategy": "replace"}),
        ("MERGE", {"strategy": "upsert", "key_columns": ["n"]}),
        ("UPDATE", None),
    ],
    ids=["replace", "upsert", "rebuilt column"],
)
def test_a_worker_killed_while_rows_are_replaced(bridge: Bridge, user: User, statement: str, options) -> None:
    bridge.run("run-0", [{"n": 1, "v": 0}, {"n": 5000, "v": 0}])
    bridge.completed("run-0")
    mark = bridge.standin.audit_mark()
    match = {"kind": "query", "sql": statement}
    bridge.standin.fault({"kind": "query", "sql": "^\\s*" + statement}, {"delay_ms": 120_000})
    bridge.run("run-1", [{"n": n, "v": 0.5} for n in range(1000)], snowflake_options=options)
    bridge.uploading(match, mark)
    kill_worker(bridge)
    bridge.standin.clear_faults()
    assert bridge.completed("run-1", seconds=60)["snowflake_row_count"] == 1000
    before = {"INSERT OVERWRITE": [], "MERGE": [5000], "UPDATE": [1, 5000]}[statement]
    assert sorted(n for (n,) in bridge.results(user, ["N"])) == sorted([*range(1000), *before])


@at_each_request
def test_an_upload_that_kills_the_worker_again_and_again(make_bridge, match: dict[str, str]) -> None:
    bridge = make_bridge({"snowflake_bridge.max_crashes": "2"})
    user = bridge.ready()
    fault = {name: "^\\s*" + text for name, text in match.items()}
    bridge.standin.fault(fault, {"delay_ms": 120_000}, times=2)
    mark = bridge.standin.audit_mark()
    bridge.run("poison", ROWS)
    for _ in range(2):
        held = bridge.uploading(match, mark)
        mark = held["sequence"]
        kill_worker(bridge)
    message = bridge.failed("poison", seconds=60)["snowflake_error_message"]
    assert "crashed" in message, message
    assert bridge.upload("poison")["crash_count"] == 2
    bridge.standin.clear_faults()
    bridge.run("good", [{"n": 1}])
    bridge.completed("good")
    assert bridge.row_count(user) == 1


def test_a_crash_is_counted_also_if_the_next_worker_never_begins(bridge: Bridge, user: User) -> None:
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into"}, {"delay_ms": 120_000})
    bridge.run("run-1", ROWS)
    bridge.uploading({"sql": "copy into"}, mark)
    keyring = bridge.cluster.keys / "keyring"
    keyring.rename(keyring.with_suffix(".away"))
    kill_worker(bridge)
    waits = "select pid from snowflake_bridge.worker_status() where not key_usable and pid is not null and hint like '%%waits%%'"
    waiting = wait.until(lambda: bridge.admin.execute(waits).fetchone(), "the next worker waits for the key")["pid"]
    bridge.admin.execute("select pg_terminate_backend(%s)", [waiting])
    wait.until(lambda: bridge.worker() != waiting, "there is another one")
    keyring.with_suffix(".away").rename(keyring)
    bridge.standin.clear_faults()
    bridge.completed("run-1", seconds=60)
    assert bridge.upload("run-1")["crash_count"] == 1


def test_a_crash_is_counted_also_if_the_clock_was_set_back(bridge: Bridge, user: User) -> None:
    """To before the server started; otherwise a row that ends the worker would end it for ever."""
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into"}, {"delay_ms": 120_000})
    bridge.run("run-1", ROWS)
    bridge.uploading({"sql": "copy into"}, mark)
    bridge.admin.execute("update snowflake_bridge.uploads set claimed_at = claimed_at - interval '1 day'")
    kill_worker(bridge)
    bridge.standin.clear_faults()
    bridge.completed("run-1", seconds=60)
    upload = bridge.upload("run-1")
    assert (upload["crash_count"], upload["attempt_count"]) == (1, 2)


def test_a_restart_with_work_queued(make_bridge) -> None:
    bridge = make_bridge({"snowflake_bridge.max_concurrent_uploads": "1"})
    user = bridge.ready()
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "objectstore", "method": "PUT"}, {"delay_ms": 120_000})
    for number in range(5):
        bridge.run(f"run-{number}", [{"n": number}])
    bridge.uploading({"kind": "objectstore", "method": "PUT"}, mark)
    bridge.cluster.stop()
    bridge.standin.clear_faults()
    bridge.cluster.start()
    bridge.connect()
    for number in range(5):
        bridge.completed(f"run-{number}")
    assert sorted(bridge.results(user, ["N"])) == [(number,) for number in range(5)]
    ended = bridge.admin.execute("select execution_id from snowflake_bridge.uploads order by completed_at").fetchall()
    assert ended[0]["execution_id"] == "run-0", "what had begun goes on before what waited"
    assert bridge.upload("run-4")["crash_count"] == 0, "an orderly stop is not a crash"
    assert bridge.upload("run-0")["crash_count"] == 0, "an orderly stop is not a crash"


@pytest.mark.parametrize(
    "match",
    [
        {"kind": "login"},
        {"kind": "objectstore", "method": "PUT"},
        {"kind": "query", "sql": "COPY INTO"},
    ],
    ids=["login", "object store", "copy"],
)
def test_a_fast_shutdown_with_an_upload_in_flight(bridge: Bridge, user: User, match: dict[str, str]) -> None:
    idle = lifecycle.seconds_to_stop(bridge)
    bridge.cluster.start()
    bridge.connect()
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({name: "^\\s*" + text for name, text in match.items()}, {"delay_ms": 120_000})
    bridge.run("run-1", ROWS)
    bridge.uploading(match, mark)
    assert lifecycle.seconds_to_stop(bridge) < idle + STOP_SECONDS
    bridge.standin.clear_faults()
    bridge.cluster.start()
    bridge.connect()
    bridge.completed("run-1")
    assert bridge.row_count(user) == len(ROWS)


def test_sigterm_to_the_worker_alone(bridge: Bridge, user: User) -> None:
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into"}, {"delay_ms": 120_000})
    bridge.run("run-1", ROWS)
    bridge.uploading({"kind": "query", "sql": "COPY INTO"}, mark)
    first = bridge.worker()
    bridge.admin.execute("select pg_terminate_backend(%s)", [first])
    wait.until(lambda: not os.path.exists(f"/proc/{first}"), "the worker has ended", EXIT_SECONDS)
    bridge.standin.clear_faults()
    bridge.completed("run-1", seconds=60)
    assert bridge.row_count(user) == len(ROWS)


def test_a_cancel_of_the_worker_ends_nothing(bridge: Bridge, user: User) -> None:
    """As of a session between two statements."""
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into"}, {"delay_ms": 120_000})
    bridge.run("run-1", ROWS)
    bridge.uploading({"sql": "copy into"}, mark)
    before = bridge.worker()
    bridge.admin.execute("select pg_cancel_backend(%s)", [before])
    # It is there and has its looks at the queue.
    bridge.run("run-2", ROWS, snowflake_table_name="others")
    bridge.completed("run-2")
    bridge.standin.clear_faults()
    bridge.completed("run-1")
    assert bridge.worker() == before
    assert bridge.upload("run-1")["attempt_count"] == 1


def test_drop_database_does_not_wait_for_an_upload(bridge: Bridge, user: User) -> None:
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into"}, {"delay_ms": 120_000})
    bridge.run("run-1", ROWS)
    bridge.uploading({"kind": "query", "sql": "COPY INTO"}, mark)
    with bridge.cluster.connect() as server:
        server.execute("create database bystander")
        began = time.monotonic()
        server.execute("drop database bystander")
        assert time.monotonic() - began < EXIT_SECONDS
    bridge.standin.clear_faults()
    bridge.completed("run-1")


def test_a_worker_that_stops_closes_its_sessions(bridge: Bridge, user: User) -> None:
    start = bridge.standin.audit_mark()
    bridge.run("run-1", ROWS)
    bridge.completed("run-1")
    bridge.tidied_up(start)
    mark = bridge.standin.audit_mark()
    os.kill(bridge.worker(), signal.SIGTERM)

    def closed() -> bool:
        return any(
            request["kind"] == "session" and request["query"].get("delete") == "true" and request["status"] == 200
            for request in bridge.standin.audit(mark)
        )

    wait.until(closed, "the idle session is closed")

"""`python -m chaos.shared PACKAGE`: the worker dies by SIGKILL while uploads share one COPY: while it writes down how far they are, before and
after the COMMIT of all, and between the ends of one and of the next. Each row is there once, and each upload says so.

PACKAGE is what `cargo pgrx package` made of a build with fail points. Ends with one line, `shared: kills=… uploads=…`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import psycopg

from chaos.ordered import Order, Stop, server
from harness import wait
from harness.bridge import RESULTS, Bridge
from harness.standin import User

MANY = 12
# Where it dies, at which coming there, and whether all are staged before. What is recorded together is one transaction.
PLACES = (
    ("recording", 5, False),
    ("recording", 9, True),
    ("loaded", 1, True),
    ("committed", 1, True),
    ("completing", 7, True),
)
SETTINGS = {
    "snowflake_bridge.crash_retry_delay": "0",
    "snowflake_bridge.max_shared_uploads": str(MANY),
    # One owner has half of them, and each upload may lead a COPY of its own: a worker that is slow gathers less.
    "snowflake_bridge.max_concurrent_uploads": str(2 * MANY),
}


def main() -> int:
    with server(sys.argv[1], SETTINGS) as (bridge, orders):
        user = bridge.ready()
        bridge.run("first", [{"n": 0}])
        bridge.completed("first")
        for number, (place, coming, are_staged) in enumerate(PLACES):
            die(bridge, orders, user, f"{number}-{place}", place, coming, are_staged=are_staged)
    print(f"shared: kills={len(PLACES)} uploads={len(PLACES) * MANY}")
    return 0


def die(bridge: Bridge, orders: Path, user: User, name: str, place: str, coming: int, *, are_staged: bool) -> None:
    """Uploads that share a COPY, the death of their worker, and what became of them."""
    executions = [f"{name}-{number}" for number in range(MANY)]
    before = bridge.worker()
    # What is staged waits here for the orders.
    bridge.standin.fault({"kind": "query", "sql": r"^\s*begin"}, {"delay_ms": 120_000}, times=MANY)
    if not are_staged:
        told = order(orders, place, coming)
    with bridge.app.transaction():
        for number, execution in enumerate(executions):
            bridge.run(execution, [{"n": number}, {"n": number}])
    if are_staged:
        wait.until(lambda: in_state(bridge, name, "staged") == MANY, "all are staged")
        told = order(orders, place, coming)
        bridge.standin.clear_faults()
    for number in range(1, coming):
        wait.until(told.is_taken, f"somebody comes to {place}")
        if place == "completing":
            assert in_state(bridge, name, "completed") == number - 1, "those before have ended, and no other"
        stop, told = told, order(orders, place, coming - number)
        stop.let_go()
    wait.until(told.is_taken, f"the worker dies at {place}")
    bridge.standin.clear_faults()
    wait.until(lambda: is_back(bridge, before), "the server is back, with another worker")
    for execution in executions:
        assert bridge.completed(execution, seconds=60)["snowflake_row_count"] == 2
        assert bridge.upload(execution)["row_count"] == 2
    columns = "EXECUTION_ID, count(*), count(distinct N), count(distinct UPLOAD_ID)"
    found = bridge.results(user, columns, RESULTS, f"where EXECUTION_ID like '{name}-%' group by EXECUTION_ID")
    assert sorted(found) == sorted((execution, 2, 1, 1) for execution in executions), f"{name}: {found}"
    crashes = bridge.admin.execute(
        "select count(*) as n from snowflake_bridge.uploads where execution_id like %s and crash_count > 0", [f"{name}-%"]
    ).fetchone()
    assert crashes is not None and crashes["n"] > 1, "it was the death of several"
    print(f"{place}, at the {coming}. coming: {crashes['n']} of {MANY} uploads were under way, and all are there once", flush=True)


def order(orders: Path, place: str, comings: int) -> Order | Stop:
    """What the next one who comes there has to do, who is the last of so many."""
    return Stop(orders, place) if comings > 1 else Order(orders, place, "kill")


def in_state(bridge: Bridge, name: str, state: str) -> int:
    """How many of these uploads are in a state."""
    sql = "select count(*) as n from snowflake_bridge.uploads where execution_id like %s and state = %s"
    row = bridge.admin.execute(sql, [f"{name}-%", state]).fetchone()
    return int(row["n"]) if row else 0


def is_back(bridge: Bridge, before: int) -> bool:
    """Whether the server has another worker."""
    try:
        bridge.connect()
        return bridge.worker() != before
    except psycopg.OperationalError:
        return False


if __name__ == "__main__":
    sys.exit(main())

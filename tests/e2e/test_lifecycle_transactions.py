"""Ways of writing that pass by the usual end of a transaction: prepared ones, and replication."""

from __future__ import annotations

from collections.abc import Callable

from harness import lifecycle, wait
from harness.bridge import DATABASE, TABLE, Bridge

QUEUED = "select count(*) as n from snowflake_bridge.uploads"


def queued(connection) -> int:
    """How many uploads were ever queued."""
    return connection.execute(QUEUED).fetchone()["n"]


def test_a_prepared_transaction_is_found_by_the_poll(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge({"max_prepared_transactions": "5"})
    user = bridge.ready()
    for execution in ("kept", "dropped", "seen"):
        bridge.start_execution(execution)
    for execution in ("kept", "dropped"):
        bridge.app.execute("begin")
        bridge.finish(execution, lifecycle.ROWS)
        bridge.app.execute(f"prepare transaction '{execution}'")
    # The worker has its look at the queue, and sees neither; the executions are locked, and others are not held up.
    bridge.finish("seen", lifecycle.ROWS)
    bridge.completed("seen")
    assert queued(bridge.admin) == 1
    bridge.cluster.restart()
    bridge.connect()
    bridge.app.execute("commit prepared 'kept'")
    bridge.app.execute("rollback prepared 'dropped'")
    bridge.completed("kept")
    assert bridge.execution("dropped")["snowflake_status"] is None
    assert queued(bridge.admin) == 2
    assert bridge.row_count(user) == 2 * len(lifecycle.ROWS)


def test_rows_that_replication_applies_are_not_sent_again(make_bridge: Callable[..., Bridge]) -> None:
    publisher = make_bridge({"wal_level": "logical"})
    user = publisher.ready()
    subscriber = make_bridge()
    subscriber.configure(subscriber.account.add_user())
    subscriber.watch()
    publisher.admin.execute(f"create publication runs for table {TABLE}")
    source = f"host={publisher.cluster.sockets} dbname={DATABASE} user=postgres"
    subscriber.admin.execute(f"create subscription runs connection '{source}' publication runs")
    publisher.run("replicated", lifecycle.ROWS)
    publisher.completed("replicated")

    def arrived() -> bool:
        sql = f"select from {TABLE} where execution_id = 'replicated' and snowflake_status = 'completed'"
        return subscriber.app.execute(sql).fetchone() is not None

    wait.until(arrived, "the row has arrived, with the status that the publisher's worker wrote")
    assert queued(subscriber.admin) == 0
    # What the subscriber itself finishes, it sends.
    subscriber.run("its own", lifecycle.ROWS)
    subscriber.completed("its own")
    assert queued(subscriber.admin) == 1
    assert publisher.row_count(user) == len(lifecycle.ROWS)
    subscriber.admin.execute("drop subscription runs")

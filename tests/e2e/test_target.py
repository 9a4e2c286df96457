"""The target table is changed by somebody while an upload is under way: completed is what was there at COMMIT."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import wait
from harness.bridge import RESULTS, Bridge
from harness.standin import User

ROWS = [{"n": n} for n in range(20)]
QUALIFIED = f"ANALYTICS_DB.REPORTS.{RESULTS}"
HELD = {"delay_ms": 120_000}
INTERFERENCE = {
    "dropped": f"drop table {QUALIFIED}",
    "replaced": f"create or replace table {QUALIFIED} (N number(38,0), OTHER varchar)",
    "truncated": f"truncate table {QUALIFIED}",
}
interfered = pytest.mark.parametrize("interference", INTERFERENCE.values(), ids=INTERFERENCE.keys())


@pytest.fixture
def target(bridge: Bridge, user: User) -> User:
    """The user, with a table that holds the rows of an earlier execution."""
    bridge.run("run-0", [{"n": -1}])
    bridge.completed("run-0")
    return user


def rows_of(bridge: Bridge, user: User, execution_id: str) -> list[int]:
    """What the table holds of an execution."""
    return sorted(n for (n,) in bridge.results(user, ["N"], tail=f"where execution_id = '{execution_id}'"))


def abort(bridge: Bridge, execution_id: str) -> None:
    """Ends the transaction that the upload has recorded, as whoever may do so in the account can."""
    transaction = bridge.upload(execution_id)["transaction_id"]
    bridge.account.sql(f"select system$abort_transaction({transaction})")


def test_a_transaction_that_somebody_aborts(bridge: Bridge, user: User) -> None:
    """The COPY then stands in a transaction without the DELETE before it, which would leave both results there."""
    bridge.run("run-1", ROWS)
    bridge.completed("run-1")
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into"}, HELD)
    bridge.finish("run-1", [{"n": n} for n in range(100, 110)])
    bridge.uploading({"sql": "copy into"}, mark)
    abort(bridge, "run-1")
    bridge.standin.clear_faults()
    wait.until(lambda: bridge.execution("run-1")["snowflake_row_count"] == 10, "the new result is uploaded")
    assert rows_of(bridge, user, "run-1") == list(range(100, 110))
    assert bridge.upload("run-1")["attempt_count"] == 2


def test_a_transaction_that_snowflake_has_forgotten(make_bridge: Callable[..., Bridge]) -> None:
    """The rows tell what became of it: those of the table that it was about, although the configuration now says another one."""
    bridge = make_bridge({"snowflake_bridge.retry_base_delay": "1h", "snowflake_bridge.retry_max_delay": "1h"})
    user = bridge.ready()
    asked = {"kind": "query", "sql": r"^\s*describe transaction"}
    bridge.standin.fault({"kind": "query", "sql": r"^\s*commit"}, {"lose_answer": True}, times=20)
    bridge.standin.fault(asked, {"status": 503}, times=20)
    bridge.run("run-1", ROWS)
    wait.until(lambda: bridge.upload("run-1")["state"] == "retry", "the attempt has failed", 60)
    bridge.call("update_config", name="default", schema="PUBLIC")
    bridge.standin.clear_faults()
    bridge.standin.fault(asked, {"error": {"code": "002003", "sqlState": "02000", "message": "does not exist or not authorized"}})
    bridge.admin.execute("update snowflake_bridge.uploads set next_attempt_at = now()")
    bridge.reload()
    bridge.completed("run-1")
    assert bridge.standin.faults_left() == 0, "it was asked what became of the transaction"
    assert bridge.upload("run-1")["target"] == QUALIFIED
    assert rows_of(bridge, user, "run-1") == list(range(len(ROWS)))
    assert not bridge.account.sql("show tables in schema ANALYTICS_DB.PUBLIC")


@interfered
@pytest.mark.parametrize("held", ["describe table", "begin", "copy into"])
def test_after_staging(bridge: Bridge, target: User, held: str, interference: str) -> None:
    """What is loaded later is loaded into the table that there is then."""
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "query", "sql": rf"^\s*{held}"}, HELD)
    bridge.run("run-1", ROWS)
    bridge.uploading({"sql": held}, mark)
    bridge.account.sql(interference)
    bridge.standin.clear_faults()
    bridge.completed("run-1")
    assert rows_of(bridge, target, "run-1") == list(range(20))


@interfered
def test_before_commit(bridge: Bridge, target: User, interference: str) -> None:
    """The rows are copied and not committed: the other statement waits for COMMIT, and comes after it."""
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "query", "sql": r"^\s*commit"}, HELD)
    bridge.run("run-1", ROWS)
    bridge.uploading({"sql": "commit"}, mark)
    with ThreadPoolExecutor() as threads:
        other = threads.submit(bridge.account.sql, interference)
        # Long enough to find out; it would be over at once if it did not wait.
        with pytest.raises(TimeoutError):
            other.result(timeout=1)
        bridge.standin.clear_faults()
        assert bridge.completed("run-1")["snowflake_row_count"] == len(ROWS)
        other.result(timeout=30)
    [transaction] = bridge.account.sql(f"describe transaction {bridge.upload('run-1')['transaction_id']}")
    assert "committed" in transaction


@interfered
def test_between_attempts(bridge: Bridge, target: User, interference: str) -> None:
    bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into"}, {"status": 503}, times=1_000)
    bridge.run("run-1", ROWS)
    wait.until(lambda: bridge.upload("run-1")["attempt_count"] > 1, "the first attempt has failed")
    bridge.account.sql(interference)
    bridge.standin.clear_faults()
    bridge.completed("run-1")
    assert rows_of(bridge, target, "run-1") == list(range(20))

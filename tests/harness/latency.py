"""How long an upload takes from the application's COMMIT, measured one after another on an otherwise idle bridge."""

from __future__ import annotations

import functools
import statistics
from dataclasses import dataclass

from harness import wait
from harness.bridge import Bridge

# The server itself notes when a transaction was committed.
SETTINGS = {"track_commit_timestamp": "on"}
ROWS = [{"n": n, "name": f"row {n}", "amount": n / 4, "flag": n % 2 == 0} for n in range(100)]


@dataclass(frozen=True)
class Latency:
    """Milliseconds from the COMMIT, as the server has noted it.

    To the worker having claimed the upload, by the server's clock as well: waking up, a transaction, and the claim's statement
    up to the row it takes. To the first request on the wire: also the claim's commit, reading the result, encoding and spooling
    it, and the stand-in's thread that reads the head of the request. To `completed` in the application's row, committed: everything.
    """

    claimed: list[float]
    first_request: list[float]
    completed: list[float]

    def report(self) -> str:
        """A line for each, for people."""
        measured = (("claim", self.claimed), ("first request on the wire", self.first_request), ("completed", self.completed))
        return "\n".join(
            f"commit -> {what:<26} p50 {percentile(values, 50):7.2f} ms   p99 {percentile(values, 99):7.2f} ms   "
            f"max {max(values):7.2f} ms   n = {len(values)}"
            for what, values in measured
        )


def percentile(values: list[float], percent: int) -> float:
    """The value that `percent` of the measured values do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def measure(bridge: Bridge, count: int) -> Latency:
    """`count` uploads of 100 rows each, after one that opens the session and makes the table."""
    bridge.run("warm-up", ROWS)
    bridge.completed("warm-up")
    # The server notes the moment before it waits for its disk, which the application does whatever the bridge does. So it
    # does not wait here.
    bridge.app.execute("set synchronous_commit = off")
    measured = Latency([], [], [])
    for number in range(count):
        execution = f"run-{number}"
        bridge.start_execution(execution)
        mark = bridge.standin.audit_mark()
        with bridge.app.transaction():
            bridge.finish(execution, ROWS)
            [row] = bridge.app.execute("select pg_current_xact_id()::xid::text as xid").fetchall()
        # Seldom: looking takes a processor from those who are looked at.
        ended = wait.until(functools.partial(completed_at, bridge, execution), f"{execution} completes")
        committed = commit_time(bridge, row["xid"])
        claimed = bridge.upload(execution)["claimed_at"].timestamp()
        # The stand-in stamps a request when its head has arrived, by the clock that the server reads too.
        # What the upload before it has left may be tidied up meanwhile.
        first = next(record["time"] for record in bridge.standin.audit(mark) if (record["sql"] or "").startswith("PUT"))
        for series, moment in ((measured.claimed, claimed), (measured.first_request, first), (measured.completed, ended)):
            series.append((moment - committed) * 1000)
    return measured


def commit_time(bridge: Bridge, xid: str) -> float:
    """When that transaction was committed, in seconds since 1970."""
    sql = "select extract(epoch from pg_xact_commit_timestamp(%s::text::xid))::float8 as moment"
    [row] = bridge.app.execute(sql, [xid]).fetchall()
    return float(row["moment"])


def completed_at(bridge: Bridge, execution: str) -> float | None:
    """When the status was committed, as the server has noted it too."""
    sql = (
        "select extract(epoch from pg_xact_commit_timestamp(xmin))::float8 as moment from workflow_executions "
        "where execution_id = %s and snowflake_status = 'completed'"
    )
    row = bridge.app.execute(sql, [execution]).fetchone()
    return None if row is None else float(row["moment"])

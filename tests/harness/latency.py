"""How long an upload takes from the application's COMMIT, measured one after another on an otherwise idle bridge."""

from __future__ import annotations

import functools
import statistics
import time
from dataclasses import dataclass

from harness import wait
from harness.bridge import Bridge

ROWS = [{"n": n, "name": f"row {n}", "amount": n / 4, "flag": n % 2 == 0} for n in range(100)]
POLL = 0.002


@dataclass(frozen=True)
class Latency:
    """Milliseconds from just before COMMIT was sent: to the claim, to the first request on the wire, and to `completed` being
    visible."""

    claimed: list[float]
    first_request: list[float]
    completed: list[float]

    def report(self) -> str:
        """A line for each, for people."""
        measured = (("claim", self.claimed), ("first request on the wire", self.first_request), ("completed", self.completed))
        return "\n".join(
            f"commit -> {what:<26} p50 {percentile(values, 50):7.1f} ms   p99 {percentile(values, 99):7.1f} ms   max {max(values):7.1f} ms   n = {len(values)}"
            for what, values in measured
        )


def percentile(values: list[float], percent: int) -> float:
    """The value that `percent` of the measured values do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def measure(bridge: Bridge, count: int) -> Latency:
    """`count` uploads of 100 rows each, after one that opens the session and makes the table."""
    bridge.run("warm-up", ROWS)
    bridge.completed("warm-up")
    claimed: list[float] = []
    first_request: list[float] = []
    completed: list[float] = []
    for number in range(count):
        execution = f"run-{number}"
        bridge.start_execution(execution)
        mark = bridge.standin.audit_mark()
        with bridge.app.transaction():
            bridge.finish(execution, ROWS)
            began, moment = time.monotonic(), time.time()
        wait.until(functools.partial(is_completed, bridge, execution), f"{execution} completes", pause=POLL)
        completed.append((time.monotonic() - began) * 1000)
        claimed.append((bridge.upload(execution)["claimed_at"].timestamp() - moment) * 1000)
        # The stand-in stamps a request when its head has arrived, with the clock that this process reads too.
        first_request.append((bridge.standin.audit(mark)[0]["monotonic"] - began) * 1000)
    return Latency(claimed, first_request, completed)


def is_completed(bridge: Bridge, execution: str) -> bool:
    """Looks at the status only, so that looking often costs little."""
    sql = "select from workflow_executions where execution_id = %s and snowflake_status = 'completed'"
    return bridge.app.execute(sql, [execution]).fetchone() is not None

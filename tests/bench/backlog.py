"""Whether an execution costs more where many wait: the first of a queue are loaded, whose length differs."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass

from bench import results, small
from bench.processes import Cpu
from bench.world import REAL, scaled
from harness import wait
from harness.bridge import Bridge
from harness.standin import Standin

QUEUES = "1000 10000 100000 1000000"
ROWS = 10
# Ten for each table at the least, so that a shared COPY has its fill even in the shortest queue.
USERS = TABLES = 10
SAMPLE = 1_000
SETTINGS = {**REAL, "max_wal_size": "8GB", "shared_buffers": "512MB", "snowflake_bridge.max_shared_uploads": "10"}
SECONDS = 3_600.0


@dataclass(frozen=True)
class Cost:
    """What one execution of a queue costs."""

    queue: int
    loaded: int
    enqueue_us: float
    milliseconds: float
    worker_ms: float
    standin_ms: float
    copies: float

    def report(self) -> str:
        """One line for people."""
        return (
            f"queue of {self.queue:>8}: {self.enqueue_us:6.0f} us to enter one, with its row; {self.milliseconds:7.2f} ms to load one of the "
            f"first {self.loaded}, {self.copies:.3f} COPY; processor time {self.worker_ms:.2f} ms in the worker, "
            f"{self.standin_ms:.2f} ms in the stand-in"
        )


def measure(queue: int, sample: int = SAMPLE) -> Cost:
    """A queue of its own server, which is thrown away once enough of it is loaded."""
    with contextlib.closing(Standin()) as standin, contextlib.closing(Bridge(standin, SETTINGS)) as bridge:
        small.prepare(bridge, USERS)
        # The session is open and the tables are there before anything is measured.
        small.finish(bridge, "first", TABLES, ROWS, USERS, TABLES)
        wait.until(lambda: loaded(bridge) == TABLES, "the tables are there", SECONDS)
        heard = small.Heard(standin)
        began = time.monotonic()
        # Their tables are those that are there.
        small.finish(bridge, "first", queue, ROWS, USERS, TABLES, first=TABLES + 1)
        entered = time.monotonic()
        cpu = Cpu({"worker": bridge.worker(), "standin": standin.process.pid})
        # Looking takes time as well, where many wait.
        pause = max(small.LOOK_SECONDS, queue / 250_000)
        count = wait.until(lambda: at_least(loaded(bridge) - TABLES, min(queue, sample)), "enough are loaded", SECONDS, pause=pause)
        seconds, used = time.monotonic() - entered, cpu.used()
        # Those that were answered by now: the worker goes on with the rest of the queue.
        heard.listen()
        return Cost(
            queue,
            count,
            (entered - began) / queue * 1e6,
            seconds / count * 1000,
            used["cpu_worker"] / count * 1000,
            used["cpu_standin"] / count * 1000,
            heard.copies / count,
        )


def loaded(bridge: Bridge) -> int:
    """How many uploads have completed; that one has ended otherwise is an error."""
    sql = (
        "select count(*) filter (where state = 'completed') as good, "
        "count(*) filter (where state in ('failed', 'needs_credentials')) as bad from snowflake_bridge.uploads"
    )
    [row] = bridge.admin.execute(sql).fetchall()
    assert row["bad"] == 0, f"{row['bad']} uploads have failed"
    return int(row["good"])


def at_least(count: int, enough: int) -> int:
    """The count if it suffices."""
    return count if count >= enough else 0


def main(arguments: list[str]) -> None:
    """Measures, prints and keeps the results. Arguments are lengths of queues, as QUEUES is."""
    queues = [int(argument) for argument in arguments] or [scaled(int(queue), 200) for queue in (os.environ.get("QUEUES") or QUEUES).split()]
    costs = [measure(queue) for queue in sorted(set(queues))]
    for cost in costs:
        print(cost.report())
        results.add(
            **{
                f"queue_{cost.queue}_enter_us": round(cost.enqueue_us, 1),
                f"queue_{cost.queue}_ms_per_job": round(cost.milliseconds, 2),
                f"queue_{cost.queue}_worker_cpu_ms_per_job": round(cost.worker_ms, 2),
            }
        )
    print(f"one of the longest queue costs {costs[-1].worker_ms / costs[0].worker_ms:.2f} x the processor time of one of the shortest")

"""How long a fast shutdown takes with uploads in flight, each of which waits for an answer that does not come."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field

from bench import results
from bench.world import REAL
from harness import lifecycle, wait
from harness.bridge import DATABASE, TABLE, Bridge
from harness.latency import percentile
from harness.standin import Standin

# One database sends at most 64 uploads at once, half of them for one connection; more of them take more databases.
# Each has a COPY of its own, by which it is counted.
SETTINGS = {**REAL, "snowflake_bridge.max_concurrent_uploads": "64", "snowflake_bridge.max_shared_uploads": "1"}
EACH = 25
COUNTS = [0, 10, 100]
# A percentile takes two.
ROUNDS = max(2, int(os.environ.get("ROUNDS") or 10))
SECONDS = 300.0


@dataclass
class Shutdown:
    """Seconds from the signal to the end of the last process, with `count` uploads in flight."""

    count: int
    databases: int
    seconds: list[float] = field(default_factory=list)

    def report(self) -> str:
        """One line for people."""
        return (
            f"fast shutdown with {self.count:3d} uploads in flight, {self.databases} databases: "
            f"p50 {percentile(self.seconds, 50):.2f} s   p99 {percentile(self.seconds, 99):.2f} s   max {max(self.seconds):.2f} s   "
            f"n = {len(self.seconds)}   load average {os.getloadavg()[0]:.1f}"
        )


def measure(bridge: Bridge, *counts: int) -> list[Shutdown]:
    """Each number of uploads several times, in as many databases as it takes. What was in flight is loaded at the end."""
    databases = copies(bridge, max(-(-count // EACH) for count in counts))
    measured = []
    for count in counts:
        shutdown = Shutdown(count, len(databases))
        for number in range(ROUNDS):
            in_flight(bridge, databases, count, f"{count}-{number}")
            began = time.monotonic()
            bridge.cluster.stop()
            shutdown.seconds.append(time.monotonic() - began)
            bridge.standin.clear_faults()
            bridge.cluster.start()
            everything_is_loaded(bridge, databases)
        measured.append(shutdown)
    return measured


def copies(bridge: Bridge, count: int) -> list[str]:
    """So many databases with the same configuration and the same watched table, whose Snowflake table exists."""
    bridge.run("warm-up", lifecycle.ROWS)
    bridge.completed("warm-up")
    bridge.app.close()
    bridge.admin.close()
    names = [DATABASE, *(f"{DATABASE}_{number}" for number in range(2, count + 1))]
    for name in names[1:]:
        with bridge.cluster.connect() as server:
            server.execute(f"create database {name} template {DATABASE}")
        with bridge.cluster.connect(name) as copy:
            copy.execute("select snowflake_bridge.adopt()")
    return names


def in_flight(bridge: Bridge, databases: list[str], count: int, name: str) -> None:
    """Has so many uploads wait for the answer to COPY at once, evenly in all databases."""
    mark = lifecycle.hold(bridge, times=count) if count else 0
    for number, database in enumerate(databases):
        with bridge.cluster.connect(database, "app") as app:
            app.execute(
                f"insert into {TABLE} (execution_id, status, snowflake_enabled, result_rows)"
                " select %s || n, 'completed', true, '[{\"n\": 1}]' from generate_series(%s::int, %s, %s) n",
                [f"{name}-", number + 1, count, len(databases)],
            )

    def held() -> bool:
        requests = [record for record in bridge.standin.audit(mark) if record["finished"] is None]
        return len([request for request in requests if (request["sql"] or "").startswith("COPY")]) == count

    wait.until(held, f"{count} uploads are in flight", SECONDS, pause=0.1)


def everything_is_loaded(bridge: Bridge, databases: list[str]) -> None:
    """Waits until no upload is open, in the order in which nobody is waited for longer than needed."""
    unfinished = "select from snowflake_bridge.uploads where state <> 'completed' and state <> 'canceled' limit 1"
    for database in databases:
        with contextlib.closing(bridge.cluster.connect(database)) as connection:
            wait.until(lambda c=connection: not c.execute(unfinished).fetchall(), f"{database} is done", SECONDS, pause=0.1)


def main(arguments: list[str]) -> None:
    """Measures and prints. Arguments are how many uploads are in flight."""
    with contextlib.closing(Standin()) as standin, contextlib.closing(Bridge(standin, SETTINGS)) as bridge:
        bridge.ready()
        for measured in measure(bridge, *(map(int, arguments) if arguments else COUNTS)):
            print(measured.report())
            name, seconds = f"shutdown_{measured.count}", measured.seconds
            results.add(**{f"{name}_p{percent}": round(percentile(seconds, percent), 2) for percent in (50, 99)})
            results.add(**{f"{name}_max": round(max(seconds), 2), f"{name}_rounds": len(seconds)})

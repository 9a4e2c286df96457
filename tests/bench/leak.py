"""What the worker keeps over many uploads, what it holds meanwhile, and what it asks of the database when nothing is to be done."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from bench import results
from bench.world import REAL, scaled
from harness import wait
from harness.bridge import TABLE, Bridge
from harness.standin import Standin

SETTINGS = {**REAL, "shared_preload_libraries": "snowflake_bridge,pg_stat_statements", "snowflake_bridge.poll_interval": "30s"}
COUNT = 10_000
IDLE_SECONDS = 120
BATCH = 100
# Caches fill, and the allocator finds its size, during the first uploads.
WARM_UP = 300
SAMPLE_SECONDS = 0.02
SETTLE_SECONDS = 0.3
# A look closes the sessions, which are then opened anew.
BETWEEN_LOOKS = 1_000
# What could not be removed from the stage at once is, some minutes later.
SEND_SECONDS = 900.0
ENDED_BADLY = "('failed', 'canceled', 'needs_credentials')"
ROWS = '[{"n": 1, "name": "one"}, {"n": 2, "name": "two"}]'


@dataclass(frozen=True)
class Size:
    """The worker at one moment: memory of its own in kB, open files, threads."""

    uploads: int
    memory: int
    files: int
    threads: int

    def __str__(self) -> str:
        return f"after {self.uploads:6d} uploads: {self.memory:7d} kB, {self.files:3d} file descriptors, {self.threads} threads"


@dataclass
class Leak:
    """What was measured."""

    sizes: list[Size] = field(default_factory=list)
    snapshots: Snapshots | None = None
    seconds: float = 0.0

    def kilobytes_per_thousand(self) -> float:
        """The slope of the memory, by least squares."""
        count = len(self.sizes)
        mean_x = sum(size.uploads for size in self.sizes) / count
        mean_y = sum(size.memory for size in self.sizes) / count
        covariance = sum((size.uploads - mean_x) * (size.memory - mean_y) for size in self.sizes)
        return 1000 * covariance / sum((size.uploads - mean_x) ** 2 for size in self.sizes)

    def report(self) -> str:
        """Lines for people."""
        first, middle, last = self.sizes[0], self.sizes[len(self.sizes) // 2], self.sizes[-1]
        assert self.snapshots is not None
        return "\n".join(
            [
                *(str(size) for size in (first, middle, last)),
                f"memory: {self.kilobytes_per_thousand():+.1f} kB for each 1000 uploads; {last.uploads / self.seconds:.1f} uploads/s",
                f"oldest snapshot of worker and readers: {self.snapshots.oldest * 1000:.0f} ms, in {self.snapshots.looks} looks",
            ]
        )


@dataclass
class Snapshots:
    """How long a process of the bridge was seen to have one snapshot, in seconds."""

    oldest: float = 0.0
    looks: int = 0

    def look(self, connection: psycopg.Connection[dict[str, Any]]) -> None:
        """One look at the transactions that hold VACUUM back."""
        sql = (
            "select coalesce(max(extract(epoch from clock_timestamp() - xact_start)), 0)::float8 as age from pg_stat_activity"
            " where backend_type like 'snowflake_bridge%' and backend_xmin is not null"
        )
        [row] = connection.execute(sql).fetchall()
        self.oldest = max(self.oldest, row["age"])
        self.looks += 1


@contextlib.contextmanager
def watched_snapshots(bridge: Bridge) -> Iterator[Snapshots]:
    """Looks again and again until the block ends, on a connection of its own."""
    snapshots = Snapshots()
    over = threading.Event()

    def look() -> None:
        with bridge.cluster.connect("shop") as connection:
            while not over.wait(SAMPLE_SECONDS):
                snapshots.look(connection)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield snapshots
    finally:
        over.set()
        thread.join()


def size(pid: int, uploads: int) -> Size:
    """What the operating system says of a process."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return Size(uploads, int(status["RssAnon"].split()[0]), len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"]))


def settled(bridge: Bridge, pid: int, uploads: int) -> Size:
    """The same once the worker has given back what it does not need, which it does at once when the settings are read again."""
    bridge.reload()
    last = size(pid, uploads)

    def look() -> Size | None:
        nonlocal last
        before, last = last, size(pid, uploads)
        return last if before.memory == last.memory else None

    return wait.until(look, "the worker's memory has settled", pause=SETTLE_SECONDS)


def send(bridge: Bridge, count: int, name: str) -> None:
    """`count` small uploads, queued by one statement; returns when all have completed and the stage is tidy."""
    bridge.app.execute(
        f"insert into {TABLE} (execution_id, status, snowflake_enabled, result_rows)"
        f" select %s || n, 'completed', true, %s from generate_series(1, %s) n",
        [f"{name}-", ROWS, count],
    )
    unended = "from snowflake_bridge.uploads where state <> 'completed' or needs_mirror or clean_up_after is not null"

    def is_done() -> bool:
        [row] = bridge.admin.execute(
            f"select count(*) as open, count(*) filter (where state in {ENDED_BADLY}) as failed {unended}"
        ).fetchall()
        assert row["failed"] == 0, "an upload has failed"
        return bool(row["open"] == 0)

    try:
        wait.until(is_done, f"{count} uploads complete", SEND_SECONDS, pause=0.1)
    except wait.Late as late:
        example = bridge.admin.execute(f"select * {unended} order by id limit 1").fetchone()
        raise AssertionError(f"{late}, such as {example}") from late


def measure(bridge: Bridge, count: int, warm_up: int = WARM_UP) -> Leak:
    """`count` uploads after some to warm up, in batches, and a look at the worker now and then."""
    worker = bridge.worker()
    for number in range(warm_up // BATCH):
        send(bridge, BATCH, f"warm-up-{number}")
    leak = Leak([settled(bridge, worker, 0)])
    began = time.monotonic()
    with watched_snapshots(bridge) as snapshots:
        for done in range(BATCH, count + 1, BATCH):
            send(bridge, BATCH, f"run-{done}")
            if done % BETWEEN_LOOKS == 0 or done == count:
                leak.sizes.append(settled(bridge, worker, done))
    leak.seconds = time.monotonic() - began
    leak.snapshots = snapshots
    assert bridge.worker() == worker, "it is the same process all the time"
    return leak


def idle_queries(bridge: Bridge, seconds: float) -> float:
    """Statements for each minute that the worker runs while nothing is to be done."""
    bridge.admin.execute("create extension if not exists pg_stat_statements")
    bridge.admin.execute("select pg_stat_statements_reset()")
    time.sleep(seconds)
    sql = (
        "select coalesce(sum(calls), 0)::int as calls from pg_stat_statements"
        " where query like '%%snowflake_bridge.%%' and query not like '%%pg_stat_statements%%'"
    )
    [row] = bridge.admin.execute(sql).fetchall()
    return float(row["calls"] * 60 / seconds)


def main(arguments: list[str]) -> None:
    """Measures and prints. The argument is how many uploads."""
    [count] = map(int, arguments or [scaled(COUNT, BATCH)])
    with contextlib.closing(Standin()) as standin, contextlib.closing(Bridge(standin, SETTINGS)) as bridge:
        bridge.ready()
        leak = measure(bridge, count)
        print(leak.report())
        idle = idle_queries(bridge, scaled(IDLE_SECONDS, 10))
        print(f"idle: {idle:.1f} statements a minute")
    assert leak.snapshots is not None
    first, middle, last = leak.sizes[0], leak.sizes[len(leak.sizes) // 2], leak.sizes[-1]
    for name, size in (("first", first), ("middle", middle), ("last", last)):
        results.add(**{f"kept_{name}_mb": round(size.memory / 1024, 1), f"kept_{name}_files": size.files})
    results.add(
        kept_uploads=last.uploads,
        kept_kb_per_1000=round(leak.kilobytes_per_thousand(), 1),
        snapshot_max_ms=round(leak.snapshots.oldest * 1000),
        snapshot_looks=leak.snapshots.looks,
        idle_statements=round(idle, 1),
    )

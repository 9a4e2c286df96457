"""What the triggers cost the application: the same statements on a watched table and on one of the same shape that is not."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import results
from bench.world import REAL, rounds, scaled
from harness.bridge import Bridge
from harness.latency import percentile
from harness.standin import Standin

RESULT = '[{"n": 1, "name": "row 1", "amount": 0.25, "flag": true}]'
# No worker: what it does at the same time would be measured too.
SETTINGS = {**REAL, "snowflake_bridge.databases": "postgres"}
ROWS = 10_000
SINGLE = 1_000
READS = 50
TABLES = ("plain", "watched")
COLUMNS = "execution_id, status, result_rows, snowflake_enabled"


@dataclass(frozen=True)
class Cost:
    """Seconds of one kind of statement, for each of the two tables; the key is that of the results."""

    key: str
    what: str
    rows: int
    seconds: dict[str, list[float]]

    @property
    def microseconds(self) -> float:
        """What the triggers add to a row, by the medians."""
        without, watched = (statistics.median(self.seconds[table]) for table in TABLES)
        return (watched - without) / self.rows * 1e6

    def report(self) -> str:
        """One line for people."""
        without, watched = (self.seconds[table] for table in TABLES)
        if self.rows == 1:
            shown = "   ".join(
                f"{name} p50 {percentile(values, 50) * 1000:.3f} p99 {percentile(values, 99) * 1000:.3f} "
                f"max {max(values) * 1000:.3f} ms"
                for name, values in (("without", without), ("with", watched))
            )
            return f"{self.what:<28} {shown}   p50 {self.microseconds:+.1f} us   n = {len(watched)}"
        best = min(without), min(watched)
        return (
            f"{self.what:<28} without {best[0]:.2f} s   with {best[1]:.2f} s   {(best[1] - best[0]) / self.rows * 1e6:+.1f} us a row, "
            f"p50 {self.microseconds:+.1f} us   best of {len(watched)}"
        )


def measure(bridge: Bridge, rows: int) -> list[Cost]:
    """Single-row updates, and statements of `rows` rows. No worker runs, and the server's caches are warm."""
    app = bridge.app
    # The disk takes as long for both, and differs from one commit to the next by more than what is looked for.
    app.execute("set synchronous_commit = off")
    for table in TABLES:
        app.execute(
            f"create table {table} (execution_id text primary key, user_id text, status text, result_rows jsonb, "
            "result_columns jsonb, snowflake_enabled boolean not null default false, snowflake_table_name text, "
            "snowflake_schema_name text, snowflake_status text, snowflake_error_message text, "
            "snowflake_uploaded_at timestamptz, snowflake_row_count bigint, snowflake_attempt_count integer, "
            "snowflake_options jsonb)"
        )
    bridge.call("watch", relation="watched")

    def fill(table: str, status: str, enabled: bool = True) -> None:
        app.execute(f"truncate {table}")
        bridge.admin.execute("truncate snowflake_bridge.uploads cascade")
        app.execute(
            f"insert into {table} ({COLUMNS}) select 'run-' || n, '{status}', '{RESULT}', {enabled} "
            f"from generate_series(1, {rows}) n"
        )
        app.execute(f"vacuum analyze {table}")
        bridge.admin.execute("checkpoint")

    def update(table: str) -> None:
        app.execute(f"update {table} set status = 'completed'")

    def begin(table: str) -> None:
        app.execute(f"update {table} set status = 'running'")

    def copy(table: str) -> None:
        with app.cursor().copy(f"copy {table} ({COLUMNS}) from stdin") as lines:
            for number in range(rows):
                lines.write_row((f"copied-{number}", "completed", RESULT, True))

    return [
        single(bridge, rows, fill),
        many("trigger_many_us", "UPDATE, all finish", rows, lambda table: fill(table, "running"), update),
        many("trigger_unfinished_us", "UPDATE, none is finished", rows, lambda table: fill(table, "running"), begin),
        many("trigger_disabled_us", "UPDATE, none is enabled", rows, lambda table: fill(table, "running", enabled=False), update),
        many("trigger_same_us", "UPDATE, nothing is new", rows, lambda table: fill(table, "completed"), update),
        many("trigger_copy_us", "COPY FROM, all finished", rows, lambda table: fill(table, "running"), copy),
        reads(bridge, lambda table: fill(table, "running"), update),
    ]


def single(bridge: Bridge, rows: int, fill: Callable[[str, str], None]) -> Cost:
    """An execution finishes, one after another, in turn on both tables."""
    seconds: dict[str, list[float]] = {table: [] for table in TABLES}
    for table in TABLES:
        fill(table, "running")
    for number in range(1, min(SINGLE, rows) + 1):
        for table in TABLES:
            sql = f"update {table} set status = 'completed' where execution_id = %s"
            seconds[table].append(timed(lambda sql=sql, number=number: bridge.app.execute(sql, [f"run-{number}"])))
    return Cost("trigger_us", "UPDATE of one row", 1, seconds)


def reads(bridge: Bridge, prepare: Callable[[str], None], statement: Callable[[str], None]) -> Cost:
    """What another session takes to look through the table, while the transaction of such a statement is open."""
    seconds: dict[str, list[float]] = {table: [] for table in TABLES}
    for table in TABLES:
        prepare(table)
        with bridge.cluster.connect("shop", "app") as other, bridge.app.transaction(force_rollback=True):
            statement(table)
            for _ in range(READS):
                seconds[table].append(timed(lambda table=table: other.execute(f"select count(*) from {table}")))
    return Cost("trigger_reading_us", "reading beside an UPDATE", 1, seconds)


def many(key: str, what: str, rows: int, prepare: Callable[[str], None], statement: Callable[[str], None]) -> Cost:
    """One statement for all rows, several times."""
    seconds: dict[str, list[float]] = {table: [] for table in TABLES}
    for _ in range(rounds()):
        for table in TABLES:
            prepare(table)
            seconds[table].append(timed(lambda table=table: statement(table)))
    return Cost(key, what, rows, seconds)


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def main(arguments: list[str]) -> None:
    """Measures, prints and keeps the results. The argument is how many rows statements have."""
    [rows] = map(int, arguments or [scaled(ROWS, 100)])
    with contextlib.closing(Standin()) as standin, contextlib.closing(Bridge(standin, SETTINGS)) as bridge:
        costs = measure(bridge, rows)
    for cost in costs:
        print(cost.report())
    results.add(**{cost.key: round(cost.microseconds, 1) for cost in costs})
    for table, seconds in costs[0].seconds.items():
        results.add(**{f"update_{table}_p{percent}_us": round(percentile(seconds, percent) * 1e6, 1) for percent in (50, 99)})
        results.add(**{f"update_{table}_max_us": round(max(seconds) * 1e6, 1)})

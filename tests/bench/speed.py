"""A whole table by `upload_query`, beside what PostgreSQL itself and others take for it: alternately, in one run.

From the call to all files being encrypted and staged. Snowflake's side refuses COPY, since nothing of the files is kept.
"""

from __future__ import annotations

import os
import time

from bench import inline, processes, results
from bench.others import Others
from bench.series import SECONDS, Series, refused
from bench.sink import Sink
from bench.world import rounds, scaled, world
from harness import wait
from harness.bridge import Bridge

ROWS = 5_000_000
TABLE = "orders"
# For one that takes minutes for all of the rows, and hardly any time to begin.
PART, PART_OF = "orders_part", 10
PEERS = {"adbc_parquet": TABLE, "adbc_ingest": TABLE, "pandas": PART, "dlt": TABLE}
INLINE_PEERS = ["pandas_inline"]
TABLE_OF = """
    create table {table} as
    select n::bigint as id, md5(n::text)::uuid as customer, (n * 7919 % 1000)::int as product,
           'order ' || (n * 104729 % 100000) || ' of ' || (array['Berlin', 'Paris', 'London', 'Madrid', 'Rome'])[n % 5 + 1] as note,
           date '2020-01-01' + (n % 1500)::int as day,
           timestamptz '2024-01-01' + n * interval '137 ms' as created_at,
           ((n * 48271 % 2147483647) % 100000000 / 100.0)::numeric(12, 2) as amount,
           (n * 16807 % 2147483647)::double precision / 1000 as weight,
           (n * 69621 % 2147483647)::int as code, n % 3 = 0 as paid
    from generate_series(1::bigint, {rows}) n
"""


def fill(bridge: Bridge, table: str, rows: int, definition: str = TABLE_OF) -> None:
    """Makes a table; it is in memory afterwards, and never written again."""
    bridge.app.execute(definition.format(table=table, rows=rows))
    bridge.app.execute(f"vacuum (analyze, freeze) {table}")
    bridge.admin.execute("checkpoint")


def copy_binary(bridge: Bridge, query: str, series: Series) -> None:
    """PostgreSQL's own way to give rows away, to nowhere."""
    cpu = processes.Cpu({"backend": bridge.admin.info.backend_pid})
    began = time.monotonic()
    bridge.admin.execute(f"copy ({query}) to '/dev/null' (format binary)")
    series.seconds.append(time.monotonic() - began)
    series.details.append(cpu.used())


def bridge_query(bridge: Bridge, sink: Sink, query: str, series: Series, target: str = TABLE) -> None:
    """One upload, from the call until the last file is whole at the other end."""
    ours = {"backend": bridge.app.info.backend_pid, "worker": bridge.worker()}
    cpu = processes.Cpu(ours | {"sink": sink.process.pid, "standin": bridge.standin.process.pid})
    before = sink.arrived()
    with processes.Peak(ours.values()) as peak:
        began, monotonic = time.time(), time.monotonic()
        upload = bridge.call("upload_query", query=query, table_name=target)
        read = time.monotonic() - monotonic
        ended(bridge, upload)
    after = sink.arrived()
    assert after.objects > before.objects, "nothing was staged"
    # Its files stay as long as it may be tried again, and all of them together have a limit.
    bridge.call("cancel_upload", id=upload)
    series.seconds.append(after.last - began)
    series.details.append(
        {"read": read, **cpu.used(), "mb": (after.bytes - before.bytes) / 1e6, "peak_mb": peak.megabytes}
    )


def ended(bridge: Bridge, upload: int) -> None:
    """Waits until Snowflake's side has refused the upload, which it does only once everything is staged."""
    sql = "select state, error_code, error_message from snowflake_bridge.uploads where id = %s"
    wait.until(lambda: refused(bridge.admin.execute(sql, [upload]).fetchall()[0]), "the upload is staged", SECONDS)


def measure_table(bridge: Bridge, sink: Sink, rows: int, times: int, peers: list[str]) -> list[Series]:
    """A table, by everybody in turn, after one round that is not counted for ours and PostgreSQL's."""
    query = f"select * from {TABLE}"
    others = Others(bridge, sink)
    fill(bridge, TABLE, rows)
    fill(bridge, PART, max(1, rows // PART_OF))
    copy_binary(bridge, query, Series("warm-up"))
    bridge_query(bridge, sink, query, Series("warm-up"))
    measured = [Series("copy_binary"), Series("bridge_query")]
    measured += [Series(name, PART_OF if PEERS[name] == PART else 1) for name in peers]
    for _ in range(times):
        copy_binary(bridge, query, measured[0])
        bridge_query(bridge, sink, query, measured[1])
        for series in measured[2:]:
            others.run(series.name, PEERS[series.name], series)
    return measured


def measure_inline(bridge: Bridge, sink: Sink, rows: int, times: int, peers: list[str]) -> list[Series]:
    """A result in its execution's row, the same way."""
    others = Others(bridge, sink)
    inline.fill(bridge, rows)
    measured = [Series("inline_read"), Series("bridge_inline"), *(Series(name) for name in peers)]
    inline.read(bridge, Series("warm-up"))
    inline.upload(bridge, sink, Series("warm-up"))
    for _ in range(times):
        inline.read(bridge, measured[0])
        inline.upload(bridge, sink, measured[1])
        for series in measured[2:]:
            others.run(series.name, TABLE, series)
    return measured


def measure(rows: int, times: int, peers: list[str]) -> tuple[list[Series], list[Series]]:
    """A table, and a tenth of its rows as an inline result."""
    with world() as (bridge, sink):
        table = measure_table(bridge, sink, rows, times, [name for name in peers if name in PEERS])
        return table, measure_inline(bridge, sink, rows // 10, times, [name for name in peers if name in INLINE_PEERS])


def main(arguments: list[str]) -> None:
    """Measures, prints and keeps the results; arguments are peers, all unless some are named."""
    rows = scaled(ROWS, least=1_000)
    table, in_row = measure(rows, rounds(), arguments or [*PEERS, *INLINE_PEERS])
    print(f"{rows} rows; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    for series in table:
        print(series.report(of=table[0].median))
    print(f"{rows // 10} objects in one value")
    for series in in_row:
        print(series.report(of=in_row[0].median))
    found = {"rows": rows, "inline_rows": rows // 10}
    for series in table + in_row:
        found |= series.figures()
    results.add(**found)

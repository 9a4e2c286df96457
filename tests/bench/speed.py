"""A whole table by `upload_query`, beside what PostgreSQL itself and others take for it: alternately, in one run.

From the call to all files being encrypted and staged. Snowflake's side refuses COPY, since nothing of the files is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from bench import inline, processes, results
from bench.series import REFUSED, SECONDS, Series, refused
from bench.sink import ROOT, Sink
from harness import wait
from harness.bridge import APPLICATION, DATABASE, Bridge
from harness.standin import Standin

SETTINGS = {
    "shared_buffers": "2GB",
    "snowflake_bridge.max_attempts": "1",
    # All of them are ours.
    "snowflake_bridge.poll_interval": "30s",
}
TABLE = "orders"
PEERS = ["adbc_parquet", "pandas"]
# It takes minutes, which nobody wants to wait for more than once.
ONCE = {"pandas"}
PYTHON = ROOT / "target/venv/bench/bin/python"
ROWS = """
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


@contextlib.contextmanager
def world() -> Iterator[tuple[Bridge, Sink]]:
    """A bridge whose files go to a sink, and a Snowflake that does not load them."""
    with (
        contextlib.closing(Sink()) as sink,
        contextlib.closing(Standin()) as standin,
        contextlib.closing(Bridge(standin, SETTINGS, hosts=[f"http://{sink.endpoint}"])) as bridge,
    ):
        bridge.account.store_at(f"http://{sink.endpoint}")
        bridge.ready()
        standin.fault({"kind": "query", "sql": r"^\s*copy into"}, REFUSED, times=1_000_000)
        yield bridge, sink


def fill(bridge: Bridge, rows: int) -> None:
    """Makes the table; it is in memory afterwards, and never written again."""
    bridge.app.execute(ROWS.format(table=TABLE, rows=rows))
    bridge.app.execute(f"vacuum (analyze, freeze) {TABLE}")
    bridge.admin.execute("checkpoint")


def copy_binary(bridge: Bridge, query: str, series: Series) -> None:
    """PostgreSQL's own way to give rows away, to nowhere."""
    pid = bridge.admin.info.backend_pid
    cpu, began = processes.seconds(pid), time.monotonic()
    bridge.admin.execute(f"copy ({query}) to '/dev/null' (format binary)")
    series.seconds.append(time.monotonic() - began)
    series.details.append({"cpu": processes.seconds(pid) - cpu})


def bridge_query(bridge: Bridge, sink: Sink, query: str, series: Series) -> None:
    """One upload, from the call until the last file is whole at the other end."""
    pids = {"backend": bridge.app.info.backend_pid, "worker": bridge.worker(), "sink": sink.process.pid}
    cpu = {name: processes.seconds(pid) for name, pid in pids.items()}
    before = sink.arrived()
    with processes.Peak([pids["backend"], pids["worker"]]) as peak:
        began, monotonic = time.time(), time.monotonic()
        upload = bridge.call("upload_query", query=query, table_name="ORDERS")
        read = time.monotonic() - monotonic
        ended(bridge, upload)
    after = sink.arrived()
    series.seconds.append(after.last - began)
    series.details.append(
        {
            "read": read,
            **{name: processes.seconds(pid) - cpu[name] for name, pid in pids.items()},
            "mb": (after.bytes - before.bytes) / 1e6,
            "peak_mb": peak.megabytes,
        }
    )


def ended(bridge: Bridge, upload: int) -> None:
    """Waits until Snowflake's side has refused the upload, which it does only once everything is staged."""
    sql = "select state, error_code, error_message from snowflake_bridge.uploads where id = %s"
    wait.until(lambda: refused(bridge.admin.execute(sql, [upload]).fetchall()[0]), "the upload is staged", SECONDS)


def peer(name: str, bridge: Bridge, series: Series) -> None:
    """One of the others, in a process of its own."""
    conninfo = psycopg.conninfo.make_conninfo(host=str(bridge.cluster.sockets), dbname=DATABASE, user=APPLICATION)
    if name == "adbc_parquet":
        conninfo = f"postgresql://{APPLICATION}@/{DATABASE}?host={bridge.cluster.sockets}"
    directory = Path(tempfile.mkdtemp(prefix="peer-"))
    try:
        command = [PYTHON, ROOT / "tests/bench/peers.py", name, conninfo, TABLE, directory]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    finally:
        shutil.rmtree(directory)
    measured = json.loads(done.stdout)
    series.seconds.append(measured.pop("seconds"))
    series.details.append(measured)


def measure_inline(bridge: Bridge, sink: Sink, rows: int, rounds: int) -> list[Series]:
    """A result in its execution's row, after one round that is not counted."""
    inline.fill(bridge, rows)
    measured = [Series("inline_read"), Series("bridge_inline")]
    inline.upload(bridge, sink, Series("warm-up"))
    for _ in range(rounds):
        inline.read(bridge, measured[0])
        inline.upload(bridge, sink, measured[1])
    return measured


def measure(rows: int, rounds: int, peers: list[str]) -> tuple[list[Series], list[Series]]:
    """Everything in turn, as often as asked for, after one round that is not counted for ours and PostgreSQL's: a table, and a
    tenth of its rows as an inline result."""
    query = f"select * from {TABLE}"
    with world() as (bridge, sink):
        fill(bridge, rows)
        copy_binary(bridge, query, Series("warm-up"))
        bridge_query(bridge, sink, query, Series("warm-up"))
        ours = [Series("copy_binary"), Series("bridge_query")]
        others = [Series(name) for name in peers]
        for number in range(rounds):
            copy_binary(bridge, query, ours[0])
            bridge_query(bridge, sink, query, ours[1])
            for series in others:
                if number == 0 or series.name not in ONCE:
                    peer(series.name, bridge, series)
        return ours + others, measure_inline(bridge, sink, rows // 10, rounds)


def main(arguments: list[str]) -> int:
    """Measures, prints and keeps the results. Numbers are rows and rounds; other words are the peers, all unless some are named."""
    numbers = [int(argument) for argument in arguments if argument.isdigit()]
    usual = [round(5_000_000 * float(os.environ.get("SCALE") or 1)), 5]
    rows, rounds = (numbers + usual[len(numbers) :])[:2]
    measured, inline_measured = measure(rows, rounds, [argument for argument in arguments if not argument.isdigit()] or PEERS)
    print(f"{rows} rows; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    for series in measured:
        print(series.report(of=measured[0].median))
    print(f"{rows // 10} objects in one value")
    for series in inline_measured:
        print(series.report(of=inline_measured[0].median))
    found = {"rows": rows, **{series.name: round(series.median, 3) for series in measured + inline_measured}}
    found["inline_rows"] = rows // 10
    found["bridge_query_peak_mb"] = round(measured[1].detail("peak_mb"), 1)
    results.add(**found)
    return 0

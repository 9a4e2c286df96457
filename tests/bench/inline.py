"""One large inline result, from its claim to its files being staged, beside what PostgreSQL takes to look at its values."""

from __future__ import annotations

import time

from bench import processes
from bench.series import SECONDS, Series, refused
from bench.sink import Sink
from harness import wait
from harness.bridge import TABLE, Bridge

EXECUTION = "inline"
RESULT = """
    select jsonb_agg(jsonb_build_object(
        'id', n, 'customer', md5(n::text)::uuid, 'product', n * 7919 % 1000,
        'note', 'order ' || (n * 104729 % 100000) || ' of ' || (array['Berlin', 'Paris', 'London', 'Madrid', 'Rome'])[n % 5 + 1],
        'day', date '2020-01-01' + (n % 1500)::int, 'created_at', timestamptz '2024-01-01' + n * interval '137 ms',
        'amount', (n * 48271 % 100000000 / 100.0)::numeric(12, 2), 'weight', (n * 16807 % 2147483647)::double precision / 1000,
        'code', n * 69621 % 2147483647, 'paid', n % 3 = 0))
    from generate_series(1::bigint, {rows}) n
"""
RESULT_OF = f"select result_rows from {TABLE} where execution_id = '{EXECUTION}'"
READ = f"""
    select count(v), sum(length(v))
    from {TABLE} w, jsonb_array_elements(w.result_rows) o, jsonb_each_text(o) e (k, v)
    where w.execution_id = '{EXECUTION}'
"""


def fill(bridge: Bridge, rows: int) -> None:
    """Puts the result into a row of an execution that is still running."""
    bridge.start_execution(EXECUTION)
    bridge.app.execute(f"update {TABLE} set result_rows = ({RESULT.format(rows=rows)}) where execution_id = '{EXECUTION}'")
    bridge.admin.execute(f"vacuum analyze {TABLE}")


def read(bridge: Bridge, series: Series) -> None:
    """PostgreSQL looks at each value once."""
    cpu = processes.Cpu({"backend": bridge.admin.info.backend_pid})
    began = time.monotonic()
    bridge.admin.execute(READ)
    series.seconds.append(time.monotonic() - began)
    series.details.append(cpu.used())


def upload(bridge: Bridge, sink: Sink, series: Series) -> None:
    """The execution finishes once more."""
    server, worker = bridge.cluster.process, bridge.worker()
    assert server is not None
    # A large result is read by a process of its own, which ends with it.
    cpu = processes.Cpu({"worker": worker, "sink": sink.process.pid}, reader=server.pid)
    before = sink.arrived()
    with processes.Peak([worker], server.pid) as peak:
        for status in ("running", "completed"):
            bridge.app.execute(f"update {TABLE} set status = '{status}' where execution_id = '{EXECUTION}'")
        wait.until(lambda: refused(bridge.upload(EXECUTION)), "the upload is staged", SECONDS)
    after = sink.arrived()
    series.seconds.append(after.last - bridge.upload(EXECUTION)["claimed_at"].timestamp())
    series.details.append({**cpu.used(), "mb": (after.bytes - before.bytes) / 1e6, "peak_mb": peak.megabytes})

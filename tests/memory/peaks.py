"""What is measured: the peak of each process above what it takes when it is idle, and what it may be.

The rule is that of the setting: never more than `max_memory` and twice the largest single value. Pages of the server's
shared buffers count as the process's own where it has touched them, so these servers have next to none. Nearly everything
is noise, so that the files which a process writes or sends are about as large as the rows in them, and tell whether holding
them all would have been too much.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from harness import wait
from harness.bridge import APPLICATION, DATABASE, TABLE, Bridge

MB = 1024 * 1024
SETTINGS = {
    "shared_buffers": "1MB",
    # Its library alone takes 48 MB.
    "jit": "off",
    "snowflake_bridge.snapshot_timeout": "1h",
    "snowflake_bridge.max_attempts": "1",
}
# The least memory that can be set.
LEAST = {**SETTINGS, "snowflake_bridge.max_memory": "64MB"}
READER = "snowflake_bridge reader"
# Between two looks at a process that may end at any time.
PAUSE = 0.005
# No row of a relation has more.
COLUMNS = 1600
REFUSED = {"error": {"code": "100038", "message": "Not loaded, for the sake of a test"}}
SECONDS = 3600.0

NARROW = """
    select n, md5(n::text) as word, n % 100 as small, (n / 7.0)::numeric(20, 4) as amount,
           timestamptz '2024-01-01' + n * interval '1 second' as at
    from generate_series(1, {rows}) n
"""
NOISE = """
    select n, sha512(('a' || n)::bytea) as a, sha512(('b' || n)::bytea) as b,
           sha512(('c' || n)::bytea) as c, sha512(('d' || n)::bytea) as d
    from generate_series(1, {rows}) n
"""
TEXT = """
    select {} from
    (select string_agg(encode(sha256(n::text::bytea), 'base64'), '') from generate_series(1, {{mb}} * 23831) n) text (value)
"""
# Single values of so many megabytes, by their type, and the most megabytes that Snowflake takes.
VALUES = {
    "text": (TEXT.format("value"), 128),
    "text[]": (TEXT.format("array[value]"), 127),
    "jsonb": ("select rows_of_size({mb})", 120),
    "bytea": ("select string_agg(sha256(n::text::bytea), '') from generate_series(1, {mb} * 32768) n", 64),
}
JSONB = """
    create or replace function rows_of_size(megabytes int) returns jsonb language sql as $$
    select jsonb_agg(jsonb_build_object(
        'n', n, 'day', date '2024-01-01' + n % 1000,
        'noise', (select string_agg(encode(sha256((n || '/' || i)::bytea), 'base64'), '') from generate_series(1, 22) i)))
    from generate_series(1, megabytes * 1024) n $$
"""


@dataclass(frozen=True)
class Peak:
    """Bytes of one process; `files` are those that it wrote or sent."""

    what: str
    process: str
    idle: int
    peak: int
    largest_value: int
    files: int
    max_memory: int

    @property
    def above(self) -> int:
        """What it took above idle."""
        return self.peak - self.idle

    @property
    def allowed(self) -> int:
        """What it may take above idle."""
        return self.max_memory + 2 * self.largest_value

    @property
    def is_telling(self) -> bool:
        """Whether it would have taken too much if it had held the files as well."""
        return self.files > self.max_memory

    def report(self) -> str:
        """One line of figures, in megabytes."""
        return (
            f"memory: what={self.what} process={self.process} idle_mb={self.idle / MB:.0f} "
            f"peak_above_idle_mb={self.above / MB:.0f} allowed_mb={self.allowed / MB:.0f} files_mb={self.files / MB:.0f}"
        )


def all_kinds(bridge: Bridge, rows: int, jsonb_mb: int, wide_rows: int) -> Iterator[Peak]:
    """Each kind of large result, first of so many narrow rows, then one of so many megabytes, then wide rows."""
    worker = Worker(bridge)
    yield from of_query(bridge, worker, f"rows={rows}", NARROW.format(rows=rows))
    yield from of_result(bridge, worker, jsonb_mb)
    numbers = ", ".join(f"n + {place} as c{place}" for place in range(COLUMNS))
    bridge.app.execute(f"create table wide as select {numbers} from generate_series(1, {wide_rows}) n")
    yield from of_query(bridge, worker, f"columns={COLUMNS} rows={wide_rows}", "table wide")
    yield from of_texts(bridge, worker, max(wide_rows // 20, 1))


def all_values(bridge: Bridge) -> Iterator[Peak]:
    """A value of each type that can be large, as large as it can be."""
    worker = Worker(bridge)
    for kind, (_, most) in VALUES.items():
        yield from of_value(bridge, worker, kind, most)


def of_texts(bridge: Bridge, worker: Worker, rows: int) -> Iterator[Peak]:
    """Rows of many texts."""
    texts = ", ".join(f"substr(noise, {place % 512 + 1}, 500) as c{place}" for place in range(COLUMNS))
    noise = "(select string_agg(md5(n || '/' || i), '') as noise from generate_series(1, 40) i) noise"
    query = f"select {texts} from generate_series(1, {rows}) n, lateral {noise}"
    yield from of_query(bridge, worker, f"text_columns={COLUMNS} rows={rows}", query)


def of_value(bridge: Bridge, worker: Worker, kind: str, megabytes: int) -> Iterator[Peak]:
    """Two rows of one value of that type and size, which is stored as it is: nothing is left of the first by the second."""
    bridge.app.execute(JSONB)
    bridge.app.execute(f"drop table if exists single; create table single (value {kind})")
    bridge.app.execute("alter table single alter value set storage external")
    bridge.app.execute(f"insert into single {VALUES[kind][0].format(mb=megabytes)}")
    bridge.app.execute("insert into single table single")
    [size] = bridge.app.execute("select max(pg_column_size(value)) as bytes from single").fetchall()
    yield from of_query(bridge, worker, f"{kind}_mb={megabytes}", "table single", int(size["bytes"]))


def of_query(bridge: Bridge, worker: Worker, what: str, query: str, largest_value: int = 0) -> Iterator[Peak]:
    """The backend that runs `upload_query`, and the worker that puts its files into the stage."""
    worker.forget_peak()
    with warm(bridge) as connection:
        pid = connection.info.backend_pid
        idle = status(pid, "VmRSS")
        number = bridge.call("upload_query", connection=connection, query=query, table_name=next(worker.tables))
        peak = status(pid, "VmHWM")
    files = ended(bridge, "id = %s", number)
    yield Peak(what, "backend", idle, peak, largest_value, files, max_memory(bridge))
    yield worker.peak(what, files)


def of_result(bridge: Bridge, worker: Worker, megabytes: int) -> Iterator[Peak]:
    """The reader of one execution whose result is a jsonb of that size, and the worker beside it."""
    what = f"jsonb_mb={megabytes}"
    bridge.app.execute(JSONB)
    bridge.app.execute(f"insert into {TABLE} (execution_id, status, snowflake_enabled) values ('large', 'running', true)")
    # A reader is at work from its first moment on, so what it takes when idle is told by another process like it.
    with warm(bridge) as connection:
        idle = status(connection.info.backend_pid, "VmRSS")
    worker.forget_peak()
    with looking(bridge, READER) as readers:
        bridge.app.execute(f"update {TABLE} set status = 'completed', result_rows = rows_of_size(%s)", [megabytes])
        files = ended(bridge, "execution_id = %s", "large")
    [size] = bridge.app.execute(f"select pg_column_size(result_rows || '[]') as bytes from {TABLE}").fetchall()
    [peak] = readers.peaks.values()
    yield Peak(what, "reader", idle, peak, int(size["bytes"]), files, max_memory(bridge))
    yield worker.peak(what, files)


@contextlib.contextmanager
def warm(bridge: Bridge) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a backend that has loaded and made what there is to be once."""
    with bridge.cluster.connect(DATABASE, APPLICATION) as connection:
        with connection.transaction(force_rollback=True):
            bridge.call("upload_query", connection=connection, query="select 1 as n", table_name="warm")
        yield connection


class Worker:
    """The worker of a bridge, after it has made one small upload.

    From then on Snowflake's side refuses to load, so that nobody waits for it: everything up to there is the bridge's.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        ended(bridge, "id = %s", bridge.call("upload_query", query="select 1 as n", table_name="warm"))
        self.pid = bridge.worker()
        self.idle = status(self.pid, "VmRSS")
        # A new one for each result: what columns the others have is not to be in the way.
        self.tables = (f"t{number}" for number in itertools.count())
        bridge.standin.fault({"kind": "query", "sql": r"^\s*copy into"}, REFUSED, times=1000)

    def forget_peak(self) -> None:
        """Sets its peak back to what it takes now; 5 is what proc(5) has for that."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak(self, what: str, files: int) -> Peak:
        """Its peak since."""
        return Peak(what, "worker", self.idle, status(self.pid, "VmHWM"), 0, files, max_memory(self._bridge))


class Look:
    """Looks at the processes of one kind: at what each took at most."""

    def __init__(self, bridge: Bridge, backend_type: str) -> None:
        self.peaks: dict[int, int] = {}
        self._sql = f"select pid from pg_stat_activity where backend_type = '{backend_type}'"
        self._connection = bridge.cluster.connect(DATABASE)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(PAUSE):
            for row in self._connection.execute(self._sql):
                self.peaks.setdefault(row["pid"], 0)
            for pid, peak in self.peaks.items():
                # It only grows, so the last look before the end is the one that counts.
                self.peaks[pid] = max(peak, status(pid, "VmHWM"))

    def close(self) -> None:
        """Ends the looking."""
        self._stop.set()
        self._thread.join()
        self._connection.close()


@contextlib.contextmanager
def looking(bridge: Bridge, backend_type: str) -> Iterator[Look]:
    """Looks at the processes of that kind meanwhile."""
    look = Look(bridge, backend_type)
    try:
        yield look
    finally:
        look.close()


def ended(bridge: Bridge, condition: str, value: object) -> int:
    """Waits until an upload has ended, with its load at the earliest. Returns the bytes of its files."""
    sql = (
        "select byte_count, error_message from snowflake_bridge.uploads "
        f"where state in ('completed', 'failed') and {condition}"
    )
    [row] = wait.until(lambda: bridge.admin.execute(sql, [value]).fetchall(), "the upload ends", SECONDS)
    assert row["byte_count"] is not None, row["error_message"]
    return int(row["byte_count"])


def max_memory(bridge: Bridge) -> int:
    """The setting, in bytes."""
    sql = "select pg_size_bytes(current_setting('snowflake_bridge.max_memory')) as bytes"
    [row] = bridge.admin.execute(sql).fetchall()
    return int(row["bytes"])


def status(pid: int, name: str) -> int:
    """A line of the kernel's account of a process, in bytes; 0 if it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0

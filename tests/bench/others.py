"""Runs the others (`peers.py`), and asks the object store when the last of their files was whole."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import inline, peers, processes, world
from bench.series import SECONDS, Series
from bench.sink import Sink
from harness.bridge import APPLICATION, DATABASE, Bridge
from harness.standin import WAREHOUSE, Account, User

# Those whose files go to Snowflake's stage; the files of the others lie in a directory.
STAGED = {"adbc_ingest", "pandas", "pandas_inline"}
# The driver of ADBC waits for a COPY that is held, and is let go once nothing more arrives.
HELD = {"adbc_ingest"}
# So long may nothing arrive, while the process does nothing, before it is taken to have sent everything.
QUIET_SECONDS = 2.0
# More processor time than this, meanwhile, is work; less is what a runtime takes that waits.
QUIET_CPU = 0.1
# Files of the same rows differ by so much at the most.
SAME = 0.05
TABLES = {
    "orders": '"id" NUMBER(38,0), "customer" VARCHAR, "product" NUMBER(38,0), "note" VARCHAR, "day" DATE, '
    '"created_at" TIMESTAMP_LTZ(6), "amount" NUMBER(12,2), "weight" FLOAT, "code" NUMBER(38,0), "paid" BOOLEAN'
}


class Others:
    """The others' Snowflake account, whose files go to the same sink as ours."""

    def __init__(self, bridge: Bridge, sink: Sink) -> None:
        self._bridge, self._sink = bridge, sink
        self._account: Account = bridge.standin.new_account()
        self._user: User = self._account.add_user()
        # Official clients are told a signed address for each file.
        self._account.sign_at(f"http://{sink.endpoint}/peers")
        place = f'"{self._user.database}"."{self._user.schema}"."{peers.TARGET}"'
        self._account.sql(f"CREATE TABLE {place} ({TABLES['orders']})")

    def run(self, name: str, table: str, series: Series) -> None:
        """One of them, in a process of its own."""
        directory = Path(tempfile.mkdtemp(prefix="peer-"))
        server = self._bridge.cluster.process
        assert server is not None
        cpu = processes.Cpu({"sink": self._sink.process.pid, "standin": self._bridge.standin.process.pid}, backend=server.pid)
        before = self._sink.arrived()
        try:
            measured = self._finish(name, json.dumps(self._work(table, directory)))
        finally:
            shutil.rmtree(directory)
        after = self._sink.arrived()
        began, seconds = measured.pop("began"), measured.pop("seconds")
        if name in STAGED:
            assert after.objects > before.objects, f"{name} has sent nothing"
            seconds = after.last - began
            measured["mb"] = (after.bytes - before.bytes) / 1e6
            for earlier in series.details:
                assert abs(measured["mb"] / earlier["mb"] - 1) < SAME, f"{name} has sent more one time than another"
        series.seconds.append(seconds)
        series.details.append(measured | cpu.used())

    def _work(self, table: str, directory: Path) -> dict[str, Any]:
        return {
            "sockets": str(self._bridge.cluster.sockets),
            "database": DATABASE,
            "user": APPLICATION,
            "table": f"public.{table}",
            "inline": inline.RESULT_OF,
            "directory": str(directory),
            "snowflake": {
                "account": self._account.name.upper(),
                "host": "127.0.0.1",
                "port": self._bridge.standin.port,
                "protocol": "http",
                "warehouse": WAREHOUSE,
                **{name: value for name, value in dataclasses.asdict(self._user).items() if name != "name"},
                "user": self._user.name,
            },
        }

    def _finish(self, name: str, work: str) -> dict[str, float]:
        """What the process says when it has ended."""
        process = subprocess.Popen(
            [sys.executable, peers.__file__, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(work)
            process.stdin.close()
            if name in HELD:
                self._let_go_when_quiet(process)
            output = process.stdout.read()
            if process.wait(SECONDS) != 0:
                raise RuntimeError(f"{name} has failed; what it said is above")
        finally:
            process.kill()
            process.wait()
        measured: dict[str, float] = json.loads(output.splitlines()[-1])
        return measured

    def _let_go_when_quiet(self, process: subprocess.Popen[str]) -> None:
        """Returns once all of its files are there: then its COPY is refused, which it would not survive earlier."""
        start = self._sink.arrived().objects
        seen, since = (start, 0.0), time.monotonic()
        while process.poll() is None:
            time.sleep(0.05)
            now = (self._sink.arrived().objects, processes.seconds(process.pid))
            is_busy = now[0] != seen[0] or now[1] - seen[1] > QUIET_CPU
            if is_busy or now[0] == start:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > QUIET_SECONDS:
                world.refuse_copies(self._bridge.standin)
                return
            if time.monotonic() - since > SECONDS:
                raise RuntimeError("nothing arrives")

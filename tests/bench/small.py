"""Many small results: what one COPY for those that wait together saves."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from dataclasses import dataclass, field

from bench import results
from bench.processes import Cpu
from bench.world import REAL, scaled
from harness import wait
from harness.bridge import TABLE, Bridge
from harness.standin import Standin, User

EXECUTIONS = 10_000
ROWS = 100
USERS = 50
TABLES = 200
ROUNDS = 1
SETTINGS = {**REAL, "snowflake_bridge.max_concurrent_uploads": "8", "max_wal_size": "4GB"}
SECONDS = 3_600.0
# Seldom enough to cost nothing.
LOOK_SECONDS = 0.25
# As many as share one by default, and none.
SHARING = {"shared": "25", "alone": "1"}
COPY = "COPY INTO"


class Heard:
    """Statements that have reached Snowflake's side, counted in small pieces: all of them at once are hundreds of megabytes."""

    def __init__(self, standin: Standin) -> None:
        self._standin = standin
        self._mark = standin.audit_mark()
        self.statements = self.copies = 0

    def listen(self) -> bool:
        """Counts those that were answered since, up to the first that was not. Returns whether there is none such."""
        for record in self._standin.audit(self._mark):
            if record["finished"] is None:
                return False
            self._mark += 1
            self.statements += record["kind"] == "query"
            self.copies += (record["sql"] or "").lstrip().upper().startswith(COPY)
        return True


@dataclass
class Small:
    """One way to load them."""

    name: str
    executions: int
    seconds: list[float] = field(default_factory=list)
    copies: int = 0
    statements: int = 0
    cpu: list[dict[str, float]] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Executions, of the median round."""
        return self.executions / statistics.median(self.seconds)

    @property
    def copies_per_execution(self) -> float:
        """COPY statements that reached Snowflake, repeated ones too."""
        return self.copies / self.executions / len(self.seconds)

    def milliseconds(self, process: str) -> float:
        """Time of the processors that a process used for each execution, of the median round."""
        return statistics.median(cpu[f"cpu_{process}"] for cpu in self.cpu) * 1000 / self.executions

    def report(self) -> str:
        """One line for people."""
        return (
            f"{self.name:<8} {self.per_second:8.1f} executions/s   {self.copies_per_execution:.4f} COPY and "
            f"{self.statements / self.executions / len(self.seconds):.2f} statements for each; processor time "
            f"{self.milliseconds('worker'):.2f} ms in the worker, {self.milliseconds('standin'):.2f} ms in the stand-in"
        )


def measure(executions: int = EXECUTIONS, rounds: int = ROUNDS, tables: int = TABLES) -> list[Small]:
    """Both ways, by turns, each with a server that does nothing else. Every row is counted at the end."""
    with contextlib.closing(Standin()) as standin, contextlib.closing(Bridge(standin, SETTINGS)) as bridge:
        user = prepare(bridge, USERS)
        found = [Small(name, executions) for name in SHARING]
        heard = Heard(standin)
        for number in range(rounds):
            for way in found:
                bridge.admin.execute(f"alter system set snowflake_bridge.max_shared_uploads = {SHARING[way.name]}")
                bridge.reload()
                prefix = f"{way.name}_{number}"
                add(way, bridge, heard, prefix, tables)
                every_row_is_there(bridge, user, executions, prefix, tables)
        return found


def prepare(bridge: Bridge, users: int) -> User:
    """A watched table whose executions belong to many users, each with a configuration."""
    user = bridge.account.add_user()
    bridge.call("watch", connection=bridge.admin, relation=TABLE, create_if_missing=True, act_for_users=True)
    for number in range(users):
        bridge.configure(user, connection=bridge.admin, user_id=f"user {number}")
    return user


def finish(bridge: Bridge, prefix: str, executions: int, rows: int, users: int, tables: int, first: int = 1) -> None:
    """As many executions finish in one statement. Each table is one user's."""
    bridge.admin.execute(
        f"insert into {TABLE} (execution_id, user_id, status, snowflake_enabled, result_rows, snowflake_table_name) "
        "select %(prefix)s || n, 'user ' || (n - 1) %% %(tables)s %% %(users)s, 'completed', true, "
        "(select jsonb_agg(jsonb_build_object('id', r, 'name', 'row ' || r, 'amount', r * 1.25)) "
        " from generate_series(1, %(rows)s) r), %(prefix)s || '_' || (n - 1) %% %(tables)s "
        "from generate_series(%(first)s, %(first)s + %(executions)s - 1) n",
        {"prefix": prefix, "users": users, "rows": rows, "tables": tables, "executions": executions, "first": first},
    )


def add(way: Small, bridge: Bridge, heard: Heard, prefix: str, tables: int) -> None:
    """One more round, of tables of its own."""
    heard.listen()
    statements, copies = heard.statements, heard.copies
    cpu = Cpu({"worker": bridge.worker(), "standin": bridge.standin.process.pid})
    finish(bridge, prefix, way.executions, ROWS, USERS, tables)
    began = time.monotonic()
    of_round = "from snowflake_bridge.uploads where execution_id like %s || '%%'"

    def ended() -> bool:
        heard.listen()
        [row] = bridge.admin.execute(f"select count(*) filter (where completed_at is null) as n {of_round}", [prefix]).fetchall()
        return row["n"] == 0

    wait.until(ended, "all are loaded", SECONDS, pause=LOOK_SECONDS)
    way.seconds.append(time.monotonic() - began)
    way.cpu.append(cpu.used())
    [row] = bridge.admin.execute(f"select count(*) filter (where state = 'completed') as completed {of_round}", [prefix]).fetchall()
    assert row["completed"] == way.executions, row
    # Requests that tidy up may be unanswered still, and nothing that came after them was counted yet.
    wait.until(heard.listen, "all are answered", SECONDS)
    way.statements += heard.statements - statements
    way.copies += heard.copies - copies


def every_row_is_there(bridge: Bridge, user: User, executions: int, prefix: str, tables: int) -> None:
    """Counted on Snowflake's side."""
    rows = 0
    for number in range(min(tables, executions)):
        rows += bridge.row_count(user, f"{prefix}_{number}".upper())
    assert rows == executions * ROWS, (rows, executions)


def main(arguments: list[str]) -> None:
    """Measures, prints and keeps the results. The argument is how many executions, as JOBS is."""
    executions = int((arguments or [os.environ.get("JOBS") or scaled(EXECUTIONS, 200)])[0])
    # Of fewer executions, as many are for the same table.
    tables = max(2, executions * TABLES // EXECUTIONS)
    shared, alone = measure(executions, ROUNDS, tables)
    print(f"{executions} executions of {ROWS} rows for {USERS} users and {tables} tables")
    for way in (shared, alone):
        print(way.report())
    print(f"sharing: {alone.copies / shared.copies:.1f} x fewer COPY statements, {shared.per_second / alone.per_second:.2f} x as fast")
    found: dict[str, float] = {"small_executions": executions, "small_tables": tables}
    for way, prefix in ((shared, "small"), (alone, "small_alone")):
        found |= {
            f"{prefix}_jobs_per_s": round(way.per_second, 1),
            f"{prefix}_copies_per_job": round(way.copies_per_execution, 4),
            f"{prefix}_statements_per_job": round(way.statements / way.executions / len(way.seconds), 2),
            f"{prefix}_worker_cpu_ms_per_job": round(way.milliseconds("worker"), 2),
            f"{prefix}_standin_cpu_ms_per_job": round(way.milliseconds("standin"), 2),
        }
    results.add(**found)

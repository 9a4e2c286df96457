"""Many small results: what one COPY for those that wait together saves."""

from __future__ import annotations

import contextlib
import statistics
import time
from dataclasses import dataclass

from harness import wait
from harness.bridge import TABLE, Bridge
from harness.standin import Standin, User

EXECUTIONS = 10_000
ROWS = 100
USERS = 50
TABLES = 200
ROUNDS = 1
SETTINGS = {"snowflake_bridge.max_concurrent_uploads": "8"}
SECONDS = 3_600.0
SHARING = {"shared": "100", "alone": "1"}


@dataclass(frozen=True)
class Small:
    """One way to load them."""

    name: str
    executions: int
    seconds: list[float]
    copies: int
    statements: int

    @property
    def per_second(self) -> float:
        """Executions, of the median round."""
        return self.executions / statistics.median(self.seconds)

    @property
    def copies_per_execution(self) -> float:
        """COPY statements."""
        return self.copies / self.executions / len(self.seconds)

    def report(self) -> str:
        """One line for people."""
        return (
            f"{self.name:<8} {self.per_second:8.1f} executions/s   {self.copies_per_execution:.4f} COPY and "
            f"{self.statements / self.executions / len(self.seconds):.2f} statements for each"
        )


def measure(executions: int = EXECUTIONS, rounds: int = ROUNDS) -> list[Small]:
    """Both ways, by turns, each with a server that does nothing else. Every row is counted at the end."""
    with contextlib.closing(Standin()) as standin, contextlib.closing(Bridge(standin, SETTINGS)) as bridge:
        user = bridge.account.add_user()
        bridge.call("watch", connection=bridge.admin, relation=TABLE, create_if_missing=True, act_for_users=True)
        for number in range(USERS):
            bridge.configure(user, connection=bridge.admin, user_id=f"user {number}")
        found = {name: Small(name, executions, [], 0, 0) for name in SHARING}
        for round in range(rounds):
            for name, limit in SHARING.items():
                bridge.admin.execute(f"alter system set snowflake_bridge.max_shared_uploads = {limit}")
                bridge.reload()
                found[name] = add(found[name], bridge, f"{name}_{round}")
                every_row_is_there(bridge, user, executions, f"{name}_{round}")
        return list(found.values())


def add(before: Small, bridge: Bridge, prefix: str) -> Small:
    """One more round, of tables of its own."""
    mark = bridge.standin.audit_mark()
    bridge.admin.execute(
        f"insert into {TABLE} (execution_id, user_id, status, snowflake_enabled, result_rows, snowflake_table_name) "
        "select %(prefix)s || n, 'user ' || n %% %(users)s, 'completed', true, "
        "(select jsonb_agg(jsonb_build_object('id', r, 'name', 'row ' || r, 'amount', r * 1.25)) "
        " from generate_series(1, %(rows)s) r), %(prefix)s || '_' || (n - 1) %% %(tables)s "
        "from generate_series(1, %(executions)s) n",
        {"prefix": prefix, "users": USERS, "rows": ROWS, "tables": TABLES, "executions": before.executions},
    )
    began = time.monotonic()
    of_round = "from snowflake_bridge.uploads where execution_id like %s || '%%'"

    def ended() -> bool:
        [row] = bridge.admin.execute(f"select count(*) filter (where completed_at is null) as n {of_round}", [prefix]).fetchall()
        return row["n"] == 0

    wait.until(ended, "all are loaded", SECONDS)
    seconds = time.monotonic() - began
    [row] = bridge.admin.execute(
        f"select count(*) filter (where state = 'completed') as completed, count(distinct transaction_id) as copies {of_round}",
        [prefix],
    ).fetchall()
    assert row["completed"] == before.executions, row
    statements = sum(record["kind"] == "query" for record in bridge.standin.audit(mark))
    return Small(
        before.name,
        before.executions,
        [*before.seconds, seconds],
        before.copies + row["copies"],
        before.statements + statements,
    )


def every_row_is_there(bridge: Bridge, user: User, executions: int, prefix: str) -> None:
    """Counted on Snowflake's side."""
    rows = 0
    for number in range(min(TABLES, executions)):
        rows += bridge.row_count(user, f"{prefix}_{number}".upper())
    assert rows == executions * ROWS, (rows, executions)

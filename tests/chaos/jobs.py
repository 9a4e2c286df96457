"""The application: executions that finish, change and are sent again, and queries that are uploaded."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from chaos.cancels import Cancel
from chaos.world import FUNCTION_TABLE, TABLE, World
from chaos.writing import Writer

MAX_ROWS = 12
MAX_BATCH = 6
KEYS = 20


@dataclass
class Round:
    """What one round knows of its executions. The results themselves are in the database."""

    number: int
    executions: list[tuple[str, str]] = field(default_factory=list)
    queries: int = 0
    # Uploads that somebody has sent on their way again: these come to their table later than their place in the queue says.
    retried: set[int] = field(default_factory=set)
    # Users whom Snowflake has not let in for a while: nobody else waits for their turn until it does.
    kept_out: set[str] = field(default_factory=set)
    # Uploads that somebody wanted to end, whatever was answered, and the answers that hold still.
    unwanted: set[int] = field(default_factory=set)
    cancels: list[Cancel] = field(default_factory=list)
    # Somebody has ended a watch, and with it what waited; or a session in Snowflake, and with it its statement.
    is_unwatched: bool = False
    has_ended_session: bool = False
    # When somebody has last emptied or dropped a table of an account.
    wiped: dict[tuple[str, str], datetime] = field(default_factory=dict)

    # Uploads of which only a server that was lost has known, and when another one has taken its place.
    forgotten: list[dict[str, Any]] = field(default_factory=list)
    failed_over_at: datetime | None = None

    def retry(self, upload: int) -> None:
        """Somebody sends an upload on its way again: what was said of it before is over."""
        self.retried.add(upload)
        self.cancels = [cancel for cancel in self.cancels if cancel.upload != upload]

    def table(self, kind: str) -> str:
        """The target table of this round for jobs of this kind."""
        return f"R{self.number}_{kind.upper()}"


def text(*of: Any) -> str:
    """What stands in a row, and in no other."""
    return hashlib.md5("/".join(map(str, of)).encode(), usedforsecurity=False).hexdigest()


class Application:
    """Draws one job after the other."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.writer = Writer(world, rng)
        # Tables that the users have made themselves, by their account.
        self._made: set[tuple[str, str]] = set()

    def job(self, round: Round) -> None:
        """One more upload is queued, or one that waits has more to do."""
        [draw] = self.rng.choices(
            [self.inline, self.batch, self.money, self.wiped, self.again, self.function, self.query, self.upsert, self.replace, self.drift],
            [30, 10, 5, 6, 18, 10, 12, 7, 4, 4],
        )
        draw(round)

    def inline(self, round: Round) -> None:
        self._execution(round, "append", self._rows(round))

    def batch(self, round: Round) -> None:
        """Executions of one user that are committed at once, and may share a COPY."""
        self._batch(round, "append", [])

    def money(self, round: Round) -> None:
        """As `batch`, into a table that the user has made: cents, and what it takes more digits to hold."""
        for tenant in self.world.tenants:
            table = f"{tenant.user.database}.{tenant.user.schema}.{round.table('money')}"
            # Later it would wait for whoever holds the table.
            if (tenant.account.name, table) not in self._made:
                self._made.add((tenant.account.name, table))
                tenant.account.sql(
                    f"create table {table} (K number(38,0), V number(38,0), X varchar, "
                    "AMOUNT number(10,2), EXECUTION_ID varchar, UPLOADED_AT timestamp_tz, USER_ID varchar, UPLOAD_ID varchar)"
                )
        self._batch(round, "money", [19.99, 7, 0.5] if self.rng.random() < 0.5 else [19.99, 7, 0.125])

    def wiped(self, round: Round) -> None:
        """Into the table that somebody empties, drops or makes anew meanwhile."""
        self._batch(round, "wiped", [])

    def _batch(self, round: Round, kind: str, amounts: list[float]) -> None:
        tenant = self.rng.choice(self.world.tenants)
        executions = []
        for number in range(self.rng.randrange(2, MAX_BATCH + 1)):
            rows = self._rows(round)
            if amounts:
                rows = [row | {"amount": amounts[number % len(amounts)]} for row in rows]
            executions.append({"id": self._name(round, kind), "rows": rows})
        self.writer.finish(tenant.user_id, round.table(kind), executions)

    def upsert(self, round: Round) -> None:
        keys = self.rng.sample(range(KEYS), self.rng.randrange(1, 8))
        options = {"strategy": "upsert", "key_columns": ["k"]}
        self._execution(round, "upsert", self._rows(round, keys), options)

    def replace(self, round: Round) -> None:
        self._execution(round, "replace", self._rows(round), {"strategy": "replace"})

    def drift(self, round: Round) -> None:
        """A column that holds whole numbers in one result and fractions in the next is rebuilt."""
        fraction = self.rng.choice([0, 0.25, 0.125])
        rows = [row | {"amount": row["k"] + fraction} for row in self._rows(round)]
        self._execution(round, "drift", rows)

    def again(self, round: Round) -> None:
        """An execution that may have been uploaded, or not, or is just being uploaded, has another result, or is sent again."""
        if not round.executions:
            return self.inline(round)
        kind, execution = self.rng.choice(round.executions)
        if kind == "append" and self.rng.random() < 0.7:
            version = self.rng.randrange(1, 1_000_000)
            rows = self._rows(round, version=version, execution=execution)
            self.world.attempt(
                f"update {TABLE} set result_rows = %s where execution_id = %s", [Jsonb(rows), execution]
            )
        elif kind == "function":
            self._fill(execution, self._rows(round, version=self.rng.randrange(1, 1_000_000), execution=execution))
            self.world.attempt("select snowflake_bridge.upload(%s, %s)", [execution, FUNCTION_TABLE])
        else:
            self.world.attempt("select snowflake_bridge.upload(%s, %s)", [execution, TABLE])

    def function(self, round: Round) -> None:
        execution = self._name(round, "function")
        self._fill(execution, self._rows(round, execution=execution))
        self.world.attempt(
            f"insert into {FUNCTION_TABLE} (execution_id, status, snowflake_enabled, snowflake_table_name) "
            "values (%s, 'completed', true, %s)",
            [execution, round.table("append")],
        )

    def query(self, round: Round) -> None:
        round.queries += 1
        name = f"{round.number}-query-{round.queries}"
        query = (
            f"select k, 0 as v, md5('{name}/' || k) as x from generate_series(1, {self.rng.randrange(0, MAX_ROWS)}) as k"
        )
        self.world.attempt(
            "insert into queries select snowflake_bridge.upload_query("
            "query => %(query)s, table_name => %(table)s, execution_id => %(name)s), %(name)s, %(query)s",
            {"query": query, "table": round.table("append"), "name": name},
        )

    def _name(self, round: Round, kind: str) -> str:
        name = f"{round.number}-{len(round.executions)}"
        round.executions.append((kind, name))
        return name

    def _rows(
        self, round: Round, keys: list[int] | None = None, *, version: int = 0, execution: str | None = None
    ) -> list[dict[str, Any]]:
        execution = execution or f"{round.number}-{len(round.executions)}"
        if keys is None:
            keys = list(range(self.rng.choice([0, 1, 1, 2, 3, 5, 8, MAX_ROWS])))
        return [{"k": key, "v": version, "x": text(execution, version, key)} for key in keys]

    def _fill(self, execution: str, rows: list[dict[str, Any]]) -> None:
        """The result that the function gives, in one transaction."""
        self.world.attempt(
            "with gone as (delete from results where execution_id = %(id)s) "
            "insert into results select %(id)s, r.k, r.v, r.x "
            "from jsonb_to_recordset(%(rows)s) as r (k int, v int, x text)",
            {"id": execution, "rows": Jsonb(rows)},
        )

    def _execution(
        self, round: Round, kind: str, rows: list[dict[str, Any]], options: dict[str, Any] | None = None
    ) -> None:
        tenant = self.rng.choice(self.world.tenants)
        executions = [{"id": self._name(round, kind), "rows": rows, "options": options}]
        self.writer.finish(tenant.user_id, round.table(kind), executions)

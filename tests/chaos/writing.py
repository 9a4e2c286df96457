"""The ways in which an application may write down that executions have finished."""

from __future__ import annotations

import random
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from chaos.world import TABLE, Connection, World

COLUMNS = "execution_id, user_id, status, result_rows, snowflake_enabled, snowflake_table_name, snowflake_options"
INSERT = (
    f"insert into {TABLE} ({COLUMNS}) select e.id, %(user)s, %(status)s, e.rows, true, %(table)s, e.options "
    "from jsonb_to_recordset(%(executions)s) as e (id text, rows jsonb, options jsonb)"
)


class Writer:
    """Draws one of them each time. Whether all of it was done or nothing, nobody may know."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self._prepared = 0

    def finish(self, user: str, table: str, executions: list[dict[str, Any]]) -> None:
        """These executions of one user have finished: each has an `id`, `rows` and maybe `options`."""
        way = self.rng.choice([self._insert, self._insert, self._update, self._copy, self._savepoints, self._two_phases])
        way({"user": user, "table": table, "status": "completed", "executions": executions})

    def _insert(self, what: dict[str, Any]) -> None:
        self.world.attempted(lambda connection: insert(connection, what))

    def _update(self, what: dict[str, Any]) -> None:
        """They ran before, and one statement finishes all."""
        ids = [execution["id"] for execution in what["executions"]]

        def update(connection: Connection) -> None:
            insert(connection, what | {"status": "running"})
            connection.execute(f"update {TABLE} set status = 'completed' where execution_id = any (%s)", [ids])

        self.world.attempted(update)

    def _copy(self, what: dict[str, Any]) -> None:
        def copy(connection: Connection) -> None:
            with connection.cursor().copy(f"copy {TABLE} ({COLUMNS}) from stdin") as lines:
                for one in what["executions"]:
                    options = Jsonb(one["options"]) if one.get("options") else None
                    lines.write_row((one["id"], what["user"], what["status"], Jsonb(one["rows"]), True, what["table"], options))

        self.world.attempted(copy)

    def _savepoints(self, what: dict[str, Any]) -> None:
        """Each is written, taken back and written again, all in one transaction."""

        def write(connection: Connection) -> None:
            with connection.transaction():
                for execution in what["executions"]:
                    one = what | {"executions": [execution]}
                    with connection.transaction(force_rollback=True):
                        insert(connection, one | {"executions": [execution | {"rows": [{"k": -1, "v": -1, "x": "taken back"}]}]})
                    with connection.transaction():
                        insert(connection, one)

        self.world.attempted(write)

    def _two_phases(self, what: dict[str, Any]) -> None:
        self._prepared += 1
        name = f"finished-{self._prepared}"

        def prepare(connection: Connection) -> None:
            connection.execute("begin")
            try:
                insert(connection, what)
            except psycopg.errors.InternalError_:
                connection.execute("rollback")
                raise
            connection.execute(f"prepare transaction '{name}'")
            connection.execute(f"commit prepared '{name}'")

        if self.world.attempted(lambda connection: [prepare(connection)]) is None:
            # A transaction that is prepared outlives everybody, and what it has locked stays so.
            self.world.attempt(f"commit prepared '{name}'")


def insert(connection: Connection, what: dict[str, Any]) -> None:
    """One statement for all."""
    connection.execute(INSERT, what | {"executions": Jsonb(what["executions"])})

"""A server with the extension, an application's role and its watched table, all pointed at one account of the stand-in."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from harness import reader, wait
from harness.cluster import Cluster
from harness.standin import ROLE, WAREHOUSE, Account, Standin, User

DATABASE = "shop"
APPLICATION = "app"
TABLE = "public.workflow_executions"
RESULTS = "WORKFLOW_EXECUTIONS_RESULTS"
SETTLED = ("completed", "failed")
# Everything that waits waits briefly here; what is measured in minutes in production takes tenths of a second.
SETTINGS = {
    "shared_preload_libraries": "snowflake_bridge",
    "snowflake_bridge.poll_interval": "1s",
    "snowflake_bridge.retry_base_delay": "100ms",
    "snowflake_bridge.retry_max_delay": "500ms",
    "snowflake_bridge.crash_retry_delay": "1s",
    "snowflake_bridge.connect_timeout": "2s",
    # Where it has passed, a status is put off for a minute; a busy machine may stand still for a second.
    "snowflake_bridge.mirror_timeout": "10s",
}


class Bridge:
    """One application on one server. `app` is the application's own connection, `admin` a superuser's."""

    def __init__(
        self,
        standin: Standin,
        settings: Mapping[str, str] | None = None,
        *,
        hosts: Iterable[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.standin = standin
        self.account: Account = standin.new_account()
        allowed = [self.account.origin, f"http://{standin.s3_endpoint}", *hosts]
        self.cluster = Cluster({}, variables)
        self.cluster.settings |= {
            **SETTINGS,
            "snowflake_bridge.key_file": str(self.cluster.keys / "keyring"),
            "snowflake_bridge.allowed_hosts": ", ".join(allowed),
            **(settings or {}),
        }
        try:
            self.cluster.start()
            self._create_application()
        except BaseException:
            self.cluster.close()
            raise

    def _create_application(self) -> None:
        with self.cluster.connect() as server:
            server.execute(f"create role {APPLICATION} login")
            server.execute(f"create database {DATABASE} owner {APPLICATION}")
        self.connect()
        self.admin.execute("create extension snowflake_bridge")
        self.admin.execute("select snowflake_bridge.grant_usage(%s)", [APPLICATION])

    def connect(self) -> None:
        """Opens both connections, the first time or after the server was restarted."""
        self.admin = self.cluster.connect(DATABASE)
        self.app = self.cluster.connect(DATABASE, APPLICATION)

    def reload(self) -> None:
        """Has the server read its settings again; the worker then also does at once what it does now and then."""
        self.admin.execute("select pg_reload_conf()")

    def close(self) -> None:
        """Ends the server and removes what it left."""
        self.cluster.close()

    # --- what a user of the extension does ------------------------------------------------------------------------

    def configure(self, user: User, *, connection: Any = None, **arguments: Any) -> str:
        """Saves a configuration for this Snowflake user, with its password unless told otherwise."""
        settings = {
            "account_identifier": self.account.host,
            "warehouse": WAREHOUSE,
            "database": user.database,
            "schema": user.schema,
            "role": ROLE,
            "username": user.name,
        } | arguments
        if not settings.keys() & {"password", "private_key", "token", "oauth_token", "oauth_client_id"}:
            settings["password"] = user.password
        return str(self.call("create_config", connection=connection, **settings))

    def call(self, function: str, *, connection: Any = None, **arguments: Any) -> Any:
        """The value of one of the extension's functions, called with named arguments."""
        named = ", ".join(f"{name} => %({name})s" for name in arguments)
        [row] = (connection or self.app).execute(f"select snowflake_bridge.{function}({named}) as value", arguments)
        return row["value"]

    def watch(self, **arguments: Any) -> None:
        """Watches the application's table, which is made here in its standard form."""
        self.call("watch", relation=TABLE, create_if_missing=True, **arguments)

    def ready(self, user: User | None = None) -> User:
        """The usual start: one Snowflake user, configured, and the application's table watched."""
        user = user or self.account.add_user()
        self.configure(user)
        self.watch()
        return user

    def also_allow(self, *origins: str) -> None:
        """Lets configurations name other hosts as well."""
        self.cluster.settings["snowflake_bridge.allowed_hosts"] += "".join(f", {origin}" for origin in origins)
        self.cluster.restart()
        self.connect()

    def start_execution(self, execution_id: str, *, enabled: bool = True, **columns: Any) -> None:
        """The application's own INSERT, when a run begins."""
        row = {"execution_id": execution_id, "status": "running", "snowflake_enabled": enabled} | columns
        names = ", ".join(row)
        values = ", ".join(f"%({name})s" for name in row)
        self.app.execute(f"insert into {TABLE} ({names}) values ({values})", prepared(row))

    def finish(self, execution_id: str, rows: Any, **columns: Any) -> None:
        """The application's own UPDATE, when a run has finished."""
        row = {"status": "completed", "result_rows": Jsonb(rows)} | columns
        changes = ", ".join(f"{name} = %({name})s" for name in row)
        self.app.execute(
            f"update {TABLE} set {changes} where execution_id = %(execution_id)s",
            prepared(row) | {"execution_id": execution_id},
        )

    def run(self, execution_id: str, rows: Any, *, enabled: bool = True, **columns: Any) -> None:
        """One execution from its start to its finish."""
        self.start_execution(execution_id, enabled=enabled, **columns)
        self.finish(execution_id, rows)

    @contextlib.contextmanager
    def unclaimed(self) -> Iterator[None]:
        """What is finished in the block is not begun before its end."""
        with contextlib.closing(self.cluster.connect(DATABASE)) as holder, holder.transaction():
            # The queue is looked through together with them.
            holder.execute("lock table snowflake_bridge.snowflake_configurations in access exclusive mode")
            yield

    # --- what is to be seen of it ---------------------------------------------------------------------------------

    def execution(self, execution_id: str) -> dict[str, Any]:
        """The application's row."""
        row = self.app.execute(f"select * from {TABLE} where execution_id = %s", [execution_id]).fetchone()
        assert row is not None, f"there is no execution {execution_id}"
        return row

    def upload(self, execution_id: str) -> dict[str, Any]:
        """The execution's latest row in the table of uploads."""
        row = self.admin.execute(
            "select * from snowflake_bridge.uploads where execution_id = %s order by id desc limit 1", [execution_id]
        ).fetchone()
        assert row is not None, f"execution {execution_id} was never queued"
        return row

    def settled(self, execution_id: str, seconds: float = 30.0) -> dict[str, Any]:
        """The application's row once its upload has completed or failed."""

        def look() -> dict[str, Any] | None:
            row = self.execution(execution_id)
            return row if row["snowflake_status"] in SETTLED else None

        try:
            return wait.until(look, f"execution {execution_id} settles", seconds)
        except wait.Late as late:
            execution, upload = plain(self.execution(execution_id)), plain(self.upload(execution_id))
            raise wait.Late(f"{late}\nexecution: {execution}\nupload: {upload}") from None

    def completed(self, execution_id: str, seconds: float = 30.0) -> dict[str, Any]:
        """The application's row once its upload has completed; a failed upload is a failure of the test."""
        row = self.settled(execution_id, seconds)
        assert row["snowflake_status"] == "completed", row["snowflake_error_message"]
        return row

    def failed(self, execution_id: str, seconds: float = 30.0) -> dict[str, Any]:
        """The application's row once its upload has failed; a completed upload is a failure of the test."""
        row = self.settled(execution_id, seconds)
        assert row["snowflake_status"] == "failed", plain(row)
        return row

    def uploading(self, match: Mapping[str, str], after: int = 0, seconds: float = 30.0) -> dict[str, Any]:
        """The first unanswered request since `after` whose audited fields begin with these texts."""

        def look() -> dict[str, Any] | None:
            for record in self.standin.audit(after):
                if record["finished"] is None and all(
                    (record[name] or "").lstrip().upper().startswith(text.upper()) for name, text in match.items()
                ):
                    return record
            return None

        return wait.until(look, f"a request is held at {dict(match)}", seconds)

    def tidied_up(self, after: int) -> None:
        """Waits until the stage was looked through since `after`, and nothing is unanswered: sessions are idle."""

        def is_tidy() -> bool:
            requests = self.standin.audit(after)
            looked = any((request["sql"] or "").startswith("LIST") for request in requests)
            return looked and all(request["finished"] is not None for request in requests)

        wait.until(is_tidy, "the stage has been tidied up, after which the session is idle")

    def goes_round(self, times: int = 2) -> None:
        """Waits until the worker has been through its loop so often, by uploads that fail at once."""
        for number in range(times):
            self.run(f"bad-{number}", [{"n": 1}], snowflake_options={"strategie": "append"})
            self.failed(f"bad-{number}")

    def spooled_files(self, upload: int) -> list[Path]:
        """The Parquet files of an upload that lie in the spool, in the order of their rows."""
        sql = (
            "select d.oid::text as database, u.upload_id::text as upload from snowflake_bridge.uploads u, pg_database d "
            "where u.id = %s and d.datname = current_database()"
        )
        [row] = self.app.execute(sql, [upload]).fetchall()
        folder = self.cluster.data / "snowflake_bridge_spool" / row["database"] / row["upload"]
        return sorted(folder.rglob("*.parquet"))

    def worker(self) -> int:
        """The process id of this database's worker."""
        sql = (
            "select pid from pg_stat_activity where datname = current_database() "
            "and backend_type = 'snowflake_bridge worker'"
        )
        [row] = wait.until(lambda: self.admin.execute(sql).fetchall(), "the worker runs")
        return int(row["pid"])

    def results(
        self, user: User, columns: Sequence[str] | str = "*", table: str = RESULTS, tail: str = ""
    ) -> list[tuple[Any, ...]]:
        """The target table's rows, by the official client; a list of columns is quoted, a text is taken as it is."""
        chosen = columns if isinstance(columns, str) else ", ".join(f'"{name}"' for name in columns)
        target = f'"{user.database}"."{user.schema}"."{table}"'
        return reader.query(self.account, user, f"select {chosen} from {target} {tail}")

    def row_count(self, user: User, table: str = RESULTS) -> int:
        """How many rows the target table has."""
        return int(self.results(user, "count(*)", table)[0][0])


def prepared(row: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as psycopg wants them: lists and objects as jsonb."""
    return {name: Jsonb(value) if isinstance(value, (dict, list)) else value for name, value in row.items()}


def plain(row: Mapping[str, Any]) -> str:
    """A row for a failure's message, without the result itself."""
    return json.dumps(
        {name: value for name, value in row.items() if name != "result_rows" and value is not None}, default=str
    )

"""What takes part: the stand-in, a proxy before each of its ports, a server with fail points, and the application's users."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from chaos import cancels, intruder
from chaos.proxy import Proxy
from harness import keys, wait
from harness.bridge import APPLICATION, DATABASE, TABLE, Bridge
from harness.cluster import give, scratch
from harness.keys import KeyPair
from harness.standin import ROLE, WAREHOUSE, Account, Standin, User

Connection = psycopg.Connection[dict[str, Any]]
Done = TypeVar("Done")
FUNCTION_TABLE = "public.function_runs"
SETTINGS = {
    "snowflake_bridge.poll_interval": "1s",
    "snowflake_bridge.retry_base_delay": "20ms",
    "snowflake_bridge.retry_max_delay": "300ms",
    "snowflake_bridge.crash_retry_delay": "0",
    "snowflake_bridge.max_attempts": "12",
    # In the end every upload is tried again anyway; until then most should survive what is done to the processes.
    "snowflake_bridge.max_crashes": "6",
    "snowflake_bridge.connect_timeout": "1s",
    "snowflake_bridge.stall_timeout": "2s",
    # Also how long a statement waits for a lock, such as that of a transaction whose session nobody holds any more.
    "snowflake_bridge.statement_timeout": "15s",
    "max_prepared_transactions": "10",
}
WATCH = f"snowflake_bridge.watch('{TABLE}', act_for_users => true, create_if_missing => true)"
SCHEMA = """
    create table results (execution_id text not null, k int not null, v int not null, x text not null);
    create index on results (execution_id);
    create function result_of(id text) returns table (k int, v int, x text)
        language sql stable set search_path from current
        as $$ select r.k, r.v, r.x from results r where r.execution_id = id order by r.k $$;
    create table queries (upload_id bigint primary key, execution_id text not null, query text not null);
"""


@dataclass(eq=False)
class Tenant:
    """Somebody whose uploads go to an account of their own choice: `user_id` of executions. With a key the worker logs in by that."""

    user_id: str
    account: Account
    user: User
    key: KeyPair | None = None

    def secret(self) -> dict[str, str]:
        """What a configuration has to know, by the name of the argument."""
        return {"private_key": self.key.private} if self.key else {"password": self.user.password}

    def let_in(self) -> None:
        """The account takes these credentials, and no others."""
        self.account.let_in(self.user, public_key=self.key.public if self.key else None)


class World:
    """Everything that runs. Closed, nothing of it is left."""

    def __init__(self, rng: random.Random) -> None:
        self._open = contextlib.ExitStack()
        try:
            self._build(rng)
        except BaseException:
            self._open.close()
            raise

    def _build(self, rng: random.Random) -> None:
        self.standin = self._open.enter_context(contextlib.closing(Standin()))
        gateway = self._proxy(self.standin.port, rng)
        store = self._proxy(int(self.standin.s3_endpoint.rpartition(":")[2]), rng)
        self.proxies = (gateway, store)
        self.accounts = [self.standin.new_account() for _ in range(2)]
        for account in self.accounts:
            account.store_at(f"127.0.0.1:{store.port}")
        self.orders = scratch()
        self._open.callback(shutil.rmtree, self.orders, ignore_errors=True)
        give(self.orders, 0o755)
        hosts = [f"http://{account.host}:{gateway.port}" for account in self.accounts]
        settings = SETTINGS | {"snowflake_bridge.allowed_hosts": ", ".join([*hosts, f"http://127.0.0.1:{store.port}"])}
        variables = {"SNOWFLAKE_BRIDGE_FAILPOINTS": str(self.orders)}
        self.bridge = self._open.enter_context(contextlib.closing(Bridge(self.standin, settings, variables=variables)))
        first, second = self.accounts
        self.tenants = [
            Tenant("alice", first, first.add_user("ALICE")),
            Tenant("bob", first, first.add_user("BOB")),
            Tenant("carol", second, second.add_user("CAROL"), keys.generate()),
        ]
        for tenant in self.tenants:
            tenant.let_in()
            self._configure(tenant, self.bridge.admin, user_id=tenant.user_id)
        # Uploads of the application itself: of queries, and of results that a function gives.
        self.own = self.tenants[0]
        self._configure(self.own, self.bridge.app)
        self.bridge.app.execute(SCHEMA + cancels.SCHEMA + intruder.SCHEMA)
        self.bridge.watch()
        self.bridge.app.execute(intruder.TRIGGER)
        self.bridge.app.execute(
            f"select snowflake_bridge.watch('{FUNCTION_TABLE}', create_if_missing => true, result_function => 'result_of')"
        )
        self.bridge.admin.execute(f"select {WATCH}")

    def _proxy(self, port: int, rng: random.Random) -> Proxy:
        return self._open.enter_context(contextlib.closing(Proxy(port, random.Random(rng.random()))))

    def _configure(self, tenant: Tenant, connection: Any, **arguments: Any) -> None:
        self.bridge.call(
            "create_config",
            connection=connection,
            account_identifier=tenant.account.host,
            warehouse=WAREHOUSE,
            database=tenant.user.database,
            schema=tenant.user.schema,
            role=ROLE,
            username=tenant.user.name,
            **tenant.secret(),
            **arguments,
        )

    def owners(self, tenant: Tenant) -> list[str | None]:
        """For whom there are configurations with a tenant's credentials; `None` is the application itself."""
        return [tenant.user_id, None] if tenant is self.own else [tenant.user_id]

    def save(self, tenant: Tenant, change: dict[str, str], *, verify: bool) -> bool:
        """Somebody changes a tenant's configurations. Returns whether that is known to have been done."""
        [(name, value)] = change.items()
        done = []
        for owner in self.owners(tenant):
            user = ", user_id => %(user)s" if owner else ""
            sql = f"select snowflake_bridge.update_config({name} => %(value)s, verify => %(verify)s{user})"
            arguments = {"value": value, "verify": verify, "user": owner}
            done.append(self.attempt(sql, arguments, as_admin=bool(owner)) is not None)
        return all(done)

    def tenant(self, user_id: str | None) -> Tenant:
        """Whose account an execution's rows go to."""
        return next((tenant for tenant in self.tenants if tenant.user_id == user_id), self.own)

    def close(self) -> None:
        """Ends and removes everything."""
        self._open.close()

    # --- connections that break -----------------------------------------------------------------------------------

    def attempt(self, sql: str, arguments: Any = None, *, as_admin: bool = False) -> list[dict[str, Any]] | None:
        """One transaction of the application, or of a superuser. `None`: nobody knows what became of it, or it was about an
        execution of which nobody knew."""

        def run(connection: Connection) -> list[dict[str, Any]]:
            cursor = connection.execute(sql, arguments)
            return cursor.fetchall() if cursor.description else []

        return self.attempted(run, as_admin=as_admin)

    def attempted(self, work: Callable[[Connection], Done], *, as_admin: bool = False) -> Done | None:
        """The same for what takes more than one statement."""
        try:
            return work(self.bridge.admin if as_admin else self.bridge.app)
        except (psycopg.OperationalError, psycopg.InterfaceError):
            self.reconnect()
            return None
        except psycopg.errors.UndefinedObject:
            return None
        except psycopg.errors.InternalError_ as error:
            # What failed in the application's own session took its transaction with it.
            if not str(error).startswith("fail point"):
                raise
            return None

    def ask(self, sql: str, arguments: Any = None) -> list[dict[str, Any]]:
        """The rows of a query that changes nothing, however often the server dies meanwhile."""
        return wait.until(
            lambda: (rows := self.attempt(sql, arguments, as_admin=True)) is not None and [rows], "the server answers", 120
        )[0]

    def reconnect(self) -> None:
        """Waits until the server takes connections again."""

        def connected() -> bool:
            try:
                self.bridge.connect()
            except psycopg.OperationalError:
                return False
            return True

        wait.until(connected, "the server takes connections", 120)

    # --- fail points ----------------------------------------------------------------------------------------------

    def order(self, place: str, what: str, number: int) -> None:
        """Whoever comes to this place next does `what`."""
        unfinished = self.orders / f"order-{number}"
        unfinished.write_text(what)
        unfinished.chmod(0o644)
        unfinished.rename(self.orders / f"{place}@{number}")

    def withdraw_orders(self) -> None:
        """Nobody has come to these places until now, and nothing happens there any more."""
        for order in self.orders.glob("*@*"):
            order.unlink(missing_ok=True)

    def carried_out(self) -> Counter[tuple[str, str]]:
        """How often what was done where: `(place, kill)`."""
        log = self.orders / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return Counter((place, what) for place, what, *_ in (line.split() for line in lines))

    def log(self) -> Path:
        """The server's log."""
        return self.bridge.cluster.log


__all__ = ["APPLICATION", "DATABASE", "TABLE", "Tenant", "World"]

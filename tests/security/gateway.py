"""Ways in which the users of a gateway, and those who have a role of their own beside it, may try to be somebody else.

`mallory` owns a schema whose functions the gateway exposes; `ann` and `ben` are users of the application with a connection each.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg

from harness import wait
from harness.bridge import Bridge
from harness.standin import ROLE, WAREHOUSE, User
from security.platform import Platform, Session

ANN, BEN, CAT, DAN, EVE = "6f0c-ann", "77aa-ben", "91d2-cat", "a3b1-dan", "c0de-eve"
TABLE = "public.workflow_executions"
POLICIES = """
    alter table {table} enable row level security;
    create policy own on {table} to authenticated
        using (user_id = current_setting('request.jwt.claims')::json ->> 'sub')
        with check (user_id = current_setting('request.jwt.claims')::json ->> 'sub');
"""
MALLORY = f"""
    create role mallory login;
    select snowflake_bridge.grant_usage('mallory');
    create schema of_mallory authorization mallory;
    create role pretender login;
    grant authenticated to pretender;
    set role mallory;
    grant usage on schema of_mallory to public;
    create function of_mallory.claim(subject text) returns text language sql as
        $$ select set_config('request.jwt.claims', json_build_object('sub', subject)::text, true) $$;
    create function of_mallory.look() returns text language plpgsql security definer as $$
    begin
        perform of_mallory.claim('{BEN}');
        return (select g.username from snowflake_bridge.get_config() g);
    end $$;
    create function of_mallory.of_the_role() returns text language sql security definer as
        $$ select g.username from snowflake_bridge.get_config() g $$;
    create function of_mallory.look_as_the_role() returns text language plpgsql security definer as $$
    begin
        perform of_mallory.claim('{BEN}');
        return of_mallory.of_the_role();
    end $$;
    create function of_mallory.remove() returns void language plpgsql security definer as $$
    begin
        perform of_mallory.claim('{CAT}');
        perform snowflake_bridge.delete_config();
    end $$;
    create function of_mallory.send(query text) returns text language plpgsql as $$
    begin return snowflake_bridge.upload_query(query, 'by_view'); end $$;
    create view of_mallory.sending as select of_mallory.send('select 1 as n') as id;
    create table of_mallory.loot (username text);
    create function of_mallory.take() returns trigger language plpgsql as $$
    begin
        insert into of_mallory.loot select g.username from snowflake_bridge.get_config() g;
        return new;
    end $$;
    create function of_mallory.plain(anything text) returns text language sql immutable as 'select $1';
    create table of_mallory.traps (id text);
    insert into of_mallory.traps values ('a');
    create index on of_mallory.traps (of_mallory.plain(id));
    create or replace function of_mallory.plain(anything text) returns text language plpgsql immutable as
        $$ begin perform snowflake_bridge.delete_config('second', user_id => '{CAT}'); return anything; end $$;
    create table of_mallory.forged (execution_id text, user_id text, status text, result_rows jsonb, result_columns jsonb, snowflake_status text,
        snowflake_enabled boolean, snowflake_error_message text, snowflake_options jsonb, snowflake_table_name text, snowflake_schema_name text);
    reset role;
    grant insert, select on of_mallory.loot, of_mallory.sending to public;
    grant create on schema of_mallory to authenticated;
    alter function of_mallory.of_the_role() owner to authenticated;
    revoke create on schema of_mallory from authenticated;
"""


def prepared(bridge: Bridge) -> Platform:
    """What an administrator does there: the extension, and who may use it."""
    platform = Platform(bridge)
    for role in ("authenticated", "service_role"):
        platform.admin.execute("select snowflake_bridge.grant_usage(%s)", [role])
    return platform


def settings(platform: Platform, user: User) -> dict[str, str]:
    """What a user's settings page sends."""
    return {
        "account_identifier": platform.bridge.account.host,
        "warehouse": WAREHOUSE,
        "database": user.database,
        "schema": user.schema,
        "role": ROLE,
        "username": user.name,
        "password": user.password,
    }


def configured(platform: Platform) -> dict[str, User]:
    """Two users of the application who have saved their connections, each tested."""
    users = {}
    for subject, name in ((ANN, "ANN"), (BEN, "BEN")):
        users[subject] = platform.bridge.account.add_user(name, schema=f"OF_{name}")
        platform.rpc("authenticated", subject, "create_config", **settings(platform, users[subject]))
    return users


def asking(platform: Platform, subject: str) -> Session:
    """A request of this user's."""
    return platform.as_user("authenticated", json.dumps({"sub": subject, "role": "authenticated"}))


def run_report(platform: Platform, subject: str, execution_id: str, **columns: str) -> None:
    """A report of this user's, inserted and finished with the user's own rights."""
    row = {"execution_id": execution_id, "user_id": subject, "status": "completed", "result_rows": '[{"n": 1}]'} | columns
    with asking(platform, subject) as connection:
        insert(connection, row)


def insert(connection: psycopg.Connection[Any], row: dict[str, Any], table: str = TABLE) -> None:
    """A finished row that is to be uploaded."""
    connection.execute(
        f"insert into {table} (snowflake_enabled, {', '.join(row)}) values (true, {', '.join(f'%({n})s' for n in row)})", row
    )


def status(platform: Platform, execution_id: str) -> str:
    """How the execution's row says it went, once it does."""
    sql = f"select snowflake_status || coalesce(': ' || snowflake_error_message, '') as status from {TABLE} where execution_id = %s and snowflake_status in ('completed', 'failed')"
    [row] = wait.until(lambda: platform.admin.execute(sql, [execution_id]).fetchall(), f"{execution_id} settles")
    return row["status"]


class Attacks:
    """A platform with somebody on it who is not to be trusted."""

    def __init__(self, bridge: Bridge) -> None:
        self.platform = prepared(bridge)
        self.admin = self.platform.admin
        self.users = configured(self.platform)
        self.admin.execute("create table public.letters (user_id text, body text)")
        self.admin.execute("insert into public.letters values (%s, 'to ann'), (%s, 'to ben')", [ANN, BEN])
        self.admin.execute(POLICIES.format(table="public.letters"))
        self.admin.execute(MALLORY)
        self.mallory = bridge.cluster.connect("platform", "mallory")
        for name in ("default", "second"):
            bridge.configure(self.users[BEN], connection=self.admin, user_id=CAT, name=name, verify=False)
        bridge.configure(bridge.account.add_user("BOSS"), connection=self.admin)

    def run(self) -> dict[str, str]:
        """Tries everything; what came of each: `succeeded`, the message with which it was refused, or `without effect`."""
        outcomes = {}
        for attack in REFUSALS:
            attempt: Callable[[], bool | str] = getattr(self, attack)
            try:
                outcome = attempt()
            except psycopg.Error as error:
                outcome = error.diag.message_primary or str(error)
            outcomes[attack] = outcome if isinstance(outcome, str) else "succeeded" if outcome else "without effect"
        return outcomes

    def _ask(self, subject: str | None, function: str, /, **body: Any) -> Any:
        return self.platform.rpc("authenticated", subject, function, **body)

    def _one(self, connection: psycopg.Connection[Any], sql: str, values: Any = ()) -> Any:
        row = connection.execute(sql, values).fetchone()
        return None if row is None else next(iter(row.values()))

    def _state(self, where: str, values: list[Any]) -> str:
        """The state in which an upload ends."""
        sql = f"select state from snowflake_bridge.uploads where {where} and state in ('completed', 'failed')"
        return str(wait.until(lambda: self._one(self.admin, sql, values), f"{where} ends"))

    def _sent(self, table: str) -> set[Any]:
        """What has arrived in a table of Ann's."""
        assert self._state("options ->> 'table_name' = %s", [table]) == "completed"
        return {value for row in self.platform.bridge.results(self.users[ANN], "*", table.upper()) for value in row}

    # --- SQL that a user of the gateway has written ---------------------------------------------------------------

    def role_by_query(self) -> bool:
        """`authenticator` may take on any of its roles, and so may what runs in its session."""
        inner = "select body from public.letters"
        self._ask(
            ANN,
            "upload_query",
            query=f"select set_config('role', 'service_role', true) union all select snowflake_bridge.upload_query('{inner}', 'letters')::text",
            table_name="roles",
        )
        return "to ben" in self._sent("letters")

    def claims_by_query(self) -> bool:
        claims = f"select set_config('request.jwt.claims', '{json.dumps({'sub': BEN})}', true) as who"
        self._ask(ANN, "upload_query", query=f"{claims} union all select username from snowflake_bridge.get_config()", table_name="names")
        return "BEN" in self._sent("names")

    def connection_by_query(self) -> bool:
        """The gateway's connection serves others afterwards."""
        try:
            self._ask(ANN, "upload_query", query="select set_config('role', 'service_role', false)", table_name="left")
            return bool(self._one(self.platform.gateway, "select current_user") == "service_role")
        finally:
            self.platform.gateway.execute("reset role")

    def query_within_view(self) -> bool:
        """The text reaches `upload_query` by way of `upload_table`."""
        self._ask(ANN, "upload_table", relation="of_mallory.sending")
        return 1 in self._sent("by_view")

    # --- Whose word counts for who asks ---------------------------------------------------------------------------

    def claims_of_definer(self) -> bool:
        """Ann calls a function of Mallory's that says it was Ben who called."""
        with asking(self.platform, ANN) as connection:
            return bool(self._one(connection, "select of_mallory.look()") == "BEN")

    def claims_of_definer_by_way_of_role(self) -> bool:
        """The same, by way of another function, which runs as the role that the session has."""
        with asking(self.platform, ANN) as connection:
            return bool(self._one(connection, "select of_mallory.look_as_the_role()") == "BEN")

    def deletion_by_definer(self) -> bool:
        with asking(self.platform, ANN) as connection:
            connection.execute("select of_mallory.remove()")
        return self._one(self.admin, "select name from snowflake_bridge.get_config('default', %s)", [CAT]) is None

    def claims_of_any_login(self) -> bool:
        with (
            self.platform.bridge.cluster.connect("platform", "pretender") as connection,
            self.platform.as_user("authenticated", json.dumps({"sub": BEN}), connection) as session,
        ):
            return bool(self._one(session, "select username from snowflake_bridge.get_config()") == "BEN")

    def naming_another(self) -> bool:
        return bool(self._ask(ANN, "get_config", user_id=BEN)[0]["username"] == "BEN")

    def configuration_of_nobody(self) -> bool:
        """What a request without a user saves, all such requests would share."""
        return bool(self._ask(None, "create_config", **settings(self.platform, self.users[ANN]), verify=False))

    def within_restricted_operation(self) -> bool:
        """A superuser looks after a table of Mallory's, whose index calls a function of hers."""
        self.admin.execute("reindex table of_mallory.traps")
        return self._one(self.admin, "select name from snowflake_bridge.get_config('second', %s)", [CAT]) is None

    # --- Watches of others ----------------------------------------------------------------------------------------

    def watch_of_a_stranger(self) -> bool:
        """Ann names no table; the only one that is watched is Mallory's."""
        self.mallory.execute("select snowflake_bridge.watch('of_mallory.runs', create_if_missing => true)")
        self.mallory.execute(
            "grant insert, select on of_mallory.runs to public; "
            "create trigger take before insert on of_mallory.runs for each row execute function of_mallory.take()"
        )
        self._ask(ANN, "create_execution", request={"name": "of ann"})
        return self._one(self.mallory, "select username from of_mallory.loot") == "ANN"

    def watch_in_the_way(self) -> bool:
        """Beside Mallory's watch there is the application's, and Ann still names none."""
        self.admin.execute("select snowflake_bridge.watch(%s, create_if_missing => true, act_for_users => true)", [TABLE])
        self.admin.execute(POLICIES.format(table=TABLE))
        try:
            self._ask(ANN, "create_execution", request={"name": "of ann"})
        except psycopg.errors.InvalidParameterValue as error:
            assert "relations are watched" in str(error)
            return True
        return False

    def watch_for_users(self) -> bool:
        self.mallory.execute("select snowflake_bridge.watch('of_mallory.served', true, act_for_users => true)")
        insert(self.mallory, {"execution_id": "served", "user_id": BEN, "status": "completed", "result_rows": '[{"n": 1}]'}, "of_mallory.served")
        return self._state("execution_id = 'served' and user_id = %s", [BEN]) == "completed"

    def trigger_for_another_watch(self) -> bool:
        [watch] = self.admin.execute("select id from snowflake_bridge.watches where relation = %s::regclass", [TABLE]).fetchall()
        self.mallory.execute(
            f"create trigger forged after insert on of_mallory.forged for each row execute function snowflake_bridge.enqueue('{watch['id']}')"
        )
        insert(self.mallory, {"execution_id": "forged", "user_id": BEN, "status": "completed"}, "of_mallory.forged")
        return self._one(self.admin, "select user_id from snowflake_bridge.uploads where execution_id = 'forged'") == BEN

    # --- Connections of others ------------------------------------------------------------------------------------

    def connection_of_the_owner(self) -> str:
        """Dan has none; the superuser who watches the table has."""
        run_report(self.platform, DAN, "of dan")
        return self._loaded("of dan")

    def connection_for_nobody(self) -> str:
        """A row that names no user, by a backend that forgot to."""
        for user in ("", None):
            row = {"execution_id": f"of {user!r}", "user_id": user, "status": "completed", "result_rows": '[{"n": 1}]'}
            with self.platform.as_user("service_role", '{"role": "service_role"}') as connection:
                insert(connection, row)
        outcomes = {self._loaded(f"of {user!r}") for user in ("", None)}
        return outcomes.pop() if len(outcomes) == 1 else str(outcomes)

    def _loaded(self, execution_id: str) -> str:
        """`succeeded`, or the error of an upload."""
        status(self.platform, execution_id)
        return str(
            self._one(
                self.admin,
                "select coalesce(error_message, 'succeeded') from snowflake_bridge.uploads where execution_id = %s",
                [execution_id],
            )
        )

    def errors_of_others(self) -> bool:
        """Of what class the last error was that anybody's upload has met."""
        run_report(self.platform, BEN, "with a mistake", snowflake_options='{"strategie": "append"}')
        assert status(self.platform, "with a mistake").startswith("failed")
        return self._ask(EVE, "worker_status")[0]["last_error_sqlstate"] is not None


THROUGH_GATEWAY = "upload_query cannot be called through a gateway, whose users would run SQL with its rights"
NO_USER = "the request names no user whose configuration it could be"
# What each comes to with the guards, in the order in which they are tried.
REFUSALS = {
    "role_by_query": THROUGH_GATEWAY,
    "claims_by_query": THROUGH_GATEWAY,
    "connection_by_query": THROUGH_GATEWAY,
    "query_within_view": THROUGH_GATEWAY,
    "claims_of_definer": "without effect",
    "claims_of_definer_by_way_of_role": "without effect",
    "deletion_by_definer": NO_USER,
    "claims_of_any_login": "without effect",
    "naming_another": f'permission denied to act for user "{BEN}"',
    "configuration_of_nobody": NO_USER,
    "within_restricted_operation": "snowflake_bridge cannot be used within a security-restricted operation",
    "watch_of_a_stranger": "no relation is watched",
    "watch_in_the_way": "without effect",
    "watch_for_users": "only superusers may watch with act_for_users",
    "trigger_for_another_watch": "without effect",
    "connection_of_the_owner": f'no Snowflake configuration for user "{DAN}"',
    "connection_for_nobody": "the row names no user, whose Snowflake configuration would be used",
    "errors_of_others": "without effect",
}

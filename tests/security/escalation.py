"""Ways in which somebody who owns a watched table may try to have code of theirs run as the worker, or as a superuser.

Each comes down to `kit.attack(name)`, called from some place: it tries by several means to write where only a superuser can.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import wait
from harness.bridge import DATABASE, Bridge
from harness.lifecycle import worker

# `{directory}` is a place where the server's user may make files.
KIT = """
    create schema kit;
    create function kit.attack(name text) returns text language plpgsql volatile as $kit$
    begin
        raise log 'attack: % as %', name, current_user;
        begin insert into public.canary values (name); exception when others then null; end;
        begin
            reset role;
            insert into public.canary values (name);
        exception when others then null; end;
        begin
            set local role postgres;
            insert into public.canary values (name);
        exception when others then null; end;
        begin
            set local session authorization postgres;
            insert into public.canary values (name);
        exception when others then null; end;
        -- Reading the result is a transaction that only reads: a superuser could still write a file.
        begin
            execute format('copy (select 1) to %L', '{directory}/' || name);
        exception when others then null; end;
        return name;
    end $kit$;
    create function kit.pure(name text, anything text) returns text language plpgsql immutable as
        $kit$ begin perform kit.attack(name); return anything; end $kit$;
    create function kit.fire() returns trigger language plpgsql as
        $kit$ begin perform kit.attack(tg_argv[0]); return new; end $kit$;
    create function kit.rows(id text) returns table (n int) language plpgsql as
        $kit$ begin perform kit.attack('result_function'); return query select 1; end $kit$;
    create operator kit.@@@@ (function = kit.pure, leftarg = text, rightarg = text);
    create type kit.who as (id text);
    create function kit.to_text(who kit.who) returns text language plpgsql as
        $kit$ begin perform kit.attack('cast_in_' || who.id); return 'somebody'; end $kit$;
    create cast (kit.who as text) with function kit.to_text(kit.who);
    create domain kit.state as text check (kit.pure('domain', value) is distinct from '');
    create domain kit.key as text check (kit.pure('domain_of_key', value) is distinct from '');
    create schema shadow;
    create schema leftover;
    create function shadow.clock_timestamp() returns timestamptz language plpgsql as
        $kit$ begin perform kit.attack('shadowed_name'); return pg_catalog.clock_timestamp(); end $kit$;
    create function leftover.clock_timestamp() returns timestamptz language plpgsql as
        $kit$ begin perform kit.attack('setting_left_behind'); return pg_catalog.clock_timestamp(); end $kit$;
    create function kit.leave_setting() returns trigger language plpgsql as
        $kit$ begin perform set_config('search_path', 'leftover, pg_catalog', false); return new; end $kit$;
"""


@dataclass(frozen=True)
class Attack:
    """One way. `{t}` in its statements is the attacker's watched table, and its one row is an execution of this name."""

    name: str
    prepare: str = ""
    watch: str = ""
    table: str = ""
    user_id: str = "null"
    options: str = ""


# Code attached to the table, which the worker's own statements run: those that read the row, or write its status.
ON_THE_TABLE = (
    Attack("trigger_before", "create trigger a before update on {t} for each row execute function kit.fire('{name}')"),
    Attack("trigger_after", "create trigger a after update on {t} for each row execute function kit.fire('{name}')"),
    Attack("trigger_of_statement", "create trigger a before update on {t} for each statement execute function kit.fire('{name}')"),
    Attack(
        "trigger_with_transition_table",
        "create trigger a after update on {t} referencing new table as changed for each statement execute function kit.fire('{name}')",
    ),
    Attack(
        "trigger_deferred",
        "create constraint trigger a after update on {t} deferrable initially deferred for each row execute function kit.fire('{name}')",
    ),
    Attack("generated_column", "alter table {t} add g text generated always as (kit.pure('{name}', snowflake_status)) stored"),
    Attack("check_constraint", "alter table {t} add check (kit.pure('{name}', snowflake_status) is distinct from '')"),
    Attack("domain", "alter table {t} alter snowflake_status type kit.state"),
    Attack("index_expression", "create index on {t} (kit.pure('{name}', snowflake_status))"),
    Attack("index_predicate", "create index on {t} (execution_id) where kit.pure('{name}', snowflake_status) is not null"),
    Attack(
        "rule",
        "create table {t}_trap (like {t} including all); insert into {t}_trap (execution_id) values ('{name}'); "
        "create rule a as on update to {t} do instead update {t}_trap t set snowflake_status = kit.attack('{name}') returning t.*",
    ),
    # Superusers are exempt from policies, but not from those that a rule or view brings in as its owner.
    Attack(
        "policy_with_check",
        "create table {t}_trap (like {t} including all); insert into {t}_trap (execution_id) values ('{name}'); "
        "alter table {t}_trap enable row level security, force row level security; "
        "create policy a on {t}_trap using (true) with check (kit.attack('{name}') is not null); "
        "create rule a as on update to {t} do instead update {t}_trap t set snowflake_status = new.snowflake_status returning t.*",
    ),
    Attack(
        "partition",
        "create trigger a before update on {t}_0 for each row execute function kit.fire('{name}')",
        table="create table {t} (execution_id text primary key, user_id text, status text, result_rows jsonb, result_columns jsonb) "
        "partition by hash (execution_id); create table {t}_0 partition of {t} for values with (modulus 1, remainder 0)",
    ),
    Attack(
        "domain_of_key",
        table="create table {t} (execution_id kit.key unique, user_id text, status text, result_rows jsonb, result_columns jsonb)",
    ),
    Attack("setting_left_behind", "create trigger a before update on {t} for each row execute function kit.leave_setting()"),
)
# Code that gives the rows.
IN_THE_RESULT = (
    Attack("result_function", watch="result_function => 'kit.rows(text)'"),
    Attack(
        "result_view",
        "create view {t}_rows as select '{name}'::text as execution_id, kit.attack('{name}') as rows",
        watch="result_relation => '{t}_rows'",
    ),
    Attack(
        "policy_using",
        "create table {t}_kept (execution_id text); insert into {t}_kept values ('{name}'); "
        "alter table {t}_kept enable row level security, force row level security; "
        "create policy a on {t}_kept using (kit.attack('{name}') is not null); create view {t}_rows as select execution_id, 1 as n from {t}_kept",
        watch="result_relation => '{t}_rows'",
    ),
    # A connection that only a superuser may make without a password, by which somebody else becomes one.
    Attack(
        "foreign_table",
        "create server here foreign data wrapper postgres_fdw options (host '{sockets}', dbname 'shop'); "
        "create user mapping for public server here options (user 'postgres'); "
        "create view kit.beyond as select '{name}'::text as execution_id, kit.attack('{name}') as rows; "
        "create foreign table {t}_rows (execution_id text, rows text) server here options (schema_name 'kit', table_name 'beyond')",
        watch="result_relation => '{t}_rows'",
    ),
)


class Kit:
    """The attacker's objects on a server, and what came of them."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        bridge.ready()
        self.files: Path = bridge.cluster.directory("canary")
        admin = bridge.admin
        admin.execute("create table public.canary (name text); revoke all on public.canary from public")
        admin.execute("create extension postgres_fdw; grant usage on foreign data wrapper postgres_fdw to app")
        bridge.app.execute(KIT.format(directory=self.files))

    def run(self) -> set[str]:
        """Tries everything; the names of what was tried."""
        tried = {self._shadow_names()}
        for attack in (*ON_THE_TABLE, *IN_THE_RESULT):
            self._launch(attack)
            tried.add(attack.name)
        tried |= {self._call_as_superuser(call) for call in ("upload", "retry_upload", "backfill")}
        tried |= {self._make_anew(), self._give_away()}
        return tried

    def succeeded(self) -> set[str]:
        """Those that wrote where only a superuser can."""
        rows = self.bridge.admin.execute("select distinct name from public.canary").fetchall()
        return {row["name"] for row in rows} | {file.name for file in self.files.iterdir()}

    def confined(self) -> set[str]:
        """Those whose code was run by a worker or reader, as the attacker."""
        lines = [line for line in self.bridge.cluster.log_text().splitlines() if "snowflake_bridge " in line and "attack: " in line]
        return {line.split("attack: ")[1].split(" as ")[0] for line in lines if line.endswith(" as app")}

    def _launch(self, attack: Attack) -> None:
        """One execution of the attack's table, until the worker has done with it all that it will."""
        app, table = self.bridge.app, f"kit.{attack.name}_runs"
        words = {"t": table, "name": attack.name, "sockets": self.bridge.cluster.sockets}
        if attack.table:
            app.execute(attack.table.format(**words))
        if attack.watch:
            app.execute(attack.prepare.format(**words))
        arguments = f"'{table}', create_if_missing => true"
        app.execute(f"select snowflake_bridge.watch({arguments}{', ' if attack.watch else ''}{attack.watch.format(**words)})")
        if attack.prepare and not attack.watch:
            app.execute(attack.prepare.format(**words))
        columns, values = ("", "") if attack.watch else (", result_rows", """, '[{"n": 1}]'""")
        app.execute(
            f"insert into {table} (execution_id, status, snowflake_enabled{columns}) "
            f"values ('{attack.name}', 'completed', true{values})"
        )
        self._settle(f"u.watch_id = (select id from snowflake_bridge.watches where relation = '{table}'::regclass)", attack.name)

    def _settle(self, which: str, name: str, seconds: float = 60.0) -> None:
        """Waits until the upload has ended, and its status was written or could not be."""
        sql = (
            f"select from snowflake_bridge.uploads u where {which} and state in ('completed', 'failed', 'retry') "
            "and (not needs_mirror or mirror_error is not null)"
        )
        wait.until(lambda: self.bridge.admin.execute(sql).fetchall(), f"{name} has come to an end", seconds)

    def _shadow_names(self) -> str:
        """The database's owner decides where names are looked up in new sessions: the worker's, too."""
        before = self.bridge.worker()
        self.bridge.app.execute(f"alter database {DATABASE} set search_path = shadow, pg_catalog, public")
        self.bridge.admin.execute("select pg_terminate_backend(%s)", [before])
        worker(self.bridge.cluster, DATABASE, other_than=before)
        self.bridge.run("shadowed_name", [{"n": 1}])
        self._settle("u.execution_id = 'shadowed_name'", "shadowed_name")
        self.bridge.app.execute(f"alter database {DATABASE} reset search_path")
        return "shadowed_name"

    def _call_as_superuser(self, function: str) -> str:
        """A superuser looks after somebody's table: its columns have types whose casts are somebody's functions."""
        table, app, admin = f"kit.{function}_runs", self.bridge.app, self.bridge.admin
        name = f"cast_in_{function}"
        app.execute(
            f"create table {table} (execution_id text unique, user_id kit.who, status text, result_rows jsonb, result_columns jsonb)"
        )
        app.execute("select snowflake_bridge.watch(%s)", [table])
        insert: Callable[..., Any] = app.execute
        insert(
            f"insert into {table} (execution_id, user_id, status, snowflake_enabled) values ('{name}', row('{function}'), 'running', true)"
        )
        calls = {
            "upload": f"select snowflake_bridge.upload('{name}', '{table}')",
            "backfill": f"select snowflake_bridge.backfill(null, '{table}')",
            "retry_upload": f"select snowflake_bridge.retry_upload(max(id)) from snowflake_bridge.uploads where execution_id = '{name}'",
        }
        if function == "backfill":
            app.execute(f"alter table {table} disable trigger user; update {table} set status = 'completed'")
        if function == "retry_upload":
            app.execute(f"update {table} set status = 'completed', result_rows = '5'")
            sql = f"select from snowflake_bridge.uploads where execution_id = '{name}' and state = 'failed'"
            wait.until(lambda: admin.execute(sql).fetchall(), "there is something to retry")
        admin.execute(calls[function])
        return name

    def _make_anew(self) -> str:
        """A superuser's function in the attacker's schema, who drops it there and makes another."""
        name, admin = "function_made_anew", self.bridge.admin
        admin.execute("create function kit.of_boss(id text) returns table (n int) language sql as 'select 1'")
        admin.execute("select snowflake_bridge.watch('public.boss_runs', true, result_function => 'kit.of_boss(text)')")
        self.bridge.configure(self.bridge.account.add_user("BOSS"), connection=admin)
        self.bridge.app.execute(
            "alter schema kit owner to current_user; drop function kit.of_boss(text); "
            "create function kit.of_boss(id text) returns table (n int) language plpgsql as "
            f"$$ begin perform kit.attack('{name}'); return query select 1; end $$"
        )
        admin.execute("insert into boss_runs (execution_id, status, snowflake_enabled) values (%s, 'completed', true)", [name])
        self._settle(f"u.execution_id = '{name}'", name)
        return name

    def _give_away(self) -> str:
        """A superuser's watched table that is given to the attacker, and goes on to be watched."""
        name, admin = "table_given_away", self.bridge.admin
        admin.execute("select snowflake_bridge.watch('public.given_runs', true)")
        admin.execute("alter table given_runs owner to app")
        self.bridge.app.execute(f"create trigger a before update on given_runs for each row execute function kit.fire('{name}')")
        self.bridge.app.execute(
            "insert into given_runs (execution_id, status, snowflake_enabled, result_rows) values (%s, 'completed', true, '[]')", [name]
        )
        self._settle(f"u.execution_id = '{name}'", name)
        return name

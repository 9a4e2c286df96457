"""Ways in which somebody may try to have code of theirs run with the rights of a watched table's owner, whose table it is not.

They hold TRIGGER on it or on a part of it, own the schema that it is in, or are just being given it. The attacker is `app`; it comes down to the kit's
`kit.attack(name)`, which leaves a line in the log that says as whom it ran.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness import wait
from harness.bridge import DATABASE, Bridge
from security.escalation import KIT

# Whose tables are watched: a superuser's, and those of a role that nobody else is a member of.
OWNERS = ("postgres", "keeper")
# `hold` keeps whoever comes by until its row is gone; it is a superuser's, whom every owner trusts.
SETUP = """
    create role keeper login;
    select snowflake_bridge.grant_usage('keeper');
    create schema keeper_own authorization keeper;
    create schema gate;
    grant usage on schema gate to keeper;
    create table gate.closed (name text);
    create function gate.hold(gate text) returns boolean language plpgsql security definer as $gate$
    begin
        while exists (select from gate.closed where name = gate) loop perform pg_sleep(0.01); end loop;
        return true;
    end $gate$;
    create function gate.hold_reader(gate text) returns boolean language plpgsql as $gate$
    begin return current_setting('application_name') <> 'snowflake_bridge reader' or gate.hold(gate); end $gate$;
    create function gate.hold_statement() returns trigger language plpgsql as
        $gate$ begin perform gate.hold(tg_argv[0]); return null; end $gate$;
"""
# Somebody else has locked a relation.
LOCKED = "wait_event_type = 'Lock' and wait_event = 'relation'"
# What is found under the name of a relation once its schema was exchanged.
FALSE_RELATION = (
    "create view {schema}.{relation} as select '{name}'::text as execution_id, kit.attack('{name}') as snowflake_status, "
    "to_jsonb(kit.attack('{name}')) as result_rows, null::jsonb as result_columns, null::jsonb as parameters; "
    "grant select on {schema}.{relation} to public; grant usage on schema {schema} to public"
)
PARTITIONED = (
    "create table {t} (execution_id text primary key, user_id text, status text, result_rows jsonb, result_columns jsonb) "
    "partition by hash (execution_id); create table {t}_0 partition of {t} for values with (modulus 1, remainder 0)"
)


@dataclass(frozen=True)
class Attack:
    """One way by a trigger. `{t}` is the watched table; what was granted or given away, and what the attacker then does."""

    name: str
    granted: str
    attacked: str
    table: str = ""
    revoked: str = ""


TRIGGER = "create trigger a before update on {t} for each row execute function kit.fire('{name}')"
BY_TRIGGER = (
    Attack("trigger_by_grantee", "grant trigger on {t} to app", TRIGGER),
    Attack("trigger_by_public", "grant trigger on {t} to public", TRIGGER),
    # It calls nothing of the attacker's, and its condition could do with PostgreSQL's own functions.
    Attack(
        "condition_by_grantee",
        "grant trigger on {t} to app",
        "create trigger a before update on {t} for each row when (kit.pure('{name}', new.snowflake_status) is not null) "
        "execute function suppress_redundant_updates_trigger()",
    ),
    Attack(
        "trigger_replaced_by_grantee",
        "grant trigger on {t} to app",
        "create or replace trigger snowflake_bridge_pending before update on {t} for each row execute function kit.fire('{name}')",
    ),
    Attack("trigger_left_by_grantee", "grant trigger on {t} to app", TRIGGER, revoked="revoke trigger on {t} from app"),
    Attack(
        "condition_left_by_grantee",
        "grant trigger on {t} to app",
        "create trigger a before update on {t} for each row when (kit.pure('{name}', new.snowflake_status) is not null) "
        "execute function suppress_redundant_updates_trigger()",
        revoked="revoke trigger on {t} from app",
    ),
    Attack(
        "operator_left_by_grantee",
        "grant trigger on {t} to app",
        "create trigger a before update on {t} for each row when (('{name}' operator(kit.@@@@) new.snowflake_status) is not null) "
        "execute function suppress_redundant_updates_trigger()",
        revoked="revoke trigger on {t} from app",
    ),
    Attack(
        "type_left_by_grantee",
        "grant trigger on {t} to app",
        "create domain kit.of_{name} as text check (kit.pure('{name}', value) is distinct from ''); "
        "create trigger a before update on {t} for each row when (new.snowflake_status::kit.of_{name} is not null) "
        "execute function suppress_redundant_updates_trigger()",
        revoked="revoke trigger on {t} from app",
    ),
    # PostgreSQL's own functions are no dependency of a trigger's, and some of them run what their arguments name or say.
    *(
        Attack(
            f"{name}_left_by_grantee",
            "grant trigger on {t} to app",
            f"{made} create trigger a before update on {{t}} for each row when ({condition} is not null) "
            "execute function suppress_redundant_updates_trigger()",
            revoked="revoke trigger on {t} from app",
        )
        for name, made, condition in (
            ("query", "", "query_to_xml($$select kit.attack('{name}')$$, true, true, '')"),
            ("rewriting", "", "ts_rewrite('a', $$select 'a'::tsquery, 'b'::tsquery from kit.attack('{name}')$$)"),
            (
                "view",
                "create view kit.view_{name} as select kit.attack('{name}'); grant select on kit.view_{name} to public;",
                "table_to_xml(('kit.view_' || '{name}')::regclass, true, true, '')",
            ),
            (
                "input",
                "create domain kit.field_{name} as text check (kit.pure('{name}', value) is distinct from ''); "
                "create type kit.row_{name} as (field kit.field_{name});",
                "record_in('(a)', ('kit.row_' || '{name}')::regtype, -1)",
            ),
        )
    ),
    Attack(
        "trigger_on_partition",
        "grant trigger on {t}_0 to app",
        "create trigger a before update on {t}_0 for each row execute function kit.fire('{name}')",
        table=PARTITIONED,
    ),
    Attack(
        "check_of_partition",
        "alter table {t}_0 owner to app",
        "alter table {t}_0 add check (kit.pure('{name}', snowflake_status) is distinct from '')",
        table=PARTITIONED,
    ),
)


class Neighbours:
    """A server with tables of others, and what came of the attacks on them."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        bridge.ready()
        self.admin, self.app = bridge.admin, bridge.app
        self.app.execute(KIT.format(directory=bridge.cluster.directory("canary")) + "grant usage on schema kit to public")
        self.admin.execute("create table public.canary (name text); revoke all on public.canary from public")
        self.admin.execute(SETUP)
        self.owners = {owner: bridge.cluster.connect(DATABASE, owner) for owner in OWNERS}
        for owner, connection in self.owners.items():
            bridge.configure(bridge.account.add_user(owner.upper()), connection=connection)

    def run(self) -> set[str]:
        """Tries everything; the names of what was tried."""
        tried = set()
        for owner in OWNERS:
            tried |= {self._attach(owner, attack) for attack in BY_TRIGGER}
            tried |= {self._swap_table(owner), self._swap_while_mirroring(owner)}
        # A superuser's rows are read past all policies, so that nothing holds up their reading.
        return tried | {
            self._swap_result("keeper"),
            self._give_away("keeper"),
            self._give_away_result("keeper", "table"),
            self._give_away_result("keeper", "view"),
        }

    def succeeded(self) -> set[str]:
        """Those whose code was run by a worker or reader as anybody but the attacker."""
        lines = [line for line in self.bridge.cluster.log_text().splitlines() if "snowflake_bridge " in line and "attack: " in line]
        return {line.split("attack: ")[1].split(" as ")[0] for line in lines if not line.endswith(" as app")}

    def mirror_errors(self) -> dict[str, str]:
        """Why statuses were not written, by execution."""
        sql = "select execution_id, mirror_error from snowflake_bridge.uploads where mirror_error is not null"
        return {row["execution_id"]: row["mirror_error"] for row in self.admin.execute(sql).fetchall()}

    def _watched(self, owner: str, attack: str, table: str = "", **arguments: Any) -> tuple[str, str]:
        """A watched table in a schema of the attacker's own; what the attack is called, and the table."""
        name = f"{attack}_of_{owner}"
        self.app.execute(f"create schema {name}; grant all on schema {name} to {owner}")
        relation = f"{name}.runs"
        if table:
            self.owners[owner].execute(table.format(t=relation))
        self.bridge.call("watch", connection=self.owners[owner], relation=relation, create_if_missing=True, **arguments)
        return name, relation

    def _attach(self, owner: str, attack: Attack) -> str:
        name, relation = self._watched(owner, attack.name, attack.table)
        self.admin.execute(attack.granted.format(t=relation))
        self.app.execute(attack.attacked.format(t=relation, name=name))
        if attack.revoked:
            self.admin.execute(attack.revoked.format(t=relation))
        self._finish(owner, name, relation)
        self._settle(name)
        return name

    def _swap_table(self, owner: str) -> str:
        """The reader waits for the table's lock, and finds another under its name."""
        name, relation = self._watched(owner, "table_swapped")
        self._finish(owner, name, relation, enabled=False)
        with self.bridge.cluster.connect(DATABASE) as other:
            other.execute(f"begin; lock table {relation} in access exclusive mode; set local role app")
            self._swap(name, "runs", other)
            other.execute("reset role")
            self._queue(name, relation)
            self._commit_once_a_reader_waits(other)
        self._settle(name)
        return name

    def _swap_while_mirroring(self, owner: str) -> str:
        """The table's own trigger holds up the worker, which could not lock the row, goes on to look at it, and finds another under its name."""
        name, relation = self._watched(owner, "swapped_while_mirroring")
        self.admin.execute(
            f"create trigger held before update on {relation} for each statement execute function gate.hold_statement('{name}')"
        )
        self._finish(owner, name, relation, enabled=False)
        with self._closed(name), self.bridge.cluster.connect(DATABASE) as other, other.transaction():
            other.execute(f"select from {relation} for update")
            self._queue(name, relation)
            self._until_one_waits("worker", "wait_event = 'PgSleep'")
            self._swap(name, "runs")
            self._open(name)
            wait.until(lambda: name in self.mirror_errors() or name in self.succeeded(), "the worker has looked at the row")
        self._settle(name)
        return name

    def _swap_result(self, owner: str) -> str:
        """A policy of the table's own holds up the reader, which goes on to read the rows elsewhere."""
        name, relation = f"result_swapped_of_{owner}", f"result_swapped_of_{owner}.rows"
        self.app.execute(f"create schema {name}; grant all on schema {name} to {owner}")
        owned = self.owners[owner]
        owned.execute(f"create table {relation} (execution_id text, result_rows jsonb)")
        owned.execute(f"select snowflake_bridge.watch('keeper_own.runs', true, result_relation => '{relation}')")
        owned.execute(
            "alter table keeper_own.runs enable row level security, force row level security; "
            f"create policy held on keeper_own.runs using (gate.hold_reader('{name}'))"
        )
        with self._closed(name):
            owned.execute("insert into keeper_own.runs (execution_id, status, snowflake_enabled) values (%s, 'completed', true)", [name])
            self._until_one_waits("reader", "wait_event = 'PgSleep'")
            self._swap(name, "rows")
            self._open(name)
            self._settle(name)
        return name

    def _give_away(self, owner: str) -> str:
        """The reader waits for the table's lock, and finds that it is the attacker's now, with a policy."""
        name, relation = self._watched(owner, "given_away")
        self._finish(owner, name, relation, enabled=False)
        with self.bridge.cluster.connect(DATABASE) as other:
            other.execute(f"begin; alter table {relation} owner to app")
            other.execute(
                f"set local role app; grant select on {relation} to {owner}; alter table {relation} enable row level security; "
                f"create policy a on {relation} using (kit.attack('{name}') is not null); reset role"
            )
            self._queue(name, relation)
            self._commit_once_a_reader_waits(other)
        self._settle(name)
        return name

    def _give_away_result(self, owner: str, kind: str) -> str:
        """The same of what holds the results: the reader waits for its lock, and finds that it gives what the attacker makes of it."""
        name = f"result_{kind}_given_away_of_{owner}"
        self.app.execute(f"create schema {name}; grant all on schema {name} to {owner}")
        owned, rows = self.owners[owner], f"{name}.rows"
        owned.execute(f"create {kind} {rows} as select '{name}'::text as execution_id, null::jsonb as result_rows")
        owned.execute(f"select snowflake_bridge.watch('{name}.runs', true, result_relation => '{rows}')")
        owned.execute(f"insert into {name}.runs (execution_id, status, snowflake_enabled) values (%s, 'completed', false)", [name])
        by_attacker = (
            f"alter table {rows} enable row level security; create policy a on {rows} using (kit.attack('{name}') is not null)"
            if kind == "table"
            else f"create or replace view {rows} as select kit.attack('{name}') as execution_id, null::jsonb as result_rows"
        )
        with self.bridge.cluster.connect(DATABASE) as other:
            other.execute(f"begin; alter {kind} {rows} owner to app; set local role app; {by_attacker}; grant select on {rows} to {owner}")
            other.execute("reset role")
            self._queue(name, f"{name}.runs")
            self._commit_once_a_reader_waits(other)
        self._settle(name)
        return name

    def _finish(self, owner: str, name: str, relation: str, *, enabled: bool = True) -> None:
        self.owners[owner].execute(
            f"""insert into {relation} (execution_id, status, snowflake_enabled, result_rows) values (%s, 'completed', %s, '[{{"n": 1}}]')""",
            [name, enabled],
        )

    def _queue(self, name: str, relation: str) -> None:
        """What `upload` does, which would wait for the relation's lock."""
        self.admin.execute(
            "insert into snowflake_bridge.uploads (watch_id, execution_id, user_id, owner_kind, owner_oid) "
            "select w.id, %s, w.user_id, 'role', w.owner_oid from snowflake_bridge.watches w where w.relation = %s::regclass",
            [name, relation],
        )

    def _swap(self, schema: str, relation: str, connection: Any = None) -> None:
        """What the owner of a schema may do, whoever owns what is in it."""
        by_owner = connection or self.app
        by_owner.execute(f"alter schema {schema} rename to {schema}_was; create schema {schema}")
        by_owner.execute(FALSE_RELATION.format(schema=schema, relation=relation, name=schema))

    @contextlib.contextmanager
    def _closed(self, gate: str) -> Iterator[None]:
        self.admin.execute("insert into gate.closed values (%s)", [gate])
        try:
            yield
        finally:
            self._open(gate)

    def _open(self, gate: str) -> None:
        self.admin.execute("delete from gate.closed where name = %s", [gate])

    def _until_one_waits(self, process: str, how: str) -> None:
        sql = f"select from pg_stat_activity where backend_type = 'snowflake_bridge {process}' and {how}"
        wait.until(lambda: self.admin.execute(sql).fetchall(), f"a {process} waits")

    def _commit_once_a_reader_waits(self, other: Any) -> None:
        """A reader does not wait for long, so nobody else has to come by between the two."""
        other.execute("set local statement_timeout = '30s'")
        other.execute(
            "do $$ begin while not exists (select from pg_stat_activity where backend_type = 'snowflake_bridge reader' "
            f"and {LOCKED}) loop perform pg_sleep(0.01), pg_stat_clear_snapshot(); end loop; end $$; commit"
        )

    def _settle(self, name: str) -> None:
        """Waits until the upload has ended, and its status was written or could not be."""
        sql = (
            "select from snowflake_bridge.uploads where execution_id = %s and state in ('completed', 'failed') "
            "and (not needs_mirror or mirror_error is not null)"
        )
        wait.until(lambda: self.admin.execute(sql, [name]).fetchall(), f"{name} has come to an end")

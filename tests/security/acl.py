"""Who may do what with every object of the extension, and whose rows anybody sees: what is expected, and what is found.

The expectation is written by hand. An object that it does not name may be used by superusers only: whoever adds one has to say here
for whom it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from harness import wait
from harness.cluster import Cluster

# What grant_usage gives: these functions to call,
PUBLIC_FUNCTIONS = {
    "backfill", "caller", "cancel_upload", "check", "create_config", "create_execution", "delete_config", "delete_uploaded",
    "enqueue", "execution_status", "gather", "get_config", "list_tables", "mark_pending", "public_key", "retry_upload", "test_connection", "unwatch",
    "update_config", "upload", "upload_progress", "upload_query", "upload_stats", "upload_table", "wait_for_upload", "watch",
    "worker_status",
}  # fmt: skip
# and these columns to read. No secret, no other table, and nothing to write.
READABLE = {
    "snowflake_configurations": "id user_id owner_kind owner_oid name account_identifier warehouse database schema role username "
    "auth_method oauth_client_id oauth_token_url oauth_scope is_active last_tested_at last_test_error version created_at updated_at",
    "uploads": "id upload_id watch_id execution_id user_id owner_kind owner_oid row_user_id options state generation claim_count "
    "attempt_count crash_count next_attempt_at throttled_since needs_table config_id target manifest staged_claim staged_for "
    "transaction_id transaction_table may_be_loaded row_count byte_count out_of_range_count error_message error_hint error_code error_sqlstate query_id needs_mirror mirror_error mirror_after "
    "clean_up_after created_at claimed_at server_started_at is_let_in completed_at",
    "upload_progress": "id execution_id state phase attempt rows staged_bytes total_bytes running_for error_message",
    "upload_stats": "user_id target waiting in_flight needs_credentials completed failed canceled row_count byte_count "
    "out_of_range_count average_seconds first_created_at last_completed_at",
    "execution_status": "relation execution_id upload status error_message uploaded_at row_count attempt_count mirror_error",
    "worker_status": "database running pid started_at queued in_flight retrying needs_credentials failed completed mirrors_pending "
    "oldest_waiting last_error_sqlstate key_usable readers memory_bytes version hint",
}  # fmt: skip
# Functions that refuse whoever is no superuser, even somebody who was given EXECUTE.
SUPERUSER_CALLS = {
    "adopt": "select snowflake_bridge.adopt()",
    "encryption_keys": "select snowflake_bridge.encryption_keys()",
    "generate_key_file": "select snowflake_bridge.generate_key_file()",
    "grant_usage": "select snowflake_bridge.grant_usage('trustee')",
    "revoke_usage": "select snowflake_bridge.revoke_usage('alice')",
    "rotate_encryption_key": "call snowflake_bridge.rotate_encryption_key()",
}

# The roles, among them those of a platform that gives its visitors everything that is made.
ROLES = """
    create role keeper superuser login;
    create role alice login;
    create role bob login;
    create role carol login;
    create role stranger login;
    create role trustee login;
    create role member login;
    grant alice to member;
    create role anon nologin noinherit;
    create role authenticated nologin noinherit;
    create role service_role nologin noinherit bypassrls;
    create role authenticator login noinherit;
    grant anon, authenticated, service_role to authenticator;
    create role pretender login;
    grant authenticated to pretender;
    set role keeper;
    alter default privileges grant all on schemas to anon, authenticated, service_role;
    alter default privileges grant all on tables to anon, authenticated, service_role;
    alter default privileges grant all on functions to anon, authenticated, service_role;
    alter default privileges grant all on sequences to anon, authenticated, service_role;
    alter default privileges grant all on types to anon, authenticated, service_role;
    reset role;
"""
USERS = ("alice", "bob", "carol", "authenticated", "service_role")
# Roles of which the catalog is asked, and whether they have what grant_usage gives: the last inherits it. Of a superuser it
# would say yes to everything, and of types as well, on which PUBLIC has all there is.
HOLDERS = {
    "alice": "usage", "bob": "usage", "carol": "usage", "authenticated": "usage", "service_role": "usage",
    "member": "usage", "stranger": "nothing", "anon": "nothing", "authenticator": "nothing", "pretender": "usage",
}  # fmt: skip


@dataclass(frozen=True)
class Owner:
    """Somebody whose rows there are."""

    name: str
    kind: str
    user_id: str


OWNERS = (
    Owner("alice", "role", "alice"),
    Owner("bob", "role", "bob"),
    Owner("carol of old", "role", "carol"),
    Owner("the role authenticated", "role", "authenticated"),
    Owner("user ann", "jwt", "ann"),
    Owner("user ben", "jwt", "ben"),
    # Users of the application may be called what roles are called.
    Owner("user alice", "jwt", "alice"),
)


@dataclass(frozen=True)
class Actor:
    """Somebody's session, and whose rows it is to see; and whose configurations are its own, if that is less."""

    name: str
    login: str
    role: str | None = None
    claims: str | None = None
    may_use: bool = True
    sees: frozenset[str] = field(default_factory=frozenset)
    owns: frozenset[str] | None = None
    is_superuser: bool = False


def sees(*names: str) -> frozenset[str]:
    return frozenset(names)


EVERYBODY = frozenset(owner.name for owner in OWNERS)
ANN = '{"sub": "ann", "role": "authenticated"}'
ACTORS = (
    Actor("superuser", "postgres", sees=EVERYBODY, owns=sees(), is_superuser=True),
    Actor("owner of the extension", "keeper", sees=EVERYBODY, owns=sees(), is_superuser=True),
    Actor("alice", "alice", sees=sees("alice")),
    Actor("alice with claims", "alice", claims='{"sub": "bob", "role": "service_role"}', sees=sees("alice")),
    Actor("bob", "bob", sees=sees("bob")),
    Actor("carol, made again", "carol"),
    Actor("member of alice", "member"),
    Actor("member as alice", "member", role="alice", sees=sees("alice")),
    Actor("stranger", "stranger", may_use=False),
    Actor("anon", "authenticator", role="anon", claims='{"role": "anon"}', may_use=False),
    Actor("anon with a subject", "authenticator", role="anon", claims='{"sub": "ann", "role": "anon"}', may_use=False),
    Actor("authenticator", "authenticator", may_use=False),
    Actor("user ann", "authenticator", role="authenticated", claims=ANN, sees=sees("user ann")),
    Actor("user ben", "authenticator", role="authenticated", claims='{"sub": "ben"}', sees=sees("user ben")),
    Actor("user alice", "authenticator", role="authenticated", claims='{"sub": "alice"}', sees=sees("user alice")),
    Actor("user without a subject", "authenticator", role="authenticated", claims="{}", sees=sees("the role authenticated")),
    Actor("forged claims", "pretender", role="authenticated", claims=ANN, sees=sees("the role authenticated")),
    # BYPASSRLS is what it says, for whoever reads tables; secrets it does not see either.
    Actor("service_role", "authenticator", role="service_role", claims='{"role": "service_role"}', sees=EVERYBODY, owns=sees()),
)  # fmt: skip

PRIVILEGES = """
    with object (kind, name, oid, part) as (
        select 'schema', n.nspname::text, n.oid, null::int2 from pg_namespace n where n.nspname = 'snowflake_bridge'
        union all
        select case c.relkind when 'S' then 'sequence' else 'table' end, c.relname, c.oid, null
          from pg_class c where c.relnamespace = 'snowflake_bridge'::regnamespace and c.relkind not in ('i', 'I', 't')
        union all
        select 'column', c.relname || '.' || a.attname, c.oid, a.attnum
          from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         where c.relnamespace = 'snowflake_bridge'::regnamespace and c.relkind not in ('i', 'I', 't', 'S')
        union all
        select 'function', p.proname, p.oid, null from pg_proc p where p.pronamespace = 'snowflake_bridge'::regnamespace
    )
    select r.rolname as role, o.kind, o.name, p.privilege,
           case o.kind
               when 'schema' then has_schema_privilege(r.oid, o.oid, p.privilege)
               when 'table' then has_table_privilege(r.oid, o.oid, p.privilege)
               when 'sequence' then has_sequence_privilege(r.oid, o.oid, p.privilege)
               when 'column' then has_column_privilege(r.oid, o.oid, o.part, p.privilege)
               when 'function' then has_function_privilege(r.oid, o.oid, p.privilege)
           end as held
      from object o
      join (values ('schema', 'USAGE'), ('schema', 'CREATE'),
                   ('table', 'SELECT'), ('table', 'INSERT'), ('table', 'UPDATE'), ('table', 'DELETE'), ('table', 'TRUNCATE'),
                   ('table', 'REFERENCES'), ('table', 'TRIGGER'),
                   ('column', 'SELECT'), ('column', 'INSERT'), ('column', 'UPDATE'), ('column', 'REFERENCES'),
                   ('sequence', 'USAGE'), ('sequence', 'SELECT'), ('sequence', 'UPDATE'),
                   ('function', 'EXECUTE')) p (kind, privilege) on p.kind = o.kind
     cross join pg_roles r
     where r.rolname = any (%s)
"""
# Beside privileges: what guards each object.
GUARDS = """
    select c.relname || ' has row level security, for its owner too' as name, c.relrowsecurity and c.relforcerowsecurity as held
      from pg_class c where c.relnamespace = 'snowflake_bridge'::regnamespace and c.relkind in ('r', 'p')
    union all
    select p.oid::regprocedure || ' runs with nobody else''s rights', not p.prosecdef
      from pg_proc p where p.pronamespace = 'snowflake_bridge'::regnamespace
    union all
    select p.polname || ' on ' || p.polrelid::regclass || ' is for reading', p.polcmd = 'r'
      from pg_policy p join pg_class c on c.oid = p.polrelid where c.relnamespace = 'snowflake_bridge'::regnamespace
    union all
    select 'the schema''s objects belong to the extension''s owner', not exists (
        select from pg_extension e
          join (select p.pronamespace, p.proowner from pg_proc p union all select c.relnamespace, c.relowner from pg_class c
                union all select n.oid, n.nspowner from pg_namespace n) o (namespace, owner) on o.owner <> e.extowner
         where e.extname = 'snowflake_bridge' and o.namespace = 'snowflake_bridge'::regnamespace)
"""  # fmt: skip
# What anybody may try with a relation; only superusers may do any of it, but read what is all readable.
ATTEMPTS = {
    "insert": "insert into {} default values",
    "update": "update {} set {column} = {column}",
    "delete": "delete from {}",
    "truncate": "truncate {}",
    "lock": "lock table {} in share mode",
    "trigger": "create trigger t before insert on {} for each row execute function suppress_redundant_updates_trigger()",
    "policy": "create policy p on {} using (true)",
    "index": "create index on {} ({column})",
    "add column": "alter table {} add column more int",
    "own": "alter table {} owner to current_user",
    "drop": "drop table {}",
    "grant": "grant select on {} to current_user",
}


class Matrix:
    """The roles, the extension with its rows, and a count of the cells that were looked at."""

    def __init__(self, cluster: Cluster, database: str) -> None:
        self.cluster, self.database = cluster, database
        self.admin = cluster.connect(database)
        self.admin.execute(ROLES)
        with cluster.connect(database, "keeper") as keeper:
            keeper.execute("create extension snowflake_bridge")
        for role in USERS:
            self.admin.execute("select snowflake_bridge.grant_usage(%s)", [role])
        self.admin.execute("create table public.watched (execution_id text)")
        self.admin.execute(
            "insert into snowflake_bridge.watches (installation_id, relation, user_id, owner_oid, finished, execution_id_column, "
            "status_column, result_rows_column) select id, 'public.watched', 'keeper', 'keeper'::regrole, '{done}', 'execution_id', 's', 'r' "
            "from snowflake_bridge.installation"
        )
        for owner in OWNERS:
            self._add_rows(owner)
        # The same name, another role.
        self.admin.execute("drop owned by carol; drop role carol; create role carol login")
        self.admin.execute("select snowflake_bridge.grant_usage('carol')")
        self.admin.execute("grant usage on schema snowflake_bridge to trustee")
        self.admin.execute("grant execute on all routines in schema snowflake_bridge to trustee")
        self.admin.execute("set row_security = off")

    def _add_rows(self, owner: Owner) -> None:
        row = {"name": owner.name, "kind": owner.kind, "user": owner.user_id}
        oid = "case %(kind)s::text when 'role' then (select oid from pg_roles where rolname = %(user)s::text) else 0 end"
        self.admin.execute(
            "insert into snowflake_bridge.snowflake_configurations (name, user_id, owner_kind, owner_oid, account_identifier, username, "
            f"auth_method) values (%(name)s, %(user)s, %(kind)s, {oid}, 'myorg-acct', 'u', 'token')",
            row,
        )
        self.admin.execute(
            "insert into snowflake_bridge.uploads (watch_id, execution_id, target, user_id, owner_kind, owner_oid, state) "
            f"select w.id, %(name)s, %(name)s, %(user)s, %(kind)s, {oid}, s from snowflake_bridge.watches w, unnest(array['queued', 'completed']) s",
            row,
        )

    @contextlib.contextmanager
    def session(self, actor: Actor) -> Iterator[psycopg.Connection[dict[str, Any]]]:
        """The actor's session, in a transaction that leaves nothing."""
        with self.cluster.connect(self.database, actor.login) as connection, connection.transaction(force_rollback=True):
            if actor.role:
                connection.execute(sql.SQL("set local role {}").format(sql.Identifier(actor.role)))
            if actor.claims is not None:
                connection.execute("select set_config('request.jwt.claims', %s, true)", [actor.claims])
            yield connection

    def judge(self) -> tuple[int, list[str]]:
        """How many cells there are, and what in them is not as expected."""
        cells = list(self._cells())
        return len(cells), [f"{cell}: {found}, not {expected}" for cell, expected, found in cells if expected != found]

    def first_unexpected(self) -> str | None:
        """The first cell that is not as expected, without a look at those after it."""
        return next((cell for cell, expected, found in self._cells() if expected != found), None)

    def change(self, statements: str) -> None:
        """Runs statements as a superuser; a changed setting then holds for whoever connects."""
        for statement in statements.split("; "):
            before = self._settings_read_at()
            self.admin.execute(statement)
            if "pg_reload_conf" in statement:
                wait.until(lambda before=before: self._settings_read_at() > before, "the settings are read")

    def _settings_read_at(self) -> datetime:
        with self.cluster.connect(self.database) as connection:
            [row] = connection.execute("select pg_conf_load_time() as moment").fetchall()
            return row["moment"]

    def _cells(self) -> Iterator[tuple[str, Any, Any]]:
        for row in self.admin.execute(PRIVILEGES, [list(HOLDERS)]).fetchall():
            cell = f"{row['role']}: {row['privilege']} on {row['kind']} {row['name']}"
            yield cell, is_expected(HOLDERS[row["role"]], row["kind"], row["name"], row["privilege"]), row["held"]
        for row in self.admin.execute(GUARDS).fetchall():
            yield row["name"], True, row["held"]
        relations = self.admin.execute(
            "select c.relname as name, min(a.attname) as column, array_agg(a.attname::text) as columns from pg_class c "
            "join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped "
            "where c.relnamespace = 'snowflake_bridge'::regnamespace and c.relkind in ('r', 'p', 'v', 'm') group by 1 order by 1"
        ).fetchall()
        for actor in ACTORS:
            with self.session(actor) as connection:
                yield from rows_cells(actor, connection)
                for relation in relations:
                    yield from attempt_cells(actor, connection, relation)
        with self.session(Actor("trustee", "trustee")) as connection:
            for function, call in SUPERUSER_CALLS.items():
                yield f"trustee, who was given EXECUTE: {function}", "42501", outcome(connection, call)


def is_expected(holds: str, kind: str, name: str, privilege: str) -> bool:
    """Whether a role that holds what grant_usage gives, or nothing, holds this privilege."""
    if holds == "nothing":
        return False
    relation, _, column = name.partition(".")
    return {
        "schema": privilege == "USAGE",
        "function": name in PUBLIC_FUNCTIONS,
        "column": privilege == "SELECT" and column in READABLE.get(relation, "").split(),
    }.get(kind, False)


def rows_cells(actor: Actor, connection: psycopg.Connection[dict[str, Any]]) -> Iterator[tuple[str, Any, Any]]:
    """Whose rows the actor sees in what may be read, one cell for each owner."""
    owns = actor.sees if actor.owns is None else actor.owns
    sources = {
        "snowflake_configurations": ("name", actor.sees),
        "uploads": ("execution_id", actor.sees),
        "get_config()": ("name", owns),
        "upload_progress": ("execution_id", actor.sees),
        "upload_stats": ("target", actor.sees),
        "execution_status": ("execution_id", EVERYBODY if actor.is_superuser else owns),
        "execution_status()": ("execution_id", EVERYBODY if actor.is_superuser else owns),
        "upload_progress()": ("execution_id", actor.sees),
        "upload_stats()": ("target", actor.sees),
    }
    for source, (column, expected) in sources.items():
        found = outcome(connection, f"select distinct {column} as name from snowflake_bridge.{source}")
        for owner in OWNERS:
            cell = f"{actor.name}: rows of {owner.name} in {source}"
            if actor.may_use and isinstance(found, list):
                yield cell, owner.name in expected, owner.name in [row["name"] for row in found]
            else:
                yield cell, "read" if actor.may_use else "42501", found if isinstance(found, str) else "read"


def attempt_cells(
    actor: Actor, connection: psycopg.Connection[dict[str, Any]], relation: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """What the actor tries with a relation, each by itself and undone."""
    name = relation["name"]
    target = f"snowflake_bridge.{name}"
    for column in ["*", *relation["columns"]]:
        wanted = relation["columns"] if column == "*" else [column]
        may = actor.is_superuser or (actor.may_use and set(wanted) <= set(READABLE.get(name, "").split()))
        chosen = "*" if column == "*" else f'"{column}"'
        found = outcome(connection, f"select {chosen} from {target}")
        yield f"{actor.name}: select {column} from {name}", "read" if may else "42501", "read" if isinstance(found, list) else found
    if actor.is_superuser:
        return
    for what, statement in ATTEMPTS.items():
        found = outcome(connection, statement.format(target, column=f'"{relation["column"]}"'))
        # A view has no storage to lock or to index, which is looked at first; whose it is comes next.
        yield f"{actor.name}: {what} {name}", "42501", "42501" if found in ("42501", "42809", "55000", "0A000") else found


def outcome(connection: psycopg.Connection[dict[str, Any]], statement: str) -> list[dict[str, Any]] | str:
    """The rows that a statement gives, or the SQLSTATE of its refusal; what it changed is undone."""
    try:
        with connection.transaction(force_rollback=True):
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []
    except psycopg.Error as error:
        return error.sqlstate or str(error)

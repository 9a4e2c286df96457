"""A database as a hosting platform with an HTTP gateway sets it up, and requests as that gateway sends them.

Roles, memberships and default privileges are those that Supabase ships; `developer` is its `postgres`, who is no superuser there.
"""

from __future__ import annotations

import json
from typing import Any

import psycopg

from harness.bridge import Bridge

DATABASE = "platform"
ROLES = """
    create role anon nologin noinherit;
    create role authenticated nologin noinherit;
    create role service_role nologin noinherit bypassrls;
    create role authenticator login noinherit;
    grant anon, authenticated, service_role to authenticator;
    create role developer login createrole createdb replication bypassrls;
    grant anon, authenticated, service_role to developer with admin option;
    alter role anon set statement_timeout = '3s';
    alter role authenticated set statement_timeout = '8s';
"""
SCHEMAS = """
    grant all on schema public to developer;
    grant usage on schema public to anon, authenticated, service_role;
    alter default privileges in schema public grant all on tables to developer, anon, authenticated, service_role;
    alter default privileges in schema public grant all on functions to developer, anon, authenticated, service_role;
    alter default privileges in schema public grant all on sequences to developer, anon, authenticated, service_role;
    alter default privileges for role developer in schema public grant all on tables to anon, authenticated, service_role;
    alter default privileges for role developer in schema public grant all on functions to anon, authenticated, service_role;
    alter default privileges for role developer in schema public grant all on sequences to anon, authenticated, service_role;
"""


class Platform:
    """The database, the gateway's one connection, and a superuser's."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        bridge.admin.execute(ROLES)
        bridge.admin.execute(f"create database {DATABASE} owner developer")
        self.admin = bridge.cluster.connect(DATABASE)
        self.admin.execute(SCHEMAS)
        self.admin.execute("create extension snowflake_bridge")
        self.gateway = bridge.cluster.connect(DATABASE, "authenticator")
        self.developer = bridge.cluster.connect(DATABASE, "developer")

    def rpc(self, role: str, subject: str | None, function: str, /, **body: Any) -> Any:
        """`POST /rpc/function` with a JSON body, by somebody whose token says `role` and `subject`: what is answered."""
        claims = {"role": role} | ({"sub": subject} if subject else {})
        [signature] = self.admin.execute(
            "select p.proretset as is_set, array(select format('%%I %%s', n, t::regtype) "
            "from unnest(p.proargnames, p.proargtypes::oid[]) a (n, t) where n = any (%(names)s)) as arguments "
            "from pg_proc p where p.oid = (select min(oid) from pg_proc where pronamespace = 'snowflake_bridge'::regnamespace "
            "and proname = %(function)s and proargnames @> %(names)s::text[])",
            {"names": list(body), "function": function},
        ).fetchall()
        fields = ", ".join(signature["arguments"]) or "nothing int"
        named = ", ".join(f'"{name}" := body."{name}"' for name in body)
        with self.as_user(role, json.dumps(claims)) as connection:
            [row] = connection.execute(
                f"select coalesce(json_agg(answer), '[]')::text as body from json_to_record(%s) as body({fields}), "
                f"lateral (select c.* from snowflake_bridge.{function}({named}) c) answer",
                [json.dumps(body)],
            ).fetchall()
        rows = json.loads(row["body"])
        return rows if signature["is_set"] else next(iter(rows[0].values()))

    def as_user(self, role: str, claims: str, connection: Any = None) -> Session:
        """A transaction that begins as the gateway's does."""
        return Session(connection or self.gateway, role, claims)


class Session:
    """One request."""

    def __init__(self, connection: psycopg.Connection[dict[str, Any]], role: str, claims: str) -> None:
        self.connection, self.role, self.claims = connection, role, claims

    def __enter__(self) -> psycopg.Connection[dict[str, Any]]:
        self._transaction = self.connection.transaction()
        self._transaction.__enter__()
        self.connection.execute(
            "select set_config('search_path', 'public', true), set_config('role', %s, true), set_config('request.jwt.claims', %s, true), "
            "set_config('request.method', 'POST', true)",
            [self.role, self.claims],
        )
        return self.connection

    def __exit__(self, *error: Any) -> None:
        self._transaction.__exit__(*error)


def refusal(call: Any, *arguments: Any, **named: Any) -> str:
    """SQLSTATE and message with which a call is refused, or what it returned instead."""
    try:
        return f"not refused: {call(*arguments, **named)!r}"
    except psycopg.Error as error:
        return f"{error.sqlstate}: {error.diag.message_primary}"

"""Functions, operators and types of PostgreSQL's own names and arguments, in a schema of somebody else's: each says that it was called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg

# Types of which whatever the extension's SQL compares or combines is.
TYPES = (
    "text", "name", "oid", "int2", "int4", "int8", "bool", "timestamptz", "interval", "jsonb", "json", "uuid", '"char"', "regclass",
    "text[]", "float8", "numeric", "xid",
)  # fmt: skip
OPERATORS = """
    select o.oprname as name, format_type(o.oprleft, null) as a, format_type(o.oprright, null) as b, format_type(o.oprresult, null) as result
      from pg_operator o
     where o.oprnamespace = 'pg_catalog'::regnamespace and o.oprkind = 'b' and o.oprname in ('=', '<>', '<', '>', '<=', '>=', '||', '+', '-', '->', '->>', '~', '~*')
       and o.oprleft = any (%s::regtype[]) and o.oprright = any (%s::regtype[])
"""
FUNCTIONS = """
    select p.proname as name, pg_get_function_identity_arguments(p.oid) as arguments, pg_get_function_result(p.oid) as result,
           array(select format_type(t, null) from unnest(p.proargtypes::oid[]) t) as types, p.proretset as is_set
      from pg_proc p
     where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f' and p.proname = any (%s)
       and not p.proargtypes::oid[] && array['"any"'::regtype, 'internal'::regtype, 'cstring'::regtype]::oid[]
       and p.prorettype not in ('internal'::regtype, 'cstring'::regtype, 'record'::regtype) and p.provariadic = 0
       and not exists (select from unnest(p.proargtypes::oid[]) t join pg_type y on y.oid = t where y.typtype = 'p')
"""
CALL = re.compile(r"(?<![.\w])([a-z_]+)\(")


def words_of(*roots: Path) -> set[str]:
    """Every word that is followed by a parenthesis in these files: among them all functions that their SQL may call."""
    files = [path for root in roots for path in root.rglob("*") if path.suffix in (".rs", ".sql")]
    return {name for path in files for name in CALL.findall(path.read_text())}


def lay(connection: psycopg.Connection[dict[str, Any]], schema: str, names: set[str]) -> int:
    """Makes a shadow of each in a schema; they do what the real ones do, and leave a line in the log. Returns how many there are."""
    connection.execute(f"create schema {schema}")
    count = 0
    for name in (name for name in TYPES if name.isidentifier()):
        called = f"{schema}.said_{name}"
        connection.execute(
            f"create function {called}(pg_catalog.{name}) returns boolean language plpgsql as "
            f"$shadow$ begin raise log 'shadow: type {name}'; return true; end $shadow$; "
            f"create domain {schema}.{name} as pg_catalog.{name} check ({called}(value))"
        )
        count += 1
    for row in connection.execute(OPERATORS, [list(TYPES), list(TYPES)]).fetchall():
        body = f"begin raise log 'shadow: operator {row['name']}'; return $1 operator(pg_catalog.{row['name']}) $2; end"
        function = f"{schema}.operator_{count}"
        connection.execute(f"create function {function}({row['a']}, {row['b']}) returns {row['result']} language plpgsql as $shadow$ {body} $shadow$")
        connection.execute(
            f"create operator {schema}.{row['name']} (leftarg = {row['a']}, rightarg = {row['b']}, function = {function})"
        )
        count += 1
    for row in connection.execute(FUNCTIONS, [sorted(names)]).fetchall():
        arguments = ", ".join(f"${number}" for number in range(1, len(row["types"]) + 1))
        call = f"pg_catalog.{row['name']}({arguments})"
        answer = f"return query select {call}" if row["is_set"] else f"perform {call}" if row["result"] == "void" else f"return {call}"
        body = f"begin raise log 'shadow: function {row['name']}'; {answer}; end"
        connection.execute(
            f"create function {schema}.{row['name']}({', '.join(row['types'])}) returns {row['result']} language plpgsql as $shadow$ {body} $shadow$"
        )
        count += 1
    return count

"""Names and values of users in the SQL that Snowflake gets: each stays what it is, one statement to a request, and nothing else is touched."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from harness import reader, wait
from harness.bridge import Bridge
from harness.standin import User

# `{canary}` is a table that none of them is about.
PAYLOADS = (
    "x'; drop table {canary}; --",
    'x"; drop table {canary}; --',
    "x\\'; drop table {canary}; --",
    'x\\"; drop table {canary}; --',
    "x''; drop table {canary}; --",
    'x""; drop table {canary}; --',
    "x' or '1' = '1",
    'x" or "1" = "1',
    "x') or 1 = 1 --",
    "x'\n; drop table {canary};\n--",
    "x$$; drop table {canary}; $$",
    "x*/; drop table {canary}; /*",
    "%' or '%' like '%",
    "../../{canary}",
    "@~/x' purge=true force=true --",
    "identifier('{canary}')",
)
STATEMENT_ENDS = re.compile(r";\s*\S")
# What the scanner takes out before it looks for an end: what is in quotes is a name or a value.
QUOTED = re.compile(r"'(?:[^'\\]|''|\\.)*'" + r'|"(?:[^"]|"")*"', re.DOTALL)


def test_names_and_values_stay_what_they_are(bridge: Bridge, user: User, capfd: pytest.CaptureFixture[str]) -> None:
    schema = f'"{user.database}"."{user.schema}"'
    canary = f"{schema}.CANARY"
    bridge.account.sql(f"create table {canary} (n int)")
    bridge.account.sql(f"insert into {canary} values (1), (2)")
    mark = bridge.standin.audit_mark()
    tried = 0
    payloads = [payload.format(canary=canary) for payload in PAYLOADS]
    for number, payload in enumerate(payloads):
        rows = [{"n": 1, payload: payload}]
        places: list[dict[str, Any]] = [
            {"table_name": payload},
            {"schema_name": payload},
            {"database": payload},
            {"strategy": "upsert", "key_columns": [payload], "table_name": f"keys {number}"},
            {"cluster_by": [payload], "table_name": f"clustered {number}"},
            {"config": payload},
        ]
        for place, options in enumerate(places):
            execution = f"{number} {place} {payload}"
            bridge.start_execution(execution, user_id=payload)
            bridge.finish(execution, rows, snowflake_options=Jsonb(options))
            tried += 1
        for call in ("list_tables(schema => %s)", "list_tables(database => %s)", "delete_uploaded('0 days', %s)"):
            try:
                bridge.app.execute(f"select snowflake_bridge.{call}", [payload])
            except psycopg.Error:
                pass  # there is no such thing, which is an answer
            tried += 1
    settled = "select count(*) as n from workflow_executions where snowflake_status in ('completed', 'failed')"
    expected = len(payloads) * 6
    wait.until(lambda: bridge.app.execute(settled).fetchone()["n"] == expected, "all have ended", 120)
    completed = bridge.app.execute("select execution_id from workflow_executions where snowflake_status = 'completed'").fetchall()
    arrived = len(completed)
    assert arrived >= 2 * len(payloads), "a name is a name, and its rows arrive"
    assert count(bridge, canary) == 2
    statements = [record["sql"] for record in bridge.standin.audit(mark) if record["sql"]]
    several = [sql for sql in statements if is_several(sql)]
    assert not several, several[:3]
    assert is_several(f"select '{payloads[0]}'"), "as it would be without quoting"
    # Those that were taken as names are the names of tables, and the values are in them.
    tables = {row[0] for row in reader.query(bridge.account, user, f"select table_name from {user.database}.information_schema.tables")}
    kept = [payload for payload in payloads if payload.upper() in tables or payload in tables]
    assert len(kept) >= len(payloads) // 2, tables
    # A statement that is put together without quoting does something else than it says.
    bridge.account.sql(f"delete from {canary} where cast(n as varchar) = '{payloads[6]}'")
    assert count(bridge, canary) == 0
    with capfd.disabled():
        print(
            f"\nsecurity: suite=injection payloads={len(payloads)} places={tried} statements={len(statements)} several_in_one=0 "
            f"canary_touched=0 rows_arrived={arrived} deleted_without_quoting=2"
        )


def is_several(sql: str) -> bool:
    """Whether there is more after the end of a statement."""
    return STATEMENT_ENDS.search(QUOTED.sub("", sql).rstrip("; \n")) is not None


def count(bridge: Bridge, table: str) -> int:
    return int(bridge.account.sql(f"select count(*) from {table}")[0][0])

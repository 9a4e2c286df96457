"""Nobody else's functions or operators are called by the extension's SQL, whatever is in the `search_path` of who calls it."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from harness.bridge import DATABASE, Bridge
from security.shadows import lay, words_of

SOURCE = Path(__file__).parents[2]
RUNS = "public.su_runs"
# Every function, as a superuser who has somebody else's schema before PostgreSQL's own.
CALLS = (
    "drop extension snowflake_bridge cascade",
    "create extension snowflake_bridge",
    "select snowflake_bridge.grant_usage('app')",
    "select snowflake_bridge.create_config('myorg-acct', username => 'a', password => 'b', verify => false)",
    "select snowflake_bridge.update_config(warehouse => 'w', verify => false)",
    "select * from snowflake_bridge.get_config()",
    "select * from snowflake_bridge.test_connection()",
    "select * from snowflake_bridge.list_tables()",
    "select snowflake_bridge.public_key()",
    "select * from snowflake_bridge.encryption_keys()",
    "call snowflake_bridge.rotate_encryption_key()",
    f"select snowflake_bridge.watch('{RUNS}', true)",
    f"""select snowflake_bridge.create_execution('{{"name": "n", "snowflake_enabled": true}}', '{RUNS}')""",
    f"insert into {RUNS} (execution_id, status, snowflake_enabled, result_rows) values ('z', 'completed', true, '[]')",
    f"select snowflake_bridge.upload('z', '{RUNS}')",
    f"select snowflake_bridge.backfill(null, '{RUNS}')",
    "select snowflake_bridge.retry_upload(1)",
    "select snowflake_bridge.cancel_upload(1)",
    "select snowflake_bridge.wait_for_upload(1)",
    "select snowflake_bridge.delete_uploaded('1 day', 'x')",
    "select snowflake_bridge.upload_query('select 1 as a', 't')",
    f"select snowflake_bridge.upload_table('{RUNS}')",
    "select * from snowflake_bridge.caller()",
    "select * from snowflake_bridge.check()",
    "select * from snowflake_bridge.worker_status",
    "select * from snowflake_bridge.upload_progress",
    "select * from snowflake_bridge.upload_stats",
    "select * from snowflake_bridge.execution_status",
    f"select snowflake_bridge.unwatch('{RUNS}')",
    "select snowflake_bridge.delete_config()",
    "select snowflake_bridge.adopt()",
    "select snowflake_bridge.revoke_usage('app')",
)  # fmt: skip

COLUMNS_OF_OTHER_TYPES = """
    select a.attname from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid operator(pg_catalog.=) a.atttypid
     where a.attrelid operator(pg_catalog.=) %s::pg_catalog.regclass and a.attnum operator(pg_catalog.>) 0
       and t.typnamespace operator(pg_catalog.<>) 'pg_catalog'::pg_catalog.regnamespace
"""


def test_only_postgresqls_own_names_are_called(bridge: Bridge, capfd: pytest.CaptureFixture[str]) -> None:
    shadows = lay(bridge.app, "trap", words_of(SOURCE / "src", SOURCE / "sql"))
    called: dict[str, str] = {}
    done = 0
    with bridge.cluster.connect(DATABASE) as superuser:
        superuser.execute("set search_path = trap, pg_catalog, public")

        def sprung(call: str) -> list[str]:
            nonlocal done
            before = len(bridge.cluster.log_text())
            try:
                superuser.execute(call)
                done += 1
            except psycopg.Error:
                pass  # there is no Snowflake behind it
            lines = bridge.cluster.log_text()[before:].splitlines()
            return [line.split("shadow: ")[1] for line in lines if "client backend" in line and "shadow: " in line]

        for call in CALLS:
            if found := sprung(call):
                called[call] = ", ".join(sorted(set(found)))
        careless = sprung("select 'a'::text = 'b'::text, now(), quote_ident('a')")
        # A column without a value does not say what its type checks.
        columns = superuser.execute(COLUMNS_OF_OTHER_TYPES, [RUNS]).fetchall()
    assert not called
    assert columns == []
    assert sorted(set(careless)) == ["function now", "function quote_ident", "operator =", "type text"], "they lie in wait"
    assert done >= len(CALLS) - 6, f"only {done} calls succeeded"
    with capfd.disabled():
        print(f"\nsecurity: suite=escalation shadows={shadows} calls={len(CALLS)} succeeded=0 called_by_careless_statement={len(set(careless))}")


def test_nothing_is_found_where_the_extension_is_made(bridge: Bridge) -> None:
    """Whoever makes the schema first would own what is put there: then it is not put there."""
    bridge.admin.execute("drop extension snowflake_bridge cascade")
    bridge.app.execute("create schema snowflake_bridge")
    with pytest.raises(psycopg.errors.DuplicateSchema):
        bridge.admin.execute("create extension snowflake_bridge")
    script = " ".join(path.read_text() for path in (SOURCE / "sql").glob("*.sql")).lower()
    for lenient in ("or replace", "if not exists"):
        assert lenient not in script

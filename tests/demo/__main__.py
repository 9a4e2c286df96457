"""`make demo`: three executions finish in PostgreSQL; what becomes of them is shown from both sides."""

from __future__ import annotations

import contextlib
import sys
import threading
import time

from demo import compare, executions
from harness.bridge import RESULTS, Bridge
from harness.reader import columns, query
from harness.standin import ROLE, WAREHOUSE, Standin, User


WIDTH = 110


def heading(number: int, text: str) -> None:
    """Begins a step."""
    print(f"\n\033[1m{number}. {text}\033[0m\n" if sys.stdout.isatty() else f"\n{number}. {text}\n", flush=True)


def echo(sql: str) -> None:
    """A statement as psql shows it while it is typed."""
    for number, line in enumerate(sql.strip().splitlines()):
        print(f"  shop{'=' if number == 0 else '-'}> {line}", flush=True)


def show(bridge: Bridge, sql: str, *options: str) -> None:
    """A statement, and what psql answers."""
    echo(sql)
    answer = bridge.cluster.psql(sql, "shop", "app", "--pset=format=wrapped", f"--pset=columns={WIDTH}", *options)
    print("\n".join("  " + line for line in answer.rstrip().splitlines()) + "\n", flush=True)


def configure(bridge: Bridge, user: User) -> None:
    """The configuration and the watched table, by SQL alone."""
    show(
        bridge,
        "select snowflake_bridge.create_config(\n"
        f"    account_identifier => '{bridge.account.host}',\n"
        f"    username => '{user.name}', password => '{user.password}', role => '{ROLE}',\n"
        f"    warehouse => '{WAREHOUSE}', database => '{user.database}', schema => '{user.schema}')",
    )
    show(
        bridge,
        "select success, version, username, role, warehouse, database, schema\nfrom snowflake_bridge.test_connection('default')",
    )
    show(
        bridge,
        "select snowflake_bridge.watch('public.workflow_executions', create_if_missing => true)",
        "--tuples-only",
    )


def finish_all(bridge: Bridge) -> float:
    """Finishes the three executions while another connection watches; the seconds until all have settled."""
    for sql in executions.ALL:
        echo(sql)
    print()
    started = time.monotonic()
    settled = threading.Event()

    def progress() -> None:
        seen: dict[str, str] = {}
        with bridge.cluster.connect("shop", "app") as watcher:
            while not settled.is_set():
                for row in watcher.execute(executions.PROGRESS).fetchall():
                    line = (
                        f"{row['execution_id']:<8} {row['phase']:<10} {row['rows'] or 0:>8} rows read, "
                        f"{row['staged_bytes'] or 0:>9} of {row['total_bytes'] or 0:>9} bytes staged"
                    )
                    if seen.get(row["execution_id"]) != line:
                        print(f"  {time.monotonic() - started:5.1f} s  {line}", flush=True)
                        seen[row["execution_id"]] = line
                settled.wait(0.1)

    watching = threading.Thread(target=progress)
    watching.start()
    try:
        for sql in executions.ALL:
            bridge.app.execute(sql)
        bridge.settled("large", seconds=180)
        bridge.settled("bad")
    finally:
        settled.set()
        watching.join()
    return time.monotonic() - started


def show_snowflake(bridge: Bridge, user: User) -> bool:
    """Snowflake's side, by the official Python connector; whether it holds exactly what PostgreSQL holds."""
    for name, kind in columns(bridge.account, user, RESULTS).items():
        print(f"  {name:<14} {kind}")
    print()
    metadata = f"select execution_id, user_id, upload_id, min(uploaded_at), count(*) from {RESULTS} group by 1, 2, 3"
    for row in query(bridge.account, user, metadata):
        print(
            "  EXECUTION_ID {} | USER_ID {} | UPLOAD_ID {} | UPLOADED_AT {:%Y-%m-%d %H:%M:%S%z} | {} rows".format(*row)
        )
    print()
    ours = compare.in_postgresql(bridge)
    theirs = compare.in_snowflake(bridge, user)
    for values in theirs.sample:
        print("  " + " | ".join(map(str, values)))
    print(f"\n  PostgreSQL: {ours.count:>7} rows, SHA-256 of all values {ours.digest}")
    print(f"  Snowflake:  {theirs.count:>7} rows, SHA-256 of all values {theirs.digest}")
    return ours == theirs


def main() -> int:
    """The whole show; fails if the two sides differ."""
    heading(1, "A throw-away PostgreSQL and a Snowflake stand-in are started")
    with contextlib.closing(Standin()) as standin, contextlib.closing(Bridge(standin)) as bridge:
        user = bridge.account.add_user()
        print(
            f"  PostgreSQL {bridge.admin.info.server_version // 10000} in {bridge.cluster.root}, with "
            f"shared_preload_libraries = 'snowflake_bridge'\n  Snowflake stand-in at {bridge.account.origin}, no other network"
        )
        heading(2, "The application's user configures Snowflake and watches a table, in psql")
        configure(bridge, user)
        heading(
            3,
            f"Three executions finish: one of {executions.COUNT} rows, one whose data is bad, one that is not enabled",
        )
        seconds = finish_all(bridge)
        print(f"\n  both uploads settled after {seconds:.1f} s")
        heading(4, "What the application sees in its own table")
        show(bridge, executions.STATUS, "--expanded")
        heading(5, "What Snowflake holds, read by the official Python connector")
        equal = show_snowflake(bridge, user)
        heading(6, "Both sides hold the same values." if equal else "THE TWO SIDES DIFFER.")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())

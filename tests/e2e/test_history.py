"""How long uploads are remembered, and which of them stay because somebody needs them."""

from __future__ import annotations

from collections.abc import Callable

from harness import wait
from harness.bridge import Bridge
from harness.standin import User

ROWS = [{"n": n} for n in range(3)]


def test_old_uploads_are_forgotten_but_for_those_that_are_needed(bridge: Bridge, user: User) -> None:
    uploads = "snowflake_bridge.uploads"
    bridge.run("twice", ROWS)
    bridge.completed("twice")
    first = bridge.upload("twice")["id"]
    second = bridge.call("upload", execution_id="twice")
    wait.until(lambda: bridge.upload("twice")["state"] == "completed", "it is uploaded again")
    bridge.run("empty", [])
    bridge.completed("empty")
    bridge.run("bad", ROWS, snowflake_options={"strategie": "append"})
    bridge.failed("bad")
    bridge.run("young", ROWS)
    bridge.completed("young")
    query = bridge.call("upload_query", query="select 1 as n", table_name="t")
    with_files = bridge.call("upload_query", query="select 1 as n", table_name="t", config="default")
    state = f"select state from {uploads} where id = %s"
    for number in query, with_files:
        wait.until(lambda: bridge.admin.execute(state, [number]).fetchone()["state"] == "completed", "it is completed")  # noqa: B023
    # As if it had failed, which leaves the files where they are.
    bridge.admin.execute(f"update {uploads} set state = 'failed' where id = %s", [with_files])
    wait.until(lambda: not bridge.admin.execute(f"select from {uploads} where needs_mirror").fetchall(), "all is mirrored")
    bridge.admin.execute(
        f"update {uploads} set completed_at = completed_at - interval '31 days' where execution_id <> 'young'"
    )
    bridge.reload()
    wait.until(lambda: not bridge.admin.execute(f"select from {uploads} where id = %s", [query]).fetchall(), "it is forgotten")
    left = [row["id"] for row in bridge.admin.execute(f"select id from {uploads} order by id").fetchall()]
    assert left == sorted([second, bridge.upload("young")["id"], with_files]), f"{first} was replaced by {second}"
    # What was uploaded before is still replaced, and not doubled.
    bridge.call("upload", execution_id="twice")
    wait.until(lambda: bridge.upload("twice")["state"] == "completed" and bridge.upload("twice")["id"] > second, "once more")
    assert bridge.row_count(user) == 2 * len(ROWS)


def test_history_can_be_kept_for_ever(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge({"snowflake_bridge.uploads_retention": "0"})
    bridge.ready()
    bridge.run("empty", [])
    bridge.completed("empty")
    bridge.admin.execute("update snowflake_bridge.uploads set completed_at = now() - interval '20 years', needs_mirror = false")
    bridge.reload()
    # A later upload shows that the worker has been through its loop since.
    bridge.run("later", ROWS)
    bridge.completed("later")
    assert bridge.upload("empty")["state"] == "completed"

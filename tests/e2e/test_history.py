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


def test_what_another_account_holds_is_not_forgotten(make_bridge: Callable[..., Bridge]) -> None:
    """A table of the same name in the next account replaces nothing there, and the configuration may move back."""
    bridge = make_bridge({"snowflake_bridge.uploads_retention": "30d"})
    other = bridge.standin.new_account()
    bridge.cluster.settings["snowflake_bridge.allowed_hosts"] += f", {other.origin}"
    bridge.cluster.restart()
    bridge.connect()
    user = bridge.ready()
    there = other.add_user()
    bridge.run("moved", ROWS)
    bridge.completed("moved")
    first = bridge.upload("moved")["id"]

    def send_again() -> int:
        number = int(bridge.call("upload", execution_id="moved"))
        wait.until(lambda: bridge.upload("moved")["id"] == number, "it is queued")
        wait.until(lambda: bridge.upload("moved")["state"] == "completed", "it is uploaded again")
        wait.until(lambda: not bridge.upload("moved")["needs_mirror"], "it is mirrored")
        return number

    bridge.call("update_config", account_identifier=other.host, username=there.name, password=there.password)
    second, third = send_again(), send_again()
    uploads = "snowflake_bridge.uploads"
    bridge.admin.execute(f"update {uploads} set completed_at = completed_at - interval '31 days'")
    bridge.reload()
    wait.until(lambda: not bridge.admin.execute(f"select from {uploads} where id = %s", [second]).fetchall(), "it is forgotten")
    left = [row["id"] for row in bridge.admin.execute(f"select id from {uploads} order by id").fetchall()]
    assert left == [first, third], "what is in either account is remembered"
    bridge.call("update_config", account_identifier=bridge.account.host, username=user.name, password=user.password)
    send_again()
    assert bridge.row_count(user) == len(ROWS)

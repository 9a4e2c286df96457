"""Nothing that the owner of a watched table attaches to it runs as anybody else, and nothing of anybody else's as the owner; in a build
without the guards, all of it does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import lifecycle, wait
from harness.bridge import TABLE, Bridge
from harness.installation import with_package
from harness.standin import User
from security.escalation import Kit
from security.neighbours import BY_TRIGGER, OWNERS, Neighbours

# What `make package-mutant_unguarded` has made.
UNGUARDED = Path(os.environ.get("UNGUARDED", "target/package-mutant_unguarded")).resolve()


def test_code_of_others_never_runs_as_the_worker(make_bridge: Callable[..., Bridge], capfd: pytest.CaptureFixture[str]) -> None:
    kit = Kit(make_bridge())
    tried = kit.run()
    assert kit.succeeded() == set()
    confined = kit.confined()
    assert len(confined) >= 16, f"only {sorted(confined)} ran at all"
    assert UNGUARDED.is_dir(), f"{UNGUARDED} is missing: make package-mutant_unguarded"
    with with_package(UNGUARDED):
        unguarded = Kit(make_bridge())
        assert unguarded.run() == tried
        succeeded = unguarded.succeeded()
    assert succeeded == tried, f"harmless even without the guard: {sorted(tried - succeeded)}"
    with capfd.disabled():
        print(
            f"\nsecurity: suite=escalation attacks={len(tried)} succeeded=0 ran_confined={len(confined)} "
            f"succeeded_without_guard={len(succeeded)}"
        )


def without_superuser(make_bridge: Callable[..., Bridge], settings: dict[str, str] | None = None, **options: Any) -> Bridge:
    """A server whose worker has the role that the documentation makes for it."""
    bridge = make_bridge({"snowflake_bridge.worker_role": "bridge_worker", **(settings or {})}, **options)
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    bridge.admin.execute(text.split("**A worker that is no superuser.**")[1].split("```sql")[1].split("```")[0])
    bridge.reload()
    return bridge


@pytest.mark.parametrize("worker_role", ["", "bridge_worker"])
def test_code_of_neighbours_never_runs_as_a_tables_owner(
    make_bridge: Callable[..., Bridge], capfd: pytest.CaptureFixture[str], worker_role: str
) -> None:
    def make(**options: Any) -> Bridge:
        # Readers wait for a lock half as long as others before they look for deadlocks, and 2 s at most.
        settings = {"snowflake_bridge.mirror_timeout": "30s", "deadlock_timeout": "10s"}
        return without_superuser(make_bridge, settings, **options) if worker_role else make_bridge(settings, **options)

    neighbours = Neighbours(make())
    tried = neighbours.run()
    assert neighbours.succeeded() == set()
    refused = {name for name, error in neighbours.mirror_errors().items() if "rights of role" in error}
    by_trigger = {f"{attack.name}_of_{owner}" for attack in BY_TRIGGER for owner in OWNERS}
    assert refused == by_trigger, f"not refused: {sorted(by_trigger - refused)}"
    # The sandbox is there; only what holds the table is not.
    with with_package(UNGUARDED):
        unguarded = Neighbours(make(variables={"SNOWFLAKE_BRIDGE_SANDBOXED": "1"}))
        assert unguarded.run() == tried
        succeeded = unguarded.succeeded()
    assert succeeded == tried, f"harmless even without the guard: {sorted(tried - succeeded)}"
    with capfd.disabled():
        print(
            f"\nsecurity: suite=escalation by=neighbours worker_role={worker_role or 'none'} attacks={len(tried)} succeeded=0 "
            f"succeeded_without_guard={len(succeeded)}"
        )


@pytest.mark.parametrize(
    ("change", "back"),
    [
        (f"alter table {TABLE} owner to keeper", f"alter table {TABLE} owner to app"),
        ("alter role app rename to renamed", "alter role renamed rename to app"),
    ],
)
def test_a_watch_is_for_the_owner_it_had(bridge: Bridge, change: str, back: str) -> None:
    """Not for another owner, nor for a role of another name: what the worker may do there is what that one was asked for."""
    user = bridge.ready()
    bridge.admin.execute("create role keeper")
    bridge.admin.execute(change)
    bridge.admin.execute(
        f"insert into {TABLE} (execution_id, status, snowflake_enabled, result_rows) values ('run', 'completed', true, '[]')"
    )
    wait.until(lambda: bridge.upload("run")["state"] == "failed", "it is refused")
    upload = bridge.upload("run")
    assert "does not belong to role \"app\" any more, for which it is watched" in upload["error_message"], upload
    wait.until(lambda: "for which it is watched" in (bridge.upload("run")["mirror_error"] or ""), "nor is a status written")
    bridge.admin.execute(back)
    assert bridge.call("retry_upload", connection=bridge.admin, id=upload["id"])
    bridge.completed("run")
    assert bridge.row_count(user) == 0


def test_a_condition_may_call_what_does_no_harm(bridge: Bridge, user: User) -> None:
    bridge.app.execute(
        f"create trigger harmless before update on {TABLE} for each row when (clock_timestamp() > '2000-01-01' and random() < 2 "
        "and pg_trigger_depth() < 9 and gen_random_uuid() is not null and new.status ~ '^c' and to_jsonb(new) ? 'status') "
        "execute function suppress_redundant_updates_trigger()"
    )
    bridge.run("run", [{"n": 1}])
    bridge.completed("run")
    assert bridge.upload("run")["mirror_error"] is None


def test_a_worker_that_is_no_superuser(make_bridge: Callable[..., Bridge], capfd: pytest.CaptureFixture[str]) -> None:
    """It does all that a worker does; and where nothing confined the code of others, that would still be no superuser's."""
    bridge = without_superuser(make_bridge)
    user = bridge.ready()
    lifecycle.watch_slowly(bridge)
    for strategy in ("append", "replace", "upsert"):
        bridge.run(strategy, [{"day": "2026-01-01", "n": 1}], snowflake_options={"strategy": strategy})
        bridge.completed(strategy)
    lifecycle.being_read(bridge, "slow")
    assert bridge.call("cancel_upload", id=bridge.upload("slow")["id"])
    bridge.call("delete_config")
    bridge.run("without configuration", [])
    assert "configuration" in bridge.failed("without configuration")["snowflake_error_message"]
    bridge.admin.execute("update snowflake_bridge.uploads set completed_at = now() - interval '1 year' where state = 'failed'")
    bridge.reload()
    failed = "select from snowflake_bridge.uploads where state = 'failed'"
    wait.until(lambda: not bridge.admin.execute(failed).fetchall(), "what failed long ago is forgotten")
    assert bridge.row_count(user) == 1
    roles = "select distinct usename from pg_stat_activity where backend_type in ('snowflake_bridge worker', 'snowflake_bridge reader')"
    assert bridge.admin.execute(roles).fetchall() == [{"usename": "bridge_worker"}]
    assert "permission denied" not in bridge.cluster.log_text()
    with with_package(UNGUARDED):
        kit = Kit(without_superuser(make_bridge))
        tried, succeeded = kit.run(), kit.succeeded()
    # What a superuser runs in a session of his own is not the worker's.
    assert succeeded == {name for name in tried if name.startswith("cast_in_")}
    with capfd.disabled():
        print(f"\nsecurity: suite=escalation worker_role=bridge_worker attacks={len(tried) - len(succeeded)} succeeded_without_guard=0")

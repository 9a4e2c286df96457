"""Nothing that the owner of a watched table attaches to it runs as anybody else; in a build without the sandbox, all of it does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import lifecycle, wait
from harness.bridge import Bridge
from harness.installation import with_package
from security.escalation import Kit

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


def without_superuser(make_bridge: Callable[..., Bridge]) -> Bridge:
    """A server whose worker has the role that the documentation makes for it."""
    bridge = make_bridge({"snowflake_bridge.worker_role": "bridge_worker"})
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    bridge.admin.execute(text.split("**A worker that is no superuser.**")[1].split("```sql")[1].split("```")[0])
    bridge.reload()
    return bridge


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

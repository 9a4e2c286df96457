"""Nothing that the owner of a watched table attaches to it runs as anybody else; in a build without the sandbox, all of it does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

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

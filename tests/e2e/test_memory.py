"""What each process takes for results that are large in each way, in short; `make memory` is the long form."""

from __future__ import annotations

from collections.abc import Callable

from harness.bridge import Bridge
from memory import peaks


def test_no_result_takes_more_memory_than_it_may(make_bridge: Callable[..., Bridge]) -> None:
    # The least that can be set, so that what is small enough for a test is large beside it.
    bridge = make_bridge({**peaks.SETTINGS, "snowflake_bridge.max_memory": "64MB"})
    bridge.ready()
    found = list(peaks.all_kinds(bridge, rows=300_000, jsonb_mb=40, wide_rows=2_000))
    assert len(found) == 8
    too_much = [peak.report() for peak in found if peak.above > peak.allowed]
    assert not too_much, "\n".join(too_much)

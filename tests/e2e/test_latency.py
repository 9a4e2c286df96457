"""The wake-up at commit works: an upload begins at once and not at the next poll. `make bench` gives the full figures."""

from __future__ import annotations

import statistics

from harness import latency

COUNT = 20


def test_uploads_begin_at_commit(make_bridge, capsys) -> None:
    # With this interval, a worker that only polled would begin in 30 s on average.
    bridge = make_bridge({**latency.SETTINGS, "snowflake_bridge.poll_interval": "60s"})
    bridge.ready()
    measured = latency.measure(bridge, COUNT)
    with capsys.disabled():
        print("\n" + measured.report())
    assert statistics.median(measured.first_request) < 1_000
    # Each upload is claimed after it was committed, and before it says anything to Snowflake.
    for claimed, first, completed in zip(measured.claimed, measured.first_request, measured.completed, strict=True):
        assert 0 < claimed < first < completed

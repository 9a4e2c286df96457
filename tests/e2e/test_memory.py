"""What each process takes for results that are large in each way, in short; `make memory` is the long form."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from harness.bridge import Bridge
from memory import peaks
from memory.peaks import Peak, Worker

# Each large enough that one copy of all its bytes, beside what is allowed, would be too much.
KINDS: dict[str, Callable[[Bridge, Worker], Iterator[Peak]]] = {
    "rows": lambda bridge, worker: peaks.of_query(bridge, worker, "noise", peaks.NOISE.format(rows=530_000)),
    "texts": lambda bridge, worker: peaks.of_texts(bridge, worker, rows=170),
    "result": lambda bridge, worker: peaks.of_result(bridge, worker, megabytes=100),
    "text": lambda bridge, worker: peaks.of_value(bridge, worker, "text", megabytes=96),
    "jsonb": lambda bridge, worker: peaks.of_value(bridge, worker, "jsonb", megabytes=80),
    "bytea": lambda bridge, worker: peaks.of_value(bridge, worker, "bytea", megabytes=64),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_result_takes_more_memory_than_it_may(make_bridge: Callable[..., Bridge], kind: str) -> None:
    bridge = make_bridge(peaks.LEAST)
    bridge.ready()
    found = list(KINDS[kind](bridge, Worker(bridge)))
    assert [peak.process for peak in found] == ["reader" if kind == "result" else "backend", "worker"]
    assert not [peak.report() for peak in found if not peak.is_telling]
    assert not [peak.report() for peak in found if peak.above > peak.allowed]

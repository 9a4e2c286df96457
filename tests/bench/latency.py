"""How soon the worker runs after a commit, and how soon Snowflake hears of it."""

from __future__ import annotations

import contextlib

from bench import results
from bench.world import REAL, scaled
from harness import latency
from harness.bridge import Bridge
from harness.latency import Latency, percentile
from harness.standin import Standin

COUNT = 1_000
LEAST = 20


def measure(count: int) -> Latency:
    """`count` uploads, one after another."""
    # The worker must be woken: with this interval it would come too late by itself.
    settings = {**latency.SETTINGS, **REAL, "snowflake_bridge.poll_interval": "30s"}
    with contextlib.closing(Standin()) as standin, contextlib.closing(Bridge(standin, settings)) as bridge:
        bridge.ready()
        return latency.measure(bridge, count)


def main(arguments: list[str]) -> None:
    """Measures, prints and keeps the results. The argument is how many uploads."""
    [count] = map(int, arguments or [scaled(COUNT, LEAST)])
    measured = measure(count)
    print(measured.report())
    for name, values in (("wake", measured.claimed), ("first_byte", measured.first_request), ("completed", measured.completed)):
        results.add(**{f"{name}_p{percent}_ms": round(percentile(values, percent), 2) for percent in (50, 99)})
        results.add(**{f"{name}_max_ms": round(max(values), 2)})

"""Where the bridge is measured against others: files go to a sink, and Snowflake's side loads none of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from bench.series import REFUSED
from bench.sink import Sink
from harness.bridge import Bridge
from harness.standin import Standin

# As a real server, and not as those of the tests: whatever is committed, and whatever the spool keeps, is on the disk.
REAL = {"fsync": "on", "snowflake_bridge.mirror_timeout": "1s"}
SETTINGS = {
    **REAL,
    "shared_buffers": "2GB",
    "max_wal_size": "8GB",
    "snowflake_bridge.max_attempts": "1",
    # All of them are ours.
    "snowflake_bridge.poll_interval": "30s",
}
# The driver of ADBC begins to load while files still travel, and gives up when that is refused: it has to wait.
HELD = REFUSED | {"delay_ms": 3_600_000}


def scale() -> float:
    """SCALE: how much of the usual amount is measured."""
    return float(os.environ.get("SCALE") or 1)


def scaled(count: int, least: int = 1) -> int:
    """That share of a usual amount."""
    return max(least, round(count * scale()))


def rounds() -> int:
    """ROUNDS: how often each way is measured; the median counts."""
    return int(os.environ.get("ROUNDS") or 5)


@contextlib.contextmanager
def world() -> Iterator[tuple[Bridge, Sink]]:
    """A bridge whose files go to a sink, and a Snowflake that does not load them."""
    with (
        contextlib.closing(Sink()) as sink,
        contextlib.closing(Standin()) as standin,
        contextlib.closing(Bridge(standin, SETTINGS, hosts=[f"http://{sink.endpoint}"])) as bridge,
    ):
        bridge.account.store_at(f"http://{sink.endpoint}")
        bridge.ready()
        refuse_copies(standin)
        yield bridge, sink


def refuse_copies(standin: Standin) -> None:
    """No COPY is executed from now on. Those that were held are let go, and refused."""
    standin.clear_faults()
    standin.fault({"kind": "query", "sql": r"^\s*copy into.*adbc\$bind"}, HELD, times=1_000_000)
    standin.fault({"kind": "query", "sql": r"^\s*copy into"}, REFUSED, times=1_000_000)

"""What the Parquet files of an upload hold while they lie in the spool, read by pyarrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq

from harness.bridge import Bridge


def rows(bridge: Bridge, upload: int, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """These columns of all rows, in the order of the files."""
    found: list[tuple[Any, ...]] = []
    for file in bridge.spooled_files(upload):
        table = pq.read_table(file)
        found += zip(*(table[name].to_pylist() for name in columns), strict=True)
    return found

"""What the Parquet files of an upload hold while they lie in the spool, read by pyarrow."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq

from harness.bridge import Bridge


def values(bridge: Bridge, upload: int, columns: list[str]) -> dict[int, list[Any]]:
    """Those of these columns, by the number of their row, which is the column N."""
    rows: dict[int, list[Any]] = {}
    for file in bridge.spooled_files(upload):
        table = pq.read_table(file)
        numbers = (int(n) for n in table["N"].to_pylist())
        rows |= zip(numbers, map(list, zip(*(table[name].to_pylist() for name in columns), strict=True)), strict=True)
    return rows

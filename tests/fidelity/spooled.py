"""What the Parquet files of an upload hold while they lie in the spool, read by pyarrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from harness.bridge import Bridge


def values(bridge: Bridge, upload: int, columns: list[str]) -> dict[int, list[Any]]:
    """Those of these columns, by the number of their row, which is the column N."""
    [row] = bridge.admin.execute("select setting from pg_settings where name = 'data_directory'").fetchall()
    [found] = bridge.app.execute(
        "select upload_id::text, (select oid from pg_database where datname = current_database()) as database "
        "from snowflake_bridge.uploads where id = %s",
        [upload],
    ).fetchall()
    folder = Path(row["setting"]) / "snowflake_bridge_spool" / str(found["database"]) / found["upload_id"]
    rows: dict[int, list[Any]] = {}
    for file in sorted(folder.rglob("*.parquet")):
        table = pq.read_table(file)
        numbers = (int(n) for n in table["N"].to_pylist())
        rows |= zip(numbers, map(list, zip(*(table[name].to_pylist() for name in columns), strict=True)), strict=True)
    return rows

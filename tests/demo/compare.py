"""One checksum over all values of the large execution, computed alike from PostgreSQL's rows and from Snowflake's."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from harness.bridge import RESULTS, Bridge
from harness.reader import query
from harness.standin import User

COLUMNS = ("n", "day", "seen_at", "campaign", "cost", "active", "detail")
SAMPLE = 3


@dataclass(frozen=True)
class Side:
    """What one side holds; the sample is for the eye only."""

    count: int
    digest: str
    sample: list[Sequence[Any]] = field(compare=False)


def canonical(value: Any) -> str:
    """One spelling per value, however the two clients return it: 1, 1.0 and 1.000 are the same number, also inside JSON."""
    if isinstance(value, bool) or value is None:
        return repr(value)
    if isinstance(value, (int, float, Decimal)):
        return format(Decimal(str(value)).normalize(), "f")
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.UTC).isoformat(timespec="microseconds")
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{canonical(value[key])}" for key in sorted(value)) + "}"
    return json.dumps(str(value))


def side(rows: Iterable[Sequence[Any]]) -> Side:
    """Reads one side's rows to the end."""
    digest = hashlib.sha256()
    count = 0
    sample = []
    for row in rows:
        digest.update("\x1f".join(canonical(value) for value in row).encode() + b"\n")
        if count < SAMPLE:
            sample.append(row)
        count += 1
    return Side(count, digest.hexdigest()[:32], sample)


def in_postgresql(bridge: Bridge) -> Side:
    """The result as it lies in the application's table."""
    rows = bridge.app.execute(
        "select r.* from workflow_executions, jsonb_to_recordset(result_rows) as "
        "r(n bigint, day date, seen_at timestamptz, campaign text, cost numeric, active boolean, detail jsonb) "
        "where execution_id = 'large' order by n"
    )
    return side(tuple(row[name] for name in COLUMNS) for row in rows)


def in_snowflake(bridge: Bridge, user: User) -> Side:
    """The rows that were loaded. The client gives a VARIANT as its JSON text."""
    rows = query(
        bridge.account, user, f"select {', '.join(COLUMNS)} from {RESULTS} where execution_id = 'large' order by n"
    )
    return side((*row[:-1], json.loads(row[-1])) for row in rows)

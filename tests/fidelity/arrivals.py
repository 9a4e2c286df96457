"""The rows that arrived, each known by its number."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any


class Miscount(Exception):
    """Other rows arrived than were sent, or one of them more than once."""


def by_number(rows: Collection[Sequence[Any]], sent: Collection[int], where: str) -> dict[int, list[Any]]:
    """What each row has after its number.

    Raises `Miscount` unless these rows, and each of them once, are there.
    """
    arrived = {int(number): values for number, *values in rows}
    if len(rows) != len(sent) or arrived.keys() != set(sent):
        raise Miscount(f"{len(sent)} rows are {len(rows)} in {where}, {len(arrived)} of them different")
    return arrived

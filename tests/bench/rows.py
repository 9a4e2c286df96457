"""How time and memory of `upload_query` grow with the rows of a table: the one in proportion, the other hardly."""

from __future__ import annotations

from bench import results, speed
from bench.series import Series
from bench.world import rounds, scaled, world

COUNTS = (1_000_000, 10_000_000, 50_000_000)


def measure(rows: int, times: int) -> tuple[Series, Series]:
    """A table of so many rows, by COPY and by us in turn, with a server of its own, whose processes have sent no rows before: what the
    first upload leaves with the allocator would be taken for idle by the next ones."""
    copy, ours = Series("copy_binary"), Series("bridge_query")
    query = f"select * from {speed.TABLE}"
    with world() as (bridge, sink):
        speed.fill(bridge, speed.TABLE, rows)
        for _ in range(times):
            speed.copy_binary(bridge, query, copy)
            speed.bridge_query(bridge, sink, query, ours)
    return copy, ours


def main(arguments: list[str]) -> None:
    """Measures, prints and keeps the results. Arguments are numbers of rows."""
    for rows in map(int, arguments) if arguments else [scaled(count, 1_000) for count in COUNTS]:
        copy, ours = measure(rows, rounds())
        print(f"{rows:>11} rows   {ours.report(of=copy.median)}")
        results.add(
            **{
                f"rows_{rows}_copy_binary": round(copy.median, 4),
                f"rows_{rows}_bridge_query": round(ours.median, 4),
                f"rows_{rows}_peak_mb": round(max(details["peak_mb"] for details in ours.details), 1),
            }
        )

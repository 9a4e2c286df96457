"""Wide rows, long values and values that others are made of: rows and bytes each second, by `upload_query` and by COPY."""

from __future__ import annotations

from dataclasses import dataclass

from bench import results, speed
from bench.series import Series
from bench.world import rounds, scaled, world
from harness.bridge import Bridge

TABLE = "form"


@dataclass(frozen=True)
class Form:
    """A table of one kind: how many rows, and what is in each."""

    rows: int
    columns: str

    def definition(self) -> str:
        """For `speed.fill`."""
        return f"create table {{table}} as select {self.columns} from generate_series(1::bigint, {{rows}}) n"


def numbered(count: int, column: str) -> str:
    """As many columns of one kind."""
    return ", ".join(f"{column.replace('#', str(number))} as c{number}" for number in range(1, count + 1))


# Texts of digits of digests, which nobody compresses much, and COPY and we therefore carry whole.
DIGESTS = "(select string_agg(md5((n * {count} + i)::text), '') from generate_series(1, {count}) i)"
FORMS = {
    "columns_1600": Form(20_000, numbered(1_600, "(n * # % 1000003)::int")),
    "text_100": Form(2_000_000, f"n, left({DIGESTS.format(count=4)}, 100) as t"),
    "text_1mb": Form(300, f"n, {DIGESTS.format(count=32_768)} as t"),
    "numeric_20": Form(200_000, numbered(20, "(n * 123456789012345678.0123456789 * #)::numeric(38, 10)")),
    "arrays": Form(
        300_000,
        "n, (select array_agg((n * i % 100003)::int) from generate_series(1, 10) i) as ints, "
        "(select array_agg('tag ' || n * i % 1009) from generate_series(1, 5) i) as texts, "
        "(select array_agg((n * i)::double precision / 7) from generate_series(1, 5) i) as doubles",
    ),
    "jsonb": Form(
        300_000,
        "n, jsonb_build_object('id', n, 'customer', md5(n::text), 'product', n * 7919 % 1000, 'note', 'order ' || n, "
        "'day', date '2020-01-01' + (n % 1500)::int, 'amount', (n * 48271 % 100000000 / 100.0)::numeric(12, 2), "
        "'paid', n % 3 = 0, 'tags', jsonb_build_array('a', n % 10, null), 'place', jsonb_build_object('x', n % 180, 'y', n % 90), "
        "'none', null) as j",
    ),
}
# What the others are compared with: a fifth of the table of `speed`.
USUAL = "orders"
USUAL_ROWS = 1_000_000


@dataclass(frozen=True)
class Measured:
    """One form: its size as PostgreSQL keeps it, COPY and ours."""

    name: str
    rows: int
    mb: float
    copy: Series
    ours: Series

    @property
    def mb_per_s(self) -> float:
        """Of PostgreSQL's megabytes."""
        return self.mb / self.ours.median

    def report(self, usual: float) -> str:
        """One line for people."""
        return (
            f"{self.name:<14} {self.rows:>8} rows {self.mb:7.1f} MB   {self.rows / self.ours.median:10.0f} rows/s {self.mb_per_s:7.1f} MB/s   "
            f"x {self.ours.median / self.copy.median:5.2f} of COPY   x {usual / self.mb_per_s:5.2f} of {USUAL}' time for a byte"
        )


def measure(times: int) -> list[Measured]:
    """One form after the other, COPY and ours by turns."""
    found = []
    with world() as (bridge, sink):
        for name, (rows, definition) in forms().items():
            speed.fill(bridge, TABLE, rows, definition)
            query = f"select * from {TABLE}"
            measured = Measured(name, rows, size(bridge), Series("copy_binary"), Series("bridge_query"))
            speed.copy_binary(bridge, query, Series("warm-up"))
            speed.bridge_query(bridge, sink, query, Series("warm-up"), name)
            for _ in range(times):
                speed.copy_binary(bridge, query, measured.copy)
                speed.bridge_query(bridge, sink, query, measured.ours, name)
            bridge.app.execute(f"drop table {TABLE}")
            found.append(measured)
    return found


def forms() -> dict[str, tuple[int, str]]:
    """Rows and definition of each."""
    usual = {USUAL: (scaled(USUAL_ROWS, 1_000), speed.TABLE_OF)}
    return usual | {name: (scaled(form.rows, 2), form.definition()) for name, form in FORMS.items()}


def size(bridge: Bridge) -> float:
    """The table with what lies aside of it, in MB."""
    [row] = bridge.admin.execute(f"select pg_table_size('{TABLE}') / 1e6 as mb").fetchall()
    return float(row["mb"])


def main(arguments: list[str]) -> None:
    """Measures, prints and keeps the results. The argument is how many rounds."""
    [times] = map(int, arguments or [rounds()])
    measured = measure(times)
    usual = measured[0].mb_per_s
    for form in measured:
        print(form.report(usual))
        results.add(
            **{
                f"wide_{form.name}_rows_per_s": round(form.rows / form.ours.median),
                f"wide_{form.name}_mb_per_s": round(form.mb_per_s, 1),
                f"wide_{form.name}_of_copy": round(form.ours.median / form.copy.median, 2),
            }
        )

"""The comparison of `make bench WHAT=speed` in its shortest form: each of its ways works, and no figure is judged."""

from __future__ import annotations

from bench import small, speed


def test_every_way_is_measured() -> None:
    table, inline = speed.measure(rows=2_000, rounds=1, peers=[])
    assert [series.name for series in table + inline] == ["copy_binary", "bridge_query", "inline_read", "bridge_inline"]
    for series in table + inline:
        assert len(series.seconds) == 1 and series.seconds[0] > 0, series
    query, result = table[1], inline[1]
    # The table is about 0.2 MB, and ours arrive encrypted and whole.
    assert 0.02 < query.detail("mb") < 1 and result.detail("mb") > 0.001, (query, result)


def test_small_results_are_measured_with_and_without_sharing() -> None:
    shared, alone = small.measure(executions=40)
    assert (shared.name, alone.name) == ("shared", "alone")
    # 40 executions are for 40 tables: nothing can be shared, and each has its COPY.
    assert shared.copies == alone.copies == 40

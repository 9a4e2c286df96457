"""`make bench` in its shortest form: each of its ways works, and no figure is judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import backlog, chart, document, results, rows, shutdown, small, speed, trigger, wide
from bench.__main__ import everything

ROWS = 2_000


def test_every_way_is_measured() -> None:
    table, inline = speed.measure(ROWS, 1, [*speed.PEERS, *speed.INLINE_PEERS])
    assert [series.name for series in table] == ["copy_binary", "bridge_query", "adbc_parquet", "adbc_ingest", "pandas", "dlt"]
    assert [series.name for series in inline] == ["inline_read", "bridge_inline", "pandas_inline"]
    for series in table + inline:
        assert len(series.seconds) == 1 and series.seconds[0] > 0, series
    # The table is about 0.2 MB, the JSON result a tenth of its rows, and everybody's files arrive whole.
    for series in table[1:]:
        assert 0.02 < series.detail("mb") < 1, series
    for series in inline[1:]:
        assert 0.001 < series.detail("mb") < 0.1, series
    figures: chart.Figures = {"profile": "dev", "processors": 2, "load": 1.0, "rounds": 1, "rows": ROWS, "inline_rows": ROWS // 10}
    for series in table + inline:
        figures |= series.figures()
    # Everybody is in the table and in the picture.
    drawing, written = chart.draw(figures), document.comparison(figures)
    for key, name, _ in chart.TABLE + chart.INLINE:
        assert key in figures and name in drawing and name in written, key


def test_more_rows_are_measured() -> None:
    copy, ours = rows.measure(ROWS, 1)
    assert len(copy.seconds) == len(ours.seconds) == 1 and ours.detail("peak_mb") > 0, ours


def test_small_results_are_measured_with_and_without_sharing() -> None:
    # Twenty for each of two tables: together they need a COPY for each table at least.
    shared, alone = small.measure(executions=40, tables=2)
    assert (shared.name, alone.name) == ("shared", "alone")
    assert alone.copies == 40
    assert 2 <= shared.copies < 20, shared


def test_a_queue_is_measured() -> None:
    cost = backlog.measure(queue=60, sample=40)
    assert 40 <= cost.loaded <= 60
    # At most ten share one, and some do.
    assert 0.1 <= cost.copies < 1, cost


def test_every_form_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALE", "0.0001")
    measured = wide.measure(times=1)
    assert [form.name for form in measured] == ["orders", *wide.FORMS]
    assert all(form.mb_per_s > 0 and form.ours.detail("mb") > 0 for form in measured)


def test_triggers_are_measured(make_bridge) -> None:
    costs = trigger.measure(make_bridge(trigger.SETTINGS), rows=20)
    assert costs[0].what == "UPDATE of one row"
    assert all(len(cost.seconds["watched"]) == len(cost.seconds["plain"]) > 0 for cost in costs)


def test_a_whole_run_has_all_figures_of_the_documentation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(results, "PATH", tmp_path / "results.json")
    monkeypatch.setattr(shutdown, "ROUNDS", 2)
    for name, value in {"SCALE": "0.0002", "ROUNDS": "1", "JOBS": "40", "QUEUES": "60 120"}.items():
        monkeypatch.setenv(name, value)
    before = document.DATA.read_text()
    everything()
    for path, text in document.texts(results.load()).items():
        assert "ot in this run" not in text, path
    assert document.DATA.read_text() == before, "so short a run is not published"

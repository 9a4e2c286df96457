"""The documentation's figures: `docs/performance.json` holds them, and what is made of them stands between
comments in README.md, docs/performance.md and docs/operations.md, and in docs/performance.svg.

`python -m bench.document` checks that they are what the file says; with UPDATE_DOCS=1 it writes them. `make bench` puts a new
run there. Uses nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from bench import chart
from bench.chart import Figures

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "docs/performance.json"
CHART = ROOT / "docs/performance.svg"
END = "<!-- end of generated -->"
NAMES = ("README.md", "docs/performance.md", "docs/operations.md")
FORMS = {
    "orders": "the table above, a fifth of it",
    "columns_1600": "1,600 integers",
    "text_100": "texts of 100 characters",
    "text_1mb": "texts of 1 MB",
    "numeric_20": "20 columns of numeric(38,10)",
    "arrays": "three arrays of 5 to 10 elements",
    "jsonb": "jsonb of ten keys, nested ones too",
}


STATEMENTS = {
    "trigger_us": "`UPDATE` that finishes one execution",
    "trigger_many_us": "`UPDATE` that finishes 10 000",
    "trigger_copy_us": "`COPY FROM` of 10 000 finished ones",
    "trigger_unfinished_us": "`UPDATE` of the status of enabled rows to one that is not finished",
    "trigger_disabled_us": "`UPDATE` of the status of rows that are not enabled",
    "trigger_same_us": "`UPDATE` that brings nothing new",
}


def main() -> int:
    """Checks, or writes."""
    wanted = texts(json.loads(DATA.read_text()))
    if os.environ.get("UPDATE_DOCS"):
        write(wanted)
        return 0
    status = 0
    for path, text in wanted.items():
        if path.exists() and path.read_text() == text:
            continue
        print(f"{path.relative_to(ROOT)} has other figures than {DATA.relative_to(ROOT)}: UPDATE_DOCS=1 PYTHONPATH=tests python3 -m bench.document")
        status = 1
    return status


def texts(figures: Figures) -> dict[Path, str]:
    """What the files are to be that have figures in them."""
    documents = {path: renewed(path.read_text(), figures) for path in (ROOT / name for name in NAMES)}
    return {CHART: chart.draw(figures), **documents}


def write(wanted: dict[Path, str]) -> None:
    """Makes the files so."""
    for path, text in wanted.items():
        path.write_text(text)


def renewed(text: str, figures: Figures) -> str:
    """A document with what is generated made anew."""
    for name, block in BLOCKS.items():
        begin = f"<!-- generated: {name} -->\n"
        if begin in text:
            before, rest = text.split(begin, 1)
            text = f"{before}{begin}\n{block(figures)}\n{END}{rest.split(END, 1)[1]}"
    return text


def publish(figures: Figures) -> None:
    """Makes this run the documentation's."""
    write({**texts(figures), DATA: json.dumps(figures, indent=1) + "\n"})


def conditions(figures: Figures) -> str:
    """Under which all of it was measured."""
    return (
        f"{figures['rows']:,} rows, medians of {figures['rounds']}, a {figures['profile']} build, on {figures['processors']} processors "
        f"with a load average of {figures['load']} before."
    )


def comparison(figures: Figures) -> str:
    """The table of everybody."""
    lines = [conditions(figures), "", "| | time | of the first's | a second | processor time | files | memory |", "|---|---|---|---|---|---|---|"]
    for rows, unit, bars in ((figures["rows"], "rows", chart.TABLE), (figures.get("inline_rows", 0), "objects", chart.INLINE)):
        known = [bar for bar in bars if bar[0] in figures]
        for key, name, _ in known:
            seconds = float(figures[key])
            first = float(figures[known[0][0]])
            cells = [
                name,
                f"{seconds:.2f} s",
                f"{seconds / first:.2f}",
                f"{chart.rate(float(rows) / seconds)} {unit}",
                processor_time(figures, key),
                f"{figures[f'{key}_mb']:.0f} MB" if f"{key}_mb" in figures else "",
                memory(figures, key),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def processor_time(figures: Figures, key: str) -> str:
    """Of each process that took any, but for the stand-in."""
    parts = [(name, float(figures[f"{key}_cpu_{name}"])) for name in ("client", "backend", "reader", "worker", "sink") if f"{key}_cpu_{name}" in figures]
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts if seconds >= 0.05)


def memory(figures: Figures, key: str) -> str:
    """Ours above what the processes take when idle, that of the others in all."""
    if f"{key}_peak_mb" not in figures:
        return ""
    return f"{figures[f'{key}_peak_mb']:.0f} MB" + (" above idle" if key.startswith("bridge") else "")


def aims(figures: Figures) -> str:
    """What was set out to be reached, and what was."""

    def ratio(over: str, under: str) -> float | None:
        return float(figures[over]) / float(figures[under]) if over in figures and under in figures else None

    def times_fewer() -> float | None:
        shared, alone = figures.get("small_copies_per_job"), figures.get("small_alone_copies_per_job")
        return float(alone) / float(shared) if shared and alone else None

    counts = [int(name.split("_")[1]) for name in figures if name.startswith("rows_") and name.endswith("_peak_mb")]
    most_rows, fewest_rows = (f"rows_{of(counts)}_peak_mb" if counts else "" for of in (max, min))

    def of_queues() -> float | None:
        queues = [int(name.split("_")[1]) for name in figures if name.startswith("queue_") and name.endswith("_enter_us")]
        return ratio(f"queue_{max(queues)}_worker_cpu_ms_per_job", f"queue_{min(queues)}_worker_cpu_ms_per_job") if queues else None

    aimed = (
        ("`upload_query`, of COPY's time", "at most 1.5", ratio("bridge_query", "copy_binary"), ""),
        ("ADBC to a file, of `upload_query`'s time", "at least 2", ratio("adbc_parquet", "bridge_query"), ""),
        ("pandas, of `upload_query`'s time", "at least 40", ratio("pandas", "bridge_query"), ""),
        ("`upload_query`'s memory above idle", "at most 128 MB", figures.get("bridge_query_peak_mb"), " MB"),
        ("inline result, of the time to read it", "at most 1.5", ratio("bridge_inline", "inline_read"), ""),
        ("pandas for it, of our time", "at least 20", ratio("pandas_inline", "bridge_inline"), ""),
        ("commit → worker runs, p99", "at most 1 ms", figures.get("wake_p99_ms"), " ms"),
        ("commit → first byte to Snowflake, p99", "at most 5 ms", figures.get("first_byte_p99_ms"), " ms"),
        ("triggers, on the UPDATE that finishes, without waking the worker", "at most 30 µs", figures.get("trigger_us"), " µs"),
        ("COPY statements that sharing saves", "at least 10 times fewer", times_fewer(), " times fewer"),
        ("memory above idle, of the most rows", "at most 128 MB", figures.get(most_rows), " MB"),
        ("memory above idle, of the most rows to the fewest", "1", ratio(most_rows, fewest_rows), ""),
        ("processor time for an upload, of the longest queue to the shortest", "1", of_queues(), ""),
    )
    lines = ["| | aim | measured |", "|---|---|---|"]
    for what, aim, value, unit in aimed:
        lines.append(f"| {what} | {aim} | {'not in this run' if value is None else f'{value:.2f}{unit}'} |")
    lines.append("| pg_parquet, of `upload_query`'s time | at least 4 | not measured, since no registry has it |")
    return "\n".join(lines) + "\n"


def latency(figures: Figures) -> str:
    """From the commit on."""
    if "wake_p99_ms" not in figures:
        return "Not in this run.\n"
    lines = ["| commit → | p50 | p99 | max |", "|---|---|---|---|"]
    for name, what in (("wake", "the worker has claimed it"), ("first_byte", "first request at Snowflake's side"), ("completed", "the row says `completed`")):
        lines.append(f"| {what} | {figures[f'{name}_p50_ms']} ms | {figures[f'{name}_p99_ms']} ms | {cell(figures, f'{name}_max_ms', 'ms')} |")
    for name, what in (("plain", "without"), ("watched", "with")):
        values = [cell(figures, f"update_{name}_{kind}_us", "µs") for kind in ("p50", "p99", "max")]
        lines.append(f"| the UPDATE itself, {what} triggers | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def triggers(figures: Figures) -> str:
    """What the triggers add to a statement, for each row."""
    lines = ["| statement | more than without, for each row |", "|---|---|"]
    for key, what in STATEMENTS.items():
        lines.append(f"| {what} | {cell(figures, key, 'µs') or 'not in this run'} |")
    return "\n".join(lines) + "\n"


def cell(figures: Figures, key: str, unit: str) -> str:
    """A figure, if this run has it."""
    return f"{figures[key]} {unit}" if key in figures else ""


def presence(figures: Figures) -> str:
    """What the server notices of the worker."""
    if "kept_uploads" not in figures or "shutdown_0_p50" not in figures:
        return "Not in this run.\n"
    lines = ["| | p50 | p99 | max | n |", "|---|---|---|---|---|"]
    for count in sorted(int(name.split("_")[1]) for name in figures if name.startswith("shutdown_") and name.endswith("_max")):
        name = f"shutdown_{count}"
        values = [f"{figures[f'{name}_{kind}']} s" for kind in ("p50", "p99", "max")]
        lines.append(f"| fast shutdown, {count} uploads in flight | {' | '.join(values)} | {figures[f'{name}_rounds']} |")
    lines += [
        f"| age of the oldest snapshot of worker and readers | | | {figures['snapshot_max_ms']} ms | {figures['snapshot_looks']:,} looks |",
        f"| statements of an idle worker in a minute (`poll_interval` 30 s) | | | {figures['idle_statements']} | |",
        "",
        f"Over {figures['kept_uploads']:,} uploads the worker keeps {figures['kept_kb_per_1000']} kB more for each 1,000 of them, by least squares:",
        "",
        "| | memory of its own | file descriptors |",
        "|---|---|---|",
    ]
    for name, what in (("first", "warm, before"), ("middle", "after half of them"), ("last", "after all")):
        lines.append(f"| {what} | {figures[f'kept_{name}_mb']} MB | {figures[f'kept_{name}_files']} |")
    return "\n".join(lines) + "\n"


def small(figures: Figures) -> str:
    """With and without sharing, and by the length of the queue."""
    if "small_jobs_per_s" not in figures:
        return "Not in this run.\n"
    lines = [
        f"{figures['small_executions']:,} executions of 100 rows for {figures['small_tables']} tables:",
        "",
        "| | executions/s | COPY for each | statements for each | worker's processor time for each | stand-in's |",
        "|---|---|---|---|---|---|",
    ]
    for prefix, what in (("small", "sharing"), ("small_alone", "each by itself")):
        lines.append(
            f"| {what} | {figures[f'{prefix}_jobs_per_s']} | {figures[f'{prefix}_copies_per_job']} | {figures[f'{prefix}_statements_per_job']} | "
            f"{figures[f'{prefix}_worker_cpu_ms_per_job']} ms | {figures[f'{prefix}_standin_cpu_ms_per_job']} ms |"
        )
    queues = sorted(int(name.split("_")[1]) for name in figures if name.startswith("queue_") and name.endswith("_enter_us"))
    if queues:
        lines += ["", "| executions that wait | to enter one, with its row | to load one of the first | of which worker's processor time |", "|---|---|---|---|"]
    for queue in queues:
        lines.append(
            f"| {queue:,} | {figures[f'queue_{queue}_enter_us']} µs | {figures[f'queue_{queue}_ms_per_job']} ms | "
            f"{figures[f'queue_{queue}_worker_cpu_ms_per_job']} ms |"
        )
    return "\n".join(lines) + "\n"


def growth(figures: Figures) -> str:
    """By the number of rows."""
    counts = sorted(int(name.split("_")[1]) for name in figures if name.startswith("rows_") and name.endswith("_peak_mb"))
    if not counts:
        return "Not in this run.\n"
    lines = ["| rows | time | of COPY's | memory above idle |", "|---|---|---|---|"]
    for count in counts:
        ours, copy = float(figures[f"rows_{count}_bridge_query"]), float(figures[f"rows_{count}_copy_binary"])
        lines.append(f"| {count:,} | {ours:.2f} s | {ours / copy:.2f} | {figures[f'rows_{count}_peak_mb']:.0f} MB |")
    return "\n".join(lines) + "\n"


def forms(figures: Figures) -> str:
    """Wide and long ones."""
    if "wide_orders_mb_per_s" not in figures:
        return "Not in this run.\n"
    # As many megabytes a second as the aim for the usual table takes.
    aim = float(figures["wide_orders_mb_per_s"]) * float(figures["wide_orders_of_copy"]) / 1.5
    lines = ["| | rows/s | MB/s | of COPY's time | time for a byte, of that of the aim for the first |", "|---|---|---|---|---|"]
    for name, what in FORMS.items():
        speed = float(figures[f"wide_{name}_mb_per_s"])
        slow = " (over 2)" if aim / speed > 2 else ""
        lines.append(f"| {what} | {figures[f'wide_{name}_rows_per_s']:,} | {speed:.0f} | {figures[f'wide_{name}_of_copy']} | {aim / speed:.2f}{slow} |")
    return "\n".join(lines) + "\n"


def summary(figures: Figures) -> str:
    """For the README."""
    ours = f"`upload_query` takes {float(figures['bridge_query']) / float(figures['copy_binary']):.2f} times as long as `COPY … (FORMAT binary)` to nowhere"
    peers = {
        "adbc_parquet": "ADBC with pyarrow",
        "adbc_ingest": "ADBC's own ingest",
        "dlt": "dlt",
        "pandas": "pandas with `write_pandas` (by a tenth of the rows)",
    }
    others = [f"{who} {float(figures[key]) / float(figures['bridge_query']):.1f} times as long" for key, who in peers.items() if key in figures]
    compared = f". The others take longer: {', '.join(others)}" if others else ""
    return f"![Rows each second](docs/performance.svg)\n\n{ours}{compared}. {conditions(figures)}\n"


BLOCKS = {
    "summary": summary,
    "comparison": comparison,
    "aims": aims,
    "beside the application": latency,
    "presence": presence,
    "triggers": triggers,
    "many small results": small,
    "growth": growth,
    "forms": forms,
}

if __name__ == "__main__":
    sys.exit(main())

"""Draws the comparison: an SVG without scripts, to be read on light and on dark pages."""

from __future__ import annotations

from html import escape

Figures = dict[str, float | str]

WIDTH = 800
LEFT, RIGHT, TOP, BAR, GAP = 280, 110, 56, 20, 8
FONT = "-apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
STYLE = """
  text { fill: #1f2328 } .head { font-weight: 600 } .note { fill: #59636e; font-size: 12px }
  .base { fill: #8c959f } .ours { fill: #0969da } .other { fill: #c9d1d9 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .note { fill: #9198a1 }
    .base { fill: #6e7681 } .ours { fill: #4493f8 } .other { fill: #3d444d }
  }
"""
# Key of the seconds, what it is called, and its colour.
TABLE = (
    ("copy_binary", "COPY … (FORMAT binary), to nowhere", "base"),
    ("bridge_query", "upload_query, to the stage", "ours"),
    ("adbc_ingest", "ADBC's ingest, to the stage", "other"),
    ("adbc_parquet", "ADBC and pyarrow, to a file", "other"),
    ("dlt", "dlt, to files", "other"),
    ("pandas", "pandas and write_pandas, by a tenth of it", "other"),
)
INLINE = (
    ("inline_read", "PostgreSQL reads each value once", "base"),
    ("bridge_inline", "a finished execution, to the stage", "ours"),
    ("pandas_inline", "pandas and write_pandas, to the stage", "other"),
)


def draw(figures: Figures) -> str:
    """The whole picture."""
    parts: list[str] = []
    y = 0
    for title, unit, rows, bars in (
        ("A table of ten columns", "rows", figures["rows"], TABLE),
        ("One JSON result of objects with ten keys", "objects", figures.get("inline_rows", 0), INLINE),
    ):
        known = [(float(rows) / float(figures[key]), name, kind) for key, name, kind in bars if key in figures]
        if known:
            parts += panel(y, f"{title}: {float(rows):,.0f} {unit}", f"{unit} each second; longer is faster", known)
            y += TOP + len(known) * (BAR + GAP) + GAP
    label = "How fast rows leave PostgreSQL: snowflake_bridge beside COPY and other tools"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" role="img" '
        f'font-family="{FONT}" font-size="13" aria-label="{label}">\n<title>{label}</title>\n<style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def panel(y: int, title: str, note: str, bars: list[tuple[float, str, str]]) -> list[str]:
    """One group of bars below its title."""
    longest = max(value for value, _, _ in bars)
    parts = [
        f'<text class="head" x="8" y="{y + 22}">{escape(title, quote=False)}</text>',
        f'<text class="note" x="8" y="{y + 40}">{escape(note, quote=False)}</text>',
    ]
    for number, (value, name, kind) in enumerate(bars):
        top = y + TOP + number * (BAR + GAP)
        length = max(1.0, value / longest * (WIDTH - LEFT - RIGHT))
        weight = ' class="head"' if kind == "ours" else ""
        parts += [
            f'<text{weight} x="{LEFT - 8}" y="{top + 15}" text-anchor="end">{escape(name, quote=False)}</text>',
            f'<rect class="{kind}" x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}" rx="3"/>',
            f'<text{weight} x="{LEFT + length + 8:.1f}" y="{top + 15}">{rate(value)}</text>',
        ]
    return parts


def rate(value: float) -> str:
    """As many as one remembers."""
    return f"{value / 1e6:.2f} million" if value >= 1e6 else f"{float(f'{value:.2g}'):,.0f}"

"""Which column docs/types.md says that a type of a query gets."""

from __future__ import annotations

import re
from pathlib import Path

from fidelity.catalogue import Type
from harness.bridge import Bridge

# What no column is called.
NOTHING = "nothing"
HEADING = "\n| PostgreSQL | Snowflake |"
OF_TYPE = """
    with recursive base as (
        select oid, typbasetype, typtypmod from pg_type where oid = %s::regtype
        union all
        select t.oid, t.typbasetype, coalesce(nullif(t.typtypmod, -1), base.typtypmod) from base join pg_type t on t.oid = base.typbasetype
    )
    select t.oid::regtype::text as name, format_type(t.oid, base.typtypmod) as whole, t.typtype as sort,
           t.typelem <> 0 and t.typsubscript = 'array_subscript_handler'::regproc as is_array,
           t.typnamespace = 'pg_catalog'::regnamespace as is_own
      from base join pg_type t on t.oid = base.oid
     where base.typbasetype = 0
"""


class Documentation:
    """The table of the types that queries have."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        text = (Path(__file__).parents[2] / "docs" / "types.md").read_text()
        self.columns: dict[str, str] = {}
        for line in text.split(HEADING)[1].splitlines()[2:]:
            if not line.startswith("|"):
                break
            cells = line.split("|")
            column = re.findall(r"`([^`]+)`", cells[2])[0]
            for name in re.findall(r"`([^`]+)`", cells[1]):
                self.columns["numeric(p,s)" if name == "numeric(p,s)" else self.canonical(name)] = column

    def canonical(self, name: str) -> str:
        """What the server calls the type, if it knows it."""
        [row] = self.bridge.app.execute("select to_regtype(%s)::text as name", [re.sub(r"\(.*", "", name)]).fetchall()
        return row["name"] or name

    def column(self, kind: Type) -> str:
        """The column as DESCRIBE TABLE shows it, with `s` for a scale that only the data or the locale tell."""
        base = re.sub(r"\([^)]*\)", "", kind.sql)
        [row] = self.bridge.app.execute(OF_TYPE, [base]).fetchall()
        if row["is_array"]:
            return self.columns["int2vector"]
        if row["sort"] == "c":
            return self.columns["hstore"]
        if row["name"] == "numeric" and (digits := re.search(r"\((\d+),(-?\d+)\)", kind.sql + row["whole"])):
            precision, scale = map(int, digits.groups())
            precision, scale = (precision - scale, 0) if scale < 0 else (max(precision, scale), scale)
            if precision <= 38 and scale <= 37:
                return self.columns["numeric(p,s)"].replace("p,s", f"{precision},{scale}")
        # The row of the last of PostgreSQL's own types is also that of every type which is not.
        return self.columns.get(row["name"], NOTHING if row["is_own"] else self.columns["regclass"])

    def is_right(self, kind: Type, described: str) -> bool:
        return re.fullmatch(re.escape(self.column(kind)).replace(",s", r",\d+"), described) is not None

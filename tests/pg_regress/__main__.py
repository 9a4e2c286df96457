"""Runs `sql/*.sql` against a throw-away server with PostgreSQL's own pg_regress, and compares with `expected/*.out`.

`python -m pg_regress [NAME...]`; without names, every file, in alphabetical order. What differs is printed and kept in
`target/pg_regress`.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from harness.regress import drive, new_cluster

HERE = Path(__file__).resolve().parent


def main() -> int:
    """The names given, or all there are."""
    names = sys.argv[1:] or sorted(path.stem for path in (HERE / "sql").glob("*.sql"))
    if not names:
        print(f"there is no test in {HERE / 'sql'}")
        return 1
    with contextlib.closing(new_cluster()) as cluster:
        cluster.start()
        return drive("regress/pg_regress", cluster, HERE, ["--dbname=regression", *names])


if __name__ == "__main__":
    sys.exit(main())

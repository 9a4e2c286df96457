"""Runs `specs/*.spec` against a throw-away server with PostgreSQL's own pg_isolation_regress, and compares with
`expected/*.out`: what sessions do to each other, and to the steps of a worker, in every order that a spec names.

`python -m isolation PACKAGE [NAME...]`; PACKAGE is a build of the extension with the feature `failpoints`, which goes into
a server of its own. Without names, every spec. The last line says how many specs and permutations there were.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from harness.installation import with_package
from harness.regress import TARGET, drive, new_cluster

HERE = Path(__file__).resolve().parent
DATABASE = "isolation"


def permutations(names: list[str]) -> int:
    """How many orders of steps the specs' outputs show."""
    outputs = [TARGET / HERE.name / "results" / f"{name}.out" for name in names]
    texts = [path.read_text() for path in outputs if path.exists()]
    return sum(line.startswith("starting permutation:") for text in texts for line in text.splitlines())


def main() -> int:
    """The names given, or all there are."""
    package = Path(sys.argv[1])
    names = sys.argv[2:] or sorted(path.stem for path in (HERE / "specs").glob("*.spec"))
    if not names:
        print(f"there is no spec in {HERE / 'specs'}")
        return 1
    with with_package(package), contextlib.closing(new_cluster()) as cluster:
        cluster.start()
        with cluster.connect() as server:
            server.execute(f"create database {DATABASE}")
        with cluster.connect(DATABASE) as server:
            server.execute((HERE / "setup.sql").read_text())
        arguments = ["--use-existing", f"--dbname={DATABASE}", *names]
        status = drive("isolation/pg_isolation_regress", cluster, HERE, arguments)
    print(f"isolation: specs={len(names)} permutations={permutations(names)}")
    return status


if __name__ == "__main__":
    sys.exit(main())

"""Runs `sql/*.sql` against a throw-away server with PostgreSQL's own pg_regress, and compares with `expected/*.out`.

`python -m pg_regress [NAME...]`; without names, every file, in alphabetical order. What differs is printed and kept in
`target/pg_regress`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness.cluster import Cluster, bindir

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent.parent / "target" / "pg_regress"
DRIVER = "lib/pgxs/src/test/regress/pg_regress"
SETTINGS = {
    # Preloaded as on a real server, but with a worker only in a database that has no extension: no test of the SQL
    # surface may depend on what a worker does meanwhile, or reach a network.
    "shared_preload_libraries": "snowflake_bridge",
    "snowflake_bridge.databases": "postgres",
    # The discard port: nobody listens there, so connecting fails at once, by itself, and on this machine.
    "snowflake_bridge.allowed_hosts": "http://acme-demo.localhost:9",
    "snowflake_bridge.connect_timeout": "2s",
}


def run(names: list[str]) -> int:
    """One run of pg_regress; its exit status."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "regression.diffs").unlink(missing_ok=True)
    cluster = Cluster(SETTINGS)
    cluster.settings["snowflake_bridge.key_file"] = str(cluster.keys / "keyring")
    try:
        cluster.start()
        command = [
            str(bindir().parent / DRIVER),
            f"--bindir={bindir()}",
            f"--inputdir={HERE}",
            f"--outputdir={OUTPUT}",
            f"--host={cluster.sockets}",
            "--user=postgres",
            "--dbname=regression",
            *names,
        ]
        status = subprocess.run(command, check=False).returncode
        if status != 0:
            differences = OUTPUT / "regression.diffs"
            print(differences.read_text() if differences.exists() else cluster.log_text())
        return status
    finally:
        cluster.close()


def main() -> int:
    """The names given, or all there are."""
    names = sys.argv[1:] or sorted(path.stem for path in (HERE / "sql").glob("*.sql"))
    if not names:
        print(f"there is no test in {HERE / 'sql'}")
        return 1
    return run(names)


if __name__ == "__main__":
    sys.exit(main())

"""PostgreSQL's own test drivers, pg_regress and pg_isolation_regress, against a throw-away server."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.cluster import Cluster, bindir

TARGET = Path(__file__).resolve().parents[2] / "target"
SETTINGS = {
    # Preloaded as on a real server, but with a worker only in a database that has no extension: no test here may depend
    # on what a worker does meanwhile, or reach a network.
    "shared_preload_libraries": "snowflake_bridge",
    "snowflake_bridge.databases": "postgres",
    # The discard port: nobody listens there, so connecting fails at once, by itself, and on this machine.
    "snowflake_bridge.allowed_hosts": "http://acme-demo.localhost:9",
    "snowflake_bridge.connect_timeout": "2s",
}


def new_cluster() -> Cluster:
    """A server for one run, not started yet."""
    cluster = Cluster(SETTINGS)
    cluster.settings["snowflake_bridge.key_file"] = str(cluster.keys / "keyring")
    return cluster


def drive(driver: str, cluster: Cluster, tests: Path, arguments: Sequence[str]) -> int:
    """One run of a driver (`regress/pg_regress`) over what lies in `tests`; its exit status. What differs is printed, and
    kept in `target/<name of tests>`."""
    output = TARGET / tests.name
    output.mkdir(parents=True, exist_ok=True)
    differences = output / "regression.diffs"
    differences.unlink(missing_ok=True)
    command = [
        str(bindir().parent / "lib/pgxs/src/test" / driver),
        f"--bindir={bindir()}",
        f"--inputdir={tests}",
        f"--outputdir={output}",
        f"--host={cluster.sockets}",
        "--user=postgres",
        *arguments,
    ]
    status = subprocess.run(command, check=False).returncode
    if status != 0:
        print(differences.read_text() if differences.exists() else cluster.log_text())
    return status

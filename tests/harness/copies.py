"""Copies of a server or of one of its databases, by PostgreSQL's own programs."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from harness.cluster import Cluster, as_server_user, bindir, environment, initdb


def program(name: str, cluster: Cluster, *arguments: str) -> None:
    """Runs one of PostgreSQL's programs against a server."""
    run(name, cluster.root, f"--host={cluster.sockets}", "--username=postgres", "--no-password", *arguments)


def run(name: str, directory: Path, *arguments: str) -> None:
    """Runs one of PostgreSQL's programs in a directory; what it complains of is a failure."""
    command = [f"{bindir()}/{name}", *arguments]
    done = subprocess.run(
        as_server_user(command), check=False, env=environment(), cwd=directory, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"{name} failed:\n{done.stdout}{done.stderr}")


@contextlib.contextmanager
def restored(
    source: Cluster, database: str, name: str, options: Sequence[str] = (), *, into: Cluster | None = None
) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """A dump of a database, restored under a name, on the same server unless told otherwise."""
    target = into or source
    dump = source.directory("dump") / "archive"
    program("pg_dump", source, "--format=custom", f"--file={dump}", database)
    with target.connect() as server:
        server.execute(f"create database {name}")
    program("pg_restore", target, f"--dbname={name}", "--exit-on-error", *options, str(dump))
    with target.connect(name) as connection:
        yield connection


@contextlib.contextmanager
def server(like: Cluster, settings: Mapping[str, str]) -> Iterator[Cluster]:
    """Another server with the extension and the same key, running."""
    other = Cluster({**like.settings, **settings})
    other.settings["unix_socket_directories"] = str(other.sockets)
    with contextlib.closing(other):
        other.start()
        yield other


@contextlib.contextmanager
def base_backup(source: Cluster, *, standby: bool = False) -> Iterator[Cluster]:
    """A physical copy of a whole server with its settings, key file included, not started yet."""
    copy = Cluster(source.settings, source.variables)
    copy.settings["unix_socket_directories"] = str(copy.sockets)
    with contextlib.closing(copy):
        shutil.rmtree(copy.data)
        options = ["--write-recovery-conf"] if standby else []
        program("pg_basebackup", source, f"--pgdata={copy.directory('data')}", "--checkpoint=fast", "--no-sync", *options)
        yield copy


@contextlib.contextmanager
def upgraded(old: Cluster) -> Iterator[Cluster]:
    """What `pg_upgrade` makes of a server that has stopped, not started yet. Both have the library loaded meanwhile, as on a server
    whose postgresql.conf says so.
    """
    new = Cluster(old.settings)
    new.settings["unix_socket_directories"] = str(new.sockets)
    with contextlib.closing(new):
        shutil.rmtree(new.data)
        initdb(new.directory("data"))
        kept = {name: value for name, value in old.settings.items() if name.startswith(("shared_preload", "snowflake_bridge."))}
        options = shlex.join(part for name, value in kept.items() for part in ("-c", f"{name}={value}"))
        directory = new.directory("upgrade")
        run(
            "pg_upgrade",
            directory,
            f"--old-bindir={bindir()}",
            f"--old-datadir={old.data}",
            f"--new-datadir={new.data}",
            f"--socketdir={directory}",
            f"--old-options={options}",
            f"--new-options={options}",
            "--username=postgres",
            "--retain",
        )
        yield new

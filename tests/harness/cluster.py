"""A throw-away PostgreSQL server: its own data, a private socket, no TCP port, gone when closed."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from harness import wait

# initdb and postgres refuse to run as root, so root lends them the account that Debian's package brings.
SERVER_USER = "postgres"
# A server of the tests forgets nothing when a process dies, which is all that is done to it; it need not survive power cuts.
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "autovacuum": "off",
    "shared_buffers": "64MB",
    "log_line_prefix": "%m [%p] %b %q%d ",
    "log_checkpoints": "off",
}
START_SECONDS = 60.0


def bindir() -> Path:
    """Where the server that the Makefile names keeps its programs."""
    return Path(os.environ.get("PG_CONFIG", "/usr/lib/postgresql/15/bin/pg_config")).parent


def as_server_user(command: list[str], *, end_with_parent: bool = False) -> list[str]:
    """The command as it must be started so that PostgreSQL's programs accept who runs them."""
    prefix = ["setpriv"]
    if os.geteuid() == 0:
        prefix += [f"--reuid={SERVER_USER}", f"--regid={SERVER_USER}", "--init-groups"]
    if end_with_parent:
        prefix += ["--pdeathsig=QUIT"]  # the postmaster's "immediate shutdown", should this process be killed
    return [*prefix, *command] if len(prefix) > 1 else command


def environment() -> dict[str, str]:
    """A bare environment: no proxy, no PG* variable and no locale of the caller reaches the server."""
    return {"PATH": f"{bindir()}:/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC"}


def give(path: Path, mode: int) -> Path:
    """Makes `path` the server user's."""
    path.chmod(mode)
    if os.geteuid() == 0:
        account = pwd.getpwnam(SERVER_USER)
        os.chown(path, account.pw_uid, account.pw_gid)
    return path


def scratch() -> Path:
    """A new directory that the server user can reach; root's own temporary directory may be closed to it."""
    path = Path(tempfile.mkdtemp(prefix="bridge-", dir="/tmp" if os.geteuid() == 0 else None))
    path.chmod(0o755)
    return path


def initdb(data: Path) -> None:
    """Makes a data directory with an identifier of its own."""
    command = [
        f"{bindir()}/initdb",
        f"--pgdata={data}",
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
        "--no-instructions",
    ]
    done = subprocess.run(
        as_server_user(command), check=False, env=environment(), cwd=data.parent, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed:\n{done.stdout}{done.stderr}")


@functools.cache
def pattern() -> Path:
    """A freshly initialised data directory. Every server starts as a copy, which takes a tenth of the time of initdb."""
    root = scratch()
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    give(root, 0o755)
    initdb(root / "data")
    return root / "data"


class Cluster:
    """One server. `keys`, the place for key files, lies beside its data directory and not in it."""

    def __init__(self, settings: Mapping[str, str], variables: Mapping[str, str] | None = None) -> None:
        self.variables = dict(variables or {})
        self.root = scratch()
        self.data = self.root / "data"
        subprocess.run(["cp", "--archive", str(pattern()), str(self.data)], check=True)
        self.sockets = give(self._directory("sockets"), 0o755)
        self.keys = give(self._directory("keys"), 0o700)
        self.log = give(self._file("server.log"), 0o644)
        self.settings = {**SETTINGS, "unix_socket_directories": str(self.sockets), **settings}
        self.process: subprocess.Popen[bytes] | None = None

    def _directory(self, name: str) -> Path:
        path = self.root / name
        path.mkdir()
        return path

    def _file(self, name: str) -> Path:
        path = self.root / name
        path.touch()
        return path

    def directory(self, name: str) -> Path:
        """A new directory of the server user's, for a tablespace say."""
        return give(self._directory(name), 0o700)

    # --- life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the server and returns when it answers."""
        assert self.process is None, "the server runs already"
        options = [part for name, value in self.settings.items() for part in ("-c", f"{name}={value}")]
        command = as_server_user([f"{bindir()}/postgres", "-D", str(self.data), *options], end_with_parent=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=environment() | self.variables,
                cwd=self.root,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        wait.until(self._is_ready, "the server is ready", START_SECONDS)

    def _is_ready(self) -> bool:
        """What the postmaster itself says in the last line of its file: a connection tried too early would be logged."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended while starting:\n{self.log_text()}")
        with contextlib.suppress(FileNotFoundError):
            return (self.data / "postmaster.pid").read_text().rstrip().endswith("ready")
        return False

    def stop(self, how: signal.Signals = signal.SIGINT, seconds: float = 60.0) -> None:
        """Ends the server: SIGINT is a fast shutdown, SIGQUIT an immediate one."""
        if self.process is None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._kill_all()
            raise
        finally:
            self.process = None

    def restart(self) -> None:
        """An orderly restart, with whatever was queued."""
        self.stop()
        self.start()

    def promote(self) -> None:
        """Makes a primary of a standby, and returns when it is one."""
        with self.connect() as connection:
            connection.execute("select pg_promote()")

    def _kill_all(self) -> None:
        """Ends a postmaster that did not stop, and its children. It is still there, so these ids are still its own."""
        assert self.process is not None
        for pid in [*children(self.process.pid), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Ends the server and removes everything it left."""
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):  # stop() has killed it by then
                self.stop(signal.SIGQUIT, seconds=10.0)
        finally:
            shutil.rmtree(self.root, ignore_errors=True)

    # --- use --------------------------------------------------------------------------------------------------

    def connect(
        self, database: str = "postgres", user: str = "postgres", **options: Any
    ) -> psycopg.Connection[dict[str, Any]]:
        """A connection in autocommit mode whose rows are dictionaries."""
        return psycopg.connect(
            host=str(self.sockets),
            dbname=database,
            user=user,
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=60,
            **options,
        )

    def psql(self, sql: str, database: str = "postgres", user: str = "postgres", *options: str) -> str:
        """What a user sees in psql for these statements."""
        command = [
            f"{bindir()}/psql",
            "--no-psqlrc",
            "--host",
            str(self.sockets),
            "--dbname",
            database,
            "--username",
            user,
            "--set",
            "ON_ERROR_STOP=1",
            *options,
            "--command",
            sql,
        ]
        utf8 = {**environment(), "PGCLIENTENCODING": "UTF8"}
        done = subprocess.run(command, check=False, env=utf8, capture_output=True, text=True)
        return done.stdout + done.stderr

    def log_text(self) -> str:
        """Everything the server has logged."""
        return self.log.read_text(errors="replace")

    def backends(self, backend_type: str) -> list[int]:
        """Process ids of the backends of one type, as pg_stat_activity calls it."""
        with self.connect() as connection:
            rows = connection.execute("select pid from pg_stat_activity where backend_type = %s", [backend_type])
            return [row["pid"] for row in rows]


def children(pid: int) -> list[int]:
    """The direct children of a process."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if f"\nPPid:\t{pid}\n" in status.read_text():
                found.append(int(status.parent.name))
    return found

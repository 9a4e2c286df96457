"""The process: ready, reachable on loopback only, gone when told and when its parent is gone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from conftest import PACKAGE_ROOT, START_DEADLINE, interpreter

_PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.argv[1], "-m", "standin", "--state-dir", sys.argv[2], "--exit-with-parent"])
time.sleep(600)
"""


def ready(state: Path) -> dict[str, object]:
    deadline = time.monotonic() + START_DEADLINE
    while not (state / "ready.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return json.loads((state / "ready.json").read_text())


def wait_until_gone(pid: int, within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)


def test_starts_with_accounts_and_ends_with_sigterm(tmp_path: Path) -> None:
    accounts = tmp_path / "accounts.json"
    accounts.write_text(json.dumps({"accounts": [{"name": "acme-demo", "users": [{"name": "U", "password": "p"}]}]}))
    command = [
        interpreter("STANDIN_PYTHON"),
        "-m",
        "standin",
        "--state-dir",
        str(tmp_path),
        "--accounts",
        str(accounts),
    ]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)}, stderr=subprocess.DEVNULL)
    try:
        told = ready(tmp_path)
        assert told["pid"] == process.pid
        assert told["url"] == f"http://127.0.0.1:{told['port']}"
        assert told["s3_endpoint"] == f"127.0.0.1:{told['s3_port']}"
        assert told["azure_port"] is None
        for port in (told["port"], told["s3_port"], told["gcs_port"]):
            assert _listening(int(str(port))) == ["0100007F"]
        assert (tmp_path / "ready.json").stat().st_mode & 0o077 == 0
        with socket.create_connection(("127.0.0.1", int(str(told["port"])))):
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        assert not (tmp_path / "ready.json").exists()
    finally:
        process.kill()
        process.wait()


def test_ends_with_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, interpreter("STANDIN_PYTHON"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
        stderr=subprocess.DEVNULL,
    )
    try:
        pid = int(str(ready(tmp_path)["pid"]))
    finally:
        parent.kill()
        parent.wait()
    wait_until_gone(pid)


def test_azurite_comes_with_the_first_account_and_ends_with_the_stand_in(tmp_path: Path) -> None:
    accounts = tmp_path / "accounts.json"
    accounts.write_text(json.dumps({"accounts": [{"name": "in-azure", "cloud": "azure"}]}))
    command = [
        interpreter("STANDIN_PYTHON"),
        "-m",
        "standin",
        "--state-dir",
        str(tmp_path),
        "--accounts",
        str(accounts),
    ]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)}, stderr=subprocess.DEVNULL)
    try:
        told = ready(tmp_path)
        children = Path(f"/proc/{process.pid}/task").glob("*/children")
        (azurite,) = [int(pid) for file in children for pid in file.read_text().split()]
        assert "azurite" in Path(f"/proc/{azurite}/cmdline").read_text()
        assert _listening(int(str(told["azure_port"]))) == ["0100007F"]
    finally:
        process.kill()
        process.wait()
    wait_until_gone(azurite)


def _listening(port: int) -> list[str]:
    """Local addresses that listen on the port, from the kernel."""
    lines = Path("/proc/net/tcp").read_text().splitlines() + Path("/proc/net/tcp6").read_text().splitlines()
    sockets = [line.split() for line in lines if "local_address" not in line]
    return [
        local.split(":")[0]
        for _, local, _, state, *_ in sockets
        if state == "0A" and int(local.split(":")[1], 16) == port
    ]

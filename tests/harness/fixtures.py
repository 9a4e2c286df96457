"""What every test of a whole server starts from: one stand-in for the whole run, a server and an account of its own for each test."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.bridge import Bridge
from harness.standin import Standin, User

# Enough of a server's log to see what led to a failure.
LOG_LINES = 120


def pytest_configure() -> None:
    """A run that is told to stop (by its time budget, say) still ends what it started."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt("told to stop")

    signal.signal(signal.SIGTERM, stop)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Attaches the server's log and the recorded requests to a failure."""
    report = yield
    if report.failed:
        for bridge in getattr(item, "bridges", []):
            log = bridge.cluster.log_text().splitlines()
            report.sections.append(("server log", "\n".join(log[-LOG_LINES:])))
            requests = [
                f"{record['sequence']} {record['kind']} {record['method']} {record['path']} {record['sql'] or ''} -> "
                f"{record['status']} {record['code'] or ''}"
                for record in bridge.standin.audit(item.audit_mark)
            ]
            report.sections.append(("requests", "\n".join(requests)))
    return report


@pytest.fixture(scope="session")
def standin() -> Iterator[Standin]:
    """The Snowflake stand-in."""
    with contextlib.closing(Standin()) as standin:
        yield standin


@pytest.fixture
def make_bridge(standin: Standin, request: pytest.FixtureRequest) -> Iterator[Callable[..., Bridge]]:
    """Makes servers with the extension; takes `Bridge`'s arguments. Faults never outlive their test."""
    request.node.bridges = []
    request.node.audit_mark = standin.audit_mark()

    def make(*arguments: Any, **options: Any) -> Bridge:
        bridge = Bridge(standin, *arguments, **options)
        request.node.bridges.append(bridge)
        return bridge

    try:
        yield make
    finally:
        standin.clear_faults()
        for bridge in request.node.bridges:
            bridge.close()


@pytest.fixture
def bridge(make_bridge: Callable[..., Bridge]) -> Bridge:
    """A server with the extension and an application, with nothing configured yet."""
    return make_bridge()


@pytest.fixture
def user(bridge: Bridge) -> User:
    """A Snowflake user that is configured, with the application's table watched: the usual start."""
    return bridge.ready()

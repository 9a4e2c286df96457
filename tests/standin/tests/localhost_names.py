"""Names below `localhost` mean this machine (RFC 6761, section 6.3); not every resolver knows it."""

from __future__ import annotations

import socket
from typing import Any

_system = socket.getaddrinfo


def _resolve(host: Any, *arguments: Any, **options: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    below = isinstance(name, str) and name.lower().endswith(".localhost")
    return _system("127.0.0.1" if below else host, *arguments, **options)


def resolve() -> None:
    """From now on in this process."""
    socket.getaddrinfo = _resolve

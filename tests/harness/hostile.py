"""Servers that do not behave: each lets a client come so far, and no further."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

# How far a client gets: until it is connected, has been greeted over TLS, has the head of an answer, has all of it.
PHASES = ("connect", "tls", "headers", "body")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
BYTE_PAUSE = 1.0


class Hostile:
    """One port on loopback. `reached` counts the clients that have come as far as they get."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.reached = 0
        self._closed = threading.Event()
        self._open: list[socket.socket] = []
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        # Nobody accepts here: once the backlog is full, the kernel drops whoever wants in, without a word.
        self._listener.listen(0 if phase == "connect" else 64)
        self.port: int = self._listener.getsockname()[1]
        if phase == "connect":
            self._fill()
        else:
            threading.Thread(target=self._accept, daemon=True).start()

    @property
    def origin(self) -> str:
        """For `snowflake_bridge.allowed_hosts`."""
        scheme = "https" if self.phase == "tls" else "http"
        return f"{scheme}://{self.host}:{self.port}"

    @property
    def host(self) -> str:
        """A name for it that no other server has."""
        return f"hostile-{self.phase}.localhost"

    def close(self) -> None:
        """Ends it, and with it every connection."""
        self._closed.set()
        for one in [self._listener, *self._open]:
            # Wakes the threads that wait for it.
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _fill(self) -> None:
        while True:
            client = socket.socket()
            self._open.append(client)
            client.settimeout(0.2)
            try:
                client.connect(("127.0.0.1", self.port))
            except TimeoutError:
                return

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            # Of TLS it reads the greeting, of HTTP the request, and then says nothing more, or hardly anything.
            client.recv(1 << 16)
            if self.phase == "body":
                client.sendall(HEAD)
            self.reached += 1
            while self.phase == "body" and not self._closed.wait(BYTE_PAUSE):
                client.sendall(b" ")


@contextlib.contextmanager
def servers() -> Iterator[dict[str, Hostile]]:
    """One of each kind."""
    with contextlib.ExitStack() as stack:
        yield {phase: stack.enter_context(contextlib.closing(Hostile(phase))) for phase in PHASES}

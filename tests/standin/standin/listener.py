"""A listening socket on 127.0.0.1, with or without TLS, and a thread for each of its connections."""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, name: str, handler: type[BaseHTTPRequestHandler], port: int = 0, context: ssl.SSLContext | None = None
    ) -> None:
        self._name = name
        self._context = context
        super().__init__(("127.0.0.1", port), handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def scheme(self) -> str:
        return "https" if self._context else "http"

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, name=self._name, daemon=True).start()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread, so that a client which is slow to shake hands delays nobody else."""
        if isinstance(request, ssl.SSLSocket):
            request.do_handshake()
        super().finish_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """With TLS the end is announced, so that the client can tell it from a cut; nobody waits for its answer."""
        if isinstance(request, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                request.settimeout(0)
                request.unwrap()
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks, or that the client refuses, is the client's right; anything else is told."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError, ssl.SSLError)):
            traceback.print_exc(file=sys.stderr)

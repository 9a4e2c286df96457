"""A proxy for HTTPS on loopback, to which every host is this machine.

Official clients find stores at names below `localhost` through it, which not every resolver knows (RFC 6761, section 6.3).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

_BLOCK = 1 << 16


class _Tunnel(StreamRequestHandler):
    def handle(self) -> None:
        method, target, _ = self.rfile.readline().decode().split()
        assert method == "CONNECT", method
        while self.rfile.readline().strip():
            pass
        with socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2]))) as store:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = Thread(target=_pass_on, args=(store, self.connection), daemon=True)
            back.start()
            _pass_on(self.connection, store)
            back.join()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_BLOCK):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class _Server(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def tunnel() -> Iterator[dict[str, str]]:
    """The environment variables that lead a client through it."""
    with _Server(("127.0.0.1", 0), _Tunnel) as server:
        Thread(target=server.serve_forever, name="tunnel", daemon=True).start()
        try:
            yield {"HTTPS_PROXY": f"http://127.0.0.1:{server.server_address[1]}", "NO_PROXY": "127.0.0.1"}
        finally:
            server.shutdown()

"""How a fault spoils a conversation: the reading of the request, the wait, and the answer that goes out.

Works on a connection and its streams and knows nothing of what is asked, so it is the same for the gateway and all stores.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
import zlib
from io import BufferedIOBase
from typing import Protocol

from standin.faults import Fault

_TICK_SECONDS = 0.05
_BLOCK = 64 * 1024
_MEGABYTE = 1024 * 1024
# A receive buffer that does not grow keeps a throttled sender waiting, instead of letting it write megabytes ahead into the
# kernel. Smaller than what a fresh connection offers, and the kernel would drop what the sender was promised room for.
_FIXED_WINDOW = 64 * 1024


class RequestCut(Exception):
    """The request was cut off while it was read."""


class Writer(Protocol):
    def write(self, data: bytes, /) -> object: ...


def reset(connection: socket.socket) -> None:
    """End the connection with RST, so that the client sees no orderly close and no end of TLS."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(connection.detach())
    except OSError:
        pass  # the client has gone already


class HeaderReader:
    """Reads the lines of a request's headers, and knows whether the connection ended before the empty one."""

    def __init__(self, source: BufferedIOBase) -> None:
        self._source = source
        self.cut = False

    def readline(self, size: int = -1, /) -> bytes:
        line = self._source.readline(size)
        self.cut = not line
        return line


class BodyReader:
    """Reads the body of a request as slowly, and as far, as the fault says."""

    def __init__(self, source: BufferedIOBase, connection: socket.socket, fault: Fault | None) -> None:
        self._source = source
        self._fault = fault
        action = fault.action if fault else {}
        self._allowed: int | None = action.get("cut_request_after")
        self._rate: int | None = action.get("throttle")
        if self._rate is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _FIXED_WINDOW)

    def read(self, size: int) -> bytes:
        """This many bytes. A client that ends before has asked for nothing."""
        parts = []
        while size > 0:
            part = self._source.read(min(size, self._step()))
            if not part:
                raise RequestCut
            parts.append(part)
            size -= len(part)
            if self._allowed is not None:
                self._allowed -= len(part)
        return b"".join(parts)

    def end(self) -> None:
        """The body is read. A request that should have been cut further on is cut here."""
        if self._allowed is not None:
            raise RequestCut

    def _step(self) -> int:
        step = _BLOCK
        if self._rate is not None and self._fault is not None and not self._fault.released.wait(_TICK_SECONDS):
            step = max(1, int(self._rate * _TICK_SECONDS))
        if self._allowed is not None:
            if self._allowed <= 0:
                raise RequestCut
            step = min(step, self._allowed)
        return step


def reread(body: bytes, fault: Fault) -> None:
    """Spoil the reading of a body that had to be read first, because the fault asks for its SQL."""
    if "throttle" in fault.action:
        fault.released.wait(len(body) / int(fault.action["throttle"]))
    if "cut_request_after" in fault.action:
        raise RequestCut


def hold(fault: Fault) -> bool:
    """Delay the request. True when it is swallowed: never executed and never answered."""
    if "delay_ms" in fault.action:
        fault.released.wait(fault.action["delay_ms"] / 1000)
    if fault.action.get("black_hole"):
        fault.released.wait()
        return True
    return False


def plain_body(fault: Fault) -> bytes:
    """The body of a forged answer: text as it is, anything else as JSON."""
    body = fault.action.get("body", "")
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def drip(out: Writer, body: bytes, fault: Fault) -> None:
    """Send a body a few bytes at a time, and the rest at once when the fault is forgotten."""
    size, pause = int(fault.action["drip"]["bytes"]), fault.action["drip"]["every_ms"] / 1000
    for start in range(0, len(body), size):
        if fault.released.wait(pause):
            out.write(body[start:])
            return
        out.write(body[start : start + size])


def endless_headers(out: Writer, fault: Fault) -> None:
    """Header lines until the client has enough; the caller has sent the status line."""
    number = 0
    while not fault.released.is_set():
        lines = [f"X-Filler-{number + line}: {'x' * 64}\r\n" for line in range(512)]
        out.write("".join(lines).encode())
        number += len(lines)


def endless_body(out: Writer, fault: Fault) -> None:
    """A JSON text that never ends, in HTTP chunks, until the client has enough."""
    out.write(_http_chunk(b'{"data": "'))
    block = _http_chunk(b"x" * _BLOCK)
    while not fault.released.is_set():
        out.write(block)


def _http_chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def gzip_bomb(megabytes: int) -> bytes:
    """A gzip body that unpacks to that many megabytes: blanks, then a small JSON object, so that it can be parsed whole.

    A deflate block that ends with a full flush depends on nothing before it, so one packed megabyte is enough for all.
    """
    blanks = b" " * _MEGABYTE
    tail = b'{"data": null, "code": null, "message": null, "success": true}'
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed_blanks = packer.compress(blanks) + packer.flush(zlib.Z_FULL_FLUSH)
    packed_tail = packer.compress(tail) + packer.flush(zlib.Z_FINISH)
    checksum = 0
    for _ in range(megabytes):
        checksum = zlib.crc32(blanks, checksum)
    checksum = zlib.crc32(tail, checksum)
    size = megabytes * _MEGABYTE + len(tail)
    header = b"\x1f\x8b\x08\x00" + struct.pack("<I", int(time.time())) + b"\x02\xff"
    return header + packed_blanks * megabytes + packed_tail + struct.pack("<II", checksum, size & 0xFFFFFFFF)

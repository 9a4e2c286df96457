"""What a fault does to a conversation, byte by byte, and alike on the gateway and on an object store."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from driver import Admin

WAIT = 30
CUT = (ConnectionError, ssl.SSLError)  # not a timeout, which is an OSError as these are


@dataclass
class Target:
    """One server, and a request that it answers with a body."""

    admin: Admin
    port: int
    kind: str
    method: str
    path: str

    def fault(self, **action: object) -> None:
        self.admin.fault(action, kind=f"^{self.kind}$")

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        connection.connect()
        if self.admin.ca_file:
            trusting = ssl.create_default_context(cafile=self.admin.ca_file)
            # An end of TLS that was not announced is told from one that was.
            connection.sock = trusting.wrap_socket(
                connection.sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False
            )
        return connection

    def ask(self, connection: http.client.HTTPConnection, body: bytes = b"{}") -> http.client.HTTPResponse:
        connection.request(self.method, self.path, body)
        return connection.getresponse()

    def last_status(self) -> int:
        """What the audit says of the last request to this server, once it has ended."""
        deadline = time.monotonic() + WAIT
        while True:
            record = [record for record in self.admin.audit() if record["kind"] == self.kind][-1]
            if record["status"] is not None:
                return int(record["status"])
            assert time.monotonic() < deadline


@pytest.fixture(params=["gateway", "s3", "gateway over TLS", "s3 over TLS"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    admin: Admin = request.getfixturevalue("encrypted" if "TLS" in request.param else "stand_in")
    if request.param.startswith("gateway"):
        yield Target(admin, admin.port, "heartbeat", "POST", "/session/heartbeat")
    else:
        yield Target(admin, admin.ready["s3_port"], "objectstore", "PUT", "/bucket/key")
    admin.delete("faults")


@pytest.fixture
def connection(target: Target) -> Iterator[http.client.HTTPConnection]:
    with contextlib.closing(target.connect()) as connection:
        yield connection


def test_drip(target: Target, connection: http.client.HTTPConnection) -> None:
    whole = target.ask(connection).read()
    target.fault(drip={"bytes": 8, "every_ms": 5})
    began = time.monotonic()
    response = target.ask(connection)
    first = response.read1(4096)
    assert 0 < len(first) < len(whole)
    assert len(first + response.read()) == len(whole)
    assert time.monotonic() - began >= (len(whole) // 8) * 0.005


def test_drip_ends_when_faults_are_forgotten(target: Target, connection: http.client.HTTPConnection) -> None:
    target.fault(drip={"bytes": 1, "every_ms": 3_600_000})
    response = target.ask(connection)
    target.admin.delete("faults")
    assert response.read()


def test_endless_body(target: Target, connection: http.client.HTTPConnection) -> None:
    target.fault(endless_body=True)
    response = target.ask(connection)
    assert response.status == 200
    received = 0
    while received < 8 * 1024 * 1024:
        received += len(response.read1(65536))
    target.admin.delete("faults")
    with pytest.raises((*CUT, http.client.HTTPException)):
        while response.read1(65536):
            pass
        raise ConnectionResetError


def test_endless_headers(target: Target, connection: http.client.HTTPConnection) -> None:
    target.fault(endless_headers=True)
    with pytest.raises(http.client.HTTPException, match="more than 100 headers"):
        target.ask(connection)


def test_gzip_bomb(target: Target, connection: http.client.HTTPConnection) -> None:
    target.fault(gzip_bomb=64)
    response = target.ask(connection)
    packed = response.read()
    assert response.headers["Content-Encoding"] == "gzip"
    assert len(packed) < 100_000
    # Unpacked piece by piece, which also checks its length and checksum at the end.
    unpacker, size, end, waiting = zlib.decompressobj(wbits=31), 0, b"", packed
    while piece := unpacker.decompress(waiting, 1024 * 1024):
        size, end, waiting = size + len(piece), (end + piece)[-200:], unpacker.unconsumed_tail
    assert unpacker.eof
    assert 64 * 1024 * 1024 < size < 65 * 1024 * 1024
    assert json.loads(end)["success"] is True


def test_request_cut_while_it_is_sent(target: Target) -> None:
    target.fault(cut_request_after=100_000)
    with contextlib.closing(target.connect()) as connection, pytest.raises(CUT):
        target.ask(connection, b"x" * 50_000_000)
    assert target.last_status() == 0


def test_request_cut_after_a_short_body(target: Target) -> None:
    target.fault(cut_request_after=100_000)
    with contextlib.closing(target.connect()) as connection, pytest.raises(CUT):
        target.ask(connection)
    assert target.last_status() == 0


def test_request_cut_within_its_headers(target: Target) -> None:
    with contextlib.closing(target.connect()) as connection:
        connection.sock.sendall(f"{target.method} {target.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode())
        connection.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(CUT):
            while connection.sock.recv(4096):
                pass


def test_request_without_a_length_has_no_body(target: Target, connection: http.client.HTTPConnection) -> None:
    connection.putrequest(target.method, target.path)
    connection.endheaders()
    assert connection.getresponse().read()


def test_throttle(target: Target, connection: http.client.HTTPConnection) -> None:
    target.fault(throttle=100_000)
    began = time.monotonic()
    target.ask(connection, b"x" * 50_000).read()
    assert time.monotonic() - began >= 0.45


def test_throttle_holds_the_sender_back(target: Target) -> None:
    """The kernel does not swallow the body ahead of the reader: the sender is still writing when most is unread."""
    target.fault(throttle=1000)
    body = b"x" * 30_000_000
    with contextlib.closing(target.connect()) as connection:
        sock = connection.sock
        sock.sendall(
            f"{target.method} {target.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        sock.settimeout(1)
        with pytest.raises(TimeoutError):
            sock.sendall(body)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leave with a reset
    target.admin.delete("faults")
    assert target.last_status() == 0


def test_a_throttled_request_goes_on_when_faults_are_forgotten(
    target: Target, connection: http.client.HTTPConnection
) -> None:
    target.fault(throttle=1000)
    answered: list[bytes] = []
    thread = threading.Thread(target=lambda: answered.append(target.ask(connection, b"x" * 30_000_000).read()))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    target.admin.delete("faults")
    thread.join(WAIT)
    assert len(answered) == 1


def test_close_after_a_complete_answer(target: Target, connection: http.client.HTTPConnection) -> None:
    target.fault(close_after=True)
    response = target.ask(connection)
    assert response.read()
    assert response.headers["Connection"] == "keep-alive"
    assert connection.sock.recv(1) == b""


def test_connections_are_kept_otherwise(admin: Admin) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", admin.port, timeout=WAIT)) as connection:
        connection.request("POST", "/session/heartbeat", b"{}")
        connection.getresponse().read()
        first = connection.sock
        connection.request("POST", "/session/heartbeat", b"{}")
        connection.getresponse().read()
        assert connection.sock is first


@pytest.mark.parametrize("action", [{"lose_answer": True}, {"cut_request_after": 1}])
def test_a_cut_is_a_reset(target: Target, action: dict[str, Any]) -> None:
    """Not an orderly end of the connection, nor of TLS."""
    target.fault(**action)
    with contextlib.closing(target.connect()) as connection:
        connection.request(target.method, target.path, b"{}")
        with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
            connection.sock.recv(1)
    assert target.last_status() == 0


def test_answer_cut(target: Target, connection: http.client.HTTPConnection) -> None:
    target.fault(cut_after=5)
    response = target.ask(connection)
    with pytest.raises(http.client.IncompleteRead) as caught:
        response.read()
    assert len(caught.value.partial) == 5


def test_redirect(target: Target, connection: http.client.HTTPConnection) -> None:
    target.fault(status=307, headers={"Location": "http://127.0.0.1:1/elsewhere"})
    response = target.ask(connection)
    assert (response.status, response.headers["Location"]) == (307, "http://127.0.0.1:1/elsewhere")


def test_error_in_the_language_of_the_server(target: Target, connection: http.client.HTTPConnection) -> None:
    target.fault(error={"code": "ExpiredToken", "message": "The provided token has expired."})
    response = target.ask(connection)
    body = response.read()
    if target.kind == "heartbeat":
        assert response.status == 200 and json.loads(body)["code"] == "ExpiredToken"
    else:
        assert response.status == 400 and b"<Code>ExpiredToken</Code>" in body


def test_black_hole(target: Target) -> None:
    target.fault(black_hole=True)
    outcome: list[Exception] = []

    def ask() -> None:
        with contextlib.closing(target.connect()) as connection:
            try:
                target.ask(connection)
            except CUT as error:
                outcome.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    target.admin.delete("faults")
    thread.join(WAIT)
    assert len(outcome) == 1
    assert target.last_status() == 0


def test_reading_faults_with_sql(admin: Admin) -> None:
    """The SQL text is in the body, so it is read first; the client sees no difference."""
    body = json.dumps({"sqlText": "SELECT 'cut me'"})
    admin.fault({"cut_request_after": 5}, sql="cut me")
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", admin.port, timeout=WAIT)) as connection:
        connection.request("POST", "/queries/v1/query-request", json.dumps({"sqlText": "SELECT 1"}))
        assert connection.getresponse().read()
        with pytest.raises(CUT):
            connection.request("POST", "/queries/v1/query-request", body)
            connection.getresponse()

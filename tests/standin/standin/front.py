"""A front: one HTTP conversation, read, audited, spoiled as the faults say, answered. Gateway and stores are such fronts.

Whoever serves something over HTTP makes a subclass, says what kind each request is and how it is answered, and gives it to a
`Listener`; audit and all actions of a fault then work for it without another line:

    class AzureFront(Front):
        def respond(self, request: Request, record: Record) -> Answer:
            return self.store.answer(request)          # or the answer of a server of another process, passed on

    Listener("azure", bound(AzureFront, audit=audit, faults=faults, store=store), context=tls and tls.server_context()).start()

`kind` is `objectstore` unless overridden. Requests that the stand-in makes itself are `exempt`: neither audited nor spoiled.
`refusal` is what the action `error` looks like in the front's own language.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from standin import spoiling
from standin.audit import Audit
from standin.faults import Fault, Faults, Seen

Record = dict[str, Any]


@dataclass
class Request:
    method: str
    target: str  # as it stands on the request line
    path: str  # without the query, percent-decoded
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    kind: str = ""
    body: bytes = b""


@dataclass
class Answer:
    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: Iterable[tuple[str, str]] = field(default_factory=list)
    code: str | None = None  # Snowflake's, for the audit
    reason: str | None = None  # on the status line, where it is not the usual one


def xml_error(status: int, code: str, message: str) -> Answer:
    """A refusal as the object stores of all clouds put it."""
    inner = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'
    return Answer(status, body.encode(), "application/xml")


def bound(front: type[Front], **services: Any) -> type[Front]:
    """The front with what it serves from. Handlers are made per connection, so this is theirs by class."""
    return type(front.__name__, (front,), services)


class Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    audit: Audit
    faults: Faults

    def respond(self, request: Request, record: Record) -> Answer:
        """Execute the request. What the audit should say of it besides goes into the record."""
        raise NotImplementedError

    def plain_path(self, path: str) -> str:
        """The path by which requests are told apart, from the decoded one."""
        return path

    def kind(self, request: Request) -> str:
        return "objectstore"

    def exempt(self, request: Request) -> bool:
        return False

    def shown_path(self, request: Request) -> str:
        """The path as the audit may show it."""
        return request.path

    def describe(self, request: Request, record: Record) -> None:
        """Called when the body is there, before faults that ask for SQL are looked for."""

    def refusal(self, error: dict[str, Any]) -> Answer:
        """An `error` fault as the object stores of all clouds put it; `status` is 400 unless the fault has one."""
        answer = xml_error(int(error.get("status", 400)), str(error.get("code", "")), str(error.get("message", "")))
        answer.headers = [("x-ms-error-code", str(error.get("code", "")))]
        return answer

    def do_GET(self) -> None:
        request = self._request()
        if self.exempt(request):
            request.body = self._read_body(None)
            self._send(self._executed(request, {}), None)
            return
        record = self.audit.open(request.kind, self.command, self.shown_path(request), request.query, request.headers)
        seen = Seen(request.path, request.kind, self.command, request.headers.get("host", ""))
        answer: Answer | None = None
        fault = self.faults.take(seen)
        try:
            request.body = self._read_body(fault)
            self.describe(request, record)
            if fault is None:
                fault = self.faults.take(replace(seen, sql=record["sql"] or ""))
                if fault is not None:
                    spoiling.reread(request.body, fault)
            answer = self._spoiled(request, record, fault)
        except (spoiling.RequestCut, ConnectionError, TimeoutError):
            pass
        finally:
            self.audit.close(record, answer.status if answer else 0, answer.code if answer else None)
        if answer is None:
            self.close_connection = True
            spoiling.reset(self.connection)
        else:
            self._send(answer, fault)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = do_GET

    def parse_request(self) -> bool:
        """Where a request is cut within its headers, the library takes those that came for all there are."""
        source = self.rfile
        self.rfile = lines = spoiling.HeaderReader(source)
        try:
            parsed = super().parse_request()
        finally:
            self.rfile = source
        if parsed and lines.cut:
            self.close_connection = True
            spoiling.reset(self.connection)
            return False
        return parsed

    def log_message(self, format: str, *args: Any) -> None:
        """Every request is in the audit."""

    def _request(self) -> Request:
        # A target that begins with two slashes is a path all the same.
        parts = urlsplit("/" + self.path.lstrip("/"))
        request = Request(
            self.command,
            self.path,
            self.plain_path(unquote(parts.path)),
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            {name.lower(): value for name, value in self.headers.items()},
        )
        request.kind = self.kind(request)
        return request

    def _read_body(self, fault: Fault | None) -> bytes:
        reader = spoiling.BodyReader(self.rfile, self.connection, fault)
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(reader.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            body = b"".join(parts)
        else:
            body = reader.read(int(self.headers.get("Content-Length") or 0))
        reader.end()
        return body

    def _spoiled(self, request: Request, record: Record, fault: Fault | None) -> Answer | None:
        """The answer, forged or real. None when the client gets none."""
        if fault is None:
            return self._executed(request, record)
        if spoiling.hold(fault):
            return None
        answer = self._forged(fault) if fault.forges else self._executed(request, record)
        return None if fault.action.get("lose_answer") else answer

    def _executed(self, request: Request, record: Record) -> Answer:
        try:
            return self.respond(request, record)
        except Exception:  # noqa: BLE001 - a defect of the stand-in: shown to the client as such, and told on stderr
            traceback.print_exc(file=sys.stderr)
            return Answer(500, b"stand-in: internal error, see its log", "text/plain")

    def _forged(self, fault: Fault) -> Answer:
        if "error" in fault.action:
            return self.refusal(fault.action["error"])
        given = dict(fault.action.get("headers", {}))
        content_type = given.pop("Content-Type", "text/plain")
        answer = Answer(fault.action.get("status", 200), spoiling.plain_body(fault), content_type, list(given.items()))
        if "gzip_bomb" in fault.action:
            answer.body = spoiling.gzip_bomb(int(fault.action["gzip_bomb"]))
            answer.headers = [*answer.headers, ("Content-Encoding", "gzip")]
        return answer

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        """Everything that goes out. A client that has gone, or has had enough, is no error."""
        action = fault.action if fault else {}
        try:
            self.send_response_only(answer.status, answer.reason)
            if fault is not None and action.get("endless_headers"):
                self.flush_headers()
                spoiling.endless_headers(self.wfile, fault)
                raise ConnectionError
            self._send_headers(answer, action)
            if fault is not None and action.get("endless_body"):
                spoiling.endless_body(self.wfile, fault)
                raise ConnectionError
            if self.command == "HEAD":
                pass
            elif fault is not None and "drip" in action:
                spoiling.drip(self.wfile, answer.body, fault)
            else:
                self.wfile.write(answer.body[: action.get("cut_after")])
            if "cut_after" in action or action.get("close_after"):
                self.close_connection = True
        except OSError:
            self.close_connection = True
            spoiling.reset(self.connection)

    def _send_headers(self, answer: Answer, action: dict[str, Any]) -> None:
        headers = list(answer.headers)
        given = {name.lower() for name, _ in headers}
        if "date" not in given:
            headers.append(("Date", self.date_time_string()))
        if answer.content_type is not None and "content-type" not in given:
            headers.append(("Content-Type", answer.content_type))
        if action.get("endless_body"):
            headers.append(("Transfer-Encoding", "chunked"))
        elif "content-length" not in given and answer.status not in {204, 304}:
            headers.append(("Content-Length", str(len(answer.body))))
        if action.get("close_after"):
            headers = [(name, value) for name, value in headers if name.lower() != "connection"]
            headers.append(("Connection", "keep-alive"))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

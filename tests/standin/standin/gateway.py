"""The HTTP side: Snowflake's driver endpoints, in front of them the faults and the audit.

A thread per connection over plain sockets, so that a fault can delay, swallow, cut or forge exactly what it is told to.
"""

from __future__ import annotations

import gzip
import json
import sys
import time
import traceback
import uuid
from concurrent.futures import Future
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from standin import admin, uploads
from standin.accounts import Accounts
from standin.audit import Audit
from standin.certificates import Tls
from standin.errors import SnowflakeError
from standin.faults import Fault, Faults, Seen
from standin.login import log_in, session_parameters
from standin.objectstore import ObjectStore
from standin.results import Result
from standin.sessions import MASTER_LIFE_SECONDS, SESSION_LIFE_SECONDS, Session, Sessions
from standin.statements import Statements
from standin.uploads import Uploads

_FORBIDDEN_PAGE = (
    b"<html>\r\n<head><title>403 Forbidden</title></head>\r\n<body>\r\n<center><h1>403 Forbidden</h1></center>\r\n"
    b"</body>\r\n</html>\r\n"
)
_TOKEN = 'Snowflake Token="'
_KINDS = {
    "/session/v1/login-request": "login",
    "/queries/v1/query-request": "query",
    "/queries/v1/abort-request": "abort",
    "/session/token-request": "token",
    "/session/heartbeat": "heartbeat",
    "/session": "session",
}


@dataclass
class Services:
    """Everything a request may need."""

    accounts: Accounts
    sessions: Sessions
    statements: Statements
    store: ObjectStore
    uploads: Uploads
    audit: Audit
    faults: Faults
    admin_token: str
    make_engine: Any
    tls: Tls | None = None


@dataclass
class Answer:
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


def envelope(data: Any, code: str | None = None, message: str | None = None, success: bool = True) -> dict[str, Any]:
    return {"data": data, "code": code, "message": message, "success": success, "headers": None}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    services: Services
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Every request is in the audit."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    def _serve(self) -> None:
        body = self._read_body()
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        while path.startswith("//"):
            path = path[1:]
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        if path.startswith("/admin/"):
            status, told = admin.handle(self.services, self.command, path, query, headers, body)
            self._send(Answer(status, json.dumps(told, default=str).encode()), None)
            return
        kind = "upload" if path.startswith(uploads.PATH) else _KINDS.get(path, "other")
        shown = uploads.PATH + "…" if kind == "upload" else path
        record = self.services.audit.open(kind, self.command, shown, query, headers)
        request = self._parse(kind, headers, body)
        session = self.services.sessions.peek(_token(headers) or "")
        if session is not None:
            record |= {"account": session.account.name, "user": session.user.name, "session": session.id}
        record["sql"] = request.get("sqlText") if kind == "query" else None
        seen = Seen(path, kind, self.command, headers.get("host", ""), record["sql"] or "")
        fault = self.services.faults.take(seen)
        answer: Answer | None = None
        code: str | None = None
        try:
            if fault is not None and fault.before(self.connection):
                answer = _fault_answer(fault)
            elif kind == "upload":
                answer = Answer(self.services.uploads.receive(path, headers, body), b"", "text/plain")
            else:
                answer, code = self._route(kind, path, query, headers, request, record)
            if fault is not None and fault.loses_answer():
                fault.cut(self.connection)
                answer = None
        except Exception:  # a defect of the stand-in: shown to the client as such, and told on stderr
            traceback.print_exc(file=sys.stderr)
            answer, code = Answer(500, b"stand-in: internal error, see its log", "text/plain"), None
        finally:
            self.services.audit.close(record, answer.status if answer else 0, code)
        if answer is None:
            self.close_connection = True
        else:
            self._send(answer, fault)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    @staticmethod
    def _parse(kind: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        if kind == "upload" or not body:
            return {}
        try:
            plain = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
            parsed = json.loads(plain)
        except (OSError, ValueError):
            return {}
        return parsed if isinstance(parsed, dict) else {}

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        cut_after = fault.cut_after() if fault is not None else None
        try:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body if cut_after is None else answer.body[:cut_after])
            if cut_after is not None:
                self.wfile.flush()
                self.close_connection = True
        except OSError:
            self.close_connection = True  # the client has gone; its affair

    def _route(
        self,
        kind: str,
        path: str,
        query: dict[str, str],
        headers: dict[str, str],
        request: dict[str, Any],
        record: dict[str, Any],
    ) -> tuple[Answer, str | None]:
        try:
            if kind == "login":
                return self._login(query, request, record)
            if kind == "token":
                answer = self._renew(headers, request)
            elif kind == "query":
                answer = self._query(query, headers, request)
            elif kind == "abort":
                answer = self._abort(headers, request)
            elif kind == "session":
                session = self.services.sessions.authenticate(_token(headers))
                if query.get("delete") == "true":
                    self.services.sessions.end(session)
                answer = envelope(None)
            elif kind == "heartbeat":
                self.services.sessions.authenticate(_token(headers))
                answer = envelope(None)
            elif path.startswith("/telemetry/") or path.startswith("/api/v2/"):
                answer = envelope("Log Received" if path.startswith("/telemetry/") else None)
            else:
                return Answer(404, b"not found", "text/plain"), None
        except SnowflakeError as error:
            data = {"errorCode": error.code, "sqlState": error.sqlstate} if kind == "query" else None
            answer = envelope(data, error.code, error.message, False)
        return Answer(200, json.dumps(answer).encode()), answer["code"]

    def _login(
        self, query: dict[str, str], request: dict[str, Any], record: dict[str, Any]
    ) -> tuple[Answer, str | None]:
        data = request.get("data") or {}
        account = self.services.accounts.find(str(data.get("ACCOUNT_NAME") or ""))
        if account is None:
            # No such account: Snowflake's front end refuses before any service sees the request.
            return Answer(403, _FORBIDDEN_PAGE, "text/html"), None
        record |= {"account": account.name, "user": data.get("LOGIN_NAME")}
        session, answer = log_in(account, self.services.sessions, query, data)
        record |= {"user": session.user.name, "session": session.id}
        return Answer(200, json.dumps(envelope(answer)).encode()), None

    def _renew(self, headers: dict[str, str], request: dict[str, Any]) -> dict[str, Any]:
        session = self.services.sessions.renew(_token(headers), str(request.get("oldSessionToken") or ""))
        return envelope(
            {
                "sessionToken": session.token,
                "validityInSecondsST": SESSION_LIFE_SECONDS,
                "masterToken": session.master_token,
                "validityInSecondsMT": MASTER_LIFE_SECONDS,
                "sessionId": session.id,
            }
        )

    def _abort(self, headers: dict[str, str], request: dict[str, Any]) -> dict[str, Any]:
        session = self.services.sessions.authenticate(_token(headers))
        target = str(request.get("requestId") or "")
        if not session.cancel(session.query_of(target)):
            raise SnowflakeError("000605", None, "Identified SQL statement is not currently executing.")
        return envelope(None)

    def _query(self, query: dict[str, str], headers: dict[str, str], request: dict[str, Any]) -> dict[str, Any]:
        """A requestId that was seen before gets the answer of its first execution, also while that still runs."""
        session = self.services.sessions.authenticate(_token(headers))
        request_id = query.get("requestId") or query.get("request_id") or str(uuid.uuid4())
        with session.answers_lock:
            first = request_id not in session.answers
            future = session.answers.setdefault(request_id, Future())
        if not first:
            return future.result()
        try:
            answer = self._execute(session, request_id, request)
        except BaseException as error:
            future.set_exception(error)
            raise
        future.set_result(answer)
        return answer

    def _execute(self, session: Session, request_id: str, request: dict[str, Any]) -> dict[str, Any]:
        query_id = _query_id()
        session.query_ids[request_id] = query_id
        sql = str(request.get("sqlText") or "")
        try:
            result = self.services.statements.execute(
                session, sql, request.get("bindings"), query_id, bool(request.get("describeOnly"))
            )
        except SnowflakeError as error:
            data = {
                "internalError": False,
                "errorCode": error.code,
                "age": 0,
                "sqlState": error.sqlstate,
                "queryId": query_id,
                "line": 1,
                "pos": 0,
                "type": "COMPILATION",
            }
            return envelope(data, error.code, error.message, False)
        parameters = request.get("parameters") or {}
        asked_json = self.headers.get("Accept", "") == "application/json"
        return envelope(
            _query_data(session, result, query_id, parameters, asked_json, bool(request.get("describeOnly")))
        )


def _query_data(
    session: Session, result: Result, query_id: str, parameters: dict[str, Any], asked_json: bool, describe_only: bool
) -> dict[str, Any]:
    if result.put_answer is not None:
        return result.put_answer
    data: dict[str, Any] = {
        "parameters": session_parameters(session),
        "rowtype": [column.describe(session.database, session.schema) for column in result.columns],
        "total": 0 if describe_only else result.table.num_rows,
        "returned": 0 if describe_only else result.table.num_rows,
        "queryId": query_id,
        "databaseProvider": None,
        "finalDatabaseName": session.database,
        "finalSchemaName": session.schema,
        "finalWarehouseName": session.warehouse,
        "finalRoleName": session.role,
        "numberOfBinds": 0,
        "arrayBindSupported": result.type_id == 0x3100,
        "statementTypeId": result.type_id,
        "version": 1,
        "sendResultTime": int(time.time() * 1000),
        "queryContext": None,
        "sqlState": "00000",
    }
    if session.wants_arrow(parameters) and not result.prefers_json and not asked_json:
        data |= {"queryResultFormat": "arrow", "rowsetBase64": "" if describe_only else result.arrow_base64()}
    else:
        data |= {"queryResultFormat": "json", "rowset": [] if describe_only else result.json_rows()}
    return data


def _query_id() -> str:
    """Snowflake's query ids are UUIDs that begin with 01."""
    return "01" + str(uuid.uuid4())[2:]


def _token(headers: dict[str, str]) -> str | None:
    value = headers.get("authorization", "")
    return value[len(_TOKEN) : -1] if value.startswith(_TOKEN) and value.endswith('"') else None


def _fault_answer(fault: Fault) -> Answer | None:
    if "error" in fault.action:
        error = fault.action["error"]
        data = {"errorCode": error.get("code"), "sqlState": error.get("sqlState"), "queryId": _query_id()}
        answer = envelope(data, error.get("code"), error.get("message"), False)
        return Answer(200, json.dumps(answer).encode())
    if fault.status is None:
        return None
    headers = fault.action.get("headers", {})
    content_type = headers.get("Content-Type", "text/plain")
    rest = {name: value for name, value in headers.items() if name != "Content-Type"}
    return Answer(fault.status, fault.body(), content_type, rest)

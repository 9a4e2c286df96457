"""The HTTP side: Snowflake's driver endpoints."""

from __future__ import annotations

import gzip
import json
import time
import uuid
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from standin import admin, uploads
from standin.accounts import Accounts
from standin.audit import Audit
from standin.certificates import Tls
from standin.errors import SnowflakeError
from standin.faults import Faults
from standin.front import Answer, Front, Record, Request
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


def envelope(data: Any, code: str | None = None, message: str | None = None, success: bool = True) -> dict[str, Any]:
    return {"data": data, "code": code, "message": message, "success": success, "headers": None}


class Gateway(Front):
    services: Services

    def kind(self, request: Request) -> str:
        return "upload" if request.path.startswith(uploads.PATH) else _KINDS.get(request.path, "other")

    def exempt(self, request: Request) -> bool:
        return request.path.startswith("/admin/")

    def shown_path(self, request: Request) -> str:
        return uploads.PATH + "…" if request.kind == "upload" else request.path

    def describe(self, request: Request, record: Record) -> None:
        session = self.services.sessions.peek(_token(request.headers) or "")
        if session is not None:
            record |= {"account": session.account.name, "user": session.user.name, "session": session.id}
        record["sql"] = _json(request).get("sqlText") if request.kind == "query" else None

    def refusal(self, error: dict[str, Any]) -> Answer:
        data = {"errorCode": error.get("code"), "sqlState": error.get("sqlState"), "queryId": _query_id()}
        return _answer(envelope(data, error.get("code"), error.get("message"), False))

    def respond(self, request: Request, record: Record) -> Answer:
        path, query, headers = request.path, request.query, request.headers
        if self.exempt(request):
            status, told = admin.handle(self.services, request.method, path, query, headers, request.body)
            return Answer(status, json.dumps(told, default=str).encode(), "application/json")
        if request.kind == "upload":
            return Answer(self.services.uploads.receive(path, headers, request.body), b"", "text/plain")
        return self._route(request.kind, path, query, headers, _json(request), record)

    def _route(
        self,
        kind: str,
        path: str,
        query: dict[str, str],
        headers: dict[str, str],
        request: dict[str, Any],
        record: Record,
    ) -> Answer:
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
            elif path.startswith(("/telemetry/", "/api/v2/")):
                answer = envelope("Log Received" if path.startswith("/telemetry/") else None)
            else:
                return Answer(404, b"not found", "text/plain")
        except SnowflakeError as error:
            data = {"errorCode": error.code, "sqlState": error.sqlstate} if kind == "query" else None
            answer = envelope(data, error.code, error.message, False)
        return _answer(answer)

    def _login(self, query: dict[str, str], request: dict[str, Any], record: Record) -> Answer:
        data = request.get("data") or {}
        account = self.services.accounts.find(str(data.get("ACCOUNT_NAME") or ""))
        if account is None:
            # No such account: Snowflake's front end refuses before any service sees the request.
            return Answer(403, _FORBIDDEN_PAGE, "text/html")
        record |= {"account": account.name, "user": data.get("LOGIN_NAME")}
        session, answer = log_in(account, self.services.sessions, query, data)
        record |= {"user": session.user.name, "session": session.id}
        return _answer(envelope(answer))

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


def _answer(told: dict[str, Any]) -> Answer:
    return Answer(200, json.dumps(told).encode(), "application/json", code=told["code"])


def _json(request: Request) -> dict[str, Any]:
    """The body as an object; empty where it is none."""
    body = request.body
    try:
        plain = gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body
        parsed = json.loads(plain or b"{}")
    except (OSError, ValueError):
        return {}
    return parsed if isinstance(parsed, dict) else {}

"""The HTTP side: Snowflake's driver endpoints."""

from __future__ import annotations

import gzip
import json
import re
import secrets
import threading
import uuid
from dataclasses import dataclass, field
from typing import Any

from standin import admin, oauth
from standin.accounts import Accounts
from standin.answers import envelope
from standin.audit import REDACTED, Audit
from standin.certificates import Tls
from standin.chunks import Chunks
from standin.errors import SnowflakeError
from standin.faults import Faults
from standin.front import Answer, Front, Record, Request
from standin.login import log_in
from standin.queries import Queries
from standin.sessions import Session, Sessions
from standin.statements import Statements
from standin.stores import Stores

_FORBIDDEN_PAGE = (
    b"<html>\r\n<head><title>403 Forbidden</title></head>\r\n<body>\r\n<center><h1>403 Forbidden</h1></center>\r\n"
    b"</body>\r\n</html>\r\n"
)
_SECRET_FIELDS = {"PASSWORD", "PASSCODE", "TOKEN", "PROOF_KEY", "SPCS_TOKEN"}
AFFINITY_HEADER = "x-snowflake-session"
_TOKEN = 'Snowflake Token="'
_KINDS = {
    "/session/v1/login-request": "login",
    "/queries/v1/query-request": "query",
    "/queries/v1/abort-request": "abort",
    "/session/token-request": "token",
    "/session/heartbeat": "heartbeat",
    "/session": "session",
    oauth.PATH: "oauth",
}
_KINDS_BY_PATTERN = (
    (re.compile(r"/queries/([^/]+)/result"), "result"),
    (re.compile(r"/queries/([^/]+)/abort-request"), "abort"),
    (re.compile(r"/monitoring/queries/([^/]+)"), "monitoring"),
)


class Affinity:
    """The header by which a client says which server knows its session. It is given, and may be replaced in any answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: str | None = None

    def announce(self, value: str) -> None:
        with self._lock:
            self._next = value

    def take(self, *, at_login: bool) -> str | None:
        """What the answer at hand brings, if anything."""
        with self._lock:
            value, self._next = self._next, None
        return value or (secrets.token_hex(16) if at_login else None)


@dataclass
class Services:
    """Everything a request may need."""

    accounts: Accounts
    sessions: Sessions
    statements: Statements
    queries: Queries
    chunks: Chunks
    stores: Stores
    audit: Audit
    faults: Faults
    admin_token: str
    make_engine: Any
    affinity: Affinity = field(default_factory=Affinity)
    tls: Tls | None = None


class Gateway(Front):
    services: Services

    def plain_path(self, path: str) -> str:
        """Drivers put two slashes where one belongs, and Snowflake does not mind."""
        return re.sub("/{2,}", "/", path)

    def kind(self, request: Request) -> str:
        by_pattern = (kind for pattern, kind in _KINDS_BY_PATTERN if pattern.fullmatch(request.path))
        return _KINDS.get(request.path) or next(by_pattern, "other")

    def exempt(self, request: Request) -> bool:
        return request.path.startswith("/admin/")

    def describe(self, request: Request, record: Record) -> None:
        session = self.services.sessions.peek(_token(request) or "")
        if session is not None:
            record |= {"account": session.account.name, "user": session.user.name, "session": session.id}
        if request.kind == "query":
            body = _json(request)
            record |= {"sql": body.get("sqlText"), "parameters": body.get("parameters")}
        elif request.kind == "abort":
            record["aborts"] = _json(request).get("requestId")

    def refusal(self, error: dict[str, Any]) -> Answer:
        data = {"errorCode": error.get("code"), "sqlState": error.get("sqlState"), "queryId": str(uuid.uuid4())}
        return _answer(envelope(data, error.get("code"), error.get("message"), False))

    def respond(self, request: Request, record: Record) -> Answer:
        if self.exempt(request):
            status, told = admin.handle(
                self.services, request.method, request.path, request.query, request.headers, request.body
            )
            return Answer(status, json.dumps(told, default=str).encode(), "application/json")
        answer = self._executed_answer(request, record)
        affinity = self.services.affinity.take(at_login=request.kind == "login" and record["session"] is not None)
        if affinity is not None:
            answer.headers = [*answer.headers, (AFFINITY_HEADER, affinity)]
        return answer

    def _executed_answer(self, request: Request, record: Record) -> Answer:
        path, headers = request.path, request.headers
        if request.kind == "login":
            return self._login(request, record)
        if request.kind == "oauth":
            return oauth.token_request(self._accounts_of(headers.get("host", "")), request)
        if request.kind == "other" and not path.startswith(("/telemetry/", "/api/v2/")):
            return Answer(404, b"not found", "text/plain")
        try:
            return _answer(self._logical(request))
        except SnowflakeError as error:
            data = {"errorCode": error.code, "sqlState": error.sqlstate} if request.kind == "query" else None
            return _answer(envelope(data, error.code, error.message, False))

    def _accounts_of(self, host: str) -> list[oauth.OAuth]:
        """The account whose name the host begins with, then all others: a client's id tells them apart too."""
        likely = self.services.accounts.find(host.partition(":")[0])
        return [account.oauth for account in sorted(self.services.accounts.all(), key=lambda each: each is not likely)]

    def _login(self, request: Request, record: Record) -> Answer:
        data = _json(request).get("data") or {}
        account = self.services.accounts.find(str(data.get("ACCOUNT_NAME") or ""))
        if account is None:
            # No such account: Snowflake's front end refuses before any service sees the request.
            return Answer(403, _FORBIDDEN_PAGE, "text/html")
        record |= {"account": account.name, "user": data.get("LOGIN_NAME"), "login": _without_secrets(data)}
        try:
            session, answer = log_in(account, self.services.sessions, request.query, data)
        except SnowflakeError as error:
            return _answer(envelope(error.data, error.code, error.message, False))
        record |= {"user": session.user.name, "session": session.id}
        return _answer(envelope(answer))

    def _logical(self, request: Request) -> dict[str, Any]:
        """The endpoints that ask for a token. What is wrong comes as an error code."""
        if request.kind == "other":
            return envelope("Log Received" if request.path.startswith("/telemetry/") else None)
        if request.kind == "token":
            return self._renew(request)
        session = self.services.sessions.authenticate(_token(request))
        queries = self.services.queries
        match request.kind:
            case "query":
                return self._query(session, request)
            case "result":
                return queries.polled_answer(queries.find(session, request.path.split("/")[2]))
            case "monitoring":
                return envelope({"queries": queries.monitored(session, request.path.rsplit("/", 1)[1])})
            case "abort":
                return self._abort(session, request)
            case "heartbeat":
                session.prolong()
            case "session" if request.query.get("delete") == "true":
                self.services.sessions.end(session)
                # Here the code is a number and there is no `data`, as one driver recorded it.
                return {"code": 200, "message": "done", "success": True}
        return envelope(None)

    def _renew(self, request: Request) -> dict[str, Any]:
        session = self.services.sessions.renew(_token(request), str(_json(request).get("oldSessionToken") or ""))
        return envelope(
            {
                "sessionToken": session.token,
                "validityInSecondsST": session.validity.session_seconds,
                "masterToken": session.master_token,
                "validityInSecondsMT": session.validity.master_seconds,
                "sessionId": session.id,
            }
        )

    def _abort(self, session: Session, request: Request) -> dict[str, Any]:
        """By the request that brought the statement, or by the id of the query in the path."""
        in_path = request.path.split("/")[2]
        if in_path == "v1":
            running = session.cancel(session.query_of(str(_json(request).get("requestId") or "")))
        else:
            query = self.services.queries.find(session, in_path)
            running = query.session.cancel(query.id)
        if not running:
            raise SnowflakeError("000605", None, "Identified SQL statement is not currently executing.")
        return envelope(None)

    def _query(self, session: Session, request: Request) -> dict[str, Any]:
        request_id = request.query.get("requestId") or request.query.get("request_id") or str(uuid.uuid4())
        asked_json = request.headers.get("accept", "") == "application/json"
        queries = self.services.queries
        return queries.first_answer(queries.submit(session, request_id, _json(request), asked_json))


def _without_secrets(data: dict[str, Any]) -> dict[str, Any]:
    """The body of a login as the audit may show it."""
    return {name: REDACTED if name in _SECRET_FIELDS else value for name, value in data.items()}


def _token(request: Request) -> str | None:
    value = request.headers.get("authorization", "")
    return value[len(_TOKEN) : -1] if value.startswith(_TOKEN) and value.endswith('"') else None


def _answer(told: dict[str, Any]) -> Answer:
    code = told["code"]
    return Answer(200, json.dumps(told).encode(), "application/json", code=None if code is None else str(code))


def _json(request: Request) -> dict[str, Any]:
    """The body as an object; empty where it is none."""
    body = request.body
    try:
        plain = gzip.decompress(body) if request.headers.get("content-encoding") == "gzip" else body
        parsed = json.loads(plain or b"{}")
    except (OSError, ValueError):
        return {}
    return parsed if isinstance(parsed, dict) else {}

"""The admin endpoint: what a test asks of the stand-in itself. Every call carries the token of `ready.json`."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from standin import staged_file
from standin.chunks import Cutting
from standin.errors import SnowflakeError
from standin.names import fold
from standin.queries import IN_PROGRESS, IN_PROGRESS_ASYNC, Parking
from standin.sessions import Session, Validity
from standin.stages import locate

if TYPE_CHECKING:
    from standin.accounts import Account, User
    from standin.gateway import Services
    from standin.stage_objects import StageObjects
    from standin.stage_store import Stage


def handle(
    services: Services, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes
) -> tuple[int, Any]:
    if not hmac.compare_digest(headers.get("x-admin-token", "").encode(), services.admin_token.encode()):
        return 401, {"error": "X-Admin-Token is missing or wrong"}
    try:
        request = json.loads(body) if body else {}
        what = path.removeprefix("/admin/")
        if (method, what) == ("GET", "audit"):
            return 200, {"records": services.audit.records(int(query.get("after", "0")))}
        if what == "faults":
            return _faults(services, method, request)
        if (method, what) == ("POST", "sql"):
            return 200, _sql(services, request)
        if (method, what) == ("POST", "accounts"):
            for spec in request["accounts"]:
                services.stores.prepare(services.accounts.apply(spec, services.make_engine))
            names = [account.name for account in services.accounts.all()]
            if services.tls is not None:
                services.tls.cover(names)
            return 200, {"accounts": names, **services.stores.ready()}
        if (method, what) == ("POST", "privileges"):
            return 200, _privileges(services, request)
        if what == "stage" and method in {"GET", "POST"}:
            return 200, _stage(services, request or query)
        if what == "sessions":
            return _sessions(services, method, request)
        if (method, what) == ("POST", "affinity"):
            services.affinity.announce(str(request["value"]))
            return 200, {}
        if what == "validity" and method in {"POST", "DELETE"}:
            services.sessions.validity = Validity(**request) if method == "POST" else Validity()
            return 200, {}
        if (method, what) == ("POST", "unlock"):
            _user(_account(services, request), request).wrong_passwords = 0
            return 200, {}
        if (method, what) == ("POST", "oauth"):
            return 200, _access_token(services, request)
        if (method, what) == ("POST", "oauth/expire"):
            _account(services, request).oauth.expire()
            return 200, {}
        if (method, what) == ("POST", "short-copies"):
            _account(services, request).short_copies.release(int(request["times"]))
            return 200, {}
        if (method, what) == ("DELETE", "short-copies"):
            while _account(services, request).short_copies.acquire(blocking=False):
                pass
            return 200, {}
        if what == "parking":
            return 200, _parking(services, method, request)
        if what == "chunks" and method in {"POST", "DELETE"}:
            services.chunks.cutting = Cutting(**request) if method == "POST" else None
            return 200, {}
        if (method, what) == ("POST", "chunks/expire"):
            services.chunks.expire()
            return 200, {}
        if (method, what) == ("POST", "expire-stage-credentials"):
            return 200, _expire(services, request)
    except SnowflakeError as error:
        return 422, {"error": error.message, "code": error.code, "sqlState": error.sqlstate}
    except (KeyError, TypeError, ValueError) as error:
        return 400, {"error": f"{type(error).__name__}: {error}"}
    return 404, {"error": f"no {method} {path}"}


def _account(services: Services, request: dict[str, Any]) -> Account:
    name = request.get("account")
    accounts = services.accounts.all()
    if name is None and len(accounts) == 1:
        return accounts[0]
    account = services.accounts.find(str(name))
    if account is None:
        raise ValueError(f"no account {name!r}")
    return account


def _user(account: Account, request: dict[str, Any]) -> User:
    name = request.get("user")
    user = account.users.get(fold(name)) if name else next(iter(account.users.values()), None)
    if user is None:
        raise ValueError(f"no user {name!r}")
    return user


def _faults(services: Services, method: str, request: dict[str, Any]) -> tuple[int, Any]:
    if method == "POST":
        services.faults.add(request)
    elif method == "DELETE":
        services.faults.clear(request.get("match"))
    elif method != "GET":
        return 405, {"error": "GET, POST or DELETE"}
    return 200, {"faults": services.faults.remaining()}


def _access_token(services: Services, request: dict[str, Any]) -> dict[str, Any]:
    """`{"account", "user", "role"}`: a token as an identity provider would have given it."""
    account = _account(services, request)
    role = fold(request["role"]) if request.get("role") else None
    return {"access_token": account.oauth.issue(_user(account, request).name, role)}


def _parking(services: Services, method: str, request: dict[str, Any]) -> dict[str, Any]:
    """POST changes what it names, in milliseconds; DELETE brings Snowflake's times back."""
    if method == "DELETE":
        services.queries.parking = Parking()
        return {}
    seconds = {f"{name}_ms": name for name in ("after", "poll", "aborts_after")}
    changes = {seconds[name]: value / 1000 for name, value in request.items() if name in seconds}
    changes |= {name: value for name, value in request.items() if name not in seconds}
    if changes.get("code", IN_PROGRESS) not in {IN_PROGRESS, IN_PROGRESS_ASYNC}:
        raise ValueError("code is 333333 or 333334")
    services.queries.parking = replace(services.queries.parking, **changes)
    return {}


def _admin_session(services: Services, request: dict[str, Any]) -> Session:
    """A session of the stand-in's own: every right, no token, not among the clients' sessions."""
    account = _account(services, request)
    databases = account.engine.catalog.databases()
    database = fold(request["database"]) if request.get("database") else next(iter(databases), None)
    schema = fold(request["schema"]) if request.get("schema") else ("PUBLIC" if database else None)
    warehouse = next(iter(account.warehouses), "ADMIN")
    user = _user(account, request)
    return Session(account, user, services.sessions.next_id(), "admin", "ACCOUNTADMIN", warehouse, database, schema, {})


def _sql(services: Services, request: dict[str, Any]) -> dict[str, Any]:
    session = _admin_session(services, request)
    try:
        result = services.statements.execute(session, request["sql"], None, str(uuid.uuid4()))
        return {"columns": [column.name for column in result.columns], "rows": result.json_rows()}
    finally:
        session.close()


def _privileges(services: Services, request: dict[str, Any]) -> dict[str, Any]:
    """`{"account", "role", "privilege", "on", "name", "withhold"}`.

    For example the privilege CREATE TABLE, on SCHEMA, named ANALYTICS_DB.REPORTS.
    """
    account = _account(services, request)
    entry = (
        fold(request["role"]),
        request["privilege"].upper(),
        request["on"].upper(),
        ".".join(fold(part) for part in request["name"].split(".")),
    )
    if request.get("withhold", True):
        account.withheld.add(entry)
    else:
        account.withheld.discard(entry)
    return {"withheld": sorted(account.withheld)}


def _stage(services: Services, request: dict[str, Any]) -> dict[str, Any]:
    """Files of a stage, with the metadata of their objects and what COPY would read: `{"account","user","location":"@~/…"}`."""
    session = _admin_session(services, request)
    try:
        location = locate(session, request["location"])
        objects = services.stores.objects(session.account)
        files = [
            {
                "name": location.stage.label + item.key.removeprefix(location.stage.folder),
                "key": item.key,
                "bucket": objects.bucket,
                "size": item.size,
                "etag": item.etag,
                "metadata": objects.metadata(item.key),
                "content": _content(session, location.stage, objects, item.key),
            }
            for item in objects.list(location.prefix())
        ]
        return {"files": files}
    finally:
        session.close()


def _content(session: Session, stage: Stage, objects: StageObjects, key: str) -> dict[str, Any]:
    """Size and digest of a staged file after decryption, or why it cannot be read."""
    try:
        content = staged_file.fetch(objects, session.engine.stages, stage, key, key).content
    except SnowflakeError as error:
        return {"error": error.message}
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _expire(services: Services, request: dict[str, Any]) -> dict[str, Any]:
    """All storage credentials given out so far; with `{"after_requests": n}` the next ones, after so many requests."""
    if "after_requests" in request:
        services.stores.grants.limit_next(int(request["after_requests"]))
    else:
        services.stores.grants.expire_all()
    return {}


def _sessions(services: Services, method: str, request: dict[str, Any]) -> tuple[int, Any]:
    """GET lists the open sessions, DELETE `{"id": n}` kills one, as its idle limit would.

    POST `{"id": n, "expire": "session"}` (or `"master"`) lets its tokens run out now.
    """
    if method in {"DELETE", "POST"}:
        session = services.sessions.find(int(request["id"]))
        if session is None:
            return 404, {"error": "no such session"}
        if method == "DELETE":
            services.sessions.end(session)
        else:
            session.expires = 0.0
            if request["expire"] == "master":
                session.master_expires = 0.0
    elif method != "GET":
        return 405, {"error": "GET, POST or DELETE"}
    return 200, {
        "sessions": [
            {
                "id": session.id,
                "account": session.account.name,
                "user": session.user.name,
                "client": session.client,
                "transaction": session.transaction.id if session.transaction else None,
                "parameters": session.parameters,
            }
            for session in services.sessions.all()
        ]
    }

"""login-request: who is it, are they who they say, and what do they start with."""

from __future__ import annotations

from typing import Any

from standin.accounts import Account
from standin.credentials import Identified, identify
from standin.errors import SnowflakeError, login_refused
from standin.names import fold
from standin.sessions import Session, Sessions, as_bool

SERVER_VERSION = "9.31.1"


def log_in(
    account: Account, sessions: Sessions, query: dict[str, str], data: dict[str, Any]
) -> tuple[Session, dict[str, Any]]:
    """The new session and the `data` of the answer."""
    who = identify(account, data)
    parameters = dict(data.get("SESSION_PARAMETERS") or {})
    context = _context(account, who, query, as_bool(parameters.get("CLIENT_VALIDATE_DEFAULT_PARAMETERS", False)))
    session = Session(
        account,
        who.user,
        sessions.next_id(),
        str(data.get("CLIENT_APP_ID") or ""),
        context["role"],
        context["warehouse"],
        context["database"],
        context["schema"],
        parameters,
        sessions.validity,
    )
    sessions.add(session)
    return session, _answer(session)


def _context(account: Account, who: Identified, query: dict[str, str], validate: bool) -> dict[str, str | None]:
    """Role, warehouse, database and schema of the new session.

    A name that does not exist, or is not granted, is silently left out, unless CLIENT_VALIDATE_DEFAULT_PARAMETERS is
    set.
    """
    role = _role(who, fold(query["roleName"]) if query.get("roleName") else None, validate)
    catalog = account.engine.catalog
    warehouse = fold(query["warehouse"]) if query.get("warehouse") else who.user.default_warehouse
    usage = ("USAGE", "WAREHOUSE", warehouse or "")
    if warehouse is not None and (warehouse not in account.warehouses or (role, *usage) in account.withheld):
        _missing_default("warehouse", validate)
        warehouse = None
    database = fold(query["databaseName"]) if query.get("databaseName") else None
    if database is not None and (
        database not in catalog.databases() or (role, "USAGE", "DATABASE", database) in account.withheld
    ):
        _missing_default("database", validate)
        database = None
    schema = fold(query["schemaName"]) if query.get("schemaName") else None
    if schema is not None and (
        database is None
        or not catalog.has_schema(database, schema)
        or (role, "USAGE", "SCHEMA", f"{database}.{schema}") in account.withheld
    ):
        _missing_default("schema", validate)
        schema = None
    if database is not None and schema is None and catalog.has_schema(database, "PUBLIC"):
        schema = "PUBLIC"
    return {"role": role, "warehouse": warehouse, "database": database, "schema": schema}


def _role(who: Identified, asked: str | None, validate: bool) -> str:
    """The role asked for, or the default one. A credential bound to a role is good for that role only."""
    if who.bound_role is not None and asked not in {None, who.bound_role}:
        if who.by_oauth:
            raise login_refused(
                "390317",
                "The role requested in the connection or the default role if none was requested in the connection "
                f"('{asked}') is not listed in the Access Token or was filtered.",
            )
        raise _wrong_role(str(asked))
    wanted = asked or who.bound_role
    if wanted is not None and wanted not in who.user.roles:
        if validate or who.bound_role is not None:
            raise _wrong_role(wanted)
        wanted = None
    return wanted or who.user.default_role or "PUBLIC"


def _wrong_role(role: str) -> SnowflakeError:
    return SnowflakeError(
        "390189",
        "08001",
        f"Role '{role}' specified in the connect string does not exist or not authorized. Contact your local system "
        "administrator, or attempt to login with another role, e.g. PUBLIC.",
    )


def _missing_default(kind: str, validate: bool) -> None:
    """Nothing, or the refusal when the client asked for validation."""
    if validate:
        raise SnowflakeError("390201", "08004", f"The requested {kind} does not exist or not authorized.")


def _answer(session: Session) -> dict[str, Any]:
    return {
        "masterToken": session.master_token,
        "token": session.token,
        "validityInSeconds": session.validity.session_seconds,
        "masterValidityInSeconds": session.validity.master_seconds,
        "displayUserName": session.user.name,
        "serverVersion": SERVER_VERSION,
        "firstLogin": False,
        "remMeToken": None,
        "remMeValidityInSeconds": 0,
        "healthCheckInterval": 45,
        "newClientForUpgrade": None,
        "sessionId": session.id,
        "parameters": session_parameters(session),
        "sessionInfo": {
            "databaseName": session.database,
            "schemaName": session.schema,
            "warehouseName": session.warehouse,
            "roleName": session.role,
        },
        "idToken": None,
        "idTokenValidityInSeconds": 0,
        "responseData": None,
        "mfaToken": None,
        "mfaTokenValidityInSeconds": 0,
    }


def session_parameters(session: Session) -> list[dict[str, Any]]:
    values: dict[str, Any] = {
        "AUTOCOMMIT": session.autocommit,
        "TIMEZONE": session.parameters.get("TIMEZONE", "UTC"),
        "CLIENT_SESSION_KEEP_ALIVE": False,
        "CLIENT_SESSION_KEEP_ALIVE_HEARTBEAT_FREQUENCY": 3600,
        "CLIENT_TELEMETRY_ENABLED": False,
        # 0: array bindings come inline; a staged binding would need a bind stage.
        "CLIENT_STAGE_ARRAY_BINDING_THRESHOLD": 0,
    }
    return [{"name": name, "value": value} for name, value in values.items()]

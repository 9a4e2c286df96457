"""login-request: who is it, are they who they say, and what do they start with."""

from __future__ import annotations

import hmac
import time
import uuid
from typing import Any

import jwt

from standin.accounts import Account, User, account_key
from standin.errors import SnowflakeError
from standin.names import fold
from standin.sessions import MASTER_LIFE_SECONDS, SESSION_LIFE_SECONDS, Session, Sessions, as_bool

SERVER_VERSION = "9.31.1"
MAX_JWT_LIFE = 3600  # docs.snowflake.com, key-pair authentication: at most one hour
MAX_JWT_AGE = 60  # and received within 60 seconds of `iat`


def log_in(
    account: Account, sessions: Sessions, query: dict[str, str], data: dict[str, Any]
) -> tuple[Session, dict[str, Any]]:
    """The new session and the `data` of the answer."""
    authenticator = str(data.get("AUTHENTICATOR") or "SNOWFLAKE").upper()
    if authenticator == "SNOWFLAKE_JWT":
        user = _by_jwt(account, str(data.get("TOKEN") or ""))
    elif authenticator in {"SNOWFLAKE", "USERNAME_PASSWORD_MFA"}:
        user = _by_password(account, str(data.get("LOGIN_NAME") or ""), data.get("PASSWORD"))
    else:
        raise SnowflakeError("390400", None, f"Stand-in: authenticator {authenticator} is not there yet.")
    parameters = dict(data.get("SESSION_PARAMETERS") or {})
    context = _context(account, user, query, as_bool(parameters.get("CLIENT_VALIDATE_DEFAULT_PARAMETERS", False)))
    session = Session(
        account,
        user,
        sessions.next_id(),
        str(data.get("CLIENT_APP_ID") or ""),
        context["role"],
        context["warehouse"],
        context["database"],
        context["schema"],
        parameters,
    )
    sessions.add(session)
    return session, _answer(session)


def _by_password(account: Account, login_name: str, password: Any) -> User:
    user = account.users.get(fold(login_name)) or account.users.get(login_name.upper())
    expected = user.password if user is not None else None
    if user is None or expected is None or not isinstance(password, str):
        raise _wrong_password()
    if not hmac.compare_digest(expected.encode(), password.encode()):
        raise _wrong_password()
    return user


def _wrong_password() -> SnowflakeError:
    return SnowflakeError("390100", None, "Incorrect username or password was specified.")


def _by_jwt(account: Account, token: str) -> User:
    """docs.snowflake.com "Key-pair authentication: troubleshooting" lists the codes 394300 to 394307."""
    try:
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, options={"verify_signature": False})
        account_name, user_name, fingerprint = str(claims["iss"]).split(".", 2)
    except (jwt.PyJWTError, KeyError, ValueError):
        raise _jwt_error("390144") from None
    if header.get("alg") != "RS256":
        raise _jwt_error("394305")
    if not all(isinstance(claims.get(name), (int, float)) for name in ("iat", "exp")):
        raise _jwt_error("394301")
    if account_name != account.name or account_key(account_name) != account.name:
        raise _jwt_error("394307")
    user = account.users.get(user_name)
    if user is None or claims.get("sub") != f"{account_name}.{user_name}":
        raise _jwt_error("394300")
    now = time.time()
    if abs(now - claims["iat"]) > MAX_JWT_AGE:
        raise _jwt_error("394302")
    if claims["exp"] <= now or claims["exp"] - claims["iat"] > MAX_JWT_LIFE:
        raise _jwt_error("394303")
    if user.public_key is None or fingerprint != user.fingerprint():
        raise _jwt_error("394304")
    try:
        jwt.decode(token, user.public_key, algorithms=["RS256"], options={"verify_iat": False})
    except jwt.PyJWTError:
        raise _jwt_error("394306") from None
    return user


def _jwt_error(code: str) -> SnowflakeError:
    return SnowflakeError(code, None, f"JWT token is invalid. [{uuid.uuid4()}]")


def _context(account: Account, user: User, query: dict[str, str], validate: bool) -> dict[str, str | None]:
    """Role, warehouse, database and schema of the new session.

    A name that does not exist, or is not granted, is silently left out, unless CLIENT_VALIDATE_DEFAULT_PARAMETERS is
    set.
    """
    role = fold(query["roleName"]) if query.get("roleName") else None
    if role is not None and role not in user.roles:
        if validate:
            raise SnowflakeError(
                "390189",
                "08001",
                f"Role '{role}' specified in the connect string does not exist or not authorized. Contact your local "
                "system administrator, or attempt to login with another role, e.g. PUBLIC.",
            )
        role = None
    role = role or user.default_role or "PUBLIC"
    catalog = account.engine.catalog
    warehouse = fold(query["warehouse"]) if query.get("warehouse") else user.default_warehouse
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


def _missing_default(kind: str, validate: bool) -> None:
    """Nothing, or the refusal when the client asked for validation."""
    if validate:
        raise SnowflakeError("390201", "08004", f"The requested {kind} does not exist or not authorized.")


def _answer(session: Session) -> dict[str, Any]:
    return {
        "masterToken": session.master_token,
        "token": session.token,
        "validityInSeconds": SESSION_LIFE_SECONDS,
        "masterValidityInSeconds": MASTER_LIFE_SECONDS,
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

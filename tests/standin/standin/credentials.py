"""Credentials of a login: whose they are, whether they hold, and which role they are bound to."""

from __future__ import annotations

import hmac
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from standin.accounts import Account, User, account_key
from standin.errors import SnowflakeError, login_refused
from standin.names import fold

MAX_JWT_LIFE = 3600  # docs.snowflake.com, key-pair authentication: at most one hour
MAX_JWT_AGE = 60  # and received within 60 seconds of `iat`
WRONG_PASSWORDS_BEFORE_LOCK = 5
_counting = threading.Lock()


@dataclass(frozen=True)
class Identified:
    """Who logs in. `bound_role` is the only role that the credential is good for; `by_oauth` says whose refusal it is."""

    user: User
    bound_role: str | None = None
    by_oauth: bool = False


def identify(account: Account, data: dict[str, Any]) -> Identified:
    """Whom the credentials of a login request stand for."""
    authenticator = str(data.get("AUTHENTICATOR") or "SNOWFLAKE").upper()
    login_name, token = str(data.get("LOGIN_NAME") or ""), str(data.get("TOKEN") or "")
    match authenticator:
        case "SNOWFLAKE_JWT":
            found = Identified(_by_jwt(account, token))
        case "PROGRAMMATIC_ACCESS_TOKEN":
            found = _by_access_token(_user(account, login_name), token)
        case "OAUTH":
            found = _by_oauth(account, login_name, token)
        case "SNOWFLAKE" | "USERNAME_PASSWORD_MFA":
            found = _by_password(_user(account, login_name), data)
        case _:
            raise SnowflakeError("390400", None, f"Stand-in: authenticator {authenticator} is not there.")
    _refuse_for_state(found.user)
    return found


def _user(account: Account, login_name: str) -> User | None:
    return account.users.get(fold(login_name)) or account.users.get(login_name.upper())


def _refuse_for_state(user: User) -> None:
    """What keeps somebody out who is who they say. The first and the last have no code that any source tells."""
    if user.disabled:
        raise login_refused("390401", "User access disabled. Contact your local system administrator.")
    if user.network_policy == "blocked":
        raise login_refused(
            "390422",
            "Incoming request with IP/Token 127.0.0.1 is not allowed to access Snowflake. Contact your account administrator.",
        )
    if user.network_policy == "missing":
        raise login_refused("390432", "Network policy is required.")
    if user.next_action == "PWD_CHANGE":
        raise login_refused(
            "390401",
            "Your password has expired. You must change it before you can log in.",
            {"nextAction": "PWD_CHANGE", "authnMethod": "USERNAME_PASSWORD", "inFlightCtx": uuid.uuid4().hex},
        )
    if user.next_action is not None:
        raise login_refused(
            "390401",
            "Multi-factor authentication is required for this account.",
            {"nextAction": user.next_action, "authnMethod": "USERNAME_PASSWORD", "inFlightCtx": uuid.uuid4().hex},
        )


def _by_password(user: User | None, data: dict[str, Any]) -> Identified:
    """A programmatic access token may stand where the password does. Five wrong passwords in a row lock the user."""
    given = data.get("PASSWORD")
    if user is None or not isinstance(given, str):
        raise _wrong_password()
    if any(_same(token.token, given) for token in user.access_tokens):
        return _by_access_token(user, given)
    with _counting:
        if user.wrong_passwords >= WRONG_PASSWORDS_BEFORE_LOCK:
            raise login_refused(
                "390401",
                "Your user account has been temporarily locked due to too many failed attempts. Try again after 15 minutes "
                "or contact your account administrator for assistance.",
            )
        right = user.password is not None and _begins_with_password(user, given)
        user.wrong_passwords = 0 if right else user.wrong_passwords + 1
    if not right:
        raise _wrong_password()
    if user.passcode is not None:
        _check_passcode(user, user.passcode, data)
    return Identified(user)


def _begins_with_password(user: User, given: str) -> bool:
    """With a passcode the password may have one appended; which one is looked at later."""
    expected = user.password or ""
    if user.passcode is not None and len(given) == len(expected) + len(user.passcode):
        return _same(expected, given[: len(expected)])
    return _same(expected, given)


def _check_passcode(user: User, passcode: str, data: dict[str, Any]) -> None:
    given = data.get("PASSCODE")
    if given is None:
        given = str(data["PASSWORD"])[len(user.password or "") :]
    by_passcode = str(data.get("EXT_AUTHN_DUO_METHOD") or "").lower() == "passcode"
    if by_passcode and _same(passcode, str(given)):
        return
    raise login_refused(
        "394508",
        "Failed to authenticate: MFA with TOTP is required. To authenticate, provide both your password and a current TOTP "
        "passcode.",
        {"nextAction": "RETRY_LOGIN", "authnMethod": "USERNAME_PASSWORD", "signInOptions": {}},
    )


def _by_access_token(user: User | None, given: str) -> Identified:
    for token in user.access_tokens if user else []:
        if user is not None and _same(token.token, given) and token.state == "active":
            return Identified(user, token.role)
    raise login_refused(
        "394400",
        "Programmatic access token is invalid.",
        {"nextAction": "RETRY_LOGIN", "authnMethod": "PAT", "signInOptions": {}},
    )


def _by_oauth(account: Account, login_name: str, given: str) -> Identified:
    token = account.oauth.find(given)
    number = uuid.uuid4().int >> 80
    data = {"nextAction": "RETRY_LOGIN", "authnMethod": "OAUTH", "signInOptions": {}}
    user = account.users.get(token.user) if token else None
    if token is None or user is None:
        raise login_refused("390303", f"Invalid OAuth access token. [{number}]", data)
    if time.time() >= token.expires:
        raise login_refused("390318", f"OAuth access token expired. [{number}]", data)
    if login_name and _user(account, login_name) is not user:
        raise login_refused(
            "390309",
            "The user you were trying to authenticate as differs from the user tied to the access token.",
            data,
        )
    return Identified(user, token.role, by_oauth=True)


def _same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode())


def _wrong_password() -> SnowflakeError:
    return login_refused("390100", "Incorrect username or password was specified.")


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
    if not isinstance(user.public_key, RSAPublicKey) or fingerprint != user.fingerprint():
        raise _jwt_error("394304")
    try:
        jwt.decode(token, user.public_key, algorithms=["RS256"], options={"verify_iat": False})
    except jwt.PyJWTError:
        raise _jwt_error("394306") from None
    return user


def _jwt_error(code: str) -> SnowflakeError:
    return login_refused(code, f"JWT token is invalid. [{uuid.uuid4()}]")

"""OAuth: clients of an account, the access tokens they get for their credentials, and the endpoint that gives them."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
import threading
import time
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from standin.front import Answer, Request
from standin.names import fold

PATH = "/oauth/token-request"
DEFAULT_LIFE_SECONDS = 600  # `expires_in` of recorded answers
_ROLE_SCOPE = "session:role:"


@dataclass(frozen=True)
class Client:
    client_id: str
    client_secret: str
    user: str
    scopes: tuple[str, ...]
    expires_in: int


@dataclass(frozen=True)
class AccessToken:
    user: str
    role: str | None
    expires: float


def client_from_json(spec: dict[str, Any]) -> Client:
    return Client(
        spec["client_id"],
        spec["client_secret"],
        fold(spec["user"]),
        tuple(spec.get("scopes", [])),
        int(spec.get("expires_in", DEFAULT_LIFE_SECONDS)),
    )


class OAuth:
    """What one account knows of OAuth."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[str, Client] = {}
        self._tokens: dict[str, AccessToken] = {}

    def add_client(self, client: Client) -> None:
        with self._lock:
            self._clients[client.client_id] = client

    def client(self, client_id: str) -> Client | None:
        with self._lock:
            return self._clients.get(client_id)

    def issue(self, user: str, role: str | None, life: float = DEFAULT_LIFE_SECONDS) -> str:
        token = secrets.token_urlsafe(48)
        with self._lock:
            self._tokens[token] = AccessToken(user, role, time.time() + life)
        return token

    def find(self, token: str) -> AccessToken | None:
        with self._lock:
            return self._tokens.get(token)

    def expire(self) -> None:
        """All access tokens given out so far are expired."""
        with self._lock:
            self._tokens = {token: replace(known, expires=0.0) for token, known in self._tokens.items()}


def token_request(candidates: list[OAuth], request: Request) -> Answer:
    """RFC 6749, section 4.4. `candidates` are the accounts the request may mean, the likeliest first."""
    content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if request.method != "POST" or content_type != "application/x-www-form-urlencoded":
        return _refused(400, "invalid_request", "The body is not a form.")
    form = {name: values[-1] for name, values in parse_qs(request.body.decode(errors="replace")).items()}
    given = _basic(request.headers.get("authorization", "")) or (
        form.get("client_id", ""),
        form.get("client_secret", ""),
    )
    found = _authenticated(candidates, *given)
    if found is None:
        return _refused(401, "invalid_client", "The client secret supplied for a confidential client is invalid.")
    oauth, client = found
    if form.get("grant_type") != "client_credentials":
        return _refused(400, "unsupported_grant_type", "The grant type is not supported.")
    asked = form.get("scope", "").split()
    if not set(asked) <= set(client.scopes):
        return _refused(400, "invalid_scope", "The requested scope is invalid.")
    roles = [fold(scope.removeprefix(_ROLE_SCOPE)) for scope in asked if scope.startswith(_ROLE_SCOPE)]
    told = {
        "access_token": oauth.issue(client.user, roles[0] if roles else None, client.expires_in),
        "token_type": "Bearer",
        "expires_in": client.expires_in,
        "scope": " ".join(asked or client.scopes),
        "username": client.user,
        "idpInitiated": False,
    }
    return _json(200, told)


def _authenticated(candidates: list[OAuth], client_id: str, secret: str) -> tuple[OAuth, Client] | None:
    for oauth in candidates:
        client = oauth.client(client_id) or oauth.client(unquote_plus(client_id))
        if client is None:
            continue
        # RFC 6749 has id and secret form-encoded before base64, which not every driver does.
        if any(
            hmac.compare_digest(client.client_secret.encode(), form.encode()) for form in (secret, unquote_plus(secret))
        ):
            return oauth, client
        return None
    return None


def _basic(header: str) -> tuple[str, str] | None:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return client_id, secret


def _refused(status: int, error: str, description: str) -> Answer:
    return _json(status, {"error": error, "error_description": description})


def _json(status: int, told: dict[str, Any]) -> Answer:
    headers = [("Cache-Control", "no-store")]
    if status == 401:
        headers.append(("WWW-Authenticate", "Basic"))
    return Answer(status, json.dumps(told).encode(), "application/json", headers)

"""Storage credentials that were given out: what each opens, and until when."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass

LIFE_SECONDS = 3600 * 12


@dataclass
class Grant:
    """One set of temporary credentials and the one prefix it opens."""

    name: str
    prefix: str
    secret: str
    token: str
    expires: float
    requests_left: int | None = None


class Grants:
    """Those of all clouds: a name is an access key, a bearer token or a signature, and none is like another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._grants: dict[str, Grant] = {}
        self._limit: int | None = None

    def issue(self, name: str, prefix: str, expires: float | None = None) -> Grant:
        expires = time.time() + LIFE_SECONDS if expires is None else expires
        with self._lock:
            grant = Grant(name, prefix, secrets.token_urlsafe(30), secrets.token_urlsafe(60), expires, self._limit)
            self._limit = None
            self._grants[name] = grant
        return grant

    def find(self, name: str | None) -> Grant | None:
        with self._lock:
            return self._grants.get(name or "")

    def spend(self, grant: Grant) -> bool:
        """One request with these credentials; False when they are expired."""
        with self._lock:
            if grant.requests_left is not None:
                if grant.requests_left == 0:
                    grant.expires = 0.0
                else:
                    grant.requests_left -= 1
            return time.time() < grant.expires

    def expire_all(self) -> None:
        """Every credential given out so far is expired from now on."""
        with self._lock:
            for grant in self._grants.values():
                grant.expires = 0.0

    def limit_next(self, requests: int) -> None:
        """The next credentials given out expire after so many requests: in the middle of an upload of parts."""
        with self._lock:
            self._limit = requests

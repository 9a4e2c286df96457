"""Accounts and their users, roles and warehouses: who may log in, and as what."""

from __future__ import annotations

import base64
import hashlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from standin import cloud
from standin.cloud import Cloud
from standin.names import fold
from standin.oauth import OAuth, client_from_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from standin.engine import Engine


NEXT_ACTIONS = {"PWD_CHANGE", "EXT_AUTHN_DUO_ALL", "EXT_AUTHN_DUO_PUSH_N_PASSCODE", "RETRY_LOGIN"}
NETWORK_POLICIES = {"allowed", "blocked", "missing"}
TOKEN_STATES = {"active", "expired", "disabled"}


@dataclass(frozen=True)
class ProgrammaticAccessToken:
    token: str
    role: str | None
    state: str


@dataclass
class User:
    name: str
    password: str | None
    public_key: PublicKeyTypes | None
    default_role: str | None
    default_warehouse: str | None
    roles: set[str]
    passcode: str | None = None
    access_tokens: list[ProgrammaticAccessToken] = field(default_factory=list)
    next_action: str | None = None
    disabled: bool = False
    network_policy: str | None = None
    wrong_passwords: int = 0  # in a row

    def fingerprint(self) -> str | None:
        """`SHA256:` and the base64 of the digest of the DER public key, as DESCRIBE USER prints it."""
        if self.public_key is None:
            return None
        der = self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return "SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode()


@dataclass
class Account:
    name: str
    users: dict[str, User]
    roles: set[str]
    warehouses: set[str]
    engine: Engine
    cloud: Cloud = field(default_factory=Cloud)
    withheld: set[tuple[str, str, str, str]] = field(default_factory=set)
    oauth: OAuth = field(default_factory=OAuth)
    network_policy: str | None = None
    # How many of the next COPYs lose a row of what they load.
    short_copies: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


def user_from_json(spec: dict[str, Any]) -> User:
    pem = spec.get("public_key")
    roles = {fold(role) for role in spec.get("roles", [])}
    default_role = fold(spec["default_role"]) if spec.get("default_role") else None
    if default_role:
        roles.add(default_role)
    default_warehouse = spec.get("default_warehouse")
    return User(
        name=fold(spec["name"]),
        password=spec.get("password"),
        public_key=load_pem_public_key(pem.encode()) if pem else None,
        default_role=default_role,
        default_warehouse=fold(default_warehouse) if default_warehouse else None,
        roles=roles | {"PUBLIC"},
        passcode=spec.get("passcode"),
        access_tokens=[_access_token(token) for token in spec.get("programmatic_access_tokens", [])],
        next_action=_one_of(NEXT_ACTIONS, spec.get("next_action")),
        disabled=bool(spec.get("disabled", False)),
        network_policy=_one_of(NETWORK_POLICIES, spec.get("network_policy")),
    )


def _access_token(spec: dict[str, Any]) -> ProgrammaticAccessToken:
    state = _one_of(TOKEN_STATES, spec.get("state")) or "active"
    return ProgrammaticAccessToken(spec["token"], fold(spec["role"]) if spec.get("role") else None, state)


def _one_of(known: set[str], value: str | None) -> str | None:
    if value is not None and value not in known:
        raise ValueError(f"{value!r} is none of {sorted(known)}")
    return value


def account_key(identifier: str) -> str:
    """The account that ACCOUNT_NAME means: what stands before the first dot, case aside."""
    return identifier.split(".", 1)[0].upper()


class Accounts:
    """All accounts of this process. Each has its own data."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._lock = threading.Lock()

    def find(self, identifier: str) -> Account | None:
        with self._lock:
            return self._accounts.get(account_key(identifier))

    def all(self) -> list[Account]:
        with self._lock:
            return list(self._accounts.values())

    def apply(self, spec: dict[str, Any], make_engine: Any) -> Account:
        """Create the account, or add to it what the spec names; a user named again is replaced."""
        key = account_key(spec["name"])
        with self._lock:
            account = self._accounts.get(key)
            if account is None:
                account = Account(key, {}, {"PUBLIC", "ACCOUNTADMIN"}, set(), make_engine(key))
                self._accounts[key] = account
        account.cloud = cloud.from_json(spec, account.cloud)
        account.network_policy = spec.get("network_policy", account.network_policy)
        for user in map(user_from_json, spec.get("users", [])):
            account.users[user.name] = user
            account.roles |= user.roles
        for client in map(client_from_json, spec.get("oauth_clients", [])):
            account.oauth.add_client(client)
        account.roles |= {fold(role) for role in spec.get("roles", [])}
        account.warehouses |= {fold(warehouse) for warehouse in spec.get("warehouses", [])}
        for database, schemas in spec.get("databases", {}).items():
            account.engine.create_database(fold(database), [fold(schema) for schema in schemas])
        return account

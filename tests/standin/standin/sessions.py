"""Sessions: tokens, context, parameters, and what a session takes with it when it ends."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from standin.accounts import Account, User
from standin.catalog import TEMPORARY_MARK
from standin.engine import EngineCursor
from standin.errors import SnowflakeError, cancelled
from standin.names import TableName, quote
from standin.transactions import COMMITTED, ROLLED_BACK, Transaction

if TYPE_CHECKING:
    from standin.queries import Query

DEFAULT_LOCK_TIMEOUT = 43200.0  # docs.snowflake.com, parameter LOCK_TIMEOUT

# Clients of these names get Arrow results and stages they can reach without AWS host names; see the README.
OFFICIAL_CLIENTS = {"PythonConnector", "Go", "JDBC", "ODBC", "JavaScript", ".NET", "C API", "SnowSQL"}


@dataclass(frozen=True)
class Validity:
    """How long the tokens of a session hold: `validityInSeconds` and `masterValidityInSeconds` of recorded answers."""

    session_seconds: float = 3600
    master_seconds: float = 14400


class Session:
    def __init__(
        self,
        account: Account,
        user: User,
        session_id: int,
        client: str,
        role: str | None,
        warehouse: str | None,
        database: str | None,
        schema: str | None,
        parameters: dict[str, Any],
        validity: Validity | None = None,
    ) -> None:
        self.account = account
        self.engine = account.engine
        self.user = user
        self.id = session_id
        self.client = client
        self.role = role
        self.warehouse = warehouse
        self.parameters = {name.upper(): value for name, value in parameters.items()}
        self.validity = validity or Validity()
        self.start_tokens()
        # One statement at a time: a session is one transaction context.
        self.lock = threading.RLock()
        self.transaction: Transaction | None = None
        self.temporary: set[TableName] = set()
        self.closed = False
        self.running: dict[str, threading.Event] = {}
        # What became of every requestId of this session; it dies with the session.
        self.queries: dict[str, Query] = {}
        self._fake = self.engine.connect(database, schema)
        self.duck = self._fake._duck_conn  # noqa: SLF001 - the connection under fakesnow's
        self.apply_time_zone()

    def start_tokens(self) -> None:
        """New tokens, from now on."""
        self.token, self.master_token = secrets.token_urlsafe(64), secrets.token_urlsafe(64)
        self.expires = time.time() + self.validity.session_seconds
        self.master_expires = time.time() + self.validity.master_seconds

    def prolong(self) -> None:
        """A heartbeat: the master token holds for its whole life again, the session token no longer than before."""
        self.master_expires = time.time() + self.validity.master_seconds

    @property
    def database(self) -> str | None:
        return self._fake.database if self._fake.database_set else None

    @property
    def schema(self) -> str | None:
        return self._fake.schema if self._fake.schema_set else None

    @property
    def official(self) -> bool:
        return self.client in OFFICIAL_CLIENTS

    @property
    def autocommit(self) -> bool:
        return as_bool(self.parameters.get("AUTOCOMMIT", True))

    @property
    def lock_timeout(self) -> float:
        return float(self.parameters.get("LOCK_TIMEOUT", DEFAULT_LOCK_TIMEOUT))

    def set_schema(self, database: str, schema: str) -> None:
        """USE: both must exist."""
        self.duck.execute("SET schema = ?", [f"{quote(database)}.{quote(schema)}"])
        self._fake.database, self._fake._schema = database, schema  # noqa: SLF001 - fakesnow has no setter
        self._fake.database_set = self._fake.schema_set = True

    def cursor(self) -> EngineCursor:
        return EngineCursor(self._fake, self.duck)

    def stored(self, name: TableName) -> TableName:
        """Where the table of this name really is: a temporary table hides a permanent one."""
        if name in self.temporary:
            return name._replace(name=f"{name.name}{TEMPORARY_MARK}{self.id}")
        return name

    def apply_time_zone(self) -> None:
        zone = str(self.parameters.get("TIMEZONE", "UTC")).replace("'", "")
        self.duck.execute(f"SET TimeZone = '{zone}'")

    def wants_arrow(self, statement_parameters: dict[str, Any]) -> bool:
        if not self.official:
            return False
        merged = {**self.parameters, **{k.upper(): v for k, v in statement_parameters.items()}}
        formats = [str(value).upper() for name, value in merged.items() if name.endswith("QUERY_RESULT_FORMAT")]
        return "JSON" not in formats

    def lock_table(self, table: TableName, exclusive: bool, query: threading.Event) -> None:
        def check() -> None:
            if query.is_set() or self.closed:
                raise cancelled()

        owner = self.transaction.id if self.transaction else ("statement", self.id)
        self.engine.locks.acquire(table, owner, exclusive, self.lock_timeout, check)

    def release_statement_locks(self) -> None:
        """Locks of a statement outside a transaction. Those of a transaction end with it."""
        self.engine.locks.release(("statement", self.id))

    def begin(self, name: str | None) -> Transaction:
        """A second BEGIN joins the open transaction, as in Snowflake."""
        if self.transaction is None:
            self.duck.execute("BEGIN TRANSACTION")
            self.transaction = self.engine.transactions.open(name, self.user.name, self.id)
        return self.transaction

    def commit(self) -> None:
        """Outside a transaction it succeeds and does nothing."""
        transaction, self.transaction = self.transaction, None
        if transaction is None:
            return
        try:
            self.duck.execute("COMMIT")
        except Exception:
            transaction.end(ROLLED_BACK)
            raise
        else:
            self.engine.history.record(transaction.loads)
            transaction.end(COMMITTED)
        finally:
            self.engine.locks.release(transaction.id)

    def rollback(self) -> None:
        transaction, self.transaction = self.transaction, None
        if transaction is None:
            return
        try:
            self.duck.execute("ROLLBACK")
        finally:
            transaction.end(ROLLED_BACK)
            self.engine.locks.release(transaction.id)

    def cancel(self, query_id: str | None = None) -> bool:
        """Interrupt what runs now (one query, or all). False when nothing of the kind was running."""
        events = [event for key, event in list(self.running.items()) if query_id in (None, key)]
        for event in events:
            event.set()
        if events:
            self.duck.interrupt()
        return bool(events)

    def query_of(self, request_id: str) -> str:
        """The query id that a request became; one that names nothing when the request is unknown."""
        query = self.queries.get(request_id)
        return query.id if query else f"unknown request {request_id}"

    def close(self) -> None:
        """End of the session: running statements stop, the transaction rolls back, temporary objects go."""
        if self.closed:
            return
        self.closed = True
        self.cancel()
        with self.lock:
            self.rollback()
            for name in self.temporary:
                self.duck.execute(f"DROP TABLE IF EXISTS {self.stored(name).sql()}")
            self.temporary.clear()
            for stage in self.engine.stages.of_session(self.id):
                self.engine.stages.drop(stage)
            self._fake.close()


def as_bool(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).strip().lower() in {"true", "1", "on", "yes"}


class Sessions:
    """All open sessions of the process, by their tokens."""

    def __init__(self) -> None:
        self.validity = Validity()  # of sessions that log in from now on
        self._lock = threading.Lock()
        self._by_token: dict[str, Session] = {}
        self._by_master: dict[str, Session] = {}
        self._ended: set[str] = set()
        self._last_id = 2**53 + secrets.randbelow(2**40)  # beyond a double's exact range, as real ones are

    def next_id(self) -> int:
        with self._lock:
            self._last_id += 4
            return self._last_id

    def add(self, session: Session) -> None:
        with self._lock:
            self._by_token[session.token] = session
            self._by_master[session.master_token] = session

    def peek(self, token: str) -> Session | None:
        """The session of a token, valid or expired; for the audit."""
        with self._lock:
            return self._by_token.get(token) or self._by_master.get(token)

    def authenticate(self, token: str | None) -> Session:
        if not token:
            raise SnowflakeError("390101", None, "Authorization header not found in the request data.")
        with self._lock:
            session = self._by_token.get(token)
            ended = token in self._ended
        if ended or (session is not None and session.closed):
            raise SnowflakeError("390111", None, "Session no longer exists.  New login required to access the service.")
        if session is None:
            raise SnowflakeError("390104", None, "User must login again to access the service.")
        # A token that renewal replaced is expired, not unknown: a late request with it is told to renew. A session token does
        # not outlive the master token; the renewal then says which of the two it was.
        if token != session.token or time.time() >= min(session.expires, session.master_expires):
            raise SnowflakeError("390112", None, "Your session has expired. Please login again.")
        return session

    def renew(self, master_token: str | None, old_token: str) -> Session:
        """A new pair of tokens for the same session, which keeps everything else."""
        with self._lock:
            session = self._by_master.get(master_token or "")
            if session is None or session.closed:
                raise SnowflakeError("390115", None, "Master token is invalid. Must login again to access the service.")
            if time.time() >= session.master_expires:
                raise SnowflakeError(
                    "390114", None, "Authentication token has expired.  The user must authenticate again."
                )
            if old_token not in self._by_token:
                raise SnowflakeError("390104", None, "User must login again to access the service.")
            del self._by_master[session.master_token]
            session.start_tokens()
            self._by_token[session.token] = session
            self._by_master[session.master_token] = session
            return session

    def all(self) -> list[Session]:
        with self._lock:
            return list({session.id: session for session in self._by_token.values()}.values())

    def find(self, session_id: int) -> Session | None:
        return next((session for session in self.all() if session.id == session_id), None)

    def end(self, session: Session) -> None:
        with self._lock:
            for token in [token for token, owner in self._by_token.items() if owner is session]:
                del self._by_token[token]
                self._ended.add(token)
            self._by_master.pop(session.master_token, None)
        session.close()

"""Queries: what a request made to run, apart from the request, which may be parked, lost, repeated or aborted meanwhile.

A statement that takes longer than a request may wait is parked: the answer says 333333 and where to ask again, and each
question there waits a while too. An asynchronous one is answered 333334 at once.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections import OrderedDict
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillRunning
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from standin.answers import envelope, error_data, in_progress, result_data
from standin.errors import SnowflakeError
from standin.results import Result

if TYPE_CHECKING:
    from standin.chunks import Chunks
    from standin.sessions import Session
    from standin.statements import Statements

IN_PROGRESS = "333333"
IN_PROGRESS_ASYNC = "333334"
_KEPT = 1000  # how many queries can still be asked for; Snowflake keeps their results for a day
_RESULT_SCAN = re.compile(
    r"\s*SELECT\s+\*\s+FROM\s+TABLE\s*\(\s*RESULT_SCAN\s*\(\s*'([^']*)'\s*\)\s*\)\s*;?\s*", re.IGNORECASE
)


@dataclass(frozen=True)
class Parking:
    """How long requests wait, and what those are told that have waited so long. Times in seconds."""

    after: float = 45.0
    poll: float = 45.0
    code: str = IN_PROGRESS
    success: bool = True
    result_url: bool = True
    aborts_after: float = 300.0  # `queryAbortsAfterSecs` of recorded answers


@dataclass
class Query:
    session: Session
    sql: str
    bindings: dict[str, Any] | None
    describe_only: bool
    asynchronous: bool
    wants_arrow: bool
    id: str = field(
        default_factory=lambda: "01" + str(uuid.uuid4())[2:]
    )  # Snowflake's ids are UUIDs that begin with 01
    started: float = field(default_factory=time.time)
    ended: float | None = None
    outcome: Future[Result] = field(default_factory=Future)
    # What the answer says besides the rows; the session may have moved on when it is asked for.
    about: dict[str, Any] = field(default_factory=dict)
    asking: int = 0
    last_asked: float = field(default_factory=time.monotonic)

    def error(self) -> SnowflakeError | None:
        error = self.outcome.exception() if self.outcome.done() else None
        return error if isinstance(error, SnowflakeError) else None

    def monitored(self) -> dict[str, Any]:
        """The query as `/monitoring/queries` tells of it."""
        error = self.error()
        status = "RUNNING" if not self.outcome.done() else "FAILED_WITH_ERROR" if error else "SUCCESS"
        ended = self.ended or time.time()
        return {
            "id": self.id,
            "status": status,
            "state": status,
            "errorCode": error.code if error else "",
            "errorMessage": error.message if error else "",
            "sqlText": self.sql,
            "sessionId": self.session.id,
            "warehouseName": self.session.warehouse,
            "startTime": int(self.started * 1000),
            "endTime": int(ended * 1000) if self.ended else 0,
            "totalDuration": int((ended - self.started) * 1000),
            "stats": {},
        }


class Queries:
    """All queries of the process that can still be asked for."""

    def __init__(self, statements: Statements, chunks: Chunks) -> None:
        self.parking = Parking()
        self._statements = statements
        self._chunks = chunks
        self._lock = threading.Lock()
        self._queries: OrderedDict[str, Query] = OrderedDict()

    def submit(self, session: Session, request_id: str, request: dict[str, Any], asked_json: bool) -> Query:
        """Run the statement, or find it running or done: a requestId that was seen before is not run again."""
        query = Query(
            session,
            str(request.get("sqlText") or ""),
            request.get("bindings"),
            bool(request.get("describeOnly")),
            bool(request.get("asyncExec")),
            session.wants_arrow(request.get("parameters") or {}) and not asked_json,
        )
        with self._lock:
            first = session.queries.setdefault(request_id, query)
            if first is not query:
                return first
            self._queries[query.id] = query
            while len(self._queries) > _KEPT:
                self._queries.popitem(last=False)
        threading.Thread(target=self._run, args=(query,), name=f"query {query.id}", daemon=True).start()
        return query

    def find(self, session: Session, query_id: str) -> Query:
        """A query of the same user, whichever session it was run in."""
        with self._lock:
            query = self._queries.get(query_id)
        if (
            query is None
            or query.session.account is not session.account
            or query.session.user.name != session.user.name
        ):
            raise SnowflakeError("000709", "02000", f"Statement {query_id} not found")
        return query

    def monitored(self, session: Session, query_id: str) -> list[dict[str, Any]]:
        try:
            return [self.find(session, query_id).monitored()]
        except SnowflakeError:
            return []

    def first_answer(self, query: Query) -> dict[str, Any]:
        """The answer of the request that brought the statement."""
        if query.asynchronous:
            return self._in_progress(query, IN_PROGRESS_ASYNC)
        return self._answer(query, self.parking.after, self.parking.code)

    def polled_answer(self, query: Query) -> dict[str, Any]:
        """The answer of a request that asks for the result."""
        return self._answer(query, self.parking.poll, IN_PROGRESS_ASYNC if query.asynchronous else self.parking.code)

    def _answer(self, query: Query, patience: float, code: str) -> dict[str, Any]:
        with self._lock:
            query.asking += 1
        try:
            result = query.outcome.result(patience)
        except StillRunning:
            return self._in_progress(query, code)
        except SnowflakeError as error:
            return envelope(error_data(error, query.id), error.code, error.message, False)
        finally:
            with self._lock:
                query.asking -= 1
                query.last_asked = time.monotonic()
        if result.put_answer is not None:
            return envelope(result.put_answer)
        return envelope(query.about | self._rows(query, result))

    def _rows(self, query: Query, result: Result) -> dict[str, Any]:
        """Encoded anew for every answer, since links to chunks do not live as long as a result."""
        if query.wants_arrow and not result.prefers_json:
            return {"queryResultFormat": "arrow", "rowsetBase64": "" if query.describe_only else result.arrow_base64()}
        rows = [] if query.describe_only else result.json_rows()
        return {"queryResultFormat": "json", **self._chunks.cut(query.id, rows)}

    def _in_progress(self, query: Query, code: str) -> dict[str, Any]:
        parking = self.parking
        if not query.asynchronous:
            watch = threading.Timer(parking.aborts_after, self._abort_if_forgotten, [query, parking.aborts_after])
            watch.daemon = True
            watch.start()
        return in_progress(
            query.id, code, parking.success or query.asynchronous, parking.result_url, parking.aborts_after
        )

    def _abort_if_forgotten(self, query: Query, after: float) -> None:
        """A parked statement that nobody asks for any more is aborted."""
        with self._lock:
            forgotten = query.asking == 0 and time.monotonic() - query.last_asked >= after
        if forgotten and not query.outcome.done():
            query.session.cancel(query.id)

    def _run(self, query: Query) -> None:
        try:
            result = self._execute(query)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the outcome gets it
            query.ended = time.time()
            query.outcome.set_exception(error)
        else:
            query.about = result_data(query.session, result, query.id, query.describe_only)
            query.ended = time.time()
            query.outcome.set_result(result)

    def _execute(self, query: Query) -> Result:
        if scan := _RESULT_SCAN.fullmatch(query.sql):
            return self.find(query.session, scan[1]).outcome.result()
        return self._statements.execute(query.session, query.sql, query.bindings, query.id, query.describe_only)

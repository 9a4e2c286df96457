"""What answers look like: the envelope of all of them, and the `data` of a query that is done, failed or still running."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from standin.login import session_parameters

if TYPE_CHECKING:
    from standin.errors import SnowflakeError
    from standin.results import Result
    from standin.sessions import Session

_IN_PROGRESS_TEXT = {
    "333334": "Asynchronous execution in progress. Use provided query id to perform query monitoring and management.",
}


def envelope(data: Any, code: str | None = None, message: str | None = None, success: bool = True) -> dict[str, Any]:
    return {"data": data, "code": code, "message": message, "success": success, "headers": None}


def error_data(error: SnowflakeError, query_id: str) -> dict[str, Any]:
    return {
        "internalError": False,
        "errorCode": error.code,
        "age": 0,
        "sqlState": error.sqlstate,
        "queryId": query_id,
        "line": 1,
        "pos": 0,
        "type": "COMPILATION",
    }


def in_progress(query_id: str, code: str, success: bool, result_url: bool, aborts_after: float) -> dict[str, Any]:
    data = {"queryId": query_id, "queryAbortsAfterSecs": int(aborts_after), "progressDesc": None}
    if result_url:
        data["getResultUrl"] = f"/queries/{query_id}/result"
    return envelope(data, code, _IN_PROGRESS_TEXT.get(code), success)


def result_data(session: Session, result: Result, query_id: str, describe_only: bool) -> dict[str, Any]:
    """All of a result but its rows."""
    count = 0 if describe_only else result.table.num_rows
    return {
        "parameters": session_parameters(session),
        "rowtype": [column.describe(session.database, session.schema) for column in result.columns],
        "total": count,
        "returned": count,
        "queryId": query_id,
        "databaseProvider": None,
        "finalDatabaseName": session.database,
        "finalSchemaName": session.schema,
        "finalWarehouseName": session.warehouse,
        "finalRoleName": session.role,
        "numberOfBinds": 0,
        "arrayBindSupported": result.type_id == 0x3100,
        "statementTypeId": result.type_id,
        "version": 1,
        "sendResultTime": int(time.time() * 1000),
        "queryContext": None,
        "sqlState": "00000",
    }

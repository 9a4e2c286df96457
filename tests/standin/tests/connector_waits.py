"""What a user of the official Python connector meets when statements take long and results are large.

Prints one JSON object. Arguments: port, account, user, password. Works with the connector's versions 4 and 5.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import snowflake.connector

DEADLINE_SECONDS = 60

port, account, user, password = sys.argv[1:]
told: dict[str, Any] = {}

with snowflake.connector.connect(
    user=user,
    password=password,
    account=account,
    host="127.0.0.1",
    port=int(port),
    protocol="http",
    database="ANALYTICS_DB",
    schema="REPORTS",
    warehouse="COMPUTE_WH",
    session_parameters={"PYTHON_CONNECTOR_QUERY_RESULT_FORMAT": "JSON"},
) as connection:
    cursor = connection.cursor()
    # Waits for a lock of another session, longer than any one request does.
    cursor.execute("DELETE FROM BUSY")
    told["parked"] = cursor.rowcount

    def outcome(sql: str) -> list[Any]:
        cursor.execute_async(sql)
        query_id = cursor.sfqid or ""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while connection.is_still_running(connection.get_query_status(query_id)):
            if time.monotonic() > deadline:
                raise TimeoutError(sql)
        cursor.get_results_from_sfqid(query_id)
        return [list(row) for row in cursor.fetchall()]

    told["asynchronous"] = outcome("SELECT 42")
    try:
        outcome("SELECT * FROM NO_TABLE")
    except snowflake.connector.errors.Error as error:
        told["failed"] = str(error)

    cursor.execute("CREATE TABLE NUMBERS (SEQ NUMBER)")
    cursor.execute(f"INSERT INTO NUMBERS VALUES {', '.join(f'({number})' for number in range(250))}")
    cursor.execute("SELECT SEQ, 'row ' || SEQ AS TEXT FROM NUMBERS ORDER BY SEQ")
    told["chunked"] = [list(row) for row in cursor.fetchall()]

print(json.dumps(told, default=str))

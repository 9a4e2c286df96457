"""What a user of the official Python connector does, run by the interpreter whose connector is under test.

Prints one JSON object.

Arguments: protocol, port, account, user, password, path of a PKCS#8 key. Works with the connector's versions 4 and 5.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import snowflake.connector

protocol, port, account, user, password, key_path = sys.argv[1:]
common: dict[str, Any] = {
    "user": user,
    "account": account,
    "host": "127.0.0.1",
    "port": int(port),
    "protocol": protocol,
    "database": "ANALYTICS_DB",
    "schema": "REPORTS",
    "warehouse": "COMPUTE_WH",
    "session_parameters": {"CLIENT_VALIDATE_DEFAULT_PARAMETERS": True},
}
told: dict[str, Any] = {"version": snowflake.connector.__version__}

try:
    snowflake.connector.connect(password="wrong", **common)
except snowflake.connector.errors.Error as error:
    told["refused"] = str(error)

with snowflake.connector.connect(authenticator="SNOWFLAKE_JWT", private_key_file=key_path, **common) as connection:
    told["key_pair_user"] = connection.cursor().execute("SELECT CURRENT_USER()").fetchone()[0]

with snowflake.connector.connect(password=password, **common) as connection:
    cursor = connection.cursor()

    def rows(sql: str) -> list[Any]:
        return [list(row) for row in cursor.execute(sql).fetchall()]

    rows(
        'CREATE TABLE "FROM_CLIENT" ("ID" NUMBER(38,0), "DOC" VARIANT, "NAME" VARCHAR(134217728), "AT" TIMESTAMP_TZ(6))'
    )
    told["described"] = [row[:2] for row in rows('DESCRIBE TABLE "FROM_CLIENT"')]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part-00000.parquet"
        table = pa.table(
            {
                "ID": pa.array([1, 10**37], pa.decimal128(38, 0)),
                "DOC": ['{"a":[1,2]}', '{"a":[3]}'],
                "NAME": ["grüße", "日本"],
                "AT": pa.array([1_700_000_000_123_456, None], pa.timestamp("us", tz="UTC")),
            }
        )
        pq.write_table(table, path)
        told["put"] = rows(f"PUT 'file://{path}' '@~/from_client/1/' AUTO_COMPRESS=FALSE OVERWRITE=TRUE")
    told["listed"] = [row[0] for row in rows("LIST @~/from_client/")]
    copied = rows(
        'COPY INTO "FROM_CLIENT" ("ID", "DOC", "NAME", "AT") FROM (SELECT $1:"ID"::NUMBER(38,0), PARSE_JSON($1:"DOC"), '
        "$1:\"NAME\"::VARCHAR, $1:\"AT\"::TIMESTAMP_TZ(6) FROM '@~/from_client/1/') FILES=('part-00000.parquet') "
        "FILE_FORMAT=(TYPE=PARQUET USE_LOGICAL_TYPE=TRUE BINARY_AS_TEXT=FALSE) ON_ERROR=ABORT_STATEMENT"
    )
    told["copied"] = copied[0][:4]
    told["selected"] = rows('SELECT "ID", "DOC":a[0]::NUMBER, "NAME", "AT" FROM "FROM_CLIENT" ORDER BY "ID"')
    cursor.execute("BEGIN")
    cursor.execute('DELETE FROM "FROM_CLIENT" WHERE "ID" = 1')
    told["deleted"] = cursor.rowcount
    cursor.execute("ROLLBACK")
    told["count"] = rows('SELECT COUNT(*) FROM "FROM_CLIENT"')[0][0]
    # What another client wrote before, as the test prepared it.
    told["prepared"] = rows('SELECT * FROM "PREPARED" ORDER BY "ID"')
    try:
        cursor.execute('SELECT * FROM "NO_TABLE"')
    except snowflake.connector.errors.ProgrammingError as error:
        told["missing"] = [error.errno, error.sqlstate]

print(json.dumps(told, default=str))

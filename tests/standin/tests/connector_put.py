"""What the official Python connector does with a PUT and a COPY where it is told the stores' own addresses, over TLS.

Prints one JSON object. Arguments: port, account, user, password, size of the file in rows.
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

port, account, user, password, rows = sys.argv[1:]
connection = snowflake.connector.connect(
    user=user,
    password=password,
    account=account,
    host="127.0.0.1",
    port=int(port),
    protocol="https",
    database="ANALYTICS_DB",
    schema="REPORTS",
    warehouse="COMPUTE_WH",
    disable_ocsp_checks=True,
)
cursor = connection.cursor()


def fetch(sql: str) -> list[Any]:
    cursor.execute(sql)
    return [list(row) for row in cursor.fetchall()]


told: dict[str, Any] = {"version": snowflake.connector.__version__}
fetch('CREATE TABLE "T" ("A" NUMBER(38,0))')
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "part-00000.parquet"
    table = pa.table({"A": pa.array(range(int(rows)), pa.decimal128(38, 0))})
    pq.write_table(table, path, compression="none", use_dictionary=False)
    told["size"] = path.stat().st_size
    told["put"] = fetch(f"PUT 'file://{path}' '@~/native/' AUTO_COMPRESS=FALSE OVERWRITE=TRUE")[0]
    told["again"] = fetch(f"PUT 'file://{path}' '@~/native/' AUTO_COMPRESS=FALSE OVERWRITE=FALSE")[0]
told["listed"] = [row[0] for row in fetch("LIST @~/native/")]
told["copied"] = fetch(
    'COPY INTO "T" ("A") FROM (SELECT $1:"A"::NUMBER(38,0) FROM \'@~/native/\') FILES=(\'part-00000.parquet\') '
    "FILE_FORMAT=(TYPE=PARQUET USE_LOGICAL_TYPE=TRUE BINARY_AS_TEXT=FALSE) ON_ERROR=ABORT_STATEMENT"
)[0][:4]
connection.close()
print(json.dumps(told, default=str))

"""What a user of the ADBC driver (the official Go driver inside) does. Prints one JSON object.

Arguments: protocol, port, account, user, password.
"""

from __future__ import annotations

import json
import sys

from adbc_driver_snowflake import dbapi

protocol, port, account, user, password = sys.argv[1:]
options = {
    "username": user,
    "password": password,
    "adbc.snowflake.sql.account": account,
    "adbc.snowflake.sql.uri.host": "127.0.0.1",
    "adbc.snowflake.sql.uri.port": port,
    "adbc.snowflake.sql.uri.protocol": protocol,
    "adbc.snowflake.sql.db": "ANALYTICS_DB",
    "adbc.snowflake.sql.schema": "REPORTS",
    "adbc.snowflake.sql.warehouse": "COMPUTE_WH",
}
told: dict[str, object] = {}
with dbapi.connect(db_kwargs=options) as connection, connection.cursor() as cursor:
    cursor.execute('SELECT * FROM "PREPARED" ORDER BY "ID"')
    told["prepared"] = [list(row) for row in cursor.fetchall()]
    cursor.execute('SELECT COUNT(*) FROM "PREPARED"')
    told["count"] = int(cursor.fetchall()[0][0])
print(json.dumps(told, default=str))

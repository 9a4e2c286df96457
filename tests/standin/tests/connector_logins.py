"""The ways a user of the official Python connector logs in besides password and key. Prints one JSON object.

Arguments: protocol, port, account, user, password, passcode, programmatic access token, OAuth access token, client id, client
secret. Works with the connector's versions 4 and 5.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import snowflake.connector

protocol, port, account, user, password, passcode, access_token, oauth_token, client_id, client_secret = sys.argv[1:]
ways: dict[str, dict[str, Any]] = {
    "passcode": {"user": user, "password": password, "passcode": passcode},
    "passcode in password": {"user": user, "password": password + passcode, "passcode_in_password": True},
    "no passcode": {"user": user, "password": password},
    "programmatic access token": {"user": user, "authenticator": "PROGRAMMATIC_ACCESS_TOKEN", "token": access_token},
    "wrong programmatic access token": {"user": user, "authenticator": "PROGRAMMATIC_ACCESS_TOKEN", "token": "no"},
    "oauth": {"user": user, "authenticator": "OAUTH", "token": oauth_token},
    "wrong oauth": {"user": user, "authenticator": "OAUTH", "token": "no"},
    "client credentials": {
        "authenticator": "OAUTH_CLIENT_CREDENTIALS",
        "oauth_client_id": client_id,
        "oauth_client_secret": client_secret,
        "oauth_token_request_url": f"{protocol}://127.0.0.1:{port}/oauth/token-request",
        "role": "ANALYST",
    },
}
told: dict[str, str] = {}
for way, credentials in ways.items():
    try:
        with snowflake.connector.connect(
            account=account, host="127.0.0.1", port=int(port), protocol=protocol, **credentials
        ) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT CURRENT_USER() || ' as ' || CURRENT_ROLE()")
            told[way] = str(cursor.fetchall()[0][0])
    except snowflake.connector.errors.Error as error:
        told[way] = f"refused: {error}"

print(json.dumps(told))

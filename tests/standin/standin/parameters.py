"""SHOW PARAMETERS LIKE 'NETWORK_POLICY', of a user and of the account."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from standin import results
from standin.errors import insufficient_privileges
from standin.names import fold

if TYPE_CHECKING:
    from standin.results import Result
    from standin.sessions import Session

SHOW_NETWORK_POLICY = (
    r"SHOW\s+PARAMETERS\s+LIKE\s+'NETWORK_POLICY'\s+IN\s+(?P<scope>ACCOUNT|USER)\b\s*(?P<name>\"(?:[^\"]|\"\")+\"|[\w$]+)?\s*;?\s*\Z"
)
_COLUMNS = ("key", "value", "default", "level", "description", "type")
_MANAGE_GRANTS = ("ACCOUNTADMIN", "SECURITYADMIN")


def show_network_policy(session: Session, sql: str) -> Result:
    """What is set at the level that is asked for; users may ask about themselves."""
    match = re.match(SHOW_NETWORK_POLICY, sql, re.IGNORECASE)
    assert match is not None
    scope = match["scope"].upper()
    if scope == "ACCOUNT":
        policy = session.account.network_policy
    else:
        name = fold(match["name"]) if match["name"] else session.user.name
        if name != session.user.name and session.role not in _MANAGE_GRANTS:
            raise insufficient_privileges("user", name)
        policy = session.account.users[name].network_policy
    row = ("NETWORK_POLICY", (policy or "").upper(), "", scope if policy else "", "Network policy assigned for the given target.", "STRING")
    return results.from_rows([results.text(column) for column in _COLUMNS], [row], results.SHOW)

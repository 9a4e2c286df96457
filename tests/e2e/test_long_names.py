"""Texts that are longer than an entry of an index of the queue: the upload fails, or is none, and keeps nothing else waiting."""

from __future__ import annotations

import random
import string
from typing import Any

import pytest

from harness import wait
from harness.bridge import TABLE, Bridge
from harness.standin import User

MISSED = "snowflake_bridge.missed"
RESULT = [{"n": 1}]


def text(length: int) -> str:
    """One that PostgreSQL cannot compress."""
    return "".join(random.Random(length).choices(string.ascii_letters + string.digits, k=length))


def missed(bridge: Bridge) -> list[dict[str, Any]]:
    return bridge.admin.execute(f"select execution_id from {MISSED}").fetchall()


@pytest.mark.parametrize(
    "columns",
    [
        {"snowflake_table_name": text(3000)},
        {"snowflake_schema_name": text(3000)},
        {"snowflake_options": {"config": text(3000)}},
        {"snowflake_options": {"database": text(1000), "schema_name": text(1001), "table_name": text(1002)}},
        {"snowflake_options": {"database": [text(3000)]}},
        {"snowflake_options": {"strategy": "replace", "table_name": text(3000)}},
    ],
    ids=["table", "schema", "config", "together", "no text", "alone"],
)
def test_a_long_name_fails_its_upload(bridge: Bridge, user: User, columns: dict[str, Any]) -> None:
    bridge.run("long", RESULT, **columns)
    assert "2000 bytes" in bridge.failed("long")["snowflake_error_message"]
    assert missed(bridge) == []
    bridge.app.execute(
        f"update {TABLE} set snowflake_options = null, snowflake_table_name = null, snowflake_schema_name = null"
        " where execution_id = 'long'"
    )
    assert bridge.call("retry_upload", id=bridge.upload("long")["id"]) is True
    wait.until(lambda: bridge.execution("long")["snowflake_status"] == "completed", "it completes with another name")


def test_an_id_that_is_too_long_is_said_at_once(bridge: Bridge, user: User) -> None:
    """The table's own index still takes it."""
    said = []
    bridge.app.add_notice_handler(lambda diagnostic: said.append(diagnostic.message_primary))
    bridge.run(text(2685), RESULT)
    assert any("longer than the queue" in message for message in said), said
    bridge.app.execute(
        f"insert into {TABLE} (execution_id, status, snowflake_enabled, result_rows) "
        "select id, 'completed', true, '[{\"n\": 1}]' from unnest(%s::text[]) id",
        [[text(2684), "beside"]],
    )
    bridge.completed("beside")
    assert missed(bridge) == []


def test_a_user_that_is_too_long_is_said_at_once(bridge: Bridge, user: User) -> None:
    bridge.call("watch", relation=TABLE, act_for_users=True, connection=bridge.admin)
    said = []
    bridge.app.add_notice_handler(lambda diagnostic: said.append(diagnostic.message_primary))
    bridge.run("run-1", RESULT, user_id=text(3000))
    assert any("longer than the queue" in message for message in said), said
    assert missed(bridge) == []


def test_word_of_what_is_too_long_is_not_kept(bridge: Bridge, user: User) -> None:
    """As a trigger leaves it that could not wait for another transaction."""
    bridge.run("fine", RESULT)
    bridge.completed("fine")
    columns = "user_id, owner_kind, owner_oid, row_user_id"
    bridge.admin.execute(
        f"insert into {MISSED} (watch_id, execution_id, {columns}, options) "
        f"select u.watch_id, e.id, {columns}, jsonb_build_object('table_name', e.name) "
        "from snowflake_bridge.uploads u, (values ('long', %s), ('short', 't')) e (id, name)",
        [text(3000)],
    )
    bridge.reload()
    wait.until(lambda: missed(bridge) == [], "no word is left")
    assert bridge.upload("short")["execution_id"] == "short"
    assert "longer than the queue" in bridge.cluster.log_text()

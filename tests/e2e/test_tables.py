"""The target table: found, extended, refused; and never another user's."""

from __future__ import annotations

import psycopg
import pytest

from harness.bridge import RESULTS, TABLE, Bridge
from harness.reader import columns
from harness.standin import User

QUALIFIED = f"ANALYTICS_DB.REPORTS.{RESULTS}"


def test_a_table_that_an_earlier_upload_made(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", [{"a": 1}])
    bridge.completed("run-1")
    bridge.run("run-2", [{"a": 2}, {"a": 3}])
    bridge.completed("run-2")
    assert sorted(bridge.results(user, ["EXECUTION_ID", "A"])) == [("run-1", 1), ("run-2", 2), ("run-2", 3)]


def test_a_table_that_was_there_before(bridge: Bridge, user: User) -> None:
    bridge.account.sql(f"create table {QUALIFIED} (A number(38,0), B varchar)")
    bridge.account.sql(f"insert into {QUALIFIED} values (1, 'old')")
    bridge.run("run-1", [{"a": 2, "b": "new"}])
    bridge.completed("run-1")
    assert sorted(bridge.results(user, ["A", "B"])) == [(1, "old"), (2, "new")]


def test_a_table_with_other_columns(bridge: Bridge, user: User) -> None:
    bridge.account.sql(f"create table {QUALIFIED} (REGION varchar, A number(38,0))")
    bridge.account.sql(f"insert into {QUALIFIED} values ('north', 1)")
    bridge.run("run-1", [{"a": 2, "fresh": "x"}])
    bridge.completed("run-1")
    assert sorted(bridge.results(user, ["A", "REGION", "FRESH", "EXECUTION_ID"])) == [
        (1, "north", None, None),
        (2, None, "x", "run-1"),
    ]


def test_a_column_of_another_type(bridge: Bridge, user: User) -> None:
    bridge.account.sql(f"create table {QUALIFIED} (A boolean)")
    bridge.run("run-1", [{"a": "neither true nor false"}])
    message = bridge.failed("run-1")["snowflake_error_message"]
    assert '"A"' in message or "A" in message.split()
    assert "BOOLEAN" in message and "VARCHAR" in message
    assert bridge.row_count(user) == 0
    assert bridge.upload("run-1")["attempt_count"] == 1, "what somebody has to mend is not tried again"


def test_a_table_name_of_letters_that_need_care(bridge: Bridge, user: User) -> None:
    name = 'Übersicht "2024"; drop table x --'
    bridge.run(
        "run-1", [{"a b": 1, 'c"d': 2}], snowflake_table_name=name, snowflake_options={"column_case": "preserve"}
    )
    bridge.completed("run-1")
    tables = [
        row["name"]
        for row in bridge.app.execute(
            "select name from snowflake_bridge.list_tables('ANALYTICS_DB', 'REPORTS')"
        ).fetchall()
    ]
    assert [table for table in tables if "2024" in table], tables


def test_two_users_with_the_same_table_name(bridge: Bridge) -> None:
    alice = bridge.account.add_user("ALICE", database="ALICE_DB")
    bob = bridge.account.add_user("BOB", database="BOB_DB")
    bridge.configure(alice, connection=bridge.admin, user_id="alice")
    bridge.configure(bob, connection=bridge.admin, user_id="bob")
    bridge.call("watch", connection=bridge.admin, relation=TABLE, create_if_missing=True, act_for_users=True)
    bridge.admin.execute(f"grant select, insert, update on {TABLE} to app")
    for number in range(3):
        bridge.run(f"a-{number}", [{"owner": "alice", "n": number}], user_id="alice", snowflake_table_name="report")
        bridge.run(f"b-{number}", [{"owner": "bob", "n": number}], user_id="bob", snowflake_table_name="report")
    for number in range(3):
        bridge.completed(f"a-{number}")
        bridge.completed(f"b-{number}")
    for user, name in ((alice, "alice"), (bob, "bob")):
        assert sorted(bridge.results(user, ["OWNER", "USER_ID", "N"], "REPORT")) == [(name, name, n) for n in range(3)]
    logins = {
        record["user"]
        for record in bridge.standin.audit()
        if record["account"] == bridge.account.name.upper() and "ALICE_DB" in (record["sql"] or "")
    } - {None}
    assert logins <= {"ALICE"}, "only Alice's own session names her database"


def test_a_user_without_a_configuration(bridge: Bridge) -> None:
    bridge.call("watch", connection=bridge.admin, relation=TABLE, create_if_missing=True, act_for_users=True)
    bridge.admin.execute(f"grant select, insert, update on {TABLE} to app")
    bridge.run("run-1", [{"a": 1}], user_id="carol")
    assert "carol" in bridge.failed("run-1")["snowflake_error_message"]


def test_types_are_those_of_the_data(bridge: Bridge, user: User) -> None:
    bridge.run(
        "run-1",
        [
            {"i": 1, "d": 1.5, "s": "x", "b": True, "j": {"k": 1}, "never": None},
            {"i": 2, "d": 0.001, "s": "y", "b": False, "j": [1], "never": None},
        ],
    )
    bridge.completed("run-1")
    types = columns(bridge.account, user, RESULTS)
    assert types["I"] == "NUMBER(38,0)"
    assert types["D"].startswith("NUMBER(38,")
    assert types["S"].startswith("VARCHAR")
    assert types["B"] == "BOOLEAN"
    assert types["J"] == "VARIANT"
    assert "NEVER" not in types
    assert {"EXECUTION_ID", "UPLOADED_AT", "USER_ID", "UPLOAD_ID"} <= types.keys()


def test_rows_that_were_loaded_long_ago_go(bridge: Bridge, user: User) -> None:
    bridge.run("old", [{"a": 1}, {"a": 2}])
    bridge.completed("old")
    bridge.run("new", [{"a": 3}])
    bridge.completed("new")
    bridge.account.sql(f"update {QUALIFIED} set UPLOADED_AT = '2020-01-01 00:00:00+00:00' where EXECUTION_ID = 'old'")
    bridge.account.sql(f"insert into {QUALIFIED} (A) values (4)")
    call = "select snowflake_bridge.delete_uploaded('1 year', %s)"
    assert bridge.app.execute(call, [RESULTS]).fetchone() == {"delete_uploaded": 2}
    assert bridge.app.execute(call, [RESULTS]).fetchone() == {"delete_uploaded": 0}
    assert sorted(bridge.results(user, ["A"])) == [(3,), (4,)]
    # A table that people made may call the columns otherwise.
    bridge.account.sql(f'alter table {QUALIFIED} rename column UPLOAD_ID to "Upload_Id"')
    bridge.account.sql(f'alter table {QUALIFIED} rename column UPLOADED_AT to "uploaded_at"')
    bridge.account.sql(f"update {QUALIFIED} set \"uploaded_at\" = '2020-01-01 00:00:00+00:00' where A = 3")
    assert bridge.app.execute(call, [RESULTS]).fetchone() == {"delete_uploaded": 1}
    assert bridge.results(user, ["A"]) == [(4,)]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="positive interval"):
        bridge.app.execute("select snowflake_bridge.delete_uploaded('-1 day', 't')")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="NO_SUCH_TABLE"):
        bridge.app.execute("select snowflake_bridge.delete_uploaded('1 day', 'no_such_table')")

"""Tables that do not take a result as they are: widened, rebuilt, or refused; also by several at once."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from harness import reader, wait
from harness.bridge import RESULTS, TABLE, Bridge
from harness.standin import User

QUALIFIED = f"ANALYTICS_DB.REPORTS.{RESULTS}"


def types(bridge: Bridge, user: User) -> dict[str, str]:
    """The table's own columns and their types."""
    described = reader.columns(bridge.account, user, RESULTS)
    return {name: kind for name, kind in described.items() if name not in ("UPLOADED_AT", "USER_ID", "UPLOAD_ID")}


def sorted_rows(bridge: Bridge, user: User, *columns: str) -> list[tuple[Any, ...]]:
    return sorted(bridge.results(user, list(columns)), key=str)


def test_decimals_after_integers(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", [{"n": 1}, {"n": None}])
    bridge.completed("run-1")
    assert types(bridge, user)["N"] == "NUMBER(38,0)"
    bridge.run("run-2", [{"n": 2.5}])
    bridge.completed("run-2")
    bridge.run("run-3", [{"n": 3}])
    bridge.completed("run-3")
    assert types(bridge, user) == {"N": "NUMBER(38,10)", "EXECUTION_ID": "VARCHAR(134217728)"}
    assert sorted_rows(bridge, user, "N") == sorted([(Decimal(1),), (None,), (Decimal("2.5"),), (Decimal(3),)], key=str)


def test_decimals_after_integers_that_leave_no_room(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", [{"n": 10**37}])
    bridge.completed("run-1")
    bridge.run("run-2", [{"n": 2.5}])
    message = bridge.failed("run-2")["snowflake_error_message"]
    assert "NUMBER(38,0)" in message and "NUMBER(38,10)" in message and '"N"' in message
    assert types(bridge, user)["N"] == "NUMBER(38,0)" and len(types(bridge, user)) == 2
    assert bridge.results(user, ["N"]) == [(10**37,)]


def test_a_rebuild_whose_answers_are_lost(bridge: Bridge, user: User) -> None:
    bridge.run("run-0", [{"n": 1}])
    bridge.completed("run-0")
    for statement in ("ALTER TABLE .* RENAME", "UPDATE", "ALTER TABLE .* DROP"):
        bridge.standin.fault({"kind": "query", "sql": f"^\\s*{statement}"}, {"lose_answer": True}, times=3)
    bridge.run("run-1", [{"n": 0.5}])
    bridge.completed("run-1", seconds=60)
    assert types(bridge, user) == {"N": "NUMBER(38,10)", "EXECUTION_ID": "VARCHAR(134217728)"}
    assert sorted_rows(bridge, user, "N") == sorted([(Decimal(1),), (Decimal("0.5"),)], key=str)


def test_many_who_evolve_the_same_table_at_once(bridge: Bridge, user: User) -> None:
    bridge.run("run-0", [{"n": 0}])
    bridge.completed("run-0")
    with bridge.app.transaction():
        for number in range(1, 9):
            row = {"n": number if number % 2 else number + 0.5, "shared": number, f"own_{number}": "x"}
            bridge.run(f"run-{number}", [row])
    query = "select 7.25::numeric(10,2) as n, 'wider'::text as shared_text, n as of_query from generate_series(1, 2) n"
    upload = bridge.call("upload_query", query=query, table_name=RESULTS)
    for number in range(1, 9):
        bridge.completed(f"run-{number}", seconds=60)
    assert bridge.call("wait_for_upload", id=upload, timeout="60s") == "completed"
    found = types(bridge, user)
    assert found["N"] == "NUMBER(38,10)"
    of_query = {"SHARED_TEXT", "OF_QUERY"}
    assert set(found) == {"N", "SHARED", "EXECUTION_ID", *of_query, *(f"OWN_{number}" for number in range(1, 9))}
    halves = [Decimal(n) + Decimal("0.5") for n in (2, 4, 6, 8)]
    queried = [Decimal("7.25")] * 2
    assert sorted(n for (n,) in bridge.results(user, ["N"])) == sorted([*map(Decimal, (0, 1, 3, 5, 7)), *halves, *queried])


def test_a_rebuild_waits_for_the_loads_that_have_begun(bridge: Bridge, user: User) -> None:
    bridge.run("run-0", [{"n": 1}])
    bridge.completed("run-0")
    mark = bridge.standin.audit_mark()
    # One load stands still between its COPY and its COMMIT, with the column as it was.
    bridge.standin.fault({"kind": "query", "sql": r"^\s*COMMIT"}, {"delay_ms": 120_000})
    bridge.run("integers", [{"n": 2}])
    bridge.uploading({"sql": "COMMIT"}, mark)
    bridge.run("decimals", [{"n": 2.5}])
    wait.until(lambda: bridge.upload("decimals")["needs_table"], "the rebuild waits")
    bridge.run("later", [{"n": 3}])
    assert types(bridge, user)["N"] == "NUMBER(38,0)"
    bridge.standin.clear_faults()
    for execution in ("integers", "decimals", "later"):
        bridge.completed(execution)
    assert types(bridge, user) == {"N": "NUMBER(38,10)", "EXECUTION_ID": "VARCHAR(134217728)"}
    assert sorted(bridge.results(user, ["N"])) == [(Decimal(n),) for n in ("1", "2", "2.5", "3")]
    assert bridge.upload("decimals")["attempt_count"] == 1
    assert bridge.upload("later")["claimed_at"] > bridge.upload("decimals")["completed_at"]


def test_a_rebuild_waits_for_a_load_whose_credentials_are_refused_meanwhile(bridge: Bridge, user: User) -> None:
    """Its session goes on, and loads into the column as it was."""
    bridge.configure(user, name="other")
    bridge.run("run-0", [{"n": 1}])
    bridge.completed("run-0")
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "query", "sql": r"^\s*PUT"}, {"delay_ms": 120_000})
    bridge.run("integers", [{"n": 2}])
    bridge.uploading({"sql": "PUT"}, mark)
    bridge.admin.execute("update snowflake_bridge.snowflake_configurations set last_test_error = 'refused' where name = 'default'")
    bridge.run("decimals", [{"n": 2.5}], snowflake_options={"config": "other"})
    wait.until(lambda: bridge.upload("decimals")["needs_table"], "the rebuild waits")
    bridge.run("elsewhere", [{"n": 2}], snowflake_options={"config": "other", "table_name": "elsewhere"})
    bridge.completed("elsewhere")
    assert bridge.upload("decimals")["state"] == "retry"
    bridge.standin.clear_faults()
    for execution in ("integers", "decimals"):
        bridge.completed(execution)
    assert sorted(bridge.results(user, ["N"])) == [(Decimal(n),) for n in ("1", "2", "2.5")]


def test_whom_an_account_lets_in_for_the_first_time_takes_its_turn(bridge: Bridge, user: User) -> None:
    """Nobody has waited for it, so that it must not be at the table at once."""
    bridge.configure(user, name="other", verify=False)
    bridge.run("run-0", [{"n": 1}])
    bridge.completed("run-0")
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "query", "sql": r"^\s*UPDATE"}, {"delay_ms": 120_000})
    bridge.run("decimals", [{"n": 2.5}])
    bridge.uploading({"sql": "UPDATE"}, mark)
    bridge.run("integers", [{"n": 2}], snowflake_options={"config": "other"})
    wait.until(lambda: bridge.upload("integers")["state"] == "retry", "it has logged in")
    bridge.standin.clear_faults()
    for execution in ("decimals", "integers"):
        bridge.completed(execution)
    assert sorted(bridge.results(user, ["N"])) == [(Decimal(n),) for n in ("1", "2", "2.5")]
    upload = bridge.upload("integers")
    assert (upload["claim_count"], upload["attempt_count"]) == (2, 1), "to log in is no attempt"


def test_a_connection_at_which_somebody_is(make_bridge: Callable[..., Bridge]) -> None:
    """As in a transaction that has tested it, and is left open. That it works cannot be noted, and it is not logged in again and again."""
    bridge = make_bridge({"snowflake_bridge.retry_base_delay": "2s"})
    user = bridge.ready()
    bridge.configure(user, name="other", verify=False)
    with bridge.app.transaction():
        bridge.call("test_connection", name="other")
        bridge.admin.execute(
            f"insert into {TABLE} (execution_id, status, snowflake_enabled, snowflake_options) "
            "values ('run', 'completed', true, '{\"config\": \"other\"}')"
        )
        # Soon it is claimed again: this is the row as it was then.
        upload = wait.until(lambda: row if (row := bridge.upload("run"))["state"] == "retry" else None, "it has logged in")
    assert (upload["next_attempt_at"] - upload["claimed_at"]).total_seconds() > 1
    bridge.completed("run")


def test_a_connection_that_was_refused_meanwhile_is_asked(bridge: Bridge, user: User) -> None:
    """That a session still lies idle says nothing of now."""
    start = bridge.standin.audit_mark()
    bridge.run("run-1", [{"n": 1}])
    bridge.completed("run-1")
    bridge.tidied_up(start)
    wait.until(lambda: bridge.upload("run-1")["clean_up_after"] is None, "which is noted, and the session is idle")
    bridge.admin.execute("update snowflake_bridge.snowflake_configurations set last_test_error = 'refused'")
    mark = bridge.standin.audit_mark()
    bridge.run("run-2", [{"n": 2}])
    bridge.completed("run-2")
    assert [record["kind"] for record in bridge.standin.audit(mark)].count("login") == 0
    # Its own files are being tidied up by now.
    queries = [record for record in bridge.standin.audit(mark) if record["kind"] == "query" and record["finished"] is not None]
    sent = [record["sql"].split()[0] for record in queries]
    assert sent.index("SELECT") < sent.index("PUT"), sent


def test_a_table_of_somebody_else(bridge: Bridge, user: User) -> None:
    bridge.account.sql(f"create table {QUALIFIED} (NAME varchar(5), N number(5,0), EXECUTION_ID varchar,"
                       " UPLOADED_AT timestamp_tz, USER_ID varchar, UPLOAD_ID varchar)")
    bridge.account.withhold("OWNERSHIP", "TABLE", QUALIFIED)
    bridge.run("run-1", [{"name": "short", "n": 12345}])
    bridge.completed("run-1")
    bridge.run("run-2", [{"name": "too long", "n": 1}])
    assert "too long" in bridge.failed("run-2")["snowflake_error_message"]
    assert types(bridge, user)["NAME"] == "VARCHAR(5)"
    assert bridge.results(user, ["NAME", "N"]) == [("short", 12345)]


def test_numbers_that_a_table_made_by_hand_has_room_for(bridge: Bridge, user: User) -> None:
    bridge.account.sql(f"create table {QUALIFIED} (AMOUNT number(12,2) not null, RATIO float, CODE varchar(20))")
    bridge.run("run-1", [{"amount": 19.99, "ratio": 5, "code": 5}])
    bridge.completed("run-1")
    # The text of a number does not depend on what stands in other rows.
    bridge.run("run-2", [{"amount": 20, "ratio": 6, "code": 5}, {"amount": 0.5, "ratio": 7, "code": -1.5}])
    bridge.completed("run-2")
    assert types(bridge, user)["AMOUNT"] == "NUMBER(12,2)"
    assert sorted_rows(bridge, user, "AMOUNT", "RATIO", "CODE") == sorted(
        [(Decimal("19.99"), 5.0, "5"), (Decimal(20), 6.0, "5"), (Decimal("0.5"), 7.0, "-1.5")], key=str
    )


def test_numbers_as_text_whatever_comes_first(bridge: Bridge, user: User) -> None:
    options = {"numeric": "varchar"}
    bridge.run("run-1", [{"n": 1}], snowflake_options=options)
    bridge.completed("run-1")
    bridge.run("run-2", [{"n": 2.5}, {"n": 10**40}], snowflake_options=options)
    bridge.completed("run-2")
    assert types(bridge, user)["N"] == "VARCHAR(134217728)"
    assert sorted_rows(bridge, user, "N") == [("1",), (str(10**40),), ("2.5",)]


def test_numbers_as_text_for_a_table_of_numbers(bridge: Bridge, user: User) -> None:
    bridge.account.sql(f"create table {QUALIFIED} (N number(12,2))")
    bridge.run("run-1", [{"n": 1}, {"n": 2.5}], snowflake_options={"numeric": "varchar"})
    bridge.completed("run-1")
    assert sorted_rows(bridge, user, "N") == [(Decimal(1),), (Decimal("2.5"),)]


def test_a_table_in_another_case(bridge: Bridge, user: User) -> None:
    bridge.account.sql(f'create table {QUALIFIED} ("amount" number(38,0), "Upload_Id" varchar)')
    for number in (1, 2):
        bridge.run("run-1" if number == 1 else "run-2", [{"Amount": number}])
        bridge.completed(f"run-{number}")
    bridge.app.execute(
        "update workflow_executions set result_rows = '[{\"Amount\": 2.5}]' where execution_id = 'run-2'"
    )
    bridge.completed("run-2")
    assert sorted(bridge.results(user, ["amount"])) == [(Decimal(1),), (Decimal("2.5"),)]
    assert set(types(bridge, user)) == {"amount", "Upload_Id", "EXECUTION_ID"}


def test_a_table_with_defaults_and_an_identity(bridge: Bridge, user: User) -> None:
    bridge.account.sql(
        f"create table {QUALIFIED} (ID number(38,0) identity, A number(38,0) not null, "
        "REGION varchar not null default 'north')"
    )
    for number, options in enumerate((None, {"strategy": "replace"}, {"strategy": "upsert", "key_columns": ["a"]})):
        bridge.run(f"run-{number}", [{"a": number}], snowflake_options=options)
        bridge.completed(f"run-{number}")
    found = sorted(bridge.results(user, ["A", "REGION", "ID"]))
    assert [row[:2] for row in found] == [(1, "north"), (2, "north")]
    assert found[0][2] != found[1][2]


def nullable(bridge: Bridge) -> dict[str, bool]:
    """Which of the table's columns that a test has made take NULLs."""
    described = bridge.account.sql(f"describe table {QUALIFIED}")
    return {name: null == "Y" for name, _, _, null, *_ in described if name in ("A", "B", "REGION")}


def test_a_null_for_a_column_that_takes_none(bridge: Bridge, user: User) -> None:
    strategies = (None, {"strategy": "replace"}, {"strategy": "upsert", "key_columns": ["b"]})
    for number, options in enumerate(strategies):
        bridge.account.sql(f"create or replace table {QUALIFIED} (A number(38,0) not null, B varchar not null)")
        bridge.run(f"full-{number}", [{"a": 1, "b": "x"}], snowflake_options=options)
        bridge.completed(f"full-{number}")
        assert nullable(bridge) == {"A": False, "B": False}
        bridge.run(f"null-{number}", [{"a": None, "b": "y"}, {"a": 2, "b": "z"}], snowflake_options=options)
        bridge.completed(f"null-{number}")
        assert nullable(bridge) == {"A": True, "B": False}
        kept = [] if options == {"strategy": "replace"} else [(1, "x")]
        assert sorted_rows(bridge, user, "A", "B") == sorted([*kept, (2, "z"), (None, "y")], key=str)


def test_nulls_of_a_query_and_of_a_relation_that_readers_read(bridge: Bridge, user: User) -> None:
    bridge.account.sql(f"create table {QUALIFIED} (A number(38,0) not null, B varchar not null, USER_ID varchar not null)")
    number = bridge.call("upload_query", query="select null::int as a, 'x' as b", table_name=RESULTS)
    assert bridge.call("wait_for_upload", id=number, timeout="60s") == "completed"
    assert nullable(bridge) == {"A": True, "B": False}
    bridge.app.execute("create table report (execution_id text, a int, b text)")
    bridge.app.execute("insert into report values ('run-1', 1, null), ('run-1', 2, 'y')")
    bridge.watch(result_relation="report")
    bridge.start_execution("run-1")
    bridge.app.execute("update workflow_executions set status = 'completed' where execution_id = 'run-1'")
    bridge.completed("run-1")
    assert nullable(bridge) == {"A": True, "B": True}
    # The execution belongs to no user.
    assert sorted_rows(bridge, user, "A", "B", "USER_ID") == sorted([(None, "x", "app"), (1, None, None), (2, "y", None)], key=str)


def test_a_column_that_takes_no_null_and_is_not_in_the_result(bridge: Bridge, user: User) -> None:
    bridge.account.sql(f"create table {QUALIFIED} (A number(38,0) not null, REGION varchar not null)")
    bridge.account.sql(f"insert into {QUALIFIED} (A, REGION) values (0, 'north')")
    bridge.run("run-1", [{"a": 1}])
    bridge.completed("run-1")
    assert nullable(bridge) == {"A": False, "REGION": True}
    assert sorted_rows(bridge, user, "A", "REGION") == [(0, "north"), (1, None)]


def test_nulls_that_a_column_never_takes(bridge: Bridge, user: User) -> None:
    """Where NOT NULL may not be dropped, or must not, nothing is loaded and both sides are named."""
    bridge.account.sql(f"create table {QUALIFIED} (A number(38,0) primary key, B varchar not null)")
    bridge.run("run-0", [{"a": 1, "b": "x"}])
    bridge.completed("run-0")
    by_b = {"strategy": "upsert", "key_columns": ["b"]}
    for number, (row, others, options, words) in enumerate((
        ({"a": None, "b": "y"}, {"a": 3}, None, ('"A"', "primary key")),
        ({"b": "y"}, {}, None, ('"A"', "take no NULL")),
        ({"a": 2, "b": None}, {"b": "z"}, by_b, ('"B"', "NULL")),
        ({"a": 2, "b": None}, {"b": "z"}, {"evolve_schema": False}, ('"B"', "NULL")),
        ({"a": 2}, {}, {"evolve_schema": False}, ('"B"', "take no NULL")),
    )):  # fmt: skip
        # A column that is NULL in all rows of such a result is none of its columns.
        bridge.run(f"never-{number}", [row, {**row, **others}], snowflake_options=options)
        message = bridge.failed(f"never-{number}")["snowflake_error_message"]
        assert all(word in message for word in words), message
    bridge.account.withhold("OWNERSHIP", "TABLE", QUALIFIED)
    for number, (rows, why) in enumerate((
        ([{"a": 2, "b": None}, {"a": 3, "b": "z"}], "has a NULL"), ([{"a": 2}], "has no such column"),
    )):  # fmt: skip
        bridge.run(f"not-owned-{number}", rows)
        message = bridge.failed(f"not-owned-{number}")["snowflake_error_message"]
        assert all(word in message for word in ('"B"', "NOT NULL", why, "own the table")), message
    assert nullable(bridge) == {"A": False, "B": False}
    assert bridge.results(user, ["A", "B"]) == [(1, "x")]


def test_a_table_that_must_not_change(bridge: Bridge, user: User) -> None:
    fixed = {"evolve_schema": False}
    bridge.run("run-1", [{"n": 1}], snowflake_options=fixed)
    bridge.completed("run-1")
    bridge.run("run-2", [{"n": 1, "fresh": 2}], snowflake_options=fixed)
    assert '"FRESH"' in bridge.failed("run-2")["snowflake_error_message"]
    bridge.run("run-3", [{"n": 1.5}], snowflake_options=fixed)
    message = bridge.failed("run-3")["snowflake_error_message"]
    assert '"N"' in message and "NUMBER(38,0)" in message and "NUMBER(38,10)" in message
    assert not bridge.account.statements("ALTER TABLE")
    assert bridge.row_count(user) == 1

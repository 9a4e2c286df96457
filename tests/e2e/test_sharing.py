"""Uploads that wait for the same table share one COPY, and what happens to one of them is its own."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from harness import wait
from harness.bridge import RESULTS, Bridge
from harness.standin import User

TABLE = f"ANALYTICS_DB.REPORTS.{RESULTS}"
COPY = {"kind": "query", "sql": r"^\s*copy into"}
MANY = [f"run-{number}" for number in range(12)]


def run_all(bridge: Bridge, rows: dict[str, Any] | None = None) -> None:
    """Executions that are committed at once, of two rows each unless others are given."""
    with bridge.app.transaction():
        for number, execution in enumerate(MANY):
            bridge.run(execution, (rows or {}).get(execution, [{"name": "a", "n": number}, {"name": "b", "n": number}]))


def copies(bridge: Bridge, mark: int) -> int:
    """The COPY statements since then."""
    statements = [record["sql"] or "" for record in bridge.standin.audit(mark)]
    return sum(statement.upper().startswith("COPY INTO") for statement in statements)


def are_there(bridge: Bridge, user: User, executions: list[str]) -> None:
    """The rows of these executions, two of each, and no others."""
    found = bridge.results(user, "EXECUTION_ID, count(*), count(distinct UPLOAD_ID)", RESULTS, "group by EXECUTION_ID")
    assert sorted(found) == sorted((execution, 2, 1) for execution in executions)


def test_one_copy_for_what_waits(bridge: Bridge, user: User) -> None:
    mark = bridge.standin.audit_mark()
    run_all(bridge)
    for execution in MANY:
        assert bridge.completed(execution)["snowflake_row_count"] == 2
        upload = bridge.upload(execution)
        assert (upload["attempt_count"], upload["row_count"]) == (1, 2)
    are_there(bridge, user, MANY)
    assert copies(bridge, mark) <= len(MANY) // 2
    assert len({bridge.upload(execution)["transaction_id"] for execution in MANY}) == copies(bridge, mark)
    wait.until(lambda: not any(bridge.upload(execution)["clean_up_after"] for execution in MANY), "the stage is tidy")


def test_each_has_its_own_where_a_setting_says_so(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge({"snowflake_bridge.max_shared_uploads": "1"})
    user = bridge.ready()
    mark = bridge.standin.audit_mark()
    run_all(bridge)
    for execution in MANY:
        bridge.completed(execution)
    are_there(bridge, user, MANY)
    assert copies(bridge, mark) == len(MANY)


def test_one_that_the_table_does_not_take_fails_alone(bridge: Bridge, user: User) -> None:
    bridge.account.sql(
        f"create table {TABLE} (NAME varchar(5), N number(38,0), EXECUTION_ID varchar,"
        " UPLOADED_AT timestamp_tz, USER_ID varchar, UPLOAD_ID varchar)"
    )
    bridge.account.withhold("OWNERSHIP", "TABLE", TABLE)
    run_all(bridge, {MANY[5]: [{"name": "too long", "n": 1}]})
    message = bridge.failed(MANY[5])["snowflake_error_message"]
    assert "too long" in message, message
    others = [execution for execution in MANY if execution != MANY[5]]
    for execution in others:
        bridge.completed(execution)
        assert bridge.upload(execution)["attempt_count"] == 1
    are_there(bridge, user, others)


@pytest.mark.parametrize("place", [0, 5, 11])
def test_the_table_is_fitted_to_the_numbers_of_all(bridge: Bridge, user: User, place: int) -> None:
    """One of them has more decimals than the table: none may be rounded, whichever it is."""
    bridge.account.sql(
        f"create table {TABLE} (N number(10,2), EXECUTION_ID varchar, UPLOADED_AT timestamp_tz, USER_ID varchar, UPLOAD_ID varchar)"
    )
    rows = {execution: [{"n": 19.99}] for execution in MANY} | {MANY[place]: [{"n": 0.125}]}
    run_all(bridge, rows)
    for execution in MANY:
        bridge.completed(execution)
    found = dict(bridge.results(user, ["EXECUTION_ID", "N"]))
    assert found == {execution: Decimal(str(result[0]["n"])) for execution, result in rows.items()}


def test_one_that_is_canceled_ends_and_the_others_go_on(bridge: Bridge, user: User) -> None:
    bridge.standin.fault(COPY, {"delay_ms": 120_000}, times=len(MANY))
    run_all(bridge)
    wait.until(lambda: bridge.upload(MANY[3])["state"] == "copying", "it is being loaded")
    assert bridge.call("cancel_upload", id=bridge.upload(MANY[3])["id"]) is True
    assert bridge.failed(MANY[3])["snowflake_error_message"] == "canceled on request"
    bridge.standin.clear_faults()
    others = [execution for execution in MANY if execution != MANY[3]]
    for execution in others:
        bridge.completed(execution)
    are_there(bridge, user, others)


def test_an_answer_to_commit_that_is_lost(bridge: Bridge, user: User) -> None:
    bridge.standin.fault({"kind": "query", "sql": r"^\s*commit"}, {"lose_answer": True})
    run_all(bridge)
    for execution in MANY:
        bridge.completed(execution)
    are_there(bridge, user, MANY)


def test_a_worker_that_dies_meanwhile(bridge: Bridge, user: User) -> None:
    bridge.standin.fault(COPY, {"delay_ms": 120_000})
    mark = bridge.standin.audit_mark()
    run_all(bridge)
    bridge.uploading({"sql": "copy into"}, mark)
    bridge.admin.execute("select pg_terminate_backend(%s)", [bridge.worker()])
    bridge.standin.clear_faults()
    for execution in MANY:
        bridge.completed(execution, seconds=60)
    are_there(bridge, user, MANY)


def test_somebody_else_does_not_wait_for_all_of_them(bridge: Bridge) -> None:
    bridge.call("watch", connection=bridge.admin, relation="public.workflow_executions", create_if_missing=True, act_for_users=True)
    for name in ("busy", "calm"):
        bridge.configure(bridge.account.add_user(name.upper()), connection=bridge.admin, user_id=name)
    bridge.admin.execute(
        "insert into workflow_executions (execution_id, user_id, status, snowflake_enabled, result_rows) "
        "select 'run-' || n, case n when 300 then 'calm' else 'busy' end, 'completed', true, '[{\"n\": 1}]' "
        "from generate_series(1, 300) n"
    )
    bridge.admin.execute("grant select, insert, update, delete on workflow_executions to app")
    calm = bridge.completed("run-300") and bridge.upload("run-300")
    sql = "select count(*) as n from snowflake_bridge.uploads where user_id = 'busy' and (claimed_at is null or claimed_at > %s)"
    [row] = bridge.admin.execute(sql, [calm["claimed_at"]]).fetchall()
    assert row["n"] > 0, "it was taken before the last of the other's"


def test_other_columns_go_by_themselves(bridge: Bridge, user: User) -> None:
    run_all(bridge, {MANY[4]: [{"other": 1}, {"other": 2}], MANY[9]: [{"name": True, "n": "x"}, {"name": None, "n": 1}]})
    for execution in MANY:
        if execution != MANY[9]:
            bridge.completed(execution)
    # It brings texts for a column of numbers, or came first and made the table its own.
    bridge.settled(MANY[9])
    assert bridge.results(user, "count(*)", RESULTS, f"where EXECUTION_ID = '{MANY[4]}'") == [(2,)]

"""Uploads that wait for the same table share one COPY, and what happens to one of them is its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from harness import wait
from harness.bridge import RESULTS, Bridge
from harness.standin import WAREHOUSE, User

TABLE = f"ANALYTICS_DB.REPORTS.{RESULTS}"
COPY = {"kind": "query", "sql": r"^\s*copy into"}
STATEMENTS = pytest.mark.parametrize("statement", ["copy into", "commit"])
MANY = [f"run-{number}" for number in range(12)]
FIRST = "first"
# Longer than what the client waits for by itself.
RETRY_AFTER = 17


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


def test_an_account_that_asks_to_slow_down_is_left_alone_whoever_is_canceled(bridge: Bridge, user: User) -> None:
    """The one that leads is canceled while all of them are committed, which the account refuses for now."""
    first(bridge)
    refusal = {"delay_ms": 300_000, "status": 429, "headers": {"Retry-After": str(RETRY_AFTER)}}
    bridge.standin.fault({"kind": "query", "sql": r"^\s*commit"}, refusal)
    mark = bridge.standin.audit_mark()
    run_all(bridge)
    bridge.uploading({"sql": "commit"}, mark)
    assert bridge.call("cancel_upload", id=bridge.upload(MANY[0])["id"]) is True
    bridge.goes_round()
    bridge.standin.clear_faults()
    assert bridge.failed(MANY[0])["snowflake_error_message"] == "canceled on request"
    for execution in MANY[1:]:
        bridge.completed(execution, seconds=60)
    are_there(bridge, user, [FIRST, *MANY[1:]])
    audit = bridge.standin.audit(mark)
    [refused] = [record["finished"] for record in audit if record["status"] == 429]
    begins = [record["monotonic"] for record in audit if (record["sql"] or "").upper().startswith("BEGIN")]
    assert not [begun for begun in begins if refused < begun < refused + RETRY_AFTER - 0.5]


def test_an_answer_to_commit_that_is_lost(bridge: Bridge, user: User) -> None:
    """However often it is asked for: what became of the transaction, Snowflake tells."""
    bridge.standin.fault({"kind": "query", "sql": r"^\s*commit"}, {"lose_answer": True}, times=20)
    mark = bridge.standin.audit_mark()
    run_all(bridge)
    for execution in MANY:
        bridge.completed(execution, seconds=60)
    bridge.standin.clear_faults()
    are_there(bridge, user, MANY)
    assert bridge.account.statements("DESCRIBE TRANSACTION", mark)
    assert copies(bridge, mark) <= len(MANY) // 2, "nothing was loaded again"


def test_a_worker_that_is_ended_meanwhile(bridge: Bridge, user: User) -> None:
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
    first(bridge)
    others = {
        MANY[4]: [{"other": 1}, {"other": 2}],
        MANY[9]: [{"name": "a", "n": 0.5}, {"name": "b", "n": 9}],
    }
    run_all(bridge, others | {MANY[7]: [{"name": "a", "n": [7]}, {"name": "b", "n": 7}]})
    assert '"N"' in bridge.failed(MANY[7])["snowflake_error_message"]
    loaded = [execution for execution in MANY if execution != MANY[7]]
    for execution in loaded:
        bridge.completed(execution)
    are_there(bridge, user, [FIRST, *loaded])
    wanted = [
        (execution, row.get("name"), row.get("n"), row.get("other"))
        for number, execution in enumerate(MANY)
        if execution in loaded
        for row in others.get(execution, [{"name": "a", "n": number}, {"name": "b", "n": number}])
    ]
    found = bridge.results(user, ["EXECUTION_ID", "NAME", "N", "OTHER"], RESULTS, f"where EXECUTION_ID <> '{FIRST}'")
    assert Counter(found) == Counter(wanted)


def first(bridge: Bridge) -> None:
    """One that goes before the others: until an account has answered it is asked with one at a time."""
    bridge.run(FIRST, [{"name": "a", "n": 0}, {"name": "b", "n": 0}])
    bridge.completed(FIRST)


def held(bridge: Bridge, statement: str) -> list[str]:
    """Has all of them begin, and this statement held for all. Returns those that share a COPY, the one that leads first."""
    # One owner has half of them, and each upload may lead a COPY of its own: a worker that is slow gathers less.
    bridge.admin.execute("alter system set snowflake_bridge.max_concurrent_uploads = 32")
    bridge.reload()
    first(bridge)
    bridge.standin.fault({"kind": "query", "sql": rf"^\s*{statement}"}, {"delay_ms": 120_000}, times=100)
    mark = bridge.standin.audit_mark()
    run_all(bridge)

    def together() -> list[str]:
        sql = "select transaction_id, execution_id from snowflake_bridge.uploads where state = 'copying' order by id"
        groups: dict[str, list[str]] = {}
        for row in bridge.admin.execute(sql).fetchall():
            groups.setdefault(row["transaction_id"], []).append(row["execution_id"])
        requests = [record for record in bridge.standin.audit(mark) if record["finished"] is None and record["sql"]]
        are_held = sum(record["sql"].lower().startswith(statement) for record in requests)
        are_copying = sum(map(len, groups.values()))
        return max(groups.values(), key=len) if are_copying == len(MANY) and are_held == len(groups) else []

    members = wait.until(together, "all are under way")
    assert len(members) > 1, "several of them together"
    return members


@STATEMENTS
def test_a_configuration_that_changes_meanwhile(bridge: Bridge, user: User, statement: str) -> None:
    held(bridge, statement)
    bridge.call("update_config", password=user.password, warehouse=WAREHOUSE)
    bridge.standin.clear_faults()
    for execution in MANY:
        assert bridge.completed(execution)["snowflake_row_count"] == 2
    are_there(bridge, user, [FIRST, *MANY])


@STATEMENTS
def test_a_watch_that_ends_meanwhile(bridge: Bridge, user: User, statement: str) -> None:
    """What has begun is carried to its end."""
    held(bridge, statement)
    bridge.call("unwatch", relation="public.workflow_executions")
    bridge.standin.clear_faults()
    for execution in MANY:
        bridge.completed(execution)
    are_there(bridge, user, [FIRST, *MANY])


@STATEMENTS
def test_a_result_that_changes_meanwhile(bridge: Bridge, user: User, statement: str) -> None:
    changed = held(bridge, statement)[1]
    bridge.finish(changed, [{"name": "new", "n": -1}, {"name": "newer", "n": -2}])
    bridge.standin.clear_faults()
    for execution in MANY:
        bridge.completed(execution)
    wait.until(lambda: bridge.upload(changed)["state"] == "completed", "the newer one is loaded")
    bridge.completed(changed)
    are_there(bridge, user, [FIRST, *MANY])
    assert sorted(bridge.results(user, "N", RESULTS, f"where EXECUTION_ID = '{changed}'")) == [(-2,), (-1,)]


@STATEMENTS
def test_a_claim_that_is_stolen_meanwhile(bridge: Bridge, user: User, statement: str) -> None:
    """Whoever takes one of them over ends the transaction of all: the others are loaded again, and nobody says that they are
    there before they are."""
    stolen = held(bridge, statement)[1]
    mark = bridge.standin.audit_mark()
    taken = bridge.admin.execute(
        "update snowflake_bridge.uploads set state = 'retry', next_attempt_at = now() "
        "where execution_id = %s and state = 'copying'",
        [stolen],
    )
    assert taken.rowcount == 1
    bridge.reload()
    wait.until(lambda: bridge.account.statements("SELECT SYSTEM$ABORT_TRANSACTION", mark), "the transaction of all is ended")
    bridge.standin.clear_faults()
    for execution in MANY:
        assert bridge.completed(execution, seconds=60)["snowflake_row_count"] == 2
    wait.until(lambda: "was taken over while this worker was at it" in bridge.cluster.log_text(), "the first claim is lost")
    are_there(bridge, user, [FIRST, *MANY])
    assert bridge.upload(stolen)["claim_count"] == 2


def test_a_staged_file_that_is_missing(bridge: Bridge, user: User) -> None:
    """Each stages its file again at once, and tells why it is late."""
    first(bridge)
    error = {"code": "091016", "sqlState": "02000", "message": "Remote file '@~/x.parquet' was not found"}
    bridge.standin.fault(COPY, {"error": error})
    bridge.standin.fault({"kind": "objectstore", "method": "PUT"}, {"delay_ms": 300_000}, times=100, skip=len(MANY))
    run_all(bridge)
    sql = "select error_message, staged_claim from snowflake_bridge.uploads where error_code = '091016' and state in ('retry', 'claimed')"
    seen = wait.until(lambda: bridge.admin.execute(sql).fetchall(), "they go on by themselves")
    assert {row["staged_claim"] for row in seen} == {None}
    assert all("by itself now: a file is not in the stage any more" in row["error_message"] for row in seen), seen
    bridge.standin.clear_faults()
    for execution in MANY:
        bridge.completed(execution)
        assert bridge.upload(execution)["attempt_count"] == 1
    are_there(bridge, user, [FIRST, *MANY])

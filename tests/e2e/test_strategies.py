"""How new rows meet those that are there: append, upsert, replace; each again after a failure, and each in its turn."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from harness import wait
from harness.bridge import RESULTS, Bridge
from harness.standin import User

QUALIFIED = f"ANALYTICS_DB.REPORTS.{RESULTS}"
REPLACE: dict[str, Any] = {"strategy": "replace"}
BY_ID: dict[str, Any] = {"strategy": "upsert", "key_columns": ["id"]}
UPSERT: dict[str, Any] = {"strategy": "upsert"}
DAYS = ["id", {"name": "day", "type": "date"}]


def load(
    bridge: Bridge, execution_id: str, rows: Any, options: dict[str, Any] | None, **columns: Any
) -> dict[str, Any]:
    """One execution to its completion."""
    bridge.run(execution_id, rows, snowflake_options=options, **columns)
    return bridge.completed(execution_id)


def rows_of(bridge: Bridge, user: User, *columns: str) -> list[tuple[Any, ...]]:
    """The table's rows in order, NULLs first."""
    found = bridge.results(user, list(columns))
    return sorted(found, key=lambda row: [(value is not None, value) for value in row])


def temporary_tables(bridge: Bridge) -> list[str]:
    return bridge.account.statements("CREATE OR REPLACE TEMPORARY TABLE")


# --- replace -----------------------------------------------------------------------------------------------------


def test_replace_makes_the_result_the_content(bridge: Bridge, user: User) -> None:
    load(bridge, "run-1", [{"a": 1}, {"a": 2}], REPLACE)
    assert not temporary_tables(bridge), "a new table needs nothing but COPY"
    row = load(bridge, "run-2", [{"a": 3, "b": {"k": [1]}}], REPLACE)
    assert row["snowflake_row_count"] == 1
    assert rows_of(bridge, user, "EXECUTION_ID", "A") == [("run-2", 3)]
    [creation] = temporary_tables(bridge)

    def is_dropped() -> bool:
        return creation.split()[5] in [sql.split()[-1] for sql in bridge.account.statements("DROP TABLE IF EXISTS")]

    # Nobody waits for that.
    wait.until(is_dropped, "the temporary table is dropped")
    creations = bridge.account.statements("CREATE TABLE")
    assert len(creations) == 1, "the table is the same one, with its privileges"
    load(bridge, "run-3", [], REPLACE)
    assert bridge.row_count(user) == 0


def test_replace_after_a_lost_answer(bridge: Bridge, user: User) -> None:
    bridge.account.sql(f"create table {QUALIFIED} (A number(38,0), REGION varchar)")
    bridge.account.sql(f"insert into {QUALIFIED} values (7, 'north')")
    for number, statement in enumerate(("INSERT OVERWRITE", "COMMIT", "CREATE OR REPLACE TEMPORARY", "COPY INTO")):
        bridge.standin.fault({"kind": "query", "sql": f"^\\s*{statement}"}, {"lose_answer": True}, times=3)
        load(bridge, f"run-{number}", [{"a": number}, {"a": 100}], REPLACE)
        bridge.standin.clear_faults()
        assert rows_of(bridge, user, "A", "REGION") == [(number, None), (100, None)]


# --- upsert by keys ----------------------------------------------------------------------------------------------


def test_upsert_by_keys(bridge: Bridge, user: User) -> None:
    load(bridge, "run-1", [{"id": 1, "v": "a"}, {"id": 2, "v": "a"}, {"id": None, "v": "a"}], BY_ID)
    assert not temporary_tables(bridge)
    row = load(bridge, "run-2", [{"id": 2, "v": "b"}, {"id": None, "v": "b"}, {"id": 3, "v": "b"}], BY_ID)
    assert row["snowflake_row_count"] == 3
    assert rows_of(bridge, user, "ID", "V", "EXECUTION_ID") == [
        (None, "b", "run-2"),
        (1, "a", "run-1"),
        (2, "b", "run-2"),
        (3, "b", "run-2"),
    ]
    uploads = dict(bridge.results(user, ["EXECUTION_ID", "UPLOAD_ID"]))
    assert uploads["run-2"] == str(bridge.upload("run-2")["upload_id"])


def test_the_last_row_of_a_key_wins_in_the_first_load_too(bridge: Bridge, user: User) -> None:
    rows = [{"id": n % 3, "v": n} for n in range(1000)]
    for execution in ("run-1", "run-2"):
        row = load(bridge, execution, rows, BY_ID)
        assert row["snowflake_row_count"] == 3
        assert rows_of(bridge, user, "ID", "V", "EXECUTION_ID") == [
            (0, 999, execution),
            (1, 997, execution),
            (2, 998, execution),
        ]


def test_wide_keys_and_odd_names(bridge: Bridge, user: User) -> None:
    names = [f'k "{n}"' for n in range(40)]
    for table, extra in (("EXACT", {"column_case": "preserve"}), ("FOLDED", {})):
        options = {"strategy": "upsert", "key_columns": [*names, "user"], "table_name": table} | extra
        key = dict.fromkeys(names, "x" * 1000)
        load(bridge, f"{table}-1", [key | {"user": 1, "v": 1}], options)
        load(bridge, f"{table}-2", [key | {"user": 1, "v": 2}, key | {"user": 2, "v": 3}], options)
    assert sorted(bridge.results(user, ["user", "v"], "EXACT")) == [(1, 2), (2, 3)]
    assert sorted(bridge.results(user, ["USER", "V"], "FOLDED")) == [(1, 2), (2, 3)]


def test_a_key_that_is_named_like_a_column_of_the_stamp(bridge: Bridge, user: User) -> None:
    options = {"strategy": "upsert", "key_columns": ["user_id"]}
    load(bridge, "run-1", [{"user_id": 1, "v": 1}], options, user_id="somebody")
    load(bridge, "run-2", [{"user_id": 1, "v": 2}, {"user_id": 2, "v": 3}], options, user_id="somebody")
    assert rows_of(bridge, user, "RESULT_USER_ID", "V") == [(1, 2), (2, 3)]


def test_keys_that_the_result_does_not_have(bridge: Bridge, user: User) -> None:
    options = {"strategy": "upsert", "key_columns": ["id", "Colour"]}
    bridge.run("run-1", [{"id": 1}], snowflake_options=options)
    message = bridge.failed("run-1")["snowflake_error_message"]
    assert '"Colour"' in message and "key_columns" in message and '"id"' not in message
    assert '"ID"' in message, "the hint lists what there is"
    load(bridge, "run-2", [], options)


def test_a_key_that_the_table_has_twice(bridge: Bridge, user: User) -> None:
    load(bridge, "run-1", [{"id": 1, "v": 1}, {"id": 1, "v": 2}], None)
    bridge.run("run-2", [{"id": 1, "v": 3}], snowflake_options=BY_ID)
    message = bridge.failed("run-2")["snowflake_error_message"]
    assert "several rows with the same key (ID)" in message
    assert rows_of(bridge, user, "V") == [(1,), (2,)]


def test_upsert_after_a_lost_answer(bridge: Bridge, user: User) -> None:
    load(bridge, "run-0", [{"id": 1, "v": 0}, {"id": 9, "v": 0}], BY_ID)
    for number, statement in enumerate(("MERGE", "COMMIT"), 1):
        bridge.standin.fault({"kind": "query", "sql": f"^\\s*{statement}"}, {"lose_answer": True}, times=3)
        row = load(bridge, f"run-{number}", [{"id": 1, "v": -1}, {"id": 1, "v": number}], BY_ID)
        bridge.standin.clear_faults()
        assert row["snowflake_row_count"] == 1
        assert rows_of(bridge, user, "ID", "V") == [(1, number), (9, 0)]


# --- upsert without keys -----------------------------------------------------------------------------------------


def test_upsert_by_the_time_window(bridge: Bridge, user: User) -> None:
    january = {"time_window_start": "2024-01-01", "time_window_end": "2024-01-31", "campaign": "x"}
    february = {"time_window_start": "2024-02-01", "time_window_end": "2024-02-29"}
    load(bridge, "run-1", [{"n": 1}, {"n": 2}], UPSERT, parameters=january)
    load(bridge, "run-2", [{"n": 10}], UPSERT, parameters=january)

    def again(rows: str, window: dict[str, str]) -> None:
        before = bridge.upload("run-1")["id"]
        bridge.app.execute(
            "update workflow_executions set result_rows = %s::jsonb, parameters = %s::jsonb where execution_id = 'run-1'",
            [rows, json.dumps(window)],
        )
        bridge.completed("run-1")
        assert bridge.upload("run-1")["id"] > before

    again('[{"n": 3}]', february)
    again('[{"n": 4}]', january)
    assert rows_of(bridge, user, "EXECUTION_ID", "N", "TIME_WINDOW_START", "TIME_WINDOW_END") == [
        ("run-1", 3, "2024-02-01", "2024-02-29"),
        ("run-1", 4, "2024-01-01", "2024-01-31"),
        ("run-2", 10, "2024-01-01", "2024-01-31"),
    ]


def test_upsert_by_the_date_column(bridge: Bridge, user: User) -> None:
    def day(number: int, *days: str | None) -> list[dict[str, Any]]:
        return [{"id": number, "day": one} for one in days]

    load(bridge, "run-1", day(1, "2024-01-01", "2024-01-02", None), UPSERT, result_columns=DAYS, user_id="a")
    load(bridge, "run-2", day(2, "2024-01-02", "2024-01-03"), UPSERT, result_columns=DAYS, user_id="b")
    row = load(bridge, "run-3", day(3, "2024-01-02", "2024-01-02", None), UPSERT, result_columns=DAYS, user_id="a")
    assert row["snowflake_row_count"] == 3
    found = sorted(bridge.results(user, 'ID, TO_CHAR("DAY")'), key=str)
    assert found == sorted(
        [
            (1, "2024-01-01"),
            (2, "2024-01-02"),
            (2, "2024-01-03"),
            (3, "2024-01-02"),
            (3, "2024-01-02"),
            (3, None),
        ],
        key=str,
    ), "of the same user all rows of these days went, of others none"


def test_upsert_by_nothing_is_refused(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", [{"n": 1}], snowflake_options=UPSERT)
    message = bridge.failed("run-1")["snowflake_error_message"]
    for part in ("key_columns", "time_window_start", "date column"):
        assert part in message
    two = [{"name": "a", "type": "date"}, {"name": "b", "type": "date"}]
    bridge.run("run-2", [{"a": "2024-01-01", "b": "2024-01-01"}], snowflake_options=UPSERT, result_columns=two)
    assert '"A", "B"' in bridge.failed("run-2")["snowflake_error_message"]


# --- turns -------------------------------------------------------------------------------------------------------


def test_one_at_a_time_and_in_order(bridge: Bridge, user: User) -> None:
    """The first is held back by failures; those behind it wait, and so does what only appends."""
    load(bridge, "run-0", [{"n": 0}], None)
    bridge.standin.fault({"kind": "query", "sql": "^\\s*COPY INTO"}, {"status": 503}, times=12)
    mark = bridge.standin.audit_mark()
    for number in range(1, 6):
        bridge.run(f"run-{number}", [{"n": number}], snowflake_options=REPLACE)
    bridge.run("run-6", [{"n": 6}])
    bridge.run("elsewhere", [{"n": 1}], snowflake_table_name="elsewhere", snowflake_options=REPLACE)
    bridge.completed("elsewhere", seconds=60)
    for number in range(1, 7):
        bridge.completed(f"run-{number}", seconds=60)
    assert rows_of(bridge, user, "N") == [(5,), (6,)]
    ends = [bridge.upload(f"run-{number}")["completed_at"] for number in range(1, 7)]
    assert ends == sorted(ends)
    assert len(bridge.account.statements("INSERT OVERWRITE", mark)) == 5


def test_names_that_fold_to_one_take_turns(bridge: Bridge, user: User) -> None:
    """`straße` and `STRASSE` are one table in Snowflake, whatever the database's locale makes of the first."""
    bridge.run("run-1", [{"n": 1}], snowflake_table_name="straße")
    bridge.completed("run-1")
    bridge.standin.fault({"kind": "query", "sql": "^\\s*COPY INTO"}, {"delay_ms": 120_000}, times=1)
    mark = bridge.standin.audit_mark()
    bridge.run("run-2", [{"n": 2}], snowflake_table_name="STRASSE", snowflake_options=REPLACE)
    bridge.uploading({"kind": "query", "sql": "COPY INTO"}, mark)
    bridge.run("run-3", [{"n": 3}], snowflake_table_name="straße")
    bridge.run("elsewhere", [{"n": 1}])
    bridge.completed("elsewhere")
    assert bridge.upload("run-3")["state"] == "queued"
    bridge.standin.clear_faults()
    bridge.completed("run-3", seconds=60)
    found = bridge.account.sql("select N from ANALYTICS_DB.REPORTS.STRASSE order by N")
    assert [int(row[0]) for row in found] == [2, 3]


def test_spellings_of_one_account_take_turns(make_bridge: Callable[..., Bridge]) -> None:
    """As `xy12345` and `xy12345.us-west-2.privatelink` do, which are hosts of their own."""
    bridge = make_bridge()
    name = f"{bridge.account.name.upper()}.privatelink.localhost"
    bridge.also_allow(f"http://{name}:{bridge.standin.port}")
    user = bridge.ready()
    bridge.configure(user, name="other", account_identifier=name, verify=False)
    bridge.run("run-1", [{"n": 1}], snowflake_options={"config": "other"})
    bridge.completed("run-1")
    bridge.standin.fault({"kind": "query", "sql": "^\\s*COPY INTO"}, {"delay_ms": 120_000}, times=1)
    mark = bridge.standin.audit_mark()
    bridge.run("run-2", [{"n": 2}], snowflake_options=REPLACE)
    bridge.uploading({"kind": "query", "sql": "COPY INTO"}, mark)
    bridge.run("run-3", [{"n": 3}], snowflake_options={"config": "other"})
    bridge.run("elsewhere", [{"n": 1}], snowflake_table_name="elsewhere", snowflake_options={"config": "other"})
    bridge.completed("elsewhere")
    assert bridge.upload("run-3")["state"] == "queued"
    bridge.standin.clear_faults()
    bridge.completed("run-3", seconds=60)
    assert rows_of(bridge, user, "N") == [(2,), (3,)]


def test_appends_stand_beside_each_other(bridge: Bridge, user: User) -> None:
    load(bridge, "run-0", [{"n": 0}], None)
    bridge.standin.fault({"kind": "query", "sql": "^\\s*COPY INTO"}, {"delay_ms": 120_000}, times=2)
    for number in (1, 2):
        mark = bridge.standin.audit_mark()
        bridge.run(f"run-{number}", [{"n": number}])
        bridge.uploading({"kind": "query", "sql": "COPY INTO"}, mark)
    mark = bridge.standin.audit_mark()
    bridge.run("run-3", [{"n": 3}], snowflake_options=REPLACE)
    bridge.run("run-4", [{"n": 4}])
    bridge.run("elsewhere", [{"n": 1}], snowflake_table_name="elsewhere", snowflake_options=REPLACE)
    bridge.completed("elsewhere")
    assert [bridge.upload(f"run-{number}")["state"] for number in (3, 4)] == ["queued", "queued"]
    bridge.standin.clear_faults()
    for number in range(1, 5):
        bridge.completed(f"run-{number}", seconds=60)
    assert rows_of(bridge, user, "N") == [(3,), (4,)]


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"strategy": "merge"}, ["merge", "append", "upsert", "replace"]),
        ({"strategies": "append"}, ["strategies"]),
        ({"key_columns": ["id"]}, ["key_columns", "append"]),
        ({"strategy": "replace", "key_columns": ["id"]}, ["key_columns", "replace"]),
        ({"strategy": "upsert", "key_columns": []}, ["key_columns"]),
        ({"strategy": "upsert", "key_columns": ["id", "ID"]}, ["key_columns", "twice"]),
        ({"cluster_by": "day"}, ["cluster_by", "auto"]),
        ({"cluster_by": ["colour"]}, ["cluster_by", "colour"]),
        ({"cluster_by": ["j"]}, ["cluster_by", "VARIANT"]),
        ({"evolve_schema": "no"}, ["boolean"]),
    ],
)
def test_options_that_make_no_sense(bridge: Bridge, user: User, options: dict[str, Any], parts: list[str]) -> None:
    bridge.run("run-1", [{"id": 1, "j": {"k": 1}}], snowflake_options=options)
    message = bridge.failed("run-1")["snowflake_error_message"]
    for part in parts:
        assert part in message, message
    assert not bridge.account.statements("CREATE TABLE")


@pytest.mark.parametrize(
    ("cluster_by", "expected"),
    [("auto", 'LINEAR("DAY")'), (["id", "uploaded_at"], 'LINEAR("ID", "UPLOADED_AT")'), (None, "")],
)
def test_clustering_of_a_new_table(bridge: Bridge, user: User, cluster_by: Any, expected: str) -> None:
    options = {"cluster_by": cluster_by}
    load(bridge, "run-1", [{"id": 1, "day": "2024-01-01"}], options, result_columns=DAYS)
    shown = bridge.account.sql("show tables in schema ANALYTICS_DB.REPORTS")
    assert [row[6] for row in shown if row[1] == RESULTS] == [expected]
    load(bridge, "run-2", [{"id": 1}], options)

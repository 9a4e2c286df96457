"""A finished execution becomes rows in Snowflake, whatever it holds and however one logs in."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal

from psycopg.types.json import Jsonb

from harness import keys, wait
from harness.bridge import DATABASE, RESULTS, Bridge
from harness.reader import columns
from harness.standin import User

ROWS = [
    {"campaign": "Sommer-Angebot ☀ 夏", "clicks": 12, "cost": 1.25, "active": True, "tags": ["a", "b"]},
    {"campaign": 'it\'s "quoted"\\', "clicks": 9007199254740993, "cost": 0.1, "active": False, "tags": []},
    {"campaign": None, "clicks": -3, "cost": 100, "active": None, "tags": {"nested": {"deep": [1, None]}}},
]


def test_password(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", ROWS)
    row = bridge.completed("run-1")
    assert row["snowflake_row_count"] == 3
    assert row["snowflake_error_message"] is None
    assert row["snowflake_uploaded_at"] is not None
    loaded = bridge.results(user, ["campaign".upper(), "CLICKS", "COST", "ACTIVE"], tail="order by clicks")
    assert loaded == [
        (None, -3, Decimal("100.00"), None),
        ("Sommer-Angebot ☀ 夏", 12, Decimal("1.25"), True),
        ('it\'s "quoted"\\', 9007199254740993, Decimal("0.10"), False),
    ]
    tags = [json.loads(value) for (value,) in bridge.results(user, ["TAGS"], tail="order by clicks desc")]
    assert tags == [[], ["a", "b"], {"nested": {"deep": [1, None]}}]


def test_key_pair(bridge: Bridge) -> None:
    pair = keys.generate()
    user = bridge.account.add_user(public_key=pair.public)
    bridge.configure(user, private_key=pair.private)
    bridge.watch()
    bridge.run("run-1", ROWS)
    bridge.completed("run-1")
    assert bridge.row_count(user) == 3


def test_key_pair_with_a_passphrase(bridge: Bridge) -> None:
    pair = keys.generate(passphrase="open sesame")
    user = bridge.account.add_user(public_key=pair.public)
    bridge.configure(user, private_key=pair.private, private_key_passphrase="open sesame")
    bridge.watch()
    bridge.run("run-1", ROWS)
    bridge.completed("run-1")
    assert bridge.row_count(user) == 3


def test_every_row_says_where_it_comes_from(bridge: Bridge, user: User) -> None:
    before = datetime.datetime.now(datetime.UTC)
    bridge.run("run-1", ROWS, user_id="alice")
    bridge.completed("run-1")
    upload = bridge.upload("run-1")
    loaded = bridge.results(user, ["EXECUTION_ID", "USER_ID", "UPLOAD_ID", "UPLOADED_AT"])
    assert {row[:3] for row in loaded} == {("run-1", "alice", str(upload["upload_id"]))}
    assert all(before <= row[3] <= datetime.datetime.now(datetime.UTC) for row in loaded)


def test_statements_carry_a_tag(bridge: Bridge, user: User) -> None:
    mark = bridge.standin.audit_mark()
    bridge.run("run-1", ROWS)
    bridge.completed("run-1")
    upload = bridge.upload("run-1")
    # Of one that arrives at this moment, nothing is known yet.
    requests = [request for request in bridge.standin.audit(mark) if request["kind"] == "query" and request["finished"]]
    assert requests
    for request in requests:
        assert json.loads(request["parameters"]["QUERY_TAG"]) == {
            "application": "snowflake_bridge",
            "database": DATABASE,
            "upload": upload["id"],
            "upload_id": str(upload["upload_id"]),
            "execution_id": "run-1",
        }


def test_rows_as_arrays_with_declared_columns(bridge: Bridge, user: User) -> None:
    declared = [
        {"name": "day", "type": "date"},
        {"name": "at", "type": "timestamptz"},
        {"name": "amount", "type": "numeric(12,3)"},
        "note",
    ]
    bridge.run(
        "run-1",
        [["2024-02-29", "2024-02-29T23:59:59.123456+02:00", "10.5", "x"], [None, None, None, "y"]],
        result_columns=declared,
    )
    bridge.completed("run-1")
    types = columns(bridge.account, user, RESULTS)
    assert types["DAY"] == "DATE"
    assert types["AMOUNT"] == "NUMBER(12,3)"
    assert types["AT"].startswith("TIMESTAMP_TZ")
    assert bridge.results(user, ["DAY", "AT", "AMOUNT"], tail="where note = 'x'") == [
        (
            datetime.date(2024, 2, 29),
            datetime.datetime(2024, 2, 29, 21, 59, 59, 123456, tzinfo=datetime.UTC),
            Decimal("10.500"),
        )
    ]


def test_values_in_a_result_that_snowflake_cannot_hold(bridge: Bridge, user: User) -> None:
    """As PostgreSQL's own JSON writes them."""
    declared = [{"name": "n", "type": "int"}, {"name": "at", "type": "timestamptz"}, {"name": "day", "type": "date"}]
    bridge.app.execute("set timezone = 'UTC'")
    query = (
        "select jsonb_agg(to_jsonb(v)) as rows from (values (1, timestamptz '2024-02-29 12:00+00', date '0044-03-15 BC'), "
        "(2, 'infinity', '2024-02-29'), (3, '-infinity', null)) v (n, at, day)"
    )
    [found] = bridge.app.execute(query).fetchall()
    bridge.run("refused", found["rows"], result_columns=declared)
    assert "row 1" in bridge.failed("refused")["snowflake_error_message"]
    assert "on_out_of_range" in bridge.upload("refused")["error_hint"]
    for option in ("null", "text"):
        options = {"on_out_of_range": option}
        bridge.run(option, found["rows"], result_columns=declared, snowflake_options=options, snowflake_table_name=f"T_{option}")
        bridge.completed(option)
        assert bridge.upload(option)["out_of_range_count"] == 3
    assert bridge.results(user, ["N", "AT", "DAY"], "T_NULL", "order by n") == [
        (1, datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC), None),
        (2, None, datetime.date(2024, 2, 29)),
        (3, None, None),
    ]
    assert bridge.results(user, ["N", "AT", "DAY"], "T_TEXT", "order by n") == [
        (1, "2024-02-29T12:00:00+00:00", "0044-03-15 BC"),
        (2, "infinity", "2024-02-29"),
        (3, "-infinity", None),
    ]


def test_the_target_of_one_execution(bridge: Bridge) -> None:
    user = bridge.account.add_user(schema="MARKETING")
    bridge.configure(user, schema="PUBLIC")
    bridge.watch()
    request = {
        "name": "Campaign Performance Report",
        "template_id": "template_123",
        "instance_id": "instance_456",
        "parameters": {"campaign_ids": ["123", "456"], "date_range": "30d"},
        "execution_type": "once",
        "snowflake_enabled": True,
        "snowflake_table_name": "campaign_performance",
        "snowflake_schema_name": "marketing",
    }
    execution = bridge.call("create_execution", request=Jsonb(request))
    assert bridge.execution(execution)["parameters"] == request["parameters"]
    bridge.finish(execution, ROWS)
    bridge.completed(execution)
    assert bridge.row_count(user, "CAMPAIGN_PERFORMANCE") == 3


def test_the_status_while_it_runs(bridge: Bridge, user: User) -> None:
    bridge.start_execution("run-1")
    assert bridge.execution("run-1")["snowflake_status"] is None
    mark = bridge.standin.audit_mark()
    bridge.standin.fault({"kind": "objectstore", "method": "PUT"}, {"delay_ms": 60_000})
    with bridge.app.transaction():
        bridge.finish("run-1", ROWS)
        assert bridge.execution("run-1")["snowflake_status"] == "pending"
    bridge.uploading({"kind": "objectstore", "method": "PUT"}, mark)
    wait.until(lambda: bridge.execution("run-1")["snowflake_status"] == "uploading", "the application sees it")
    progress = bridge.app.execute("select * from snowflake_bridge.upload_progress()").fetchall()
    assert [row["execution_id"] for row in progress] == ["run-1"]
    bridge.standin.clear_faults()
    bridge.completed("run-1")


def test_a_hundred_thousand_rows(bridge: Bridge, user: User) -> None:
    count = 100_000
    # Made by the server itself: only the result column matters here, not how it came to be filled.
    bridge.start_execution("large")
    bridge.app.execute(
        """update workflow_executions set status = 'completed', result_rows = (
               select jsonb_agg(jsonb_build_object('n', n, 'price', (n * 7 %% 10007)::numeric / 100, 'text', 'Zeile №' || n,
                                                   'detail', jsonb_build_object('mod', n %% 13, 'list', jsonb_build_array(n, null))))
               from generate_series(1, %s) n)
           where execution_id = 'large'""",
        [count],
    )
    row = bridge.completed("large", seconds=120)
    assert row["snowflake_row_count"] == count
    [[rows, distinct, total, price, texts]] = bridge.results(
        user, "count(*), count(distinct n), sum(n), sum(price), count(distinct text)"
    )
    expected_price = sum(Decimal(n * 7 % 10007) for n in range(1, count + 1)) / 100
    assert (rows, distinct, total, price, texts) == (count, count, count * (count + 1) // 2, expected_price, count)
    [[detail]] = bridge.results(user, ["DETAIL"], tail="where n = 99999")
    assert json.loads(detail) == {"mod": 99999 % 13, "list": [99999, None]}


def test_the_same_execution_again(bridge: Bridge, user: User) -> None:
    bridge.run("run-1", ROWS)
    bridge.completed("run-1")
    first = bridge.upload("run-1")
    upload = bridge.call("upload", execution_id="run-1")
    bridge.call("wait_for_upload", id=upload, timeout="30s")
    bridge.completed("run-1")
    second = bridge.upload("run-1")
    assert second["id"] == upload != first["id"]
    # An execution that is sent again replaces what it sent before.
    assert {row[0] for row in bridge.results(user, ["UPLOAD_ID"])} == {str(second["upload_id"])}
    assert bridge.row_count(user) == 3

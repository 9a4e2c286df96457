"""Foreign tables, and views over them: what a watch finds its results in, and what `upload_table` reads."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable

import pytest

from harness import wait
from harness.bridge import TABLE, Bridge
from harness.standin import User

COLUMNS = "execution_id text, day date, amount numeric(12,2), note text"
# Empty text is not NULL, in CSV neither.
SALES = f"""
create schema authorization app;
create table far ({COLUMNS});
insert into far values
    ('run-1', '2024-01-31', 12.50, 'ä "quoted", \\N'), ('run-1', '2024-02-01', null, null), ('run-1', '2024-02-02', 0, ''),
    ('run-2', '2024-03-01', 1, 'other');
"""
ROWS_OF_RUN_1 = [
    (datetime.date(2024, 1, 31), decimal.Decimal("12.50"), 'ä "quoted", \\N'),
    (datetime.date(2024, 2, 1), None, None),
    (datetime.date(2024, 2, 2), decimal.Decimal(0), ""),
]


def of_a_file(bridge: Bridge) -> None:
    [row] = bridge.admin.execute("select current_setting('data_directory') || '/sales.csv' as file").fetchall()
    bridge.admin.execute(f"copy app.far to '{row['file']}' (format csv)")
    bridge.admin.execute("create extension file_fdw")
    bridge.admin.execute("create server files foreign data wrapper file_fdw")
    bridge.admin.execute(
        f"create foreign table app.sales ({COLUMNS}) server files options (filename '{row['file']}', format 'csv')"
    )
    bridge.admin.execute("alter foreign table app.sales owner to app")


def of_a_server(bridge: Bridge) -> None:
    """The server is this one, reached as any other is."""
    info = bridge.app.info
    bridge.admin.execute("create extension postgres_fdw")
    bridge.admin.execute(
        "create server near foreign data wrapper postgres_fdw "
        f"options (host '{info.host}', port '{info.port}', dbname '{info.dbname}')"
    )
    bridge.admin.execute("grant usage on foreign server near to app")
    # Whoever comes by this server's socket needs no password, which only a superuser may let pass.
    bridge.admin.execute("create user mapping for app server near options (user 'app', password_required 'false')")
    bridge.app.execute(f"create foreign table sales ({COLUMNS}) server near options (schema_name 'app', table_name 'far')")


@pytest.fixture
def bridge(make_bridge: Callable[..., Bridge]) -> Bridge:
    """What is tried again is so until it succeeds."""
    return make_bridge({"snowflake_bridge.max_attempts": "1000"})


@pytest.fixture
def user(bridge: Bridge) -> User:
    user = bridge.account.add_user()
    bridge.configure(user)
    bridge.app.execute(SALES)
    return user


def finish(bridge: Bridge, execution_id: str) -> None:
    """An execution without a result in its row."""
    bridge.start_execution(execution_id)
    bridge.app.execute(f"update {TABLE} set status = 'completed' where execution_id = %s", [execution_id])


@pytest.mark.parametrize("make", [of_a_file, of_a_server])
def test_foreign_tables_hold_the_rows(bridge: Bridge, user: User, make: Callable[[Bridge], None]) -> None:
    make(bridge)
    bridge.app.execute("create view seen as select * from sales")
    bridge.watch(result_relation="sales")
    finish(bridge, "run-1")
    assert bridge.completed("run-1")["snowflake_row_count"] == len(ROWS_OF_RUN_1)
    assert bridge.results(user, ["DAY", "AMOUNT", "NOTE"], tail="order by day") == ROWS_OF_RUN_1
    bridge.watch(result_relation="seen")
    number = bridge.call("upload", execution_id="run-1")
    assert bridge.call("wait_for_upload", id=number, timeout="60s") == "completed"
    assert bridge.upload("run-1")["id"] == number and bridge.upload("run-1")["row_count"] == len(ROWS_OF_RUN_1)
    assert bridge.results(user, ["DAY", "AMOUNT", "NOTE"], tail="order by day") == ROWS_OF_RUN_1


@pytest.mark.parametrize("make", [of_a_file, of_a_server])
@pytest.mark.parametrize("relation", ["sales", "seen"])
def test_foreign_tables_are_uploaded(bridge: Bridge, user: User, make: Callable[[Bridge], None], relation: str) -> None:
    make(bridge)
    bridge.app.execute("create view seen as select * from sales")
    number = bridge.call("upload_table", relation=relation, table_name="copied")
    assert bridge.call("wait_for_upload", id=number, timeout="60s") == "completed"
    found = bridge.results(user, ["DAY", "AMOUNT", "NOTE"], "COPIED", "order by day")
    assert found == [*ROWS_OF_RUN_1, (datetime.date(2024, 3, 1), decimal.Decimal(1), "other")]


def test_a_foreign_server_that_comes_back(bridge: Bridge, user: User) -> None:
    of_a_server(bridge)
    bridge.watch(result_relation="sales")
    bridge.admin.execute("alter server near options (set port '1')")
    finish(bridge, "run-1")
    told = wait.until(lambda: bridge.execution("run-1")["snowflake_error_message"], "the attempt's error is told")
    assert "near" in told and bridge.execution("run-1")["snowflake_status"] != "failed"
    bridge.admin.execute(f"alter server near options (set port '{bridge.app.info.port}')")
    bridge.completed("run-1")
    assert bridge.results(user, ["DAY", "AMOUNT", "NOTE"], tail="order by day") == ROWS_OF_RUN_1


def test_a_foreign_table_that_does_not_fit_its_server(bridge: Bridge, user: User) -> None:
    """What the other side says reaches the row, and is not tried again."""
    of_a_server(bridge)
    bridge.watch(result_relation="sales")
    bridge.app.execute("alter table far drop column note")
    finish(bridge, "run-1")
    row = bridge.failed("run-1")
    assert "note" in row["snowflake_error_message"] and row["snowflake_attempt_count"] == 1

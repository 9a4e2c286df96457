"""Snowflake's transaction rules, where DuckDB's are others."""

from __future__ import annotations

import threading

import pytest
from driver import Admin, Driver, Identity, Refused, wait_for_query


@pytest.fixture
def table(driver: Driver) -> Driver:
    driver.run("CREATE TABLE T (A NUMBER(38,0) NOT NULL, B VARCHAR)")
    driver.run("INSERT INTO T VALUES (1, 'a'), (2, 'b')")
    return driver


def count(driver: Driver, table: str = "T") -> int:
    return int(driver.one(f"SELECT COUNT(*) FROM {table}") or -1)


def state(driver: Driver, transaction: str | None) -> str | None:
    return driver.table(f"DESCRIBE TRANSACTION {transaction}")[0]["state"]


def test_commit_and_rollback(table: Driver, second: Driver) -> None:
    table.run("BEGIN")
    table.run("INSERT INTO T VALUES (3, 'c')")
    assert (count(table), count(second)) == (3, 2)
    table.run("ROLLBACK")
    assert count(table) == 2
    table.run("START TRANSACTION")
    table.run("DELETE FROM T WHERE A = 1")
    table.run("COMMIT")
    assert count(second) == 1


def test_ending_no_transaction_succeeds(driver: Driver) -> None:
    assert driver.rows("COMMIT") == driver.rows("ROLLBACK") == [["Statement executed successfully."]]
    assert driver.one("SELECT CURRENT_TRANSACTION()") is None


def test_ddl_commits_the_open_transaction(table: Driver, second: Driver) -> None:
    for ddl in ("CREATE TABLE U (A NUMBER)", "CREATE TEMPORARY TABLE X LIKE T", "DROP TABLE U", "CREATE TEMP STAGE S1"):
        before = count(second)
        table.run("BEGIN")
        table.run("INSERT INTO T VALUES (9, 'x')")
        table.run(ddl)
        assert table.one("SELECT CURRENT_TRANSACTION()") is None
        table.run("ROLLBACK")
        assert count(second) == before + 1


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("INSERT INTO T VALUES ('abc', 'x')", "100038"),
        ("INSERT INTO T VALUES (NULL, 'x')", "100072"),
        ("UPDATE T SET A = NULL", "100072"),
        ("INSERT OVERWRITE INTO T SELECT NULL, 'x'", "100072"),
        ("SELECT B::NUMBER FROM T", "100038"),
        ("SELECT NOPE FROM T", "000904"),
        ("SELECT * FROM NOPE", "002003"),
        ("SELEC 1", "001003"),
    ],
)
def test_a_failed_statement_undoes_only_itself(table: Driver, second: Driver, statement: str, code: str) -> None:
    table.run("BEGIN")
    transaction = table.one("SELECT CURRENT_TRANSACTION()")
    table.run("DELETE FROM T WHERE A = 1")
    table.run("INSERT INTO T VALUES (3, 'c'), (4, 'd')")
    with pytest.raises(Refused) as caught:
        table.run(statement)
    assert caught.value.code == code
    assert table.one("SELECT CURRENT_TRANSACTION()") == transaction
    assert count(table) == 3 and count(second) == 2
    table.run("INSERT INTO T VALUES (5, 'e')")
    table.run("COMMIT")
    assert second.rows("SELECT A FROM T ORDER BY A") == [["2"], ["3"], ["4"], ["5"]]


def test_many_failures_in_one_transaction(table: Driver) -> None:
    table.run("BEGIN")
    for number in range(10, 15):
        table.run(f"INSERT INTO T VALUES ({number}, 'x')")
        with pytest.raises(Refused):
            table.run("INSERT INTO T VALUES ('abc', 'x')")
    table.run("COMMIT")
    assert count(table) == 7


def test_time_stands_still_for_a_repeated_statement(driver: Driver) -> None:
    driver.run("CREATE TABLE T (A TIMESTAMP_TZ(6))")
    driver.run("BEGIN")
    driver.run("INSERT INTO T SELECT CURRENT_TIMESTAMP()")
    before = driver.rows("SELECT A FROM T")
    with pytest.raises(Refused):
        driver.run("INSERT INTO T VALUES ('never')")
    assert driver.rows("SELECT A FROM T") == before


def test_names_and_states(table: Driver, second: Driver) -> None:
    table.run('BEGIN NAME "load 1"')
    transaction = table.one("SELECT CURRENT_TRANSACTION()")
    described = second.table(f"DESCRIBE TRANSACTION {transaction}")[0]
    assert (described["id"], described["name"], described["user"]) == (transaction, "load 1", "LOADER")
    assert described["session"] == str(table.login_data["sessionId"])
    assert (described["state"], described["ended_on"]) == ("running", None)
    assert [row["id"] for row in second.table("SHOW TRANSACTIONS")] == [transaction]
    table.run("COMMIT")
    assert state(second, transaction) == "committed"
    table.run("BEGIN")
    other = table.one("SELECT CURRENT_TRANSACTION()")
    table.run("ROLLBACK")
    assert state(second, other) == "rolled back"
    with pytest.raises(Refused) as caught:
        second.run("DESCRIBE TRANSACTION 1")
    assert caught.value.code == "002003"


def test_abort_from_another_session(admin: Admin, identity: Identity, table: Driver, second: Driver) -> None:
    table.run("BEGIN")
    table.run("DELETE FROM T")
    transaction = table.one("SELECT CURRENT_TRANSACTION()")
    with Driver.logged_in(admin, Identity(identity.account, "OTHER", identity.password)) as stranger:
        with pytest.raises(Refused) as caught:
            stranger.run(f"SELECT SYSTEM$ABORT_TRANSACTION({transaction})")
        assert caught.value.code == "003001"
    assert second.one(f"SELECT SYSTEM$ABORT_TRANSACTION({transaction})") == f"Aborted transaction id: {transaction}"
    assert state(second, transaction) == "rolled back"
    assert count(table) == 2 and table.one("SELECT CURRENT_TRANSACTION()") is None
    second.run("DELETE FROM T WHERE A = 1")
    assert count(second) == 1


def test_abort_does_not_touch_what_has_ended(table: Driver, second: Driver) -> None:
    table.run("BEGIN")
    table.run("DELETE FROM T")
    transaction = table.one("SELECT CURRENT_TRANSACTION()")
    table.run("COMMIT")
    second.run(f"SELECT SYSTEM$ABORT_TRANSACTION({transaction})")
    assert state(second, transaction) == "committed"
    assert count(second) == 0


@pytest.mark.parametrize("how", ["close", "kill"])
def test_the_end_of_a_session_rolls_back(admin: Admin, identity: Identity, driver: Driver, how: str) -> None:
    driver.run("CREATE TABLE T (A NUMBER)")
    with Driver.logged_in(admin, identity) as dying:
        dying.run("CREATE TEMPORARY TABLE TMP (A NUMBER)")
        dying.run("BEGIN")
        dying.run("INSERT INTO T VALUES (1)")
        dying.run("DELETE FROM T")
        transaction = dying.one("SELECT CURRENT_TRANSACTION()")
        if how == "kill":
            admin.delete("sessions", {"id": dying.login_data["sessionId"]})
            assert dying.answer("SELECT 1")["code"] == "390111"
            dying.token = None
    assert state(driver, transaction) == "rolled back"
    driver.run("DELETE FROM T")
    assert [row["name"] for row in driver.table("SHOW TABLES")] == ["T"]


def test_autocommit_off(admin: Admin, identity: Identity, driver: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER)")
    with Driver.logged_in(admin, identity, parameters={"AUTOCOMMIT": False}) as careful:
        careful.run("INSERT INTO T VALUES (1)")
        assert (count(careful), count(driver)) == (1, 0)
        careful.run("COMMIT")
        assert count(driver) == 1
        careful.run("INSERT INTO T VALUES (2)")
    assert count(driver) == 1


def test_each_statement_reads_what_is_committed(table: Driver, second: Driver) -> None:
    table.run("BEGIN")
    assert count(table) == 2
    second.run("INSERT INTO T VALUES (3, 'c')")
    assert count(table) == 3
    table.run("ROLLBACK")


def test_appends_do_not_wait_for_each_other(table: Driver, second: Driver) -> None:
    table.run("BEGIN")
    second.run("BEGIN")
    table.run("INSERT INTO T VALUES (3, 'c')")
    second.run("INSERT INTO T VALUES (4, 'd')")
    table.run("COMMIT")
    second.run("COMMIT")
    assert count(table) == 4


def test_two_loads_of_one_table_follow_each_other(admin: Admin, table: Driver, second: Driver) -> None:
    table.run("BEGIN")
    table.run("DELETE FROM T WHERE B = 'a'")
    table.run("INSERT INTO T VALUES (10, 'a')")
    mark = admin.last()

    def other() -> None:
        second.run("BEGIN")
        second.run("DELETE FROM T WHERE B = 'a' OR B = 'b'")
        second.run("COMMIT")

    thread = threading.Thread(target=other)
    thread.start()
    wait_for_query(admin, mark, "DELETE FROM T WHERE B = 'a' OR B = 'b'")
    table.run("COMMIT")
    thread.join(30)
    # The second one waited, then saw what the first had committed.
    assert count(table) == 0

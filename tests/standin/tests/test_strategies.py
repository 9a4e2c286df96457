"""The statements by which a loader replaces, merges and exchanges rows, and rebuilds columns."""

from __future__ import annotations

import pytest
from driver import Driver, Refused

TARGET, TEMPORARY = '"ANALYTICS_DB"."REPORTS"."T"', '"ANALYTICS_DB"."REPORTS"."X"'


def refused(driver: Driver, sql: str) -> Refused:
    with pytest.raises(Refused) as caught:
        driver.run(sql)
    return caught.value


@pytest.fixture
def tables(driver: Driver) -> Driver:
    """A table with two rows, and a temporary one with three, of which two have the same key."""
    driver.run(f'CREATE TABLE {TARGET} ("K" NUMBER(38,0), "D" DATE, "V" VARCHAR)')
    driver.run(f"INSERT INTO {TARGET} VALUES (1, '2024-01-01', 'old'), (NULL, NULL, 'old')")
    driver.run(
        f'CREATE OR REPLACE TEMPORARY TABLE {TEMPORARY} ("K" NUMBER(38,0), "D" DATE, "V" VARCHAR, '
        "\"ROW_ORDINAL\" NUMBER(18,0)) COMMENT = 'on their way'"
    )
    driver.run(f"INSERT INTO {TEMPORARY} VALUES (NULL, NULL, 'new', 1), (2, '2024-01-02', 'a', 2), (2, NULL, 'b', 3)")
    return driver


def rows(driver: Driver) -> list[list[str | None]]:
    return driver.rows(f'SELECT "K", "V" FROM {TARGET} ORDER BY "K" NULLS FIRST, "V"')


def test_insert_overwrite_with_columns_stands_in_a_transaction(tables: Driver, second: Driver) -> None:
    overwrite = f'INSERT OVERWRITE INTO {TARGET} ("K", "V") SELECT "K", "V" FROM {TEMPORARY}'
    tables.run("BEGIN")
    assert tables.table(overwrite) == [{"number of rows inserted": "3"}]
    assert rows(tables) == [[None, "new"], ["2", "a"], ["2", "b"]]
    assert rows(second) == [[None, "old"], ["1", "old"]]
    tables.run("ROLLBACK")
    assert rows(tables) == [[None, "old"], ["1", "old"]]
    tables.run("BEGIN")
    tables.run(overwrite)
    tables.run("COMMIT")
    assert rows(second) == [[None, "new"], ["2", "a"], ["2", "b"]]


def test_merge_of_the_last_row_of_each_key(tables: Driver) -> None:
    merge = (
        f'MERGE INTO {TARGET} AS t USING (SELECT "K", "D", "V" FROM {TEMPORARY} '
        'QUALIFY ROW_NUMBER() OVER (PARTITION BY "K" ORDER BY "ROW_ORDINAL" DESC) = 1) AS s ON EQUAL_NULL(t."K", s."K") '
        'WHEN MATCHED THEN UPDATE SET t."D" = s."D", t."V" = s."V" '
        'WHEN NOT MATCHED THEN INSERT ("K", "D", "V") VALUES (s."K", s."D", s."V")'
    )
    tables.run("BEGIN")
    assert tables.table(merge) == [{"number of rows inserted": "1", "number of rows updated": "1"}]
    tables.run("COMMIT")
    assert rows(tables) == [[None, "new"], ["1", "old"], ["2", "b"]]
    assert tables.one(f'SELECT COUNT(*) FROM (SELECT DISTINCT "K" FROM {TEMPORARY})') == "2"


def test_a_merged_row_that_the_table_has_twice_is_updated_twice(tables: Driver) -> None:
    tables.run(f"INSERT INTO {TARGET} VALUES (1, NULL, 'again')")
    merge = (
        f'MERGE INTO {TARGET} AS t USING (SELECT 1 AS "K", \'m\' AS "V") AS s ON EQUAL_NULL(t."K", s."K") '
        'WHEN MATCHED THEN UPDATE SET t."V" = s."V" WHEN NOT MATCHED THEN INSERT ("K", "V") VALUES (s."K", s."V")'
    )
    assert tables.table(merge) == [{"number of rows inserted": "0", "number of rows updated": "2"}]


def test_delete_using(tables: Driver) -> None:
    tables.run(f"INSERT INTO {TARGET} VALUES (7, '2024-01-02', 'old')")
    delete = (
        f'DELETE FROM {TARGET} AS t USING (SELECT DISTINCT TO_DATE("D") AS "D" FROM {TEMPORARY}) AS s '
        'WHERE EQUAL_NULL(TO_DATE(t."D"), s."D")'
    )
    assert tables.table(delete) == [{"number of rows deleted": "2"}]
    assert rows(tables) == [["1", "old"]]


def test_a_temporary_table_made_again_is_empty_and_goes_with_drop(tables: Driver) -> None:
    tables.run(f'CREATE OR REPLACE TEMPORARY TABLE {TEMPORARY} ("K" NUMBER(38,0))')
    assert tables.one(f"SELECT COUNT(*) FROM {TEMPORARY}") == "0"
    tables.run(f"DROP TABLE IF EXISTS {TEMPORARY}")
    tables.run(f"DROP TABLE IF EXISTS {TEMPORARY}")
    assert refused(tables, f"SELECT * FROM {TEMPORARY}").code == "002003"


def test_a_column_rebuilt(driver: Driver) -> None:
    driver.run(f"CREATE TABLE {TARGET} (\"N\" NUMBER(38,0)) CLUSTER BY (TO_DATE('2024-01-01'))")
    driver.run(f"INSERT INTO {TARGET} VALUES (1), (NULL)")
    driver.run(f'ALTER TABLE {TARGET} ADD COLUMN "N2" NUMBER(38,10)')
    assert refused(driver, f'ALTER TABLE {TARGET} ADD COLUMN "N2" NUMBER(38,10)').code == "001430"
    driver.run(f'ALTER TABLE {TARGET} RENAME COLUMN "N" TO "OLD"')
    assert refused(driver, f'ALTER TABLE {TARGET} RENAME COLUMN "N" TO "OLD"').code == "000904"
    assert refused(driver, f'ALTER TABLE {TARGET} RENAME COLUMN "N2" TO "OLD"').code == "001430"
    copy = f'UPDATE {TARGET} SET "N2" = "OLD" WHERE "N2" IS NULL AND "OLD" IS NOT NULL'
    assert driver.table(copy)[0]["number of rows updated"] == "1"
    same = f'UPDATE {TARGET} SET "N2" = "OLD" WHERE "N2" IS DISTINCT FROM "OLD"'
    assert driver.table(same)[0]["number of rows updated"] == "0"
    driver.run(f'ALTER TABLE {TARGET} RENAME COLUMN "N2" TO "N"')
    driver.run(f'ALTER TABLE {TARGET} DROP COLUMN "OLD"')
    assert refused(driver, f'ALTER TABLE {TARGET} DROP COLUMN "OLD"').code == "000904"
    assert [(row["name"], row["type"]) for row in driver.table(f"DESCRIBE TABLE {TARGET}")] == [("N", "NUMBER(38,10)")]
    assert driver.rows(f'SELECT "N" FROM {TARGET} ORDER BY 1') == [["1.0000000000"], [None]]


def test_a_value_that_does_not_fit_into_the_other_scale(driver: Driver) -> None:
    driver.run(f'CREATE TABLE {TARGET} ("N" NUMBER(38,0), "N2" NUMBER(38,10))')
    driver.run(f'INSERT INTO {TARGET} ("N") VALUES ({"9" * 30})')
    error = refused(driver, f'UPDATE {TARGET} SET "N2" = "N"')
    assert error.sqlstate == "22003"
    assert driver.rows(f'SELECT "N2" FROM {TARGET}') == [[None]]


def test_defaults_and_identities_fill_what_a_row_does_not_bring(driver: Driver) -> None:
    driver.run(
        f'CREATE TABLE {TARGET} ("ID" NUMBER(38,0) AUTOINCREMENT START 10 INCREMENT 5, "A" NUMBER(38,0), '
        '"B" VARCHAR NOT NULL DEFAULT \'b\', "C" NUMBER(38,0) IDENTITY)'
    )
    driver.run(f'INSERT INTO {TARGET} ("A") VALUES (1), (2)')
    assert driver.rows(f'SELECT "ID", "A", "B", "C" FROM {TARGET} ORDER BY "A"') == [
        ["10", "1", "b", "1"],
        ["15", "2", "b", "2"],
    ]
    described = {row["name"]: (row["null?"], row["default"]) for row in driver.table(f"DESCRIBE TABLE {TARGET}")}
    assert described["ID"][1] == "IDENTITY START 10 INCREMENT 5 NOORDER"
    assert described["B"][0] == "N" and described["B"][1] is not None
    assert described["A"] == ("Y", None)

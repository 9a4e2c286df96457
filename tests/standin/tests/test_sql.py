"""Tables, their columns, and the statements a loader uses on them."""

from __future__ import annotations

import threading

import pytest
from driver import Admin, Driver, Identity, Refused


def refused(driver: Driver, sql: str) -> Refused:
    with pytest.raises(Refused) as caught:
        driver.run(sql)
    return caught.value


def columns(driver: Driver, table: str) -> dict[str | None, str | None]:
    return {row["name"]: row["type"] for row in driver.table(f"DESCRIBE TABLE {table}")}


def test_declared_types_are_described(driver: Driver) -> None:
    driver.run(
        'CREATE TABLE IF NOT EXISTS "ANALYTICS_DB"."REPORTS"."T" ("ID" NUMBER(38,0) NOT NULL DEFAULT 7 COMMENT \'the key\', '
        '"V" VARIANT, "A" ARRAY, "O" OBJECT, "S" VARCHAR(134217728), "D" VARCHAR, "B" BINARY(67108864), "TZ" TIMESTAMP_TZ(6), '
        '"L" TIMESTAMP_LTZ(6), "N" TIMESTAMP_NTZ, "DT" DATE, "TM" TIME(6), "F" FLOAT, "OK" BOOLEAN, "I" INT) '
        "CLUSTER BY (TO_DATE(\"TZ\")) COMMENT='results'"
    )
    assert columns(driver, '"ANALYTICS_DB"."REPORTS"."T"') == {
        "ID": "NUMBER(38,0)", "V": "VARIANT", "A": "ARRAY", "O": "OBJECT", "S": "VARCHAR(134217728)", "D": "VARCHAR(16777216)",
        "B": "BINARY(67108864)", "TZ": "TIMESTAMP_TZ(6)", "L": "TIMESTAMP_LTZ(6)", "N": "TIMESTAMP_NTZ(9)", "DT": "DATE",
        "TM": "TIME(6)", "F": "FLOAT", "OK": "BOOLEAN", "I": "NUMBER(38,0)",
    }  # fmt: skip
    first = driver.table("DESC TABLE T")[0]
    assert (first["kind"], first["null?"], first["default"], first["comment"]) == ("COLUMN", "N", "7", "the key")
    assert driver.one("CREATE TABLE IF NOT EXISTS T (A INT)") == "T already exists, statement succeeded."
    assert refused(driver, "CREATE TABLE T (A INT)").code == "002002"
    shown = driver.table('SHOW TABLES LIKE \'t\' IN SCHEMA "ANALYTICS_DB"."REPORTS"')[0]
    assert (shown["name"], shown["kind"], shown["rows"], shown["comment"]) == ("T", "TABLE", "0", "results")
    assert shown["owner"] == "LOADER_ROLE" and shown["cluster_by"].startswith("LINEAR(")


@pytest.mark.parametrize(
    "declared", ["BINARY(67108865)", "VARCHAR(134217729)", "NUMBER(39,0)", "NUMBER(38,39)", "TIMESTAMP_TZ(10)"]
)
def test_types_beyond_the_limits(driver: Driver, declared: str) -> None:
    assert refused(driver, f"CREATE TABLE T (A {declared})").code == "002062"


def test_missing_things(driver: Driver) -> None:
    assert (error := refused(driver, 'DESCRIBE TABLE "ANALYTICS_DB"."REPORTS"."NOPE"')).code == "002003"
    assert error.sqlstate == "02000"
    assert error.message.endswith("Object 'ANALYTICS_DB.REPORTS.NOPE' does not exist or not authorized.")
    assert refused(driver, "SELECT * FROM NOPE").sqlstate == "42S02"
    assert refused(driver, "CREATE TABLE NO_DB.PUBLIC.T (A INT)").code == "002003"
    assert refused(driver, "CREATE TABLE ANALYTICS_DB.NO_SCHEMA.T (A INT)").code == "002003"
    assert refused(driver, "DROP TABLE NOPE").code == "002003"
    driver.run("DROP TABLE IF EXISTS NOPE")


def test_names_are_exact_when_quoted(driver: Driver) -> None:
    driver.run('CREATE TABLE "Mixed" ("Id" NUMBER, "a ""b" VARCHAR)')
    driver.run("INSERT INTO \"Mixed\" VALUES (1, 'x')")
    assert list(columns(driver, '"Mixed"')) == ["Id", 'a "b']
    assert driver.rows('SELECT "Id", "a ""b" FROM "Mixed"') == [["1", "x"]]
    for wrong in ("SELECT * FROM MIXED", "DESCRIBE TABLE mixed"):
        assert refused(driver, wrong).code == "002003"
    for wrong in ('SELECT "ID" FROM "Mixed"', 'SELECT ID FROM "Mixed"', 'INSERT INTO "Mixed" ("ID") VALUES (1)'):
        assert refused(driver, wrong).code == "000904"
    assert refused(driver, f"CREATE TABLE {'T' * 256} (A INT)").code == "000904"


def test_numbers_keep_all_38_digits(driver: Driver) -> None:
    big = "9" * 38
    driver.run("CREATE TABLE T (A NUMBER(38,0), B NUMBER(38,37), C INT)")
    driver.run(f"INSERT INTO T VALUES ({big}, 1.2345678901234567890123456789012345678, -{big})")
    assert driver.rows("SELECT A, B, C, SUM(A) OVER () FROM T") == [
        [big, "1.2345678901234567890123456789012345678", "-" + big, big]
    ]


def test_add_columns(driver: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER)")
    driver.run("INSERT INTO T VALUES (1)")
    driver.run('ALTER TABLE T ADD COLUMN IF NOT EXISTS "X" NUMBER(38,0), "Y" VARCHAR(10)')
    driver.run('ALTER TABLE T ADD COLUMN IF NOT EXISTS "X" NUMBER(38,0)')
    assert columns(driver, "T") == {"A": "NUMBER(38,0)", "X": "NUMBER(38,0)", "Y": "VARCHAR(10)"}
    assert driver.rows("SELECT * FROM T") == [["1", None, None]]
    assert refused(driver, "ALTER TABLE T ADD COLUMN X NUMBER").code == "001430"
    assert refused(driver, "ALTER TABLE NOPE ADD COLUMN X NUMBER").code == "002003"
    driver.run("ALTER TABLE IF EXISTS NOPE ADD COLUMN X NUMBER")


def test_a_column_that_could_not_be_added_is_not_there(driver: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER)")
    driver.run("INSERT INTO T VALUES (1)")
    refused(driver, "ALTER TABLE T ADD COLUMN X NUMBER NOT NULL")
    driver.run("ALTER TABLE T ADD COLUMN X VARCHAR")
    assert driver.rows("SELECT * FROM T") == [["1", None]]


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [
        ("VARCHAR(10)", "VARCHAR(134217728)", True),
        ("VARCHAR(10)", "VARCHAR(5)", False),
        ("NUMBER(10,2)", "NUMBER(38,2)", True),
        ("NUMBER(10,2)", "NUMBER(12,4)", False),
        ("NUMBER(38,0)", "NUMBER(38,10)", False),
        ("NUMBER(38,0)", "NUMBER(10,0)", False),
        ("NUMBER(38,0)", "VARCHAR(100)", False),
        ("NUMBER(38,0)", "FLOAT", False),
        ("BINARY(100)", "BINARY(200)", False),
        ("VARIANT", "ARRAY", False),
    ],
)
def test_change_a_type(driver: Driver, old: str, new: str, allowed: bool) -> None:
    driver.run(f"CREATE TABLE T (K NUMBER, A {old})")
    driver.run("INSERT INTO T (K) VALUES (1)")
    statement = f"ALTER TABLE T ALTER COLUMN A SET DATA TYPE {new}"
    if allowed:
        driver.run(statement)
    else:
        error = refused(driver, statement)
        assert error.code == "002108" and old in error.message and new in error.message
    assert columns(driver, "T")["A"] == (new if allowed else old)


def test_rename_drop_like_and_as(driver: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER(10,2) NOT NULL, B VARIANT)")
    driver.run("ALTER TABLE T RENAME COLUMN B TO C")
    driver.run("CREATE TABLE L LIKE T")
    driver.run("INSERT INTO T SELECT 1.5, PARSE_JSON('{\"a\":[1,2]}')")
    driver.run("CREATE TABLE S AS SELECT A, C:a AS D FROM T")
    driver.run("CREATE TABLE K CLONE T")
    assert columns(driver, "L") == columns(driver, "K") == {"A": "NUMBER(10,2)", "C": "VARIANT"}
    assert driver.rows("SELECT * FROM S") == [["1.50", "[1,2]"]]
    driver.run("ALTER TABLE T RENAME TO U")
    assert refused(driver, "SELECT * FROM T").code == "002003"
    driver.run("ALTER TABLE U DROP COLUMN C")
    assert columns(driver, "U") == {"A": "NUMBER(10,2)"}
    driver.run("DROP TABLE U")
    names = [row["name"] for row in driver.table("SHOW TABLES")]
    assert names == ["K", "L", "S"]


def test_temporary_tables_are_the_session_s_own(driver: Driver, second: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER)")
    driver.run("INSERT INTO T VALUES (1)")
    driver.run('CREATE TEMPORARY TABLE "ANALYTICS_DB"."REPORTS"."T" LIKE "ANALYTICS_DB"."REPORTS"."T"')
    assert driver.one("SELECT COUNT(*) FROM T") == "0"
    assert second.one("SELECT COUNT(*) FROM T") == "1"
    driver.run("CREATE TEMPORARY TABLE TMP (A NUMBER, B VARCHAR)")
    driver.run("INSERT INTO TMP VALUES (1, 'x'), (2, 'y')")
    assert refused(second, "SELECT * FROM TMP").code == "002003"
    assert driver.rows("SELECT TMP.B FROM TMP WHERE TMP.A = 2") == [["y"]]
    driver.run("UPDATE TMP SET B = 'z' WHERE TMP.A = 1")
    driver.run("MERGE INTO TMP USING (SELECT 5 AS A) S ON TMP.A = S.A WHEN NOT MATCHED THEN INSERT (A) VALUES (S.A)")
    driver.run("DELETE FROM TMP WHERE TMP.A = 2")
    assert driver.rows("SELECT A, B FROM TMP ORDER BY A") == [["1", "z"], ["5", None]]
    kinds = {row["name"]: row["kind"] for row in driver.table("SHOW TABLES")}
    assert kinds["TMP"] == "TEMPORARY"
    assert [row["name"] for row in second.table("SHOW TABLES")] == ["T"]
    driver.run("DROP TABLE T")
    assert driver.one("SELECT COUNT(*) FROM T") == "1"


def test_show_tables_by_scope_and_pattern(driver: Driver) -> None:
    for name in ("REPORTS.A_ONE", "REPORTS.A_TWO", "REPORTS.B", "PUBLIC.A_THREE"):
        driver.run(f"CREATE TABLE ANALYTICS_DB.{name} (X NUMBER)")
    driver.run("INSERT INTO A_TWO VALUES (1), (2), (3)")

    def names(rest: str) -> list[str | None]:
        return [row["name"] for row in driver.table("SHOW TABLES" + rest)]

    assert names("") == ["A_ONE", "A_TWO", "B"]
    assert names(' IN DATABASE "ANALYTICS_DB"') == ["A_THREE", "A_ONE", "A_TWO", "B"]
    assert names(" IN ACCOUNT") == ["A_THREE", "A_ONE", "A_TWO", "B"]
    assert names(' LIKE \'a\\\\_t%\' IN SCHEMA "ANALYTICS_DB"."REPORTS"') == []
    assert names(' LIKE \'a_t%\' IN SCHEMA "ANALYTICS_DB"."REPORTS"') == ["A_TWO"]
    assert names(" IN SCHEMA PUBLIC") == ["A_THREE"]
    assert names(" STARTS WITH 'A' LIMIT 1 FROM 'A_ONE'") == ["A_TWO"]
    shown = driver.table("SHOW TABLES LIKE 'A_TWO'")[0]
    assert shown["rows"] == "3" and int(shown["bytes"] or 0) > 0
    assert (shown["database_name"], shown["schema_name"]) == ("ANALYTICS_DB", "REPORTS")
    assert refused(driver, "SHOW TABLES IN SCHEMA ANALYTICS_DB.NOPE").code == "002003"


def test_dml_counts(driver: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER, B VARCHAR)")
    assert driver.table("INSERT INTO T VALUES (1, 'a'), (2, 'b'), (NULL, 'n')") == [{"number of rows inserted": "3"}]
    assert driver.table("UPDATE T SET B = 'x' WHERE A = 1") == [
        {"number of rows updated": "1", "number of multi-joined rows updated": "0"}
    ]
    assert driver.table("DELETE FROM T WHERE A = 7") == [{"number of rows deleted": "0"}]
    merge = (
        "MERGE INTO T USING (SELECT 1 AS A, 'm' AS B UNION ALL SELECT NULL, 'o' UNION ALL SELECT 9, 'p') S "
        "ON T.A IS NOT DISTINCT FROM S.A WHEN MATCHED AND S.B = 'o' THEN DELETE WHEN MATCHED THEN UPDATE SET T.B = S.B "
        "WHEN NOT MATCHED THEN INSERT (A, B) VALUES (S.A, S.B)"
    )
    assert driver.table(merge) == [
        {"number of rows inserted": "1", "number of rows updated": "1", "number of rows deleted": "1"}
    ]
    assert driver.rows("SELECT A, B FROM T ORDER BY A") == [["1", "m"], ["2", "b"], ["9", "p"]]
    assert driver.table("INSERT OVERWRITE INTO T SELECT A, B FROM T WHERE A > 1") == [{"number of rows inserted": "2"}]
    assert driver.one("SELECT COUNT(*) FROM T") == "2"


def test_merge_meets_a_row_twice(driver: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER, B VARCHAR)")
    driver.run("INSERT INTO T VALUES (1, 'a')")
    source = "(SELECT 1 AS A, 'x' AS B UNION ALL SELECT 1, 'y')"
    update = f"MERGE INTO T USING {source} S ON EQUAL_NULL(T.A, S.A) WHEN MATCHED THEN UPDATE SET B = S.B"
    assert refused(driver, update).code == "100090"
    assert driver.rows("SELECT B FROM T") == [["a"]]
    last = f"(SELECT * FROM {source} QUALIFY ROW_NUMBER() OVER (PARTITION BY A ORDER BY B DESC) = 1)"
    assert driver.rows(update.replace(source, last)) == [["1"]]
    assert driver.rows("SELECT B FROM T") == [["y"]]


def test_second_statements_are_refused(driver: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER)")
    assert refused(driver, "SELECT 1; DROP TABLE T").code == "000008"
    assert driver.one("SELECT COUNT(*) FROM T;") == "0"


def test_warehouse_is_needed_for_data_only(admin: Admin, identity: Identity) -> None:
    query = {"databaseName": "ANALYTICS_DB", "schemaName": "REPORTS"}
    with Driver.logged_in(admin, identity, query=query) as driver:
        driver.run("CREATE TABLE T (A NUMBER)")
        driver.run("SHOW TABLES")
        driver.run("DESCRIBE TABLE T")
        driver.run("PUT 'file:///x' '@~/d/'")
        assert driver.one("SELECT CURRENT_WAREHOUSE()") is None
        for statement in ("SELECT * FROM T", "INSERT INTO T VALUES (1)", "DELETE FROM T", "COPY INTO T FROM '@~/d/'"):
            error = refused(driver, statement)
            assert (error.code, error.sqlstate) == ("000606", "57P03")
        driver.run("USE WAREHOUSE COMPUTE_WH")
        driver.run("INSERT INTO T VALUES (1)")


def test_withheld_privileges(admin: Admin, identity: Identity, driver: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER)")

    def withhold(privilege: str, kind: str, name: str, withheld: bool = True) -> None:
        body = {"account": identity.account, "role": "LOADER_ROLE", "privilege": privilege, "on": kind, "name": name}
        admin.post("privileges", body | {"withhold": withheld})

    withhold("CREATE TABLE", "SCHEMA", "ANALYTICS_DB.REPORTS")
    error = refused(driver, "CREATE TABLE U (A NUMBER)")
    assert (error.code, error.sqlstate) == ("003001", "42501")
    assert error.message == "SQL access control error:\nInsufficient privileges to operate on schema 'REPORTS'."
    driver.run("CREATE TABLE PUBLIC.U (A NUMBER)")
    withhold("CREATE TABLE", "SCHEMA", "ANALYTICS_DB.REPORTS", False)
    driver.run("CREATE TABLE U (A NUMBER)")
    for privilege, statement in {
        "INSERT": "INSERT INTO T VALUES (1)",
        "DELETE": "DELETE FROM T",
        "SELECT": "SELECT * FROM T",
        "OWNERSHIP": "ALTER TABLE T ADD COLUMN B NUMBER",
    }.items():
        withhold(privilege, "TABLE", "ANALYTICS_DB.REPORTS.T")
        error = refused(driver, statement)
        assert (error.code, "'T'" in error.message) == ("003001", True)
    withhold("USAGE", "SCHEMA", "ANALYTICS_DB.REPORTS")
    for statement in ("SELECT * FROM U", "DESCRIBE TABLE U", "CREATE TABLE X (A NUMBER)"):
        assert refused(driver, statement).code == "002003"
    withhold("USAGE", "WAREHOUSE", "COMPUTE_WH")
    with pytest.raises(Refused) as caught:
        Driver.logged_in(admin, identity)
    assert caught.value.code == "390201"


def test_two_sessions_create_the_same_table(driver: Driver, second: Driver) -> None:
    failures: list[Exception] = []

    def create(session: Driver) -> None:
        try:
            for number in range(20):
                session.run(f"CREATE TABLE IF NOT EXISTS T{number} (A NUMBER)")
                session.run(f"ALTER TABLE T{number} ADD COLUMN IF NOT EXISTS B VARCHAR")
        except Exception as error:  # noqa: BLE001 - whatever it was, the test must tell
            failures.append(error)

    threads = [threading.Thread(target=create, args=(session,)) for session in (driver, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(driver.rows("SHOW TABLES")) == 20


def test_accounts_do_not_share_data(admin: Admin, identity: Identity, driver: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER)")
    spec = {"name": identity.account + "x", "users": [{"name": "A", "password": "p"}], "warehouses": ["COMPUTE_WH"]}
    admin.post("accounts", {"accounts": [spec | {"databases": {"ANALYTICS_DB": ["REPORTS"]}}]})
    with Driver.logged_in(admin, Identity(identity.account + "x", "a", "p")) as other:
        assert other.rows("SHOW TABLES") == []


def test_what_is_not_there_is_refused_in_words(driver: Driver) -> None:
    for statement in (
        "GET '@~/x' 'file:///tmp/'",
        "GRANT SELECT ON TABLE T TO ROLE R",
        "CREATE SEQUENCE S",
        "SET X = 1",
    ):
        assert refused(driver, statement).code == "000002"


def test_text_longer_than_declared_is_refused(driver: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER, B VARCHAR(3))")
    driver.run("BEGIN")
    driver.run("INSERT INTO T VALUES (1, 'abc'), (2, '日本語')")
    for statement in (
        "INSERT INTO T VALUES (3, 'abcd')",
        "UPDATE T SET B = 'abcd' WHERE A = 1",
        "MERGE INTO T USING (SELECT 1 AS A, 'abcd' AS B) S ON T.A = S.A WHEN MATCHED THEN UPDATE SET B = S.B",
    ):
        error = refused(driver, statement)
        assert (error.code, error.message) == ("100078", "String 'abcd' is too long and would be truncated")
    driver.run("COMMIT")
    assert driver.rows("SELECT B FROM T ORDER BY A") == [["abc"], ["日本語"]]


def test_primary_keys(driver: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER(38,0) PRIMARY KEY, B VARCHAR)")
    driver.run('CREATE TABLE U (A NUMBER(38,0), "b" VARCHAR, C DATE, PRIMARY KEY (A, "b"))')
    driver.run("CREATE TABLE V LIKE U")

    def keys(table: str) -> dict[str | None, tuple[str | None, str | None]]:
        return {row["name"]: (row["primary key"], row["null?"]) for row in driver.table(f"DESCRIBE TABLE {table}")}

    assert keys("T") == {"A": ("Y", "N"), "B": ("N", "Y")}
    assert keys("U") == keys("V") == {"A": ("Y", "N"), "b": ("Y", "N"), "C": ("N", "Y")}
    driver.run('ALTER TABLE U RENAME COLUMN "b" TO B')
    driver.run("ALTER TABLE U DROP COLUMN A")
    assert keys("U") == {"B": ("Y", "N"), "C": ("N", "Y")}
    assert refused(driver, "INSERT INTO T VALUES (NULL, 'x')").code == "100072"
    # Twice the same key is nothing that Snowflake minds.
    driver.run("INSERT INTO T VALUES (1, 'x'), (1, 'y')")


def test_nullability_views_and_information_schema(driver: Driver) -> None:
    driver.run("CREATE TABLE T (A NUMBER(38,0) NOT NULL, B VARCHAR)")
    driver.run("ALTER TABLE T ALTER COLUMN A DROP NOT NULL")
    driver.run("INSERT INTO T VALUES (NULL, 'x')")
    driver.run("CREATE VIEW V AS SELECT B FROM T")
    assert driver.rows("SELECT * FROM V") == [["x"]]
    listed = driver.rows("SELECT TABLE_NAME FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_SCHEMA = 'REPORTS'")
    assert listed == [["T"]]
    driver.run("DROP VIEW V")
    assert refused(driver, "SELECT * FROM V").code == "002003"


def test_databases_and_schemas(driver: Driver) -> None:
    driver.run("CREATE DATABASE SECOND_DB")
    driver.run("CREATE SCHEMA SECOND_DB.MARTS")
    assert [row["name"] for row in driver.table("SHOW DATABASES")] == ["ANALYTICS_DB", "SECOND_DB"]
    assert [row["name"] for row in driver.table("SHOW SCHEMAS IN DATABASE SECOND_DB")] == [
        "INFORMATION_SCHEMA",
        "MARTS",
        "PUBLIC",
    ]
    driver.run("CREATE TABLE SECOND_DB.MARTS.T (A NUMBER)")
    driver.run("INSERT INTO SECOND_DB.MARTS.T VALUES (1)")
    assert driver.one("SELECT COUNT(*) FROM SECOND_DB.MARTS.T") == "1"
    assert [row["name"] for row in driver.table("SHOW WAREHOUSES")] == ["COMPUTE_WH"]


def test_network_policy_of_oneself_and_of_the_account(admin: Admin, identity: Identity, driver: Driver) -> None:
    def policy(scope: str) -> list[str | None]:
        [row] = driver.rows(f"SHOW PARAMETERS LIKE 'NETWORK_POLICY' IN {scope}")
        return [row[0], row[1], row[3]]

    own = f'USER "{identity.user}"'
    assert policy(own) == policy("USER") == policy("ACCOUNT") == ["NETWORK_POLICY", "", ""]
    admin.post("accounts", {"accounts": [{"name": identity.account, "network_policy": "allowed"}]})
    assert policy(own) == ["NETWORK_POLICY", "", ""]
    assert policy("ACCOUNT") == ["NETWORK_POLICY", "ALLOWED", "ACCOUNT"]
    assert driver.answer("SHOW PARAMETERS LIKE 'NETWORK_POLICY' IN USER somebody")["code"] == "003001"

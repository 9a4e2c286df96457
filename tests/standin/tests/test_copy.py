"""PUT to the object store, COPY from it: encryption, digests, values, history."""

from __future__ import annotations

import base64
import json
import math
import threading
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError
from driver import PARQUET, Admin, Driver, Refused, parquet, sealed, store

STAGE = "@~/snowflake_bridge/0b7c/91aa/1/"


def copy(table: str, pairs: dict[str, str], files: list[str], stage: str = STAGE, force: bool = True) -> str:
    columns = ", ".join(f'"{name}"' for name in pairs)
    names = ", ".join(f"'{name}'" for name in files)
    return (
        f"COPY INTO {table} ({columns}) FROM (SELECT {', '.join(pairs.values())} FROM '{stage}') FILES=({names}) {PARQUET} "
        f"FORCE={'TRUE' if force else 'FALSE'}"
    )


def one_column(force: bool = False, files: tuple[str, ...] = ("part-00000.parquet",)) -> str:
    return copy('"T"', {"A": '$1:"A"::NUMBER(38,0)'}, list(files), force=force)


@pytest.fixture
def table(driver: Driver) -> Driver:
    driver.run('CREATE TABLE "ANALYTICS_DB"."REPORTS"."T" ("A" NUMBER(38,0))')
    return driver


def numbers(count: int, first: int = 0) -> bytes:
    return parquet({"A": pa.array(range(first, first + count), pa.decimal128(38, 0))})


def refused(driver: Driver, sql: str) -> Refused:
    with pytest.raises(Refused) as caught:
        driver.run(sql)
    return caught.value


def test_put_answer_has_the_recorded_shape(driver: Driver, admin: Admin) -> None:
    answer = driver.run(f"PUT 'file:///part-00000.parquet' '{STAGE}' PARALLEL=4 AUTO_COMPRESS=FALSE OVERWRITE=TRUE")
    assert (answer["command"], answer["src_locations"]) == ("UPLOAD", ["/part-00000.parquet"])
    assert (answer["autoCompress"], answer["overwrite"], answer["threshold"]) == (False, True, 209715200)
    info, material = answer["stageInfo"], answer["encryptionMaterial"]
    assert (info["locationType"], info["isClientSideEncrypted"], info["ciphers"]) == ("S3", True, "AES_CBC")
    assert info["endPoint"] == admin.ready["s3_endpoint"]
    assert info["location"].endswith("/snowflake_bridge/0b7c/91aa/1/")
    assert len(base64.b64decode(material["queryStageMasterKey"])) == 16
    assert material["queryId"] == answer["queryId"]
    assert isinstance(material["smkId"], int) and material["smkId"] > 2**53
    assert all(info["creds"][name] for name in ("AWS_KEY_ID", "AWS_SECRET_KEY", "AWS_TOKEN"))


def test_credentials_open_one_directory_only(driver: Driver) -> None:
    info = driver.run(f"PUT 'file:///x' '{STAGE}'")["stageInfo"]
    client, bucket, prefix = store(info)
    client.put_object(Bucket=bucket, Key=prefix + "x", Body=b"")
    for spoiled, key, code in (
        ({}, "elsewhere/x", "AccessDenied"),
        ({"AWS_SECRET_KEY": "guessed"}, prefix + "x", "SignatureDoesNotMatch"),
        ({"AWS_TOKEN": "guessed"}, prefix + "x", "InvalidToken"),
        ({"AWS_KEY_ID": "ASIAGUESSED"}, prefix + "x", "InvalidAccessKeyId"),
    ):
        with pytest.raises(ClientError) as caught:
            store(info, **spoiled)[0].put_object(Bucket=bucket, Key=key, Body=b"")
        assert caught.value.response["Error"]["Code"] == code


def test_expired_stage_credentials(driver: Driver, admin: Admin) -> None:
    info = driver.run(f"PUT 'file:///x' '{STAGE}'")["stageInfo"]
    admin.post("expire-stage-credentials", {})
    client, bucket, prefix = store(info)
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket=bucket, Key=prefix + "x", Body=b"")
    assert caught.value.response["Error"]["Code"] == "ExpiredToken"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_values_arrive_exactly(driver: Driver, admin: Admin, identity: Any) -> None:
    driver.run(
        'CREATE TABLE "V" ("I" NUMBER(38,0), "D" NUMBER(38,10), "TS" TIMESTAMP_TZ(6), "N" TIMESTAMP_NTZ(6), "DT" DATE, "TM" TIME(6), '
        '"J" VARIANT, "ARR" ARRAY, "O" OBJECT, "B" BINARY(67108864), "S" VARCHAR(134217728), "F" FLOAT, "OK" BOOLEAN)'
    )
    stamp = datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)
    early = datetime(1969, 12, 31, 23, 59, 59, 500000, tzinfo=UTC)
    document = {"a": [1, {"ü": None}], "n": 12345678901234567890, "s": "línea\n'\"\\"}
    big, text = 10**38 - 1, "grüße 日本 '\\\" \U0001f600 \t"
    content = parquet(
        {
            "I": pa.array([big, -big, None], pa.decimal128(38, 0)),
            "D": pa.array(
                [Decimal("1234567890123456789012345678.0123456789"), Decimal("-0.0000000001"), None],
                pa.decimal128(38, 10),
            ),
            "TS": pa.array([stamp, early, None], pa.timestamp("us", tz="UTC")),
            "N": pa.array([stamp.replace(tzinfo=None), early.replace(tzinfo=None), None], pa.timestamp("us")),
            "DT": pa.array([date(1, 1, 1), date(9999, 12, 31), None], pa.date32()),
            "TM": pa.array([1, 86_399_999_999, None], pa.time64("us")),
            "J": [json.dumps(document), "null", None],
            "ARR": ["[1,[2,null]]", "[]", None],
            "O": ['{"k":"v"}', "{}", None],
            "B": pa.array([b"\x00\xff", b"", None], pa.binary()),
            "S": [text, "", None],
            "F": [float("nan"), -0.1, None],
            "OK": [True, False, None],
        }
    )
    driver.upload(STAGE, "part-00000.parquet", content)
    pairs = {
        "I": '$1:"I"::NUMBER(38,0)', "D": '$1:"D"::NUMBER(38,10)', "TS": '$1:"TS"::TIMESTAMP_TZ(6)', "N": '$1:"N"::TIMESTAMP_NTZ(6)',
        "DT": '$1:"DT"::DATE', "TM": '$1:"TM"::TIME(6)', "J": 'PARSE_JSON($1:"J")', "ARR": 'PARSE_JSON($1:"ARR")::ARRAY',
        "O": 'PARSE_JSON($1:"O")::OBJECT', "B": 'TO_BINARY($1:"B")', "S": '$1:"S"::VARCHAR(134217728)', "F": '$1:"F"::FLOAT',
        "OK": '$1:"OK"::BOOLEAN',
    }  # fmt: skip
    (loaded,) = driver.table(copy('"ANALYTICS_DB"."REPORTS"."V"', pairs, ["part-00000.parquet"]))
    assert (loaded["file"], loaded["status"]) == ("snowflake_bridge/0b7c/91aa/1/part-00000.parquet", "LOADED")
    assert (loaded["rows_parsed"], loaded["rows_loaded"], loaded["errors_seen"], loaded["first_error"]) == (
        "3",
        "3",
        "0",
        None,
    )
    data = driver.run('SELECT * FROM "V"')
    assert [column["type"] for column in data["rowtype"]] == [
        "fixed", "fixed", "timestamp_tz", "timestamp_ntz", "date", "time", "variant", "array", "object", "binary", "text", "real",
        "boolean",
    ]  # fmt: skip
    rows = {row[0]: row for row in data["rowset"]}
    first, other, empty = rows[str(big)], rows[str(-big)], rows[None]
    assert first[1:6] == [
        "1234567890123456789012345678.0123456789", "1709251199.999999 1440", "1709251199.999999", "-719162", "0.000001",
    ]  # fmt: skip
    assert other[1:6] == ["-0.0000000001", "-0.500000 1440", "-0.500000", "2932896", "86399.999999"]
    assert json.loads(first[6]) == document
    assert [json.loads(value) for value in first[7:9]] == [[1, [2, None]], {"k": "v"}]
    assert first[9:11] == ["00FF", text] and math.isnan(float(first[11])) and first[12] == "1"
    assert other[6:] == ["null", "[]", "{}", "", "", "-0.1", "0"]
    assert empty == [None] * 13
    # JSON null is a value; VARIANTs are objects, not text.
    assert driver.one("SELECT COUNT(*) FROM V WHERE J IS NULL") == "1"
    assert driver.one('SELECT J:a[1]:"ü" FROM V WHERE I > 0') == "null"
    assert driver.one("SELECT J:s::VARCHAR FROM V WHERE I > 0") == document["s"]
    assert admin.sql(identity.account, "SELECT SUM(I) FROM V") == [["0"]]


@pytest.mark.parametrize(
    ("document", "kept"),
    [
        ("9" * 38, "9" * 38),
        ("-" + "9" * 38, "-" + "9" * 38),
        ("1" + "0" * 38, "1e+38"),
        ("123456789012345678901234567890123456789", "1.2345678901234568e+38"),
        ("1." + "2" * 37, "1." + "2" * 37),
        ("0." + "2" * 37, "0." + "2" * 37),
        ("0." + "0" * 37 + "1", "1e-38"),
        # Zeros at the end are digits, too.
        ("0.12345678901234567890" + "0" * 19, "0.12345678901234568"),
        ("[1e3,0.1,-2.5E-40,1.00000000000000000001e0]", "[1000.0,0.1,-2.5e-40,1.0]"),
        ('{"1e3":"' + "9" * 39 + '","a\\"":"\\"1e3"}', '{"1e3":"' + "9" * 39 + '","a\\"":"\\"1e3"}'),
    ],
)
def test_numbers_of_a_variant_have_38_digits_or_are_doubles(driver: Driver, document: str, kept: str) -> None:
    driver.run("CREATE TABLE T (A VARIANT)")
    driver.upload(STAGE, "part-00000.parquet", parquet({"A": [document]}))
    driver.run(copy("T", {"A": 'PARSE_JSON($1:"A")'}, ["part-00000.parquet"]))
    assert driver.rows("SELECT A FROM T") == [[kept]]


def test_a_hundred_thousand_rows_in_seconds(driver: Driver) -> None:
    count = 100_000
    types = {
        "ID": "NUMBER(38,0)", "AMOUNT": "NUMBER(38,10)", "AT": "TIMESTAMP_TZ(6)", "DAY": "DATE", "NAME": "VARCHAR(134217728)",
        "DOC": "VARIANT", "LIST": "ARRAY", "RAW": "BINARY(67108864)", "RATE": "FLOAT", "OK": "BOOLEAN",
    }  # fmt: skip
    driver.run(f"CREATE TABLE BIG ({', '.join(f'{name} {kind}' for name, kind in types.items())})")
    content = parquet(
        {
            "ID": pa.array(range(count), pa.decimal128(38, 0)),
            "AMOUNT": pa.array([Decimal(i) / 8 for i in range(count)], pa.decimal128(38, 10)),
            "AT": pa.array(range(count), pa.timestamp("us", tz="UTC")),
            "DAY": pa.array([i % 20_000 for i in range(count)], pa.int32()).cast(pa.date32()),
            "NAME": [f"Größe {i}" for i in range(count)],
            "DOC": [f'{{"k":{i},"l":[1,{{"z":null}}]}}' for i in range(count)],
            "LIST": ["[1,2,3]"] * count,
            "RAW": pa.array([b"\x01"] * count, pa.binary()),
            "RATE": pa.array([i / 3 for i in range(count)]),
            "OK": pa.array([i % 2 == 0 for i in range(count)]),
        }
    )
    driver.upload(STAGE, "part-00000.parquet", content)
    special = {"DOC": 'PARSE_JSON($1:"DOC")', "LIST": 'PARSE_JSON($1:"LIST")::ARRAY', "RAW": 'TO_BINARY($1:"RAW")'}
    pairs = {name: special.get(name, f'$1:"{name}"::{kind}') for name, kind in types.items()}
    started = time.monotonic()
    (loaded,) = driver.table(copy("BIG", pairs, ["part-00000.parquet"]))
    assert time.monotonic() - started < 10
    assert loaded["rows_loaded"] == str(count)
    total = Decimal(count * (count - 1) // 2)
    sums = driver.rows("SELECT SUM(ID), SUM(AMOUNT), SUM(DOC:k::NUMBER), COUNT(DISTINCT NAME) FROM BIG")
    assert sums == [[str(total), f"{total / 8:.10f}", str(total), str(count)]]


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        ({"body": b"\x00" * 64}, "decrypt|digest"),
        ({"body": b"\x00" * 63}, "whole number"),
        ({"body": b""}, "whole number"),
        ({"body": numbers(1), "metadata": {"x-amz-key": None, "x-amz-iv": None}}, "lacks x-amz-iv, x-amz-key"),
        (
            {"body": numbers(1), "metadata": {"x-amz-key": None, "x-amz-iv": None, "x-amz-matdesc": None}},
            "no encryption metadata",
        ),
        ({"body": numbers(1)}, "decrypt|digest|whole number"),
        ({"metadata": {"sfc-digest": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}}, "digest"),
        ({"metadata": {"sfc-digest": None}}, "sfc-digest"),
        ({"metadata": {"x-amz-iv": "8PHy8/T19vf4+fr7/P3+/w=="}}, "digest"),
        ({"metadata": {"x-amz-key": "rxYsRRccIXJ2M0MQEPDLeU874mq7Sdk+oKzT6/pLTv8="}}, "decrypt|digest"),
        ({"metadata": {"x-amz-matdesc": '{"queryId":"x","smkId":"1","keySize":"128"}'}}, "no key that was issued"),
        ({"metadata": {"x-amz-matdesc": '{"queryId":"x","smkId":1,"keySize":128}'}}, "not strings"),
        ({"metadata": {"x-amz-matdesc": "not json"}}, "not JSON"),
    ],
)
def test_what_cannot_be_decrypted_is_not_loaded(table: Driver, spoil: dict[str, Any], cause: str) -> None:
    table.upload(STAGE, "part-00000.parquet", numbers(3), **spoil)
    error = refused(table, one_column())
    assert error.code == "091003"
    assert any(part in error.message for part in cause.split("|")), error.message
    assert table.one("SELECT COUNT(*) FROM T") == "0"


def test_a_big_id_read_as_a_double_is_found_out(table: Driver) -> None:
    answer = table.run(f"PUT 'file:///part-00000.parquet' '{STAGE}'")
    material = answer["encryptionMaterial"]
    body, metadata = sealed(material | {"smkId": int(float(material["smkId"]))}, numbers(1))
    client, bucket, prefix = store(answer["stageInfo"])
    client.put_object(Bucket=bucket, Key=prefix + "part-00000.parquet", Body=body, Metadata=metadata)
    assert "no key that was issued" in refused(table, one_column()).message


def test_history_by_path_and_etag(table: Driver) -> None:
    table.upload(STAGE, "part-00000.parquet", numbers(3))
    assert table.table(one_column())[0]["status"] == "LOADED"
    assert table.table(one_column())[0]["status"] == "LOAD_SKIPPED"
    everything = one_column().replace("FILES=('part-00000.parquet')", "")
    assert table.rows(everything) == [["Copy executed with 0 files processed."]]
    assert table.one("SELECT COUNT(*) FROM T") == "3"
    table.upload(STAGE, "part-00000.parquet", numbers(3))  # encrypted anew, hence another ETag
    assert table.table(one_column())[0]["status"] == "LOADED"
    assert table.table(one_column(force=True))[0]["status"] == "LOADED"
    assert table.one("SELECT COUNT(*) FROM T") == "9"
    table.run("ALTER TABLE T RENAME TO U")
    table.run("ALTER TABLE U RENAME TO T")
    assert table.table(one_column())[0]["status"] == "LOAD_SKIPPED"
    table.run("TRUNCATE TABLE T")
    assert table.table(one_column())[0]["status"] == "LOADED"
    table.run("CREATE OR REPLACE TABLE T (A NUMBER(38,0))")
    assert table.table(one_column())[0]["status"] == "LOADED"


def test_history_rolls_back_with_its_transaction(table: Driver) -> None:
    table.upload(STAGE, "part-00000.parquet", numbers(3))
    table.run("BEGIN")
    assert table.table(one_column())[0]["status"] == "LOADED"
    assert table.table(one_column())[0]["status"] == "LOAD_SKIPPED"
    table.run("ROLLBACK")
    assert table.table(one_column())[0]["status"] == "LOADED"
    assert table.one("SELECT COUNT(*) FROM T") == "3"


def test_all_files_or_none(table: Driver) -> None:
    table.upload(STAGE, "part-00000.parquet", numbers(3))
    table.upload(STAGE, "part-00001.parquet", parquet({"A": ["1", "abc"]}))
    error = refused(table, one_column(files=("part-00000.parquet", "part-00001.parquet")))
    assert (error.code, error.sqlstate) == ("100038", "22018")
    assert "'abc'" in error.message and "part-00001.parquet" in error.message
    missing = refused(table, one_column(files=("part-00000.parquet", "part-00009.parquet")))
    assert (missing.code, missing.sqlstate) == ("091016", "22000")
    assert table.one("SELECT COUNT(*) FROM T") == "0"
    assert table.table(one_column())[0]["status"] == "LOADED"


def test_a_failed_copy_leaves_its_transaction_usable(table: Driver) -> None:
    table.upload(STAGE, "good.parquet", numbers(3))
    table.upload(STAGE, "bad.parquet", parquet({"A": ["abc"]}))
    table.run("BEGIN")
    table.run(one_column(files=("good.parquet",)))
    refused(table, one_column(files=("bad.parquet",)))
    assert table.one("SELECT COUNT(*) FROM T") == "3"
    table.run("COMMIT")
    assert table.one("SELECT COUNT(*) FROM T") == "3"


@pytest.mark.parametrize(
    ("declared", "column", "value", "code"),
    [
        ("VARCHAR(3)", '$1:"A"::VARCHAR', ["abcd"], "100078"),
        ("NUMBER(38,0) NOT NULL", '$1:"A"::NUMBER(38,0)', pa.array([None], pa.int64()), "100072"),
        ("NUMBER(5,2)", '$1:"A"::NUMBER(5,2)', pa.array([Decimal("1000.00")], pa.decimal128(10, 2)), "100046"),
        ("VARIANT", 'PARSE_JSON($1:"A")', ['{"a":'], "100069"),
        ("VARIANT", 'PARSE_JSON($1:"A")', ["[1e400]"], "100069"),
        ("DATE", '$1:"A"::DATE', ["yesterday"], "100040"),
        ("TIMESTAMP_TZ(6)", '$1:"A"::TIMESTAMP_TZ(6)', ["soon"], "100035"),
        ("BINARY", '$1:"A"', ["00FF"], "002023"),
        ("NUMBER(38,0)", '$2:"A"::NUMBER(38,0)', [1], "000904"),
        ("NUMBER(38,0)", 'SUM($1:"A")', [1], "000002"),
    ],
)
def test_data_that_does_not_fit(driver: Driver, declared: str, column: str, value: Any, code: str) -> None:
    driver.run(f"CREATE TABLE T (A {declared})")
    driver.upload(STAGE, "part-00000.parquet", parquet({"A": value}))
    assert refused(driver, copy("T", {"A": column}, ["part-00000.parquet"])).code == code


def test_parquet_names_are_case_sensitive(table: Driver) -> None:
    table.upload(STAGE, "part-00000.parquet", numbers(1))
    table.run(copy("T", {"A": '$1:"a"::NUMBER(38,0)'}, ["part-00000.parquet"]))
    assert table.rows("SELECT A FROM T") == [[None]]
    assert refused(table, copy("T", {"a": '$1:"A"::NUMBER(38,0)'}, ["part-00000.parquet"])).code == "000904"


def test_limits_and_forms(table: Driver) -> None:
    files = tuple(f"part-{i:05}.parquet" for i in range(1001))
    assert refused(table, one_column(files=files)).code == "001003"
    plain = f"COPY INTO T FROM '{STAGE}' FILES=('x') {PARQUET}"
    table.run("ALTER TABLE T ADD COLUMN B VARCHAR")
    assert refused(table, plain).code == "002019"
    assert refused(table, one_column().replace("$1:", "'x', $1:")).code == "002020"
    assert refused(table, "COPY INTO NO_TABLE " + one_column()[14:]).code == "002003"


def test_match_by_column_name(table: Driver) -> None:
    table.run("ALTER TABLE T ADD COLUMN B VARCHAR")
    table.upload(STAGE, "part-00000.parquet", parquet({"A": [1], "b": ["x"], "C": [2]}))
    statement = f"COPY INTO T FROM '{STAGE}' {PARQUET} MATCH_BY_COLUMN_NAME="
    table.run(statement + "CASE_SENSITIVE")
    table.run(statement + "CASE_INSENSITIVE FORCE=TRUE")
    assert table.rows("SELECT A, B FROM T ORDER BY B") == [["1", "x"], ["1", None]]


def test_stages_list_remove_and_drop(driver: Driver, second: Driver) -> None:
    driver.run("CREATE TEMPORARY STAGE MINE")
    driver.run("CREATE STAGE OPEN_STAGE ENCRYPTION=(TYPE='SNOWFLAKE_SSE') COMMENT='plain'")
    driver.run("CREATE TABLE T (A NUMBER(38,0))")
    for stage in ("@MINE/d/", "@OPEN_STAGE/d/", "@%T/d/", "@~/d/", '@"ANALYTICS_DB"."REPORTS"."MINE"/e/'):
        driver.upload(stage, "part-00000.parquet", numbers(2))
    assert driver.run("PUT 'file:///x' '@OPEN_STAGE/d/'")["encryptionMaterial"] is None
    assert [row[0] for row in driver.rows("LIST @MINE")] == ["mine/d/part-00000.parquet", "mine/e/part-00000.parquet"]
    assert [row[0] for row in driver.rows("LIST '@~/d/'")] == ["d/part-00000.parquet"]
    for stage in ("@MINE/d/", "@OPEN_STAGE/d/", "@%T/d/", "@~/d/"):
        driver.run(copy("T", {"A": '$1:"A"::NUMBER(38,0)'}, ["part-00000.parquet"], stage=stage))
    assert driver.one("SELECT COUNT(*) FROM T") == "8"
    assert refused(second, "LIST @MINE").code == "002003"
    assert driver.rows("REMOVE '@~/d/'") == [["d/part-00000.parquet", "removed"]]
    assert driver.rows("LIST '@~/d/'") == []
    assert driver.rows("REMOVE '@~/d/'") == []
    driver.run("DROP STAGE MINE")
    assert refused(driver, "LIST @MINE").code == "002003"
    assert refused(driver, "CREATE STAGE OPEN_STAGE").code == "002002"


def test_user_stages_are_apart(admin: Admin, driver: Driver, identity: Any) -> None:
    driver.upload("@~/d/", "part-00000.parquet", numbers(1))
    other = type(identity)(identity.account, "OTHER", identity.password)
    with Driver.logged_in(admin, other) as stranger:
        assert stranger.rows("LIST @~") == []
    files = admin.post("stage", {"account": identity.account, "user": "LOADER", "location": "@~/d/"})["files"]
    assert [file["name"] for file in files] == ["d/part-00000.parquet"]
    assert set(files[0]["metadata"]) == {"x-amz-key", "x-amz-iv", "x-amz-matdesc", "sfc-digest"}


def test_multipart_upload(table: Driver) -> None:
    answer = table.run(f"PUT 'file:///part-00000.parquet' '{STAGE}'")
    content = parquet(
        {"A": pa.array(range(10), pa.decimal128(38, 0)), "PAD": ["x" * 1_000_000 + str(i) for i in range(10)]}
    )
    body, metadata = sealed(answer["encryptionMaterial"], content + b"")
    client, bucket, prefix = store(answer["stageInfo"])
    key = prefix + "part-00000.parquet"
    upload = client.create_multipart_upload(Bucket=bucket, Key=key, Metadata=metadata)["UploadId"]
    part = client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=body)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    client.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload=parts)
    assert table.table(one_column())[0]["rows_loaded"] == "10"


def test_many_sessions_load_at_once(admin: Admin, driver: Driver, identity: Any) -> None:
    """Each does what an upload does: own table and a shared one, with DDL, PUT, transaction, COPY."""
    driver.run("CREATE TABLE SHARED (A NUMBER(38,0), U VARCHAR)")
    failures: list[Exception] = []

    def load(worker: int) -> None:
        try:
            with Driver.logged_in(admin, identity) as session:
                for turn in range(4):
                    name = f"{worker}-{turn}"
                    session.run(f"CREATE TABLE IF NOT EXISTS OWN{worker} (A NUMBER(38,0))")
                    session.run(f"ALTER TABLE OWN{worker} ADD COLUMN IF NOT EXISTS U VARCHAR")
                    session.run("ALTER TABLE SHARED ADD COLUMN IF NOT EXISTS V VARCHAR")
                    session.upload(f"@~/{name}/", "p.parquet", numbers(100))
                    pairs = {"A": '$1:"A"::NUMBER(38,0)', "U": f"'{name}'"}
                    for target in (f"OWN{worker}", "SHARED"):
                        session.run("BEGIN")
                        session.run(f"DELETE FROM {target} WHERE U = '{name}'")
                        session.run(copy(target, pairs, ["p.parquet"], stage=f"@~/{name}/"))
                        assert session.one(f"SELECT COUNT(*) FROM {target} WHERE U = '{name}'") == "100"
                        session.run("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever it was, the test must tell
            failures.append(error)

    threads = [threading.Thread(target=load, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    assert driver.rows("SELECT COUNT(*), COUNT(DISTINCT U) FROM SHARED") == [["2400", "24"]]

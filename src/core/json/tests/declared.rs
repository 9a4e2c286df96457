//! What an application may declare, and which values then fit.

use super::*;

#[test]
fn result_columns_are_checked() {
    for (json, expected) in [
        ("{}", "it is not an array"),
        (r#""a""#, "it is not an array"),
        ("[1]", "entry 1 is neither a name nor an object"),
        (r#"["a", {"type": "date"}]"#, "entry 2 has no name"),
        (r#"[{"name": 1}]"#, "entry 1 has no name"),
        (
            r#"[{"name": "a", "type": 1}]"#,
            "the type of entry 1 is not a string",
        ),
        (r#"["a", "b", "a"]"#, "the column \"a\" comes twice"),
        (
            r#"[{"name": "a", "type": "geometry"}]"#,
            "unknown column type \"geometry\"",
        ),
        (
            r#"[{"name": "a", "type": "numeric(1001,2)"}]"#,
            "unknown column type \"numeric(1001,2)\"",
        ),
        (
            r#"[{"name": "a", "type": "numeric(5,-1001)"}]"#,
            "unknown column type",
        ),
        (
            r#"[{"name": "a", "type": "numeric(1,2,3)"}]"#,
            "unknown column type",
        ),
        (
            r#"[{"name": "a", "type": "numeric(2"}]"#,
            "unknown column type",
        ),
    ] {
        let error = parse_result_columns(json).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.message().contains(expected), "{json}: {error}");
    }
    for json in ["null", "[]"] {
        assert_eq!(parse_result_columns(json).unwrap(), None);
    }
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for (json, expected) in [
        (
            Json::from(vec!["a"; crate::names::MAX_COLUMNS + 1]).to_string(),
            "more than 10000 columns",
        ),
        (nested(200_000), "it is nested too deeply"),
        (
            format!("[\"{}\"]", "a".repeat(5 << 20)),
            "it is longer than",
        ),
    ] {
        let error = parse_result_columns(&json).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.message().contains(expected), "{error}");
    }
}

#[test]
fn types_go_by_their_usual_spellings() {
    for (spelling, expected) in [
        ("BOOL", "BOOLEAN"),
        ("smallint", "NUMBER(5,0)"),
        ("Integer", "NUMBER(10,0)"),
        ("int8", "NUMBER(19,0)"),
        ("numeric(10, 2)", "NUMBER(10,2)"),
        ("decimal(5)", "NUMBER(5,0)"),
        ("numeric(3,-2)", "NUMBER(5,0)"),
        ("numeric(2,5)", "NUMBER(5,5)"),
        ("numeric", "NUMBER(38,10)"),
        ("numeric(50,45)", "NUMBER(38,10)"),
        ("numeric(38,-1)", "NUMBER(38,10)"),
        ("numeric(1000,-1000)", "NUMBER(38,10)"),
        ("float(24)", "FLOAT"),
        ("double  precision", "FLOAT"),
        ("character varying(20)", "VARCHAR(134217728)"),
        ("uuid", "VARCHAR(134217728)"),
        ("inet", "VARCHAR(134217728)"),
        ("bit(3)", "VARCHAR(134217728)"),
        ("bit varying(8)", "VARCHAR(134217728)"),
        ("money", "VARCHAR(134217728)"),
        ("int4range", "VARCHAR(134217728)"),
        ("interval day to second(3)", "VARCHAR(134217728)"),
        ("\"char\"", "VARCHAR(134217728)"),
        ("oid", "NUMBER(10,0)"),
        ("bigserial", "NUMBER(19,0)"),
        ("hstore", "VARIANT"),
        ("int2vector", "ARRAY"),
        ("date", "DATE"),
        ("time(3)", "TIME(6)"),
        ("timestamp", "TIMESTAMP_NTZ(6)"),
        ("timestamp(3) without time zone", "TIMESTAMP_NTZ(6)"),
        (" TIMESTAMP WITH TIME ZONE ", "TIMESTAMP_TZ(6)"),
        ("timestamptz(6)", "TIMESTAMP_TZ(6)"),
        ("jsonb", "VARIANT"),
        ("text[]", "ARRAY"),
        ("numeric(10,2)[]", "ARRAY"),
        ("bytea", "BINARY(67108864)"),
    ] {
        let json = Json::from(vec![serde_json::json!({"name": "a", "type": spelling})]).to_string();
        let plan = plan_with(&json, PlanOptions::default(), "[]").unwrap();
        assert_eq!(
            columns(&plan),
            [("A".to_owned(), expected.to_owned())],
            "{spelling}"
        );
    }
}

/// One value of a declared type; the value that comes out, or the end of the message.
#[test]
fn declared_types_take_their_values_and_no_others() {
    let day = "Date(19753)";
    let cases: &[(&str, &str, Result<&str, &str>)] = &[
        ("boolean", "true", Ok("Bool(true)")),
        ("boolean", "\"f\"", Ok("Bool(false)")),
        ("boolean", "1", Err("is not a boolean")),
        (
            "smallint",
            "99999",
            Ok("Decimal { unscaled: 99999, scale: 0 }"),
        ),
        (
            "smallint",
            "100000",
            Err("is not an integer of the declared size"),
        ),
        ("integer", "1e3", Ok("Decimal { unscaled: 1000, scale: 0 }")),
        (
            "integer",
            "\"-7\"",
            Ok("Decimal { unscaled: -7, scale: 0 }"),
        ),
        (
            "integer",
            "1.5",
            Err("is not an integer of the declared size"),
        ),
        (
            "integer",
            "true",
            Err("is not an integer of the declared size"),
        ),
        (
            "numeric(4,2)",
            "12.340",
            Ok("Decimal { unscaled: 1234, scale: 2 }"),
        ),
        (
            "numeric(4,2)",
            "12.345",
            Err("is not a number of the declared digits"),
        ),
        (
            "numeric(4,2)",
            "123",
            Err("is not a number of the declared digits"),
        ),
        (
            "numeric",
            "\"0.000000000001\"",
            Ok("Decimal { unscaled: 1, scale: 12 }"),
        ),
        (
            "numeric",
            "\"NaN\"",
            Err("is not a number of the declared digits"),
        ),
        ("double precision", "0.1", Ok("Float(0.1)")),
        ("double precision", "\"-Infinity\"", Ok("Float(-inf)")),
        ("double precision", "\"NaN\"", Ok("Float(NaN)")),
        (
            "double precision",
            "1e400",
            Err("is not a double precision number"),
        ),
        (
            "double precision",
            "\"inf\"",
            Err("is not a double precision number"),
        ),
        // The nearest single precision number to a tenth, as in a column of the database.
        ("real", "0.1", Ok("Float(0.10000000149011612)")),
        ("float(24)", "\"0.1\"", Ok("Float(0.10000000149011612)")),
        ("float(25)", "0.1", Ok("Float(0.1)")),
        ("float4", "\"NaN\"", Ok("Float(NaN)")),
        ("real", "\"-Infinity\"", Ok("Float(-inf)")),
        ("real", "3.4028235e38", Ok("Float(3.4028234663852886e38)")),
        ("real", "1e39", Err("is not a number of single precision")),
        ("real", "true", Err("is not a number of single precision")),
        ("real", "[1]", Err("is not a number of single precision")),
        ("money", "\"-$1,234.56\"", Ok("Text(\"-$1,234.56\")")),
        ("text", "\"a\\u0000b\"", Ok("Text(\"a\\0b\")")),
        ("text", "1.50", Ok("Text(\"1.50\")")),
        ("text", "true", Ok("Text(\"true\")")),
        ("text", "{\"a\": [1.0]}", Ok("Text(\"{\\\"a\\\":[1.0]}\")")),
        (
            "uuid",
            "\"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11\"",
            Ok("Text(\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\")"),
        ),
        ("uuid", "\"a0eebc99\"", Err("is not a UUID")),
        ("uuid", "[]", Err("is not a UUID")),
        ("bytea", "\"\\\\x00fF\"", Ok("Bytes([0, 255])")),
        (
            "bytea",
            "\"\\\\x0\"",
            Err("is not hexadecimal bytes (\\x…)"),
        ),
        ("bytea", "\"00ff\"", Err("is not hexadecimal bytes (\\x…)")),
        ("date", "\"2024-01-31\"", Ok(day)),
        (
            "date",
            "\"2024-02-30\"",
            Err("is not a date (YYYY-MM-DD, years 1 to 9999)"),
        ),
        (
            "date",
            "20240131",
            Err("is not a date (YYYY-MM-DD, years 1 to 9999)"),
        ),
        (
            "date",
            "\"\"",
            Err("is not a date (YYYY-MM-DD, years 1 to 9999)"),
        ),
        ("time", "\"12:00\"", Ok("Time(43200000000)")),
        (
            "time",
            "\"24:00:00\"",
            Err("is not a time of day (HH:MM:SS, at most microseconds)"),
        ),
        (
            "timestamp",
            "\"1970-01-01T00:00:01\"",
            Ok("Timestamp(1000000)"),
        ),
        (
            "timestamp",
            "\"1970-01-01T00:00:01Z\"",
            Err("at most microseconds)"),
        ),
        (
            "timestamptz",
            "\"1970-01-01 01:00:01+01\"",
            Ok("TimestampTz(1000000)"),
        ),
        (
            "timestamptz",
            "\"1970-01-01T00:00:01\"",
            Err("at most microseconds)"),
        ),
        ("jsonb", "\"a\\\"b\"", Ok("Json(\"\\\"a\\\\\\\"b\\\"\")")),
        ("jsonb", "1.50", Ok("Json(\"1.50\")")),
        ("jsonb", "false", Ok("Json(\"false\")")),
        ("jsonb", "{}", Ok("Json(\"{}\")")),
        ("text[]", "[\"a\", null]", Ok("Json(\"[\\\"a\\\",null]\")")),
        ("text[]", "{}", Err("is not an array")),
        ("text[]", "\"a\"", Err("is not an array")),
        (
            "date",
            "[\"2024-01-31\"]",
            Err("is not a date (YYYY-MM-DD, years 1 to 9999)"),
        ),
    ];
    for (declared, value, expected) in cases {
        let result_columns = serde_json::json!([{"name": "a", "type": declared}]).to_string();
        let result = format!("[{{\"a\": null}}, {{\"a\": {value}}}]");
        let read = read_with(&result_columns, PlanOptions::default(), &result);
        match (read, expected) {
            (Ok(rows), Ok(expected)) => {
                assert_eq!(
                    rows,
                    [vec!["0=Null".to_owned()], vec![format!("0={expected}")]],
                    "{value} as {declared}"
                );
            }
            (Err(error), Err(expected)) => {
                assert_eq!(error.kind(), ErrorKind::Data);
                assert!(
                    error
                        .message()
                        .starts_with("column \"a\", row 2: the value"),
                    "{error}"
                );
                assert!(
                    error.message().ends_with(expected),
                    "{value} as {declared}: {error}"
                );
            }
            (read, _) => panic!("{value} as {declared}: {read:?}"),
        }
    }
}

#[test]
fn every_declared_number_type_is_one_that_snowflake_has() {
    for precision in -2..60 {
        for scale in -60..60 {
            if let Some(SourceType::Number { precision, scale }) =
                SourceType::declared(&format!("numeric({precision},{scale})"))
            {
                assert!(ColumnType::number(precision, scale).is_ok());
            }
        }
    }
}

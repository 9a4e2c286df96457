//! Both walks together, from JSON text to the values that a sink gets.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::batch::{BatchBuilder, RowSink, Value};
use crate::error::{Error, ErrorKind};
use crate::names::ColumnCase;
use crate::types::ColumnType;

/// Keeps what it gets, as `column=value` in the words of `Debug`.
#[derive(Default)]
struct Collected {
    rows: Vec<Vec<String>>,
    row: Vec<String>,
}

impl RowSink for Collected {
    fn append(&mut self, column: usize, value: Value<'_>) -> Result<()> {
        self.row.push(format!("{column}={value:?}"));
        Ok(())
    }

    fn end_row(&mut self) -> Result<()> {
        self.rows.push(std::mem::take(&mut self.row));
        Ok(())
    }
}

fn plan_with(result_columns: &str, options: PlanOptions, result: &str) -> Result<Plan> {
    let declared = parse_result_columns(&serde_json::from_str(result_columns).unwrap())?;
    let mut inference = Inference::new(declared.as_deref(), options);
    parse_text(result, &mut inference)?;
    inference.finish()
}

fn plan(result: &str) -> Result<Plan> {
    plan_with("null", PlanOptions::default(), result)
}

/// Both walks; the values of all rows.
fn read_with(result_columns: &str, options: PlanOptions, result: &str) -> Result<Vec<Vec<String>>> {
    let plan = plan_with(result_columns, options, result)?;
    // What the plan promises, a batch of its columns takes.
    let mut batch = BatchBuilder::new(&plan.result_columns());
    let mut rows = Rows::new(&plan, &mut batch);
    parse_text(result, &mut rows)?;
    rows.finish()?;
    assert_eq!(batch.finish_batch().unwrap().num_rows() as u64, plan.rows);

    let mut collected = Collected::default();
    let mut rows = Rows::new(&plan, &mut collected);
    parse_text(result, &mut rows)?;
    rows.finish()?;
    Ok(collected.rows)
}

fn read(result: &str) -> Vec<Vec<String>> {
    read_with("null", PlanOptions::default(), result).unwrap()
}

/// Name and type of each column.
fn columns(plan: &Plan) -> Vec<(String, String)> {
    plan.columns
        .iter()
        .map(|planned| {
            (
                planned.column.name.clone(),
                planned.column.column_type.snowflake(),
            )
        })
        .collect()
}

/// The type inferred for one column of those values.
fn inferred(values: &[&str], numeric: Numeric) -> Result<Option<String>> {
    let rows: Vec<String> = values
        .iter()
        .map(|value| format!("{{\"a\": {value}}}"))
        .collect();
    let options = PlanOptions {
        numeric,
        ..PlanOptions::default()
    };
    let plan = plan_with("null", options, &format!("[{}]", rows.join(",")))?;
    Ok(plan
        .columns
        .first()
        .map(|planned| planned.column.column_type.snowflake()))
}

const NINES: &str = "99999999999999999999999999999999999999"; // 38

#[test]
fn types_are_the_narrowest_that_hold_every_value_exactly() {
    let minus_nines = format!("-{NINES}");
    let nines_twice = format!("{NINES}.0");
    let small = format!("0.{NINES}");
    let text = "VARCHAR(134217728)";
    let cases: &[(&[&str], &str)] = &[
        (&["1", "-2", "null"], "NUMBER(38,0)"),
        (&[NINES, &minus_nines, &nines_twice], "NUMBER(38,0)"),
        (&["1e3", "1000", "1000.000", "10E+2"], "NUMBER(38,0)"),
        (&["1.5"], "NUMBER(38,10)"),
        (&["1", "0.25"], "NUMBER(38,10)"),
        (&["0.1", "0.123456789012"], "NUMBER(38,12)"),
        (&["15e-12"], "NUMBER(38,12)"),
        (&["12345678901234567890123456789012.5"], "NUMBER(38,6)"),
        (&["1234567890123456789012345678901234567.5"], "NUMBER(38,1)"),
        (
            &["12345678901234567890", "0.123456789012345678"],
            "NUMBER(38,18)",
        ),
        (&[&small], "NUMBER(38,38)"),
        (&["true", "false", "null"], "BOOLEAN"),
        (&["\"a\"", "\"\""], text),
        (&["\"1\"", "\"2\""], text),
        (&["{}"], "VARIANT"),
        (&["[]", "null"], "VARIANT"),
        (&["true", "\"true\""], "VARIANT"),
        (&["1", "\"1\""], "VARIANT"),
        (&["1", "true"], "VARIANT"),
        (&["1.5", "[1]"], "VARIANT"),
    ];
    for (values, expected) in cases {
        assert_eq!(
            inferred(values, Numeric::Number).unwrap().as_deref(),
            Some(*expected),
            "{values:?}"
        );
    }
    assert_eq!(inferred(&["null", "null"], Numeric::Number).unwrap(), None);
    assert_eq!(inferred(&[], Numeric::Number).unwrap(), None);
}

#[test]
fn numbers_of_more_digits_are_refused_or_become_text() {
    let too_long = format!("{NINES}0");
    let cases: &[&[&str]] = &[
        &[&too_long],
        &["1e38"],
        &["1e400"],
        &["1e-39"],
        &["1e999999999999"],
        // Each fits on its own, but no one scale holds both.
        &["12345678901234567890", "0.1234567890123456789"],
        &[NINES, "0.5"],
    ];
    for values in cases {
        let error = inferred(values, Numeric::Number).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{values:?}");
        assert!(error.hint().unwrap().contains("numeric => 'varchar'"));
        assert_eq!(
            inferred(values, Numeric::Varchar).unwrap().as_deref(),
            Some("VARCHAR(134217728)"),
            "{values:?}"
        );
    }
    assert_eq!(
        inferred(&["1", "1e3"], Numeric::Varchar)
            .unwrap()
            .as_deref(),
        Some("NUMBER(38,0)")
    );
    let options = PlanOptions {
        numeric: Numeric::Varchar,
        ..PlanOptions::default()
    };
    let rows = read_with(
        "null",
        options,
        r#"[{"a": 1.50}, {"a": -1E400}, {"a": null}]"#,
    )
    .unwrap();
    assert_eq!(
        rows,
        [
            vec!["0=Text(\"1.50\")"],
            vec!["0=Text(\"-1E400\")"],
            vec!["0=Null"]
        ]
    );
}

#[test]
fn columns_come_in_the_order_of_declaration_and_then_of_appearance() {
    let result = r#"[{"b": 1, "a": 2, "nothing": null}, {"c": true, "a": 3}]"#;
    let all = plan(result).unwrap();
    let names: Vec<_> = columns(&all).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["B", "A", "C"]);
    assert_eq!(all.rows, 2);
    assert_eq!(
        read(result),
        [
            vec![
                "0=Decimal { unscaled: 1, scale: 0 }",
                "1=Decimal { unscaled: 2, scale: 0 }"
            ],
            vec!["2=Bool(true)", "1=Decimal { unscaled: 3, scale: 0 }"],
        ]
    );
    let declared = plan_with(r#"["c", "missing", "a"]"#, PlanOptions::default(), result).unwrap();
    let names: Vec<_> = columns(&declared)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["C", "A", "B"]);
}

#[test]
fn rows_can_be_arrays() {
    let result = r#"[[1, null, "x"], [2, null, null]]"#;
    assert_eq!(
        columns(&plan(result).unwrap()),
        [
            ("COLUMN_1".into(), "NUMBER(38,0)".into()),
            ("COLUMN_3".into(), "VARCHAR(134217728)".into())
        ]
    );
    assert_eq!(
        read(result),
        [
            vec!["0=Decimal { unscaled: 1, scale: 0 }", "1=Text(\"x\")"],
            vec!["0=Decimal { unscaled: 2, scale: 0 }", "1=Null"],
        ]
    );
    let declared = plan_with(
        r#"["id", {"name": "day", "type": "date"}, "note"]"#,
        PlanOptions::default(),
        result,
    )
    .unwrap();
    assert_eq!(
        columns(&declared),
        [
            ("ID".into(), "NUMBER(38,0)".into()),
            ("DAY".into(), "DATE".into()),
            ("NOTE".into(), "VARCHAR(134217728)".into())
        ]
    );
}

#[test]
fn results_without_rows_keep_their_declared_columns() {
    for result in ["[]", "null"] {
        assert_eq!(
            plan(result).unwrap(),
            Plan {
                columns: vec![],
                rows: 0
            }
        );
        let plan = plan_with(
            r#"["a", {"name": "b", "type": "numeric"}]"#,
            PlanOptions::default(),
            result,
        )
        .unwrap();
        assert_eq!(columns(&plan), [("B".into(), "NUMBER(38,10)".into())]);
        assert!(read(result).is_empty());
    }
    // No tokens at all: there was no value to walk over.
    let nothing = Inference::new(None, PlanOptions::default())
        .finish()
        .unwrap();
    assert!(
        Rows::new(&nothing, &mut Collected::default())
            .finish()
            .is_ok()
    );
    assert_eq!(read("[{}, {}]"), [Vec::<String>::new(), Vec::new()]);
}

#[test]
fn malformed_results_are_named() {
    for (result, expected) in [
        (
            "{}",
            "malformed result: expected an array of rows, found an object",
        ),
        (
            "1",
            "malformed result: expected an array of rows, found a number",
        ),
        (
            r#""x""#,
            "malformed result: expected an array of rows, found a string",
        ),
        (
            "true",
            "malformed result: expected an array of rows, found a boolean",
        ),
        (
            "[{}, 1]",
            "malformed result: row 2 is a number, where an object or an array was expected",
        ),
        (
            "[null]",
            "malformed result: row 1 is null, where an object or an array was expected",
        ),
        (
            "[{}, []]",
            "malformed result: row 2 is an array, unlike the rows before it",
        ),
        (
            "[[1], [1, 2]]",
            "malformed result: row 2 has more values than the 1 columns",
        ),
        (
            "[[1], []]",
            "malformed result: row 2 has fewer values than the 1 columns",
        ),
        (
            "[[], [1]]",
            "malformed result: row 2 has more values than the 0 columns",
        ),
        (r#"[{"a": 1, "a": 2}]"#, "row 1 has the key \"a\" twice"),
        ("[{}", "malformed JSON in line 1, column 4"),
        ("[1,]", "malformed"),
    ] {
        let error = plan(result).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{result}");
        assert!(error.message().starts_with(expected), "{result}: {error}");
    }
    let too_few = plan_with(r#"["a", "b"]"#, PlanOptions::default(), "[[1, 2], [1]]").unwrap_err();
    assert_eq!(
        too_few.message(),
        "malformed result: row 2 has fewer values than the 2 columns"
    );
}

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
            r#"[{"name": "a", "type": "numeric(50,2)"}]"#,
            "Snowflake has no NUMBER(50,2)",
        ),
        (
            r#"[{"name": "a", "type": "numeric(1000,-1000)"}]"#,
            "Snowflake has no NUMBER",
        ),
        (
            r#"[{"name": "a", "type": "numeric(2"}]"#,
            "unknown column type",
        ),
    ] {
        let error = parse_result_columns(&serde_json::from_str(json).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.message().contains(expected), "{json}: {error}");
    }
    for json in ["null", "[]"] {
        assert_eq!(
            parse_result_columns(&serde_json::from_str(json).unwrap()).unwrap(),
            None
        );
    }
    let many = Json::from(vec!["a"; crate::names::MAX_COLUMNS + 1]);
    assert!(
        parse_result_columns(&many)
            .unwrap_err()
            .message()
            .contains("more than 10000 columns")
    );
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
        ("double  precision", "FLOAT"),
        ("character varying(20)", "VARCHAR(134217728)"),
        ("uuid", "VARCHAR(134217728)"),
        ("inet", "VARCHAR(134217728)"),
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
fn a_mixed_column_keeps_each_value_as_json() {
    let result = "[{\"a\": 1.50}, {\"a\": \"x\\ny\\u0001\"}, {\"a\": true}, {\"a\": {\"k\": [1, {}, [], null, -0.0]}}, {\"a\": null}]";
    let rows: Vec<String> = read(result).into_iter().flatten().collect();
    assert_eq!(
        rows,
        [
            "0=Json(\"1.50\")",
            r#"0=Json("\"x\\ny\\u0001\"")"#,
            "0=Json(\"true\")",
            r#"0=Json("{\"k\":[1,{},[],null,-0.0]}")"#,
            "0=Null",
        ]
    );
}

#[test]
fn numbers_that_a_variant_would_round_are_refused() {
    let exact = format!("[{{\"a\": [{NINES}, 1e300, 0.1, 5e-324, 0.{NINES}]}}]");
    assert_eq!(read(&exact).len(), 1);
    for number in [
        format!("{NINES}9"),
        format!("0.{NINES}9"),
        "1e400".into(),
        "1.00000000000000000001e0".into(),
    ] {
        for value in [format!("[{number}]"), format!("{{\"k\": {number}}}")] {
            let error = read_with(
                "null",
                PlanOptions::default(),
                &format!("[{{\"a\": {value}}}]"),
            )
            .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data, "{value}");
            assert!(error.message().contains("VARIANT"), "{error}");
        }
    }
}

#[test]
fn names_meet_the_rules_of_the_table() {
    let renamed = plan(r#"[{"user_id": 1, "Execution_Id": 2}]"#).unwrap();
    let names: Vec<_> = columns(&renamed)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["RESULT_USER_ID", "RESULT_EXECUTION_ID"]);
    let result = r#"[{"a": 1, "A": 2}]"#;
    assert!(
        plan(result)
            .unwrap_err()
            .hint()
            .unwrap()
            .contains("preserve")
    );
    let preserve = PlanOptions {
        column_case: ColumnCase::Preserve,
        ..PlanOptions::default()
    };
    assert_eq!(
        plan_with("null", preserve, result).unwrap().columns.len(),
        2
    );
    // A column that is not created does not clash either.
    assert!(plan(r#"[{"a": 1, "A": null}]"#).is_ok());
    assert!(
        plan(r#"[{"": 1}]"#)
            .unwrap_err()
            .message()
            .contains("is empty")
    );
}

#[test]
fn the_number_of_columns_is_bounded_while_they_appear() {
    let row = |n: usize| {
        let keys: Vec<String> = (0..n).map(|i| format!("\"k{i}\":null")).collect();
        format!("[{{{}}}]", keys.join(","))
    };
    assert!(plan(&row(crate::names::MAX_COLUMNS)).is_ok());
    assert!(
        plan(&row(crate::names::MAX_COLUMNS + 1))
            .unwrap_err()
            .message()
            .contains("more than 10000 columns")
    );
    let long_key = format!("[{{\"{}\": null}}]", "k".repeat(2_000));
    assert!(
        plan(&long_key)
            .unwrap_err()
            .message()
            .contains("longer than 255")
    );
}

#[test]
fn depth_costs_neither_stack_nor_time() {
    let levels = 10_000;
    let value = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let result = format!("[{{\"a\": {value}}}]");
    assert_eq!(read(&result), [vec![format!("0=Json({value:?})")]]);
}

#[test]
fn the_walks_themselves_know_no_depth() {
    let levels = 1_000_000;
    let tokens = || {
        let inner = std::iter::repeat_n(Token::BeginArray, levels)
            .chain(std::iter::repeat_n(Token::EndArray, levels));
        [Token::BeginArray, Token::BeginObject, Token::Key("a")]
            .into_iter()
            .chain(inner)
            .chain([Token::EndObject, Token::EndArray])
    };
    let mut inference = Inference::new(None, PlanOptions::default());
    tokens()
        .try_for_each(|token| inference.token(token))
        .unwrap();
    let plan = inference.finish().unwrap();
    let mut collected = Collected::default();
    let mut rows = Rows::new(&plan, &mut collected);
    tokens().try_for_each(|token| rows.token(token)).unwrap();
    rows.finish().unwrap();
    let expected = format!("0=Json(\"{}{}\")", "[".repeat(levels), "]".repeat(levels));
    assert!(collected.rows == [[expected]]);
}

#[test]
fn values_beyond_snowflakes_limit_are_refused_before_they_are_copied() {
    let plan = plan("[[[1]]]").unwrap();
    let mut collected = Collected::default();
    let mut rows = Rows::new(&plan, &mut collected);
    let megabyte = "x".repeat(1 << 20);
    for _ in 0..3 {
        rows.token(Token::BeginArray).unwrap();
    }
    let refused = (0..200)
        .find_map(|_| rows.token(Token::String(&megabyte)).err())
        .unwrap();
    assert_eq!(refused.kind(), ErrorKind::Data);
    assert!(
        refused
            .message()
            .ends_with("is not within the 128 MB that Snowflake holds"),
        "{refused}"
    );
}

#[test]
fn a_result_that_changes_between_the_walks_is_noticed() {
    let planned = plan(r#"[{"a": 1}, {"a": 2, "b": null}]"#).unwrap();
    for changed in [
        r#"[{"a": 1}]"#,
        r#"[{"a": 1}, {"a": 2, "b": 3}]"#,
        r#"[{"a": 1}, {"c": {}}]"#,
    ] {
        let mut collected = Collected::default();
        let mut rows = Rows::new(&planned, &mut collected);
        let error = parse_text(changed, &mut rows)
            .and_then(|()| rows.finish())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{changed}");
    }
}

/// Everything that a user could be shown of an error.
fn shown(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {}", error.hint().unwrap_or_default());
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!("{cause} {cause:?}"));
        source = cause.source();
    }
    text
}

#[test]
fn messages_never_show_a_value() {
    let mark = "7340033SECRET";
    for declared in [
        "boolean",
        "integer",
        "numeric(5,2)",
        "double precision",
        "uuid",
        "bytea",
        "date",
        "time",
        "timestamp",
        "timestamptz",
        "text[]",
    ] {
        let result_columns = serde_json::json!([{"name": "a", "type": declared}]).to_string();
        for value in [format!("\"{mark}\""), format!("{{\"k\": \"{mark}\"}}")] {
            let error = read_with(
                &result_columns,
                PlanOptions::default(),
                &format!("[{{\"a\": {value}}}]"),
            )
            .unwrap_err();
            assert!(
                !shown(&error).contains("SECRET") && !shown(&error).contains("7340033"),
                "{declared}"
            );
        }
    }
    for result in [
        format!("\"{mark}\""),
        format!("[\"{mark}\"]"),
        format!("[{{\"a\": {mark}}}]"),
        format!("[{{\"a\": \"{mark}"),
        format!("[{{\"a\": \"\\x{mark}\"}}]"),
    ] {
        let error = plan(&result).unwrap_err();
        assert!(
            !shown(&error).contains("SECRET"),
            "{result}: {}",
            shown(&error)
        );
    }
    let digits = "7340033".repeat(8);
    assert!(!shown(&inferred(&[&digits], Numeric::Number).unwrap_err()).contains("7340033"));
}

fn any_json() -> impl Strategy<Value = Json> {
    let number = "-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,18})?"
        .prop_map(|text| serde_json::from_str(&text).unwrap());
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        number,
        "\\PC*|[\\x00-\\x1f\"\\\\é😀]{0,8}".prop_map(Json::from)
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::btree_map("\\PC{0,6}", inner, 0..6)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

fn any_token() -> impl Strategy<Value = (u8, String)> {
    (
        0u8..9,
        "[a-c]{0,2}|-?[0-9]{0,40}(\\.[0-9]{0,3})?(e[0-9]{0,3})?",
    )
}

proptest! {
    /// What PARSE_JSON gets is what the application stored, numbers to their last digit.
    #[test]
    fn a_variant_is_the_same_json(value in any_json()) {
        let result = serde_json::json!([[value, [1]], [[], null]]).to_string();
        let plan = plan_with(r#"[{"name": "a", "type": "jsonb"}, "b"]"#, PlanOptions::default(), &result).unwrap();
        struct First(Option<String>);
        impl RowSink for First {
            fn append(&mut self, column: usize, value: Value<'_>) -> Result<()> {
                if let (0, Value::Json(text), None) = (column, value, &self.0) {
                    self.0 = Some(text.to_owned());
                }
                Ok(())
            }
            fn end_row(&mut self) -> Result<()> {
                self.0.get_or_insert_default();
                Ok(())
            }
        }
        let mut first = First(None);
        let mut rows = Rows::new(&plan, &mut first);
        parse_text(&result, &mut rows).unwrap();
        rows.finish().unwrap();
        let text = first.0.unwrap();
        if value.is_null() {
            prop_assert_eq!(text, "");
        } else {
            prop_assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), value);
        }
    }

    /// Integers through both walks, to the limits of NUMBER(38,0).
    #[test]
    fn integers_arrive_as_they_are(values in prop::collection::vec(-(10i128.pow(38) - 1)..10i128.pow(38), 1..20)) {
        let rows: Vec<String> = values.iter().map(|value| format!("[{value}]")).collect();
        let expected: Vec<Vec<String>> =
            values.iter().map(|value| vec![format!("0=Decimal {{ unscaled: {value}, scale: 0 }}")]).collect();
        prop_assert_eq!(read(&format!("[{}]", rows.join(","))), expected);
    }

    /// Whatever tokens come in whatever order: an error perhaps, but an answer.
    #[test]
    fn no_tokens_stop_the_walks(tokens in prop::collection::vec(any_token(), 0..60), prefix in 0usize..3) {
        let mut inference = Inference::new(None, PlanOptions::default());
        let plan = plan(r#"[{"a": 1, "b": [1]}]"#).unwrap();
        let mut collected = Collected::default();
        let mut rows = Rows::new(&plan, &mut collected);
        let frame = [Token::BeginArray, Token::BeginObject];
        let tokens = tokens.iter().map(|(kind, text)| match kind {
            0 => Token::Null,
            1 => Token::Bool(text.is_empty()),
            2 => Token::Number(text),
            3 => Token::String(text),
            4 => Token::Key(text),
            5 => Token::BeginArray,
            6 => Token::EndArray,
            7 => Token::BeginObject,
            _ => Token::EndObject,
        });
        let tokens: Vec<Token<'_>> = frame.into_iter().take(prefix).chain(tokens).collect();
        let _ = tokens.iter().try_for_each(|token| inference.token(*token));
        let _ = inference.finish();
        let _ = tokens.iter().try_for_each(|token| rows.token(*token));
        let _ = rows.finish();
    }

    #[test]
    fn no_text_stops_the_reader_of_types(text in "\\PC{0,30}|(numeric|varchar|timestamp)\\([0-9,-]{0,12}\\).{0,8}") {
        let _ = DeclaredType::parse(&text);
    }
}

#[test]
fn every_declared_number_type_is_one_that_snowflake_has() {
    for precision in -2..60 {
        for scale in -60..60 {
            if let Ok(DeclaredType::Column(ColumnType::Number { precision, scale })) =
                DeclaredType::parse(&format!("numeric({precision},{scale})"))
            {
                assert!(ColumnType::number(precision, scale).is_ok());
            }
        }
    }
}

//! Values that Snowflake cannot hold: refused, NULL and counted, or text and counted. What is no value of its type is refused
//! in any case.

use super::*;
use crate::types::{MAX_BINARY_BYTES, MAX_TEXT_BYTES};

const COLUMNS: &str = r#"[{"name": "d", "type": "date"}, {"name": "t", "type": "time"}, {"name": "s", "type": "timestamp"},
    {"name": "z", "type": "timestamptz"}, {"name": "n", "type": "numeric"}, {"name": "p", "type": "numeric(5,2)"},
    {"name": "v", "type": "jsonb"}, {"name": "a", "type": "int[]"}, "x"]"#;

type Walked = (Vec<(String, String)>, Vec<Vec<String>>, Vec<(String, u64)>);

/// The columns, the values, and how many were affected.
fn walked(on_out_of_range: OutOfRange, result: &str) -> Result<Walked> {
    let options = PlanOptions {
        on_out_of_range,
        ..PlanOptions::default()
    };
    let plan = plan_with(COLUMNS, options, result)?;
    let mut batch = BatchBuilder::new(&plan.result_columns());
    let mut rows = Rows::new(&plan, &mut batch);
    parse_text(result, &mut rows)?;
    rows.finish()?;
    let mut collected = Collected::default();
    let mut rows = Rows::new(&plan, &mut collected);
    parse_text(result, &mut rows)?;
    let affected = rows.finish()?;
    Ok((columns(&plan), collected.rows, affected))
}

/// Columns, and values that Snowflake cannot hold, as the database writes them where it has them.
const ODD: [(&str, &str); 26] = [
    ("d", r#""infinity""#),
    ("d", r#""-infinity""#),
    ("d", r#""0044-03-15 BC""#),
    ("d", r#""0001-02-29 BC""#),
    ("d", r#""10000-02-29""#),
    ("d", r#""294276-12-31""#),
    ("t", r#""24:00:00""#),
    ("s", r#""infinity""#),
    ("s", r#""0044-03-15T12:00:00.5 BC""#),
    ("s", r#""10000-01-01T00:00:00""#),
    ("z", r#""-infinity""#),
    ("z", r#""4713-01-01T00:00:00+00:00 BC""#),
    ("z", r#""10000-01-01T00:00:00.000001+00:00""#),
    ("z", r#""0001-01-01T00:00:00+01:00""#),
    ("n", r#""NaN""#),
    ("n", r#""-Infinity""#),
    ("n", "1e39"),
    ("n", "1e-38"),
    ("n", "123456789012345678901234567890123456789"),
    ("p", r#""NaN""#),
    ("v", "123456789012345678901234567890123456789"),
    (
        "v",
        r#"{"deep": [[123456789012345678901234567890123456789, {"more": [1]}]], "b": 2}"#,
    ),
    ("v", r#"[{"a": 1, "a": 2, "b": {}}]"#),
    ("a", "[1, [123456789012345678901234567890123456789], 2]"),
    ("x", "1e39"),
    ("x", "1e-38"),
];

fn result(column: &str, value: &str) -> String {
    format!(r#"[{{"x": 1}}, {{"{column}": {value}, "u": "after"}}, {{"x": 2}}]"#)
}

#[test]
fn by_default_they_are_refused() {
    for (column, value) in ODD {
        let error = walked(OutOfRange::Error, &result(column, value)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{column} {value}");
        if column != "x" {
            let hint = error.hint().unwrap_or_default();
            let is_numeric = column == "n" && !value.starts_with('"');
            let expected = if is_numeric {
                "varchar"
            } else {
                "on_out_of_range"
            };
            assert!(hint.contains(expected), "{column} {value}: {error} {hint}");
        }
    }
}

#[test]
fn or_null_and_counted() {
    for (column, value) in ODD {
        let (columns, rows, affected) = walked(OutOfRange::Null, &result(column, value))
            .unwrap_or_else(|error| {
                panic!("{column} {value}: {error}");
            });
        assert_eq!(affected, [(column.to_uppercase(), 1)], "{value}");
        assert_eq!(rows.len(), 3);
        let at = columns.len() - 1;
        assert_eq!(rows[1], [format!("{at}=Text(\"after\")")], "{value}");
        assert_eq!(columns[4], ("N".to_owned(), "NUMBER(38,10)".to_owned()));
    }
}

#[test]
fn or_text_where_their_type_has_such_values() {
    let plain = r#"[{"d": "2024-02-29", "t": "12:00", "s": "2024-02-29T00:00:00", "z": "2024-02-29T00:00:00Z", "n": 1.50, "p": 1.5, "x": 3}]"#;
    let (columns, rows, affected) = walked(OutOfRange::Text, plain).unwrap();
    for (at, (name, column_type)) in columns.iter().enumerate() {
        let is_text = column_type.starts_with("VARCHAR");
        assert_eq!(is_text, at < 5, "{name}");
    }
    assert_eq!(rows[0][0], r#"0=Text("2024-02-29")"#);
    assert_eq!(rows[0][4], r#"4=Text("1.50")"#);
    assert!(affected.is_empty());
    for (column, value) in ODD {
        let walked = walked(OutOfRange::Text, &result(column, value));
        if !"dtszn".contains(column) {
            assert_eq!(walked.unwrap_err().kind(), ErrorKind::Data, "{column}");
            continue;
        }
        let (columns, rows, affected) = walked.unwrap();
        assert_eq!(affected, [(column.to_uppercase(), 1)], "{value}");
        let at = columns
            .iter()
            .position(|(name, _)| *name == column.to_uppercase());
        let text = value.trim_matches('"');
        assert_eq!(rows[1][0], format!("{}=Text(\"{text}\")", at.unwrap()));
    }
}

#[test]
fn what_is_no_value_of_the_type_is_refused_in_any_case() {
    for (column, value) in [
        ("d", r#""yesterday""#),
        ("d", r#""2024-02-30""#),
        ("d", r#""0000-01-01""#),
        ("d", r#""2024-02-29 BC AD""#),
        ("d", r#""10001-02-29""#),
        ("d", "[]"),
        ("t", r#""24:00:01""#),
        ("t", r#""infinity""#),
        ("s", r#""10000-01-01T00:00:00Z""#),
        ("s", r#""2024-01-01T00:00:00.1234567""#),
        ("z", r#""10000-01-01T00:00:00""#),
        ("n", r#""many""#),
        ("n", "true"),
        ("p", "1.234"),
        ("a", "{\"a\": 123456789012345678901234567890123456789}"),
        ("d", "[123456789012345678901234567890123456789]"),
    ] {
        for on_out_of_range in [OutOfRange::Error, OutOfRange::Null, OutOfRange::Text] {
            let error = walked(on_out_of_range, &result(column, value));
            let error = error
                .err()
                .unwrap_or_else(|| panic!("{column} {value} was taken"));
            assert_eq!(error.kind(), ErrorKind::Data, "{column} {value}");
            assert!(
                error.message().contains("row 2"),
                "{column} {value}: {error}"
            );
        }
    }
}

#[test]
fn numbers_as_text_fill_a_number_unless_one_is_none() {
    for (on_out_of_range, numeric) in [
        (OutOfRange::Text, Numeric::Number),
        (OutOfRange::Error, Numeric::Varchar),
        (OutOfRange::Null, Numeric::Varchar),
        (OutOfRange::Text, Numeric::Varchar),
    ] {
        let narrowest = |values: &str| {
            let options = PlanOptions {
                on_out_of_range,
                numeric,
                ..PlanOptions::default()
            };
            let result = format!(r#"[{{"n": 1.25}}, {{"n": {values}}}]"#);
            let plan = plan_with(COLUMNS, options, &result).unwrap();
            plan.columns[4].column.narrowest
        };
        assert_eq!(narrowest("10"), ColumnType::narrowest_number(2, 2));
        assert_eq!(narrowest(r#""NaN""#), None);
        assert_eq!(narrowest("1e39"), None);
    }
}

/// With `numeric => 'varchar'` none of them is out of range: a column of text holds them all.
#[test]
fn numbers_that_are_to_be_text_are_taken_as_they_are() {
    for on_out_of_range in [OutOfRange::Error, OutOfRange::Null, OutOfRange::Text] {
        let options = PlanOptions {
            on_out_of_range,
            numeric: Numeric::Varchar,
            ..PlanOptions::default()
        };
        for value in ["1.50", "1e39", r#""NaN""#, r#""-Infinity""#, r#""1e-38""#] {
            let result = format!(r#"[{{"n": {value}}}]"#);
            let plan = plan_with(COLUMNS, options, &result).unwrap();
            let mut collected = Collected::default();
            let mut rows = Rows::new(&plan, &mut collected);
            parse_text(&result, &mut rows).unwrap();
            assert!(rows.finish().unwrap().is_empty());
            let text = value.trim_matches('"');
            assert_eq!(collected.rows, [[format!("4=Text(\"{text}\")")]]);
        }
        for value in [r#""many""#, "true", r#""inf""#] {
            let result = format!(r#"[{{"n": {value}}}]"#);
            let plan = plan_with(COLUMNS, options, &result).unwrap();
            let mut collected = Collected::default();
            let mut rows = Rows::new(&plan, &mut collected);
            let error = parse_text(&result, &mut rows).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
        }
    }
}

/// Lengths alone, of values too large to be compared.
#[derive(Default)]
struct Lengths(Vec<usize>);

impl RowSink for Lengths {
    fn append(&mut self, _: usize, value: Value<'_>) -> Result<()> {
        self.0.push(match value {
            Value::Text(text) | Value::Json(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            _ => 0,
        });
        Ok(())
    }

    fn end_row(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The tokens of a result of one row with that value as `a`.
fn walk(sink: &mut impl TokenSink, value: &[Token<'_>]) -> Result<()> {
    let before = [Token::BeginArray, Token::BeginObject, Token::Key("a")];
    let after = [Token::EndObject, Token::EndArray];
    let mut tokens = before.iter().chain(value).chain(&after);
    tokens.try_for_each(|token| sink.token(*token))
}

#[test]
fn a_value_longer_than_its_column_is_null_and_counted_too() {
    let text = "a".repeat(MAX_TEXT_BYTES + 1);
    let bytes = format!("\\x{}", "0f".repeat(MAX_BINARY_BYTES + 1));
    let longest = text.get(1..).unwrap();
    let in_array = [Token::BeginArray, Token::String(longest), Token::EndArray];
    for (declared, value, expected) in [
        (
            "text",
            [Token::String(longest)].as_slice(),
            Some(MAX_TEXT_BYTES),
        ),
        ("text", &[Token::String(&text)], None),
        ("bytea", &[Token::String(&bytes)], None),
        // Quotes and brackets belong to the JSON text.
        ("jsonb", &[Token::String(longest)], None),
        ("text[]", &in_array, None),
    ] {
        let columns = format!(r#"[{{"name": "a", "type": "{declared}"}}]"#);
        let declared = parse_result_columns(&columns).unwrap();
        let options = PlanOptions {
            on_out_of_range: OutOfRange::Null,
            ..PlanOptions::default()
        };
        let mut inference = Inference::new(declared.as_deref(), options);
        walk(&mut inference, value).unwrap();
        let plan = inference.finish().unwrap();
        let mut lengths = Lengths::default();
        let mut rows = Rows::new(&plan, &mut lengths);
        walk(&mut rows, value).unwrap();
        let affected = rows.finish().unwrap();
        assert_eq!(lengths.0, Vec::from_iter(expected), "{columns}");
        let is_affected = expected.is_none().then(|| ("A".to_owned(), 1));
        assert_eq!(affected, Vec::from_iter(is_affected), "{columns}");
    }
}

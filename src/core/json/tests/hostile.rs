//! Results that nobody meant: malformed, enormous, changing; and what is promised for any at all.

use proptest::prelude::*;

use super::*;

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
        let _ = SourceType::declared(&text);
    }
}

//! Which columns a result has, and of which types.

use proptest::prelude::*;

use super::*;

#[test]
fn types_are_the_narrowest_that_hold_every_value_exactly() {
    let minus_nines = format!("-{NINES}");
    let nines_twice = format!("{NINES}.0");
    let small = format!("0.{}", &NINES[1..]);
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
        (&[&small], "NUMBER(38,37)"),
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
        &["1e-38"],
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
    // Also integers: the table that they make has to take what comes later.
    assert_eq!(
        inferred(&["1", "1e3"], Numeric::Varchar)
            .unwrap()
            .as_deref(),
        Some("VARCHAR(134217728)")
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
fn the_digits_of_numbers_that_nobody_declared_are_counted() {
    let narrowest = |columns: &str, values: &str| {
        let result = format!(r#"[{{"a": {values}}}]"#);
        let plan = plan_with(columns, PlanOptions::default(), &result).unwrap();
        plan.columns[0].column.narrowest
    };
    let numeric = r#"[{"name": "a", "type": "numeric"}]"#;
    for (columns, value, expected) in [
        ("null", "19.99", ColumnType::narrowest_number(2, 2)),
        ("null", "5", ColumnType::narrowest_number(1, 0)),
        (numeric, "\"0.125\"", ColumnType::narrowest_number(0, 3)),
        ("null", "\"19.99\"", None),
        ("null", "[1]", None),
        (r#"[{"name": "a", "type": "numeric(5,2)"}]"#, "19.99", None),
        (r#"[{"name": "a", "type": "text"}]"#, "19.99", None),
    ] {
        assert_eq!(narrowest(columns, value), expected, "{columns} {value}");
    }
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
                rows: 0,
                on_out_of_range: OutOfRange::Error,
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
    let exact = format!(
        "[{{\"a\": [{NINES}, 1e300, 0.1, 5e-324, 0.{}]}}]",
        &NINES[1..]
    );
    assert_eq!(read(&exact).len(), 1);
    for number in [
        format!("{NINES}9"),
        format!("0.{NINES}"),
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

/// A value as JSON, and what it is: nothing, a boolean, a number of so many digits before and after the point, a string,
/// something nested.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Null,
    Boolean,
    Number { before: usize, after: usize },
    Text,
    Nested,
}

/// Digits are counted where the number is made, from its decimal places: nothing is read back from its text.
fn any_value() -> impl Strategy<Value = (String, Kind)> {
    let number = (
        any::<bool>(),
        "(0|[1-9][0-9]{0,24})",
        "[0-9]{0,16}",
        -4i32..4,
    )
        .prop_map(|(negative, before, after, shift)| {
            let digits = format!("{before}{after}");
            // The place of each digit that counts: 1 for units, 0 for tenths.
            let places: Vec<i32> = digits
                .bytes()
                .enumerate()
                .filter(|(_, digit)| *digit != b'0')
                .map(|(index, _)| before.len() as i32 - index as i32 + shift)
                .collect();
            let most = places.iter().copied().max().unwrap_or(0).max(0);
            let least = places.iter().copied().min().unwrap_or(1).min(1);
            let point = if after.is_empty() { "" } else { "." };
            let sign = if negative { "-" } else { "" };
            let kind = Kind::Number {
                before: most as usize,
                after: (1 - least) as usize,
            };
            (format!("{sign}{before}{point}{after}e{shift}"), kind)
        });
    prop_oneof![
        1 => Just(("null".to_owned(), Kind::Null)),
        1 => any::<bool>().prop_map(|value| (value.to_string(), Kind::Boolean)),
        8 => number,
        1 => "[a-z0-9.-]{0,6}".prop_map(|text| (format!("{text:?}"), Kind::Text)),
        1 => Just(("[{}]".to_owned(), Kind::Nested)),
    ]
}

fn expected_type(kinds: &[Kind]) -> std::result::Result<Option<String>, ()> {
    let kinds: Vec<&Kind> = kinds.iter().filter(|kind| **kind != Kind::Null).collect();
    let digits: Vec<(usize, usize)> = kinds
        .iter()
        .filter_map(|kind| match kind {
            Kind::Number { before, after } => Some((*before, *after)),
            _ => None,
        })
        .collect();
    if kinds.is_empty() {
        return Ok(None);
    }
    if digits.len() == kinds.len() {
        let before = digits.iter().map(|(before, _)| *before).max().unwrap_or(0);
        let after = digits.iter().map(|(_, after)| *after).max().unwrap_or(0);
        if before + after > 38 {
            return Err(());
        }
        let scale = if after == 0 {
            0
        } else {
            after.max(10.min(38 - before))
        };
        return Ok(Some(format!("NUMBER(38,{scale})")));
    }
    let all = |kind: &Kind| kinds.iter().all(|other| *other == kind);
    Ok(Some(
        if all(&Kind::Boolean) {
            "BOOLEAN"
        } else if all(&Kind::Text) {
            "VARCHAR(134217728)"
        } else {
            "VARIANT"
        }
        .to_owned(),
    ))
}

proptest! {
    /// The type of a column is what every one of its values asks for, in whatever order they come.
    #[test]
    fn a_type_is_what_all_values_ask_for(values in prop::collection::vec(any_value(), 0..8), numbers_only: bool) {
        let (texts, kinds): (Vec<String>, Vec<Kind>) = values
            .into_iter()
            .filter(|(_, kind)| !numbers_only || matches!(kind, Kind::Number { .. }))
            .unzip();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let expected = expected_type(&kinds);
        prop_assert_eq!(inferred(&texts, Numeric::Number).map_err(|_| ()), expected.clone(), "{:?}", texts);
        let backwards: Vec<&str> = texts.iter().rev().copied().collect();
        prop_assert_eq!(inferred(&backwards, Numeric::Number).map_err(|_| ()), expected);
    }
}

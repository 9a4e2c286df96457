//! Which columns a result has, and of which types.

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

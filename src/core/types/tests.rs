use super::*;

/// Every type once, with what it is called everywhere.
#[test]
fn every_type_has_its_names() {
    let cases = [
        (ColumnType::Boolean, "BOOLEAN", "$1:\"A\"::BOOLEAN"),
        (
            ColumnType::Number {
                precision: 38,
                scale: 2,
            },
            "NUMBER(38,2)",
            "$1:\"A\"::NUMBER(38,2)",
        ),
        (ColumnType::Float, "FLOAT", "$1:\"A\"::FLOAT"),
        (
            ColumnType::Text,
            "VARCHAR(134217728)",
            "$1:\"A\"::VARCHAR(134217728)",
        ),
        (
            ColumnType::Binary,
            "BINARY(67108864)",
            "$1:\"A\"::BINARY(67108864)",
        ),
        (ColumnType::Date, "DATE", "$1:\"A\"::DATE"),
        (ColumnType::Time, "TIME(6)", "$1:\"A\"::TIME(6)"),
        (
            ColumnType::TimestampNtz,
            "TIMESTAMP_NTZ(6)",
            "$1:\"A\"::TIMESTAMP_NTZ(6)",
        ),
        (
            ColumnType::TimestampTz,
            "TIMESTAMP_TZ(6)",
            "$1:\"A\"::TIMESTAMP_TZ(6)",
        ),
        (ColumnType::Variant, "VARIANT", "PARSE_JSON($1:\"A\")"),
        (ColumnType::Array, "ARRAY", "PARSE_JSON($1:\"A\")::ARRAY"),
    ];
    for (column_type, sql, copy) in cases {
        assert_eq!(column_type.snowflake(), sql);
        assert_eq!(column_type.copy_expression("A"), copy);
    }
}

/// The table between two comments of docs/types.md is this one; `UPDATE_DOCS=1` writes it there.
#[test]
fn the_documentation_has_the_same_table() {
    const BEGIN: &str = "<!-- generated: types in files and in Snowflake -->\n";
    const END: &str = "<!-- end of generated -->";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/types.md");
    let documentation = std::fs::read_to_string(path).unwrap();
    let (before, rest) = documentation.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    let generated = table();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{generated}{END}{after}")).unwrap();
    } else {
        assert_eq!(written, generated, "run this test with UPDATE_DOCS=1");
    }
}

fn table() -> String {
    let mut table = String::from(
        "\n| In Snowflake | In the file, as Arrow calls it | How COPY reads it |\n|---|---|---|\n",
    );
    for column_type in [
        ColumnType::Boolean,
        ColumnType::Number {
            precision: 38,
            scale: 10,
        },
        ColumnType::Float,
        ColumnType::Text,
        ColumnType::Binary,
        ColumnType::Date,
        ColumnType::Time,
        ColumnType::TimestampNtz,
        ColumnType::TimestampTz,
        ColumnType::Variant,
        ColumnType::Array,
    ] {
        table.push_str(&format!(
            "| `{}` | `{}` | `{}` |\n",
            column_type.snowflake(),
            column_type.arrow(),
            column_type.copy_expression("C")
        ));
    }
    table.push('\n');
    table
}

#[test]
fn a_quote_in_a_field_name_is_doubled() {
    assert_eq!(
        ColumnType::Date.copy_expression("a\"b"),
        "$1:\"a\"\"b\"::DATE"
    );
}

#[test]
fn numbers_outside_of_snowflakes_range_are_refused() {
    for (precision, scale) in [(0, 0), (39, 0), (5, 6), (38, 38)] {
        assert_eq!(
            ColumnType::number(precision, scale).unwrap_err().kind(),
            ErrorKind::Data
        );
    }
    assert!(ColumnType::number(38, 37).is_ok());
    assert!(ColumnType::number(37, 37).is_ok());
}

#[test]
fn the_number_that_the_digits_need() {
    for (integer_digits, scale, usual, expected) in [
        (0, 0, 10, Some((38, 10))),
        (5, 2, 10, Some((38, 10))),
        (5, 12, 10, Some((38, 12))),
        (30, 2, 10, Some((38, 8))),
        (38, 0, 10, Some((38, 0))),
        (38, 0, 0, Some((38, 0))),
        (0, 37, 10, Some((38, 37))),
        (1, 37, 10, Some((38, 37))),
        (0, 38, 10, None),
        (38, 1, 10, None),
        (39, 0, 0, None),
        (i64::MAX, 0, 0, None),
        (0, i64::MAX, 0, None),
    ] {
        assert_eq!(
            ColumnType::number_for(integer_digits, scale, usual),
            expected.map(|(precision, scale)| ColumnType::Number { precision, scale }),
            "{integer_digits} {scale} {usual}"
        );
    }
}

#[test]
fn the_narrowest_number_of_the_digits() {
    for (integer_digits, scale, expected) in [
        (0, 0, Some((1, 0))),
        (2, 2, Some((4, 2))),
        (0, 3, Some((3, 3))),
        (38, 0, Some((38, 0))),
        (37, 2, None),
        (0, 38, None),
        (i64::MAX, i64::MAX, None),
    ] {
        assert_eq!(
            ColumnType::narrowest_number(integer_digits, scale),
            expected.map(|(precision, scale)| ColumnType::Number { precision, scale }),
            "{integer_digits} {scale}"
        );
    }
}

#[test]
fn a_column_of_two_results_needs_what_either_needs() {
    let of = |narrowest| Column {
        narrowest,
        ..Column::new("A", ColumnType::Text)
    };
    for (one, other, expected) in [
        (Some((4, 2)), Some((4, 3)), Some((5, 3))),
        (Some((3, 0)), Some((2, 2)), Some((5, 2))),
        (Some((38, 0)), Some((38, 0)), Some((38, 0))),
        // No NUMBER has them all.
        (Some((38, 0)), Some((1, 1)), None),
        // What was declared counts, where nobody has counted.
        (Some((4, 2)), None, None),
        (None, None, None),
    ] {
        let number = |digits: Option<(u8, u8)>| {
            digits.map(|(precision, scale)| ColumnType::Number { precision, scale })
        };
        for (one, other) in [(one, other), (other, one)] {
            let mut column = of(number(one));
            column.add(&of(number(other)));
            assert_eq!(column.narrowest, number(expected), "{one:?} {other:?}");
        }
    }
}

#[test]
fn a_column_survives_json_in_both_ways_of_reading_it() {
    let declared = Column::new(
        "A",
        ColumnType::Number {
            precision: 38,
            scale: 10,
        },
    );
    let counted = Column {
        narrowest: ColumnType::narrowest_number(2, 1),
        ..declared.clone()
    };
    let with_nulls = Column {
        has_nulls: true,
        ..Column::new("A", ColumnType::Date)
    };
    for (column, written) in [
        (with_nulls, r#"{"name":"A","type":"date","has_nulls":true}"#),
        (
            declared,
            r#"{"name":"A","type":{"number":{"precision":38,"scale":10}}}"#,
        ),
        (
            counted,
            r#"{"name":"A","type":{"number":{"precision":38,"scale":10}},"narrowest":{"number":{"precision":3,"scale":1}}}"#,
        ),
    ] {
        let text = serde_json::to_string(&column).unwrap();
        assert_eq!(text, written);
        assert_eq!(serde_json::from_str::<Column>(&text).unwrap(), column);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::from_value::<Column>(value).unwrap(), column);
    }
}

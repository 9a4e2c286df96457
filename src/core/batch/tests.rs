use arrow::array::{Array, AsArray};
use arrow::datatypes::Decimal128Type;

use super::*;
use crate::calendar::MICROS_PER_DAY;
use crate::calendar::{FIRST_DAY, LAST_DAY};
use crate::types::{ColumnType, MAX_BINARY_BYTES, MAX_TEXT_BYTES};

fn number(precision: u8, scale: u8) -> ColumnType {
    ColumnType::Number { precision, scale }
}

fn take(column_type: ColumnType, value: Value<'_>) -> Result<()> {
    let mut batch = BatchBuilder::new(&[Column::new("A", column_type)]);
    batch.append(0, value)?;
    batch.end_row()?;
    assert_eq!(batch.finish_batch()?.num_rows(), 1);
    Ok(())
}

#[test]
fn columns_take_what_they_hold_and_refuse_the_rest() {
    let micros = |day: i32| i64::from(day) * MICROS_PER_DAY;
    let decimal = |unscaled, scale| Value::Decimal { unscaled, scale };
    let cases: &[(ColumnType, Value<'_>, Option<ErrorKind>)] = &[
        (number(5, 0), Value::Int(99_999), None),
        (number(5, 0), Value::Int(-100_000), Some(ErrorKind::Data)),
        (number(5, 2), Value::Int(999), None),
        (number(5, 2), Value::Int(1_000), Some(ErrorKind::Data)),
        (number(19, 0), Value::Int(i64::MIN), None),
        (number(38, 0), decimal(i128::MAX, 0), Some(ErrorKind::Data)),
        (number(38, 0), decimal(i128::MIN, 0), Some(ErrorKind::Data)),
        (number(38, 0), decimal(10i128.pow(38) - 1, 0), None),
        (number(38, 38), decimal(1, 0), Some(ErrorKind::Data)),
        (number(38, 1), decimal(1_250, 2), None),
        (number(38, 1), decimal(1_255, 2), Some(ErrorKind::Data)),
        (number(38, 0), decimal(1, 255), Some(ErrorKind::Data)),
        (ColumnType::Float, Value::Float(f64::NAN), None),
        (ColumnType::Float, Value::Int(1), Some(ErrorKind::Internal)),
        (ColumnType::Text, Value::Text("a\0é"), None),
        (
            ColumnType::Text,
            Value::Json("1"),
            Some(ErrorKind::Internal),
        ),
        (ColumnType::Variant, Value::Json("1"), None),
        (ColumnType::Array, Value::Json("[]"), None),
        (
            ColumnType::Variant,
            Value::Text("1"),
            Some(ErrorKind::Internal),
        ),
        (ColumnType::Binary, Value::Bytes(&[0, 255]), None),
        (ColumnType::Date, Value::Date(FIRST_DAY), None),
        (ColumnType::Date, Value::Date(LAST_DAY), None),
        (
            ColumnType::Date,
            Value::Date(FIRST_DAY - 1),
            Some(ErrorKind::Data),
        ),
        (
            ColumnType::Date,
            Value::Date(i32::MAX),
            Some(ErrorKind::Data),
        ),
        (ColumnType::Time, Value::Time(MICROS_PER_DAY - 1), None),
        (
            ColumnType::Time,
            Value::Time(MICROS_PER_DAY),
            Some(ErrorKind::Data),
        ),
        (ColumnType::Time, Value::Time(-1), Some(ErrorKind::Data)),
        (
            ColumnType::TimestampNtz,
            Value::Timestamp(micros(FIRST_DAY)),
            None,
        ),
        (
            ColumnType::TimestampNtz,
            Value::Timestamp(i64::MAX),
            Some(ErrorKind::Data),
        ),
        (
            ColumnType::TimestampTz,
            Value::TimestampTz(micros(LAST_DAY + 1) - 1),
            None,
        ),
        (
            ColumnType::TimestampTz,
            Value::TimestampTz(micros(LAST_DAY + 1)),
            Some(ErrorKind::Data),
        ),
        (
            ColumnType::TimestampTz,
            Value::Timestamp(0),
            Some(ErrorKind::Internal),
        ),
        (ColumnType::Boolean, Value::Bool(true), None),
        (ColumnType::Boolean, Value::Null, None),
    ];
    for (column_type, value, expected) in cases {
        let result = take(*column_type, *value);
        assert_eq!(
            result.as_ref().err().map(Error::kind),
            *expected,
            "{value:?} in {column_type:?}"
        );
        if let Err(error) = result {
            assert!(
                error.message().starts_with("column \"A\", row 1: "),
                "{error}"
            );
        }
    }
}

#[test]
fn values_longer_than_snowflakes_limits_are_refused() {
    let bytes = vec![b'x'; MAX_TEXT_BYTES + 1];
    let text = std::str::from_utf8(&bytes).unwrap();
    for (column_type, value) in [
        (ColumnType::Text, Value::Text(text)),
        (ColumnType::Variant, Value::Json(text)),
        (
            ColumnType::Binary,
            Value::Bytes(&bytes[..=MAX_BINARY_BYTES]),
        ),
    ] {
        let error = take(column_type, value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(
            error.message().contains("Snowflake holds at most"),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("on_out_of_range"));
    }
    assert!(take(ColumnType::Text, Value::Text(&text[..MAX_TEXT_BYTES])).is_ok());
}

#[test]
fn rows_are_filled_with_nulls_and_counted_over_batches() {
    let columns = [
        Column::new("A", number(38, 2)),
        Column::new("B", ColumnType::Text),
    ];
    let mut batch = BatchBuilder::new(&columns);
    batch.append(1, Value::Text("x")).unwrap();
    batch.end_row().unwrap();
    batch.append(0, Value::Int(7)).unwrap();
    batch.end_row().unwrap();
    assert_eq!(batch.rows(), 2);
    assert!(batch.approximate_bytes() > 0);
    let record = batch.finish_batch().unwrap();
    assert_eq!(
        record
            .column(0)
            .as_primitive::<Decimal128Type>()
            .iter()
            .collect::<Vec<_>>(),
        [None, Some(700)]
    );
    assert_eq!(
        record
            .column(1)
            .as_string::<i32>()
            .iter()
            .collect::<Vec<_>>(),
        [Some("x"), None]
    );
    assert_eq!((batch.rows(), batch.approximate_bytes()), (0, 0));

    let error = batch.append(0, Value::Bool(true)).unwrap_err();
    assert!(
        error.message().starts_with("column \"A\", row 3: "),
        "{error}"
    );
    // The refused value left nothing behind.
    batch.append(0, Value::Int(8)).unwrap();
    assert!(
        batch
            .append(0, Value::Int(9))
            .unwrap_err()
            .message()
            .contains("has a value already")
    );
    assert!(
        batch
            .append(2, Value::Null)
            .unwrap_err()
            .message()
            .contains("no such column")
    );
    batch.end_row().unwrap();
    assert_eq!(batch.finish_batch().unwrap().column(0).len(), 1);
}

#[test]
fn rows_without_columns_are_rows_too() {
    let mut batch = BatchBuilder::new(&[]);
    batch.end_row().unwrap();
    batch.end_row().unwrap();
    assert_eq!(batch.finish_batch().unwrap().num_rows(), 2);
}

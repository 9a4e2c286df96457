use std::fs::File;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, Schema};

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::batch::{BatchBuilder, RowSink, Value, field};
use crate::types::{Column, ColumnType};

const ROWS: i64 = 60_000;

/// The number in a row; none for NULL.
type Shape = fn(i64) -> Option<i64>;

/// How a column's values follow each other; each meets another part of what encodes them.
const SHAPES: [(&str, Shape); 9] = [
    ("the same", |_| Some(7)),
    ("none", |_| None),
    ("few", |n| Some(n * 7_919 % 100)),
    ("few with gaps", |n| (n % 3 != 1).then_some(n / 10 % 50)),
    ("each another", |n| Some(n * 2_654_435_761 % 1_000_003)),
    ("each another with gaps", |n| {
        (n % 5 != 0).then_some(n * 40_503 % 1_000_003)
    }),
    // Pages of numbers have been written by then, and a dictionary that is given up.
    ("few, then many", |n| {
        Some(if n < 40_000 { n % 2 } else { n * 31 })
    }),
    ("none, then some", |n| (n > 50_000).then_some(n)),
    ("long runs", |n| Some(n / 9_000)),
];

fn types() -> Vec<(ColumnType, bool)> {
    let number = |precision, scale| ColumnType::Number { precision, scale };
    vec![
        (ColumnType::Boolean, false),
        (number(19, 0), true),
        (number(9, 2), false),
        (number(18, 0), false),
        (number(30, 2), false),
        (ColumnType::Float, false),
        (ColumnType::Text, false),
        (ColumnType::Binary, false),
        (ColumnType::Date, false),
        (ColumnType::TimestampTz, false),
    ]
}

fn value(column_type: ColumnType, number: Option<i64>, text: &str) -> Value<'_> {
    let Some(number) = number else {
        return Value::Null;
    };
    match column_type {
        ColumnType::Boolean => Value::Bool(number % 2 == 0),
        ColumnType::Number { scale: 0, .. } => Value::Int(number),
        ColumnType::Number { scale, .. } => Value::Decimal {
            unscaled: (-number).into(),
            scale,
        },
        ColumnType::Float => Value::Float(number as f64 / 8.0),
        ColumnType::Binary => Value::Bytes(text.as_bytes()),
        ColumnType::Date => Value::Date(number as i32),
        ColumnType::TimestampTz => Value::TimestampTz(number),
        _ => Value::Text(text),
    }
}

/// What the official reader gives, as text.
fn shown(array: &dyn Array, row: usize) -> String {
    use arrow::datatypes::{Date32Type, TimestampMicrosecondType};
    if array.is_null(row) {
        return "NULL".to_owned();
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Decimal128(_, _) => array
            .as_primitive::<Decimal128Type>()
            .value(row)
            .to_string(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::Binary => {
            String::from_utf8(array.as_binary::<i32>().value(row).to_vec()).unwrap()
        }
        DataType::Date32 => array.as_primitive::<Date32Type>().value(row).to_string(),
        DataType::Timestamp(_, _) => array
            .as_primitive::<TimestampMicrosecondType>()
            .value(row)
            .to_string(),
        other => panic!("no column has the type {other}"),
    }
}

fn expected(value: Value<'_>) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) | Value::TimestampTz(value) => value.to_string(),
        Value::Decimal { unscaled, .. } => unscaled.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(text) => text.to_owned(),
        Value::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        Value::Date(days) => days.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Columns of every type and shape through pages, dictionaries and row groups, on one thread and on several.
#[test]
fn long_columns_are_read_back() {
    let columns: Vec<Column> = types()
        .into_iter()
        .enumerate()
        .flat_map(|(index, (column_type, is_int64))| {
            SHAPES.map(|(shape, _)| Column {
                is_int64,
                ..Column::new(format!("{index} {shape}"), column_type)
            })
        })
        .collect();
    let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
    let directory = tempfile::tempdir().unwrap();
    let mut sizes = Vec::new();
    for (helpers, compression) in [
        (0, Compression::Zstd(1)),
        (2, Compression::Zstd(1)),
        (2, Compression::None),
    ] {
        let path = directory.path().join(format!("{helpers} {compression:?}"));
        let mut file = FileWriter::create(
            &path,
            &schema,
            FileOptions {
                compression,
                row_group_memory: 16 << 20,
                is_for_large: false,
                helpers,
                is_durable: helpers > 0,
            },
        )
        .unwrap();
        let mut batch = BatchBuilder::new(&columns);
        for n in 0..ROWS {
            for (index, column) in columns.iter().enumerate() {
                let number = SHAPES[index % SHAPES.len()].1(n);
                let text = format!("value {}", number.unwrap_or(0));
                batch
                    .append(index, value(column.column_type, number, &text))
                    .unwrap();
            }
            batch.end_row().unwrap();
            if batch.rows() == 9_000 || n + 1 == ROWS {
                file.write(batch.finish_batch().unwrap(), false).unwrap();
            }
        }
        sizes.push(file.finish().unwrap());

        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
        let mut n = 0;
        for read in reader.build().unwrap() {
            let read = read.unwrap();
            for row in 0..read.num_rows() {
                for (index, column) in columns.iter().enumerate() {
                    let number = SHAPES[index % SHAPES.len()].1(n);
                    let text = format!("value {}", number.unwrap_or(0));
                    let put = expected(value(column.column_type, number, &text));
                    assert_eq!(
                        shown(read.column(index), row),
                        put,
                        "{}, row {n}",
                        column.name
                    );
                }
                n += 1;
            }
        }
        assert_eq!(n, ROWS);
    }
    assert_eq!(sizes[0], sizes[1], "it is the same file whoever encodes it");
}

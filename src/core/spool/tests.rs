use std::fs;
use std::os::unix::fs::PermissionsExt;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Decimal128Type, TimestampMicrosecondType};

use super::*;
use crate::json::{Inference, PlanOptions, Rows, parse_text};

fn stamp() -> Stamp {
    Stamp {
        execution_id: "run 1".to_owned(),
        user_id: Some("user 7".to_owned()),
        upload_id: Uuid::from_u128(0x1234),
        uploaded_at: DateTime::from_timestamp_micros(1_706_702_400_123_456).unwrap(),
    }
}

fn options(target_file_size: u64) -> SpoolOptions {
    SpoolOptions {
        target_file_size,
        compression: Compression::default(),
    }
}

/// The batches of a file, read by the official reader from what the file alone says.
fn read_back(path: &Path) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    reader.build().unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_result_travels_from_json_to_parquet() {
    let result = r#"[{"id": 1, "price": 9.95, "tags": ["a"]}, {"id": 2, "price": null}, {"id": 3, "price": 1e3}]"#;
    let mut inference = Inference::new(None, PlanOptions::default());
    parse_text(result, &mut inference).unwrap();
    let plan = inference.finish().unwrap();

    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("upload");
    let mut spool =
        SpoolWriter::create(&dir, &plan.result_columns(), &stamp(), &options(1 << 20)).unwrap();
    let mut rows = Rows::new(&plan, &mut spool);
    parse_text(result, &mut rows).unwrap();
    rows.finish().unwrap();
    let manifest = spool.finish().unwrap();

    let names: Vec<&str> = manifest
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "ID",
            "PRICE",
            "TAGS",
            "EXECUTION_ID",
            "UPLOADED_AT",
            "USER_ID",
            "UPLOAD_ID"
        ]
    );
    assert_eq!((manifest.rows, manifest.files.len()), (3, 1));
    assert_eq!(
        fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
        0o700
    );

    let path = dir.join(&manifest.files[0].name);
    assert_eq!(fs::metadata(&path).unwrap().len(), manifest.bytes);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let batches = read_back(&path);
    let batch = &batches[0];
    assert_eq!(
        batch.column_by_name("ID").unwrap().data_type(),
        &DataType::Decimal128(38, 0)
    );
    let price = batch
        .column_by_name("PRICE")
        .unwrap()
        .as_primitive::<Decimal128Type>();
    assert_eq!(price.data_type(), &DataType::Decimal128(38, 10));
    assert_eq!(
        price.iter().collect::<Vec<_>>(),
        [Some(99_500_000_000), None, Some(10_000_000_000_000)]
    );
    assert_eq!(
        batch
            .column_by_name("TAGS")
            .unwrap()
            .as_string::<i32>()
            .iter()
            .collect::<Vec<_>>(),
        [Some("[\"a\"]"), None, None]
    );
    assert_eq!(
        batch
            .column_by_name("USER_ID")
            .unwrap()
            .as_string::<i32>()
            .value(2),
        "user 7"
    );
    let uploaded_at = batch.column_by_name("UPLOADED_AT").unwrap();
    assert_eq!(uploaded_at.data_type(), &ColumnType::TimestampTz.arrow());
    assert_eq!(
        uploaded_at
            .as_primitive::<TimestampMicrosecondType>()
            .value(0),
        1_706_702_400_123_456
    );
}

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ::parquet::basic::Encoding;
use ::parquet::column::page::Page;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, TimestampMicrosecondType};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

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
        is_durable: true,
        ..SpoolOptions::new(target_file_size, MemoryLimit::default())
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
        &DataType::Decimal128(1, 0)
    );
    let price = batch
        .column_by_name("PRICE")
        .unwrap()
        .as_primitive::<Decimal128Type>();
    assert_eq!(price.data_type(), &DataType::Decimal128(6, 2));
    assert_eq!(
        price.iter().collect::<Vec<_>>(),
        [Some(995), None, Some(100_000)]
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

/// Cells of a column over all files, as the reader prints them.
fn ordinals(dir: &Path, manifest: &Manifest) -> Vec<i128> {
    let mut all = Vec::new();
    for file in &manifest.files {
        let mut rows = 0;
        for batch in read_back(&dir.join(&file.name)) {
            rows += batch.num_rows() as u64;
            all.extend(
                batch
                    .column_by_name(ROW_ORDINAL)
                    .unwrap()
                    .as_primitive::<Decimal128Type>()
                    .values(),
            );
        }
        assert_eq!(rows, file.rows);
    }
    all
}

#[test]
fn files_roll_over_at_their_size_and_rows_keep_their_order() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("upload");
    let columns = [Column::new("A", ColumnType::Text)];
    let target = 200_000;
    let mut spool = SpoolWriter::create(&dir, &columns, &stamp(), &options(target)).unwrap();
    for _ in 0..60_000 {
        // Random, so that it does not compress.
        spool
            .append(0, Value::Text(&Uuid::new_v4().to_string()))
            .unwrap();
        spool.end_row().unwrap();
    }
    let manifest = spool.finish().unwrap();
    assert!(manifest.files.len() > 2, "{manifest:?}");
    for (index, file) in manifest.files.iter().enumerate() {
        assert_eq!(file.name, format!("part-{index:05}.parquet"));
        assert_eq!(
            fs::metadata(dir.join(&file.name)).unwrap().len(),
            file.bytes
        );
        // One batch may pass the target, and a footer is added.
        assert!(file.bytes < 3 * target, "{file:?}");
    }
    assert_eq!(manifest.rows, 60_000);
    assert_eq!(
        manifest.bytes,
        manifest.files.iter().map(|file| file.bytes).sum::<u64>()
    );
    for file in &manifest.files {
        let content = fs::read(dir.join(&file.name)).unwrap();
        assert_eq!(
            file.digest.as_deref(),
            Some(STANDARD.encode(Sha256::digest(content)).as_str())
        );
    }
    assert!(ordinals(&dir, &manifest).into_iter().eq(1..=60_000));
    let json = serde_json::to_value(&manifest).unwrap();
    assert_eq!(serde_json::from_value::<Manifest>(json).unwrap(), manifest);
}

#[test]
fn wide_rows_are_written_before_they_pile_up() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("upload");
    let mut spool = SpoolWriter::create(
        &dir,
        &[Column::new("A", ColumnType::Text)],
        &stamp(),
        &options(1 << 30),
    )
    .unwrap();
    let megabyte = "x".repeat(1 << 20);
    for _ in 0..40 {
        spool.append(0, Value::Text(&megabyte)).unwrap();
        spool.end_row().unwrap();
        assert!(spool.batch.approximate_bytes() < 2 * MemoryLimit::default().batch());
    }
    assert_eq!(spool.finish().unwrap().rows, 40);
}

#[test]
fn an_upload_without_rows_has_no_files() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("upload");
    let columns = [Column::new("A", ColumnType::Date)];
    let manifest = SpoolWriter::create(&dir, &columns, &stamp(), &options(1))
        .unwrap()
        .finish()
        .unwrap();
    assert_eq!(
        (manifest.files.len(), manifest.rows, manifest.bytes),
        (0, 0, 0)
    );
    assert_eq!(manifest.columns.len(), 5);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn rows_without_result_columns_carry_their_stamp() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("upload");
    let stamp = Stamp {
        user_id: None,
        ..stamp()
    };
    let mut spool = SpoolWriter::create(&dir, &[], &stamp, &options(1 << 20)).unwrap();
    spool.end_row().unwrap();
    let manifest = spool.finish().unwrap();
    let batch = read_back(&dir.join(&manifest.files[0].name)).remove(0);
    assert_eq!(batch.num_rows(), 1);
    assert!(batch.column_by_name("USER_ID").unwrap().is_null(0));
    assert_eq!(
        batch
            .column_by_name("UPLOAD_ID")
            .unwrap()
            .as_string::<i32>()
            .value(0),
        "00000000-0000-0000-0000-000000001234"
    );
}

#[test]
fn leftovers_of_a_crash_make_way_and_other_files_stay() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("upload");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
    for name in ["part-00000.parquet", "part-00007.parquet", "notes.txt"] {
        fs::write(dir.join(name), "left behind").unwrap();
    }
    let mut spool = SpoolWriter::create(&dir, &[], &stamp(), &options(1 << 20)).unwrap();
    spool.end_row().unwrap();
    let manifest = spool.finish().unwrap();
    let mut names: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["notes.txt", "part-00000.parquet"]);
    assert_eq!(ordinals(&dir, &manifest), [1]);
    assert_eq!(
        fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn directories_that_are_not_ours_to_use_are_refused() {
    let parent = tempfile::tempdir().unwrap();
    let victim = parent.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("part-00000.parquet"), "precious").unwrap();
    let link = parent.path().join("link");
    std::os::unix::fs::symlink(&victim, &link).unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    for dir in [&link, &file, &parent.path().join("no/such")] {
        let error = SpoolWriter::create(dir, &[], &stamp(), &options(1))
            .err()
            .expect("refused");
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    }
    assert_eq!(
        fs::read_to_string(victim.join("part-00000.parquet")).unwrap(),
        "precious"
    );
}

#[test]
fn an_unfinished_upload_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("upload");
    let mut spool = SpoolWriter::create(
        &dir,
        &[Column::new("A", ColumnType::Text)],
        &stamp(),
        &options(1),
    )
    .unwrap();
    for _ in 0..20_000 {
        spool.append(0, Value::Text("x")).unwrap();
        spool.end_row().unwrap();
    }
    assert!(fs::read_dir(&dir).unwrap().count() > 0);
    drop(spool);
    assert!(!dir.exists());
    remove(&dir);
}

#[test]
fn compression_is_read_from_its_setting() {
    for (text, expected) in [
        ("zstd", Some(Compression::Zstd(1))),
        ("zstd:9", Some(Compression::Zstd(9))),
        ("none", Some(Compression::None)),
        ("zstd:0", None),
        ("zstd:10", None),
        ("zstd:", None),
        ("none:1", None),
        ("gzip", None),
        ("", None),
    ] {
        assert_eq!(Compression::parse(text), expected, "{text}");
    }
}

/// One column of every type.
fn every_type() -> Vec<Column> {
    [
        ("BOOLEAN", ColumnType::Boolean),
        (
            "SMALL",
            ColumnType::Number {
                precision: 5,
                scale: 0,
            },
        ),
        (
            "BIG",
            ColumnType::Number {
                precision: 19,
                scale: 0,
            },
        ),
        (
            "WIDE",
            ColumnType::Number {
                precision: 38,
                scale: 10,
            },
        ),
        ("FLOAT", ColumnType::Float),
        ("TEXT", ColumnType::Text),
        ("BINARY", ColumnType::Binary),
        ("DATE", ColumnType::Date),
        ("TIME", ColumnType::Time),
        ("TIMESTAMP", ColumnType::TimestampNtz),
        ("TIMESTAMPTZ", ColumnType::TimestampTz),
        ("VARIANT", ColumnType::Variant),
        ("ARRAY", ColumnType::Array),
    ]
    .map(|(name, column_type)| Column::new(name, column_type))
    .to_vec()
}

#[derive(Debug, Clone)]
struct Row {
    boolean: bool,
    small: i64,
    big: i64,
    wide: i128,
    float: f64,
    text: String,
    binary: Vec<u8>,
    date: i32,
    time: i64,
    timestamp: i64,
    nulls: [bool; 13],
}

impl Row {
    fn values(&self) -> [Value<'_>; 13] {
        let mut values = [
            Value::Bool(self.boolean),
            Value::Int(self.small),
            Value::Int(self.big),
            Value::Decimal {
                unscaled: self.wide,
                scale: 10,
            },
            Value::Float(self.float),
            Value::Text(&self.text),
            Value::Bytes(&self.binary),
            Value::Date(self.date),
            Value::Time(self.time),
            Value::Timestamp(self.timestamp),
            Value::TimestampTz(self.timestamp),
            Value::Json("{}"),
            Value::Json("[]"),
        ];
        for (value, null) in values.iter_mut().zip(self.nulls) {
            if null {
                *value = Value::Null;
            }
        }
        values
    }
}

/// What the reader gave, in the words of what was put in.
fn value_of(array: &dyn Array, row: usize) -> Value<'_> {
    use arrow::datatypes::*;
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Decimal128(_, scale) => Value::Decimal {
            unscaled: array.as_primitive::<Decimal128Type>().value(row),
            scale: *scale as u8,
        },
        DataType::Float64 => Value::Float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => Value::Text(array.as_string::<i32>().value(row)),
        DataType::Binary => Value::Bytes(array.as_binary::<i32>().value(row)),
        DataType::Date32 => Value::Date(array.as_primitive::<Date32Type>().value(row)),
        DataType::Time64(TimeUnit::Microsecond) => {
            Value::Time(array.as_primitive::<Time64MicrosecondType>().value(row))
        }
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            Value::Timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if **zone == *"UTC" => {
            Value::TimestampTz(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        other => panic!("no column has the type {other}"),
    }
}

fn any_row() -> impl Strategy<Value = Row> {
    use crate::calendar::{FIRST_DAY, LAST_DAY, MICROS_PER_DAY};
    let wide = 10i128.pow(38) - 1;
    let first = i64::from(FIRST_DAY) * MICROS_PER_DAY;
    let last = (i64::from(LAST_DAY) + 1) * MICROS_PER_DAY;
    (
        any::<bool>(),
        -99_999i64..=99_999,
        prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX)],
        prop_oneof![-wide..=wide, Just(wide), Just(-wide)],
        proptest::num::f64::ANY,
        any::<String>(),
        any::<Vec<u8>>(),
        prop_oneof![FIRST_DAY..=LAST_DAY, Just(FIRST_DAY), Just(LAST_DAY)],
        0..MICROS_PER_DAY,
        prop_oneof![first..last, Just(first), Just(last - 1)],
        any::<[bool; 13]>(),
    )
        .prop_map(
            |(boolean, small, big, wide, float, text, binary, date, time, timestamp, nulls)| Row {
                boolean,
                small,
                big,
                wide,
                float,
                text,
                binary,
                date,
                time,
                timestamp,
                nulls,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_put_in_is_read_back(rows in prop::collection::vec(any_row(), 1..40), compressed: bool) {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("upload");
        let columns = every_type();
        let compression = if compressed { Compression::default() } else { Compression::None };
        let mut spool = SpoolWriter::create(&dir, &columns, &stamp(), &SpoolOptions { compression, ..options(1 << 20) }).unwrap();
        for row in &rows {
            for (column, value) in row.values().into_iter().enumerate() {
                spool.append(column, value).unwrap();
            }
            spool.end_row().unwrap();
        }
        let manifest = spool.finish().unwrap();
        prop_assert_eq!(manifest.rows, rows.len() as u64);
        let batches = read_back(&dir.join(&manifest.files[0].name));
        let read: Vec<(&RecordBatch, usize)> =
            batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row))).collect();
        prop_assert_eq!(read.len(), rows.len());
        for (row, (batch, index)) in rows.iter().zip(read) {
            for (column, put) in columns.iter().zip(row.values()) {
                let got = value_of(batch.column_by_name(&column.name).unwrap(), index);
                let same = match (put, got) {
                    (Value::Int(put), Value::Decimal { unscaled, scale: 0 }) => i128::from(put) == unscaled,
                    (Value::Float(put), Value::Float(got)) => put.to_bits() == got.to_bits() || (put.is_nan() && got.is_nan()),
                    (Value::Json(put), Value::Text(got)) => put == got,
                    (put, got) => put == got,
                };
                prop_assert!(same, "{}: {:?} became {:?}", column.name, put, got);
            }
        }
    }
}

/// Rows of half a megabyte that do not compress, under a limit; the file's row groups.
fn row_groups(memory: MemoryLimit) -> usize {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("upload");
    let columns = [Column::new("A", ColumnType::Binary)];
    let options = SpoolOptions {
        memory,
        ..options(1 << 30)
    };
    let mut spool = SpoolWriter::create(&dir, &columns, &stamp(), &options).unwrap();
    let mut state = 1_u64;
    for _ in 0..80 {
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .take(512 << 10)
        .collect();
        spool.append(0, Value::Bytes(&noise)).unwrap();
        spool.end_row().unwrap();
        assert!(spool.batch.approximate_bytes() < memory.batch() + (1 << 20));
    }
    let manifest = spool.finish().unwrap();
    let file = File::open(dir.join(&manifest.files[0].name)).unwrap();
    SerializedFileReader::new(file)
        .unwrap()
        .metadata()
        .num_row_groups()
}

fn with_thread() -> Aside {
    Aside {
        start: Some(|work| std::thread::Builder::new().spawn(work).map(drop)),
        ..Aside::default()
    }
}

/// Rows with a large value among them, encoded by whoever that says; the manifest.
fn encoded_by(aside: Aside) -> Manifest {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("upload");
    let columns = every_type();
    let options = SpoolOptions {
        memory: MemoryLimit::new(64 << 20),
        aside,
        ..options(2 << 20)
    };
    let mut spool = SpoolWriter::create(&dir, &columns, &stamp(), &options).unwrap();
    let large = "x".repeat(20 << 20);
    for n in 0..50_000_i64 {
        let text = format!(
            "{:x}",
            n.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.cast_signed())
        );
        spool.append(1, Value::Int(n)).unwrap();
        let text = if n == 30_000 { &large } else { &text };
        spool.append(5, Value::Text(text)).unwrap();
        spool.end_row().unwrap();
    }
    let manifest = spool.finish().unwrap();
    assert!(ordinals(&dir, &manifest).into_iter().eq(1..=50_000));
    manifest
}

#[test]
fn threads_make_the_same_files() {
    let alone = encoded_by(Aside::default());
    assert!(alone.files.len() > 1);
    assert_eq!(encoded_by(with_thread()), alone);
}

fn spooling_with_thread(dir: &Path) -> SpoolWriter {
    let options = SpoolOptions {
        aside: with_thread(),
        ..options(1 << 20)
    };
    let columns = [Column::new("A", ColumnType::Text)];
    SpoolWriter::create(dir, &columns, &stamp(), &options).unwrap()
}

/// What a thread meets is said to whoever gives it rows, at the latest at the end.
#[test]
fn an_error_of_the_thread_is_an_error_of_the_writer() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("upload");
    let mut spool = spooling_with_thread(&dir);
    // Where the first file is to be.
    fs::create_dir(dir.join("part-00000.parquet")).unwrap();
    let mut write = || {
        for _ in 0..200_000 {
            spool.append(0, Value::Text("a"))?;
            spool.end_row()?;
        }
        Ok::<_, Error>(())
    };
    let error = write().and_then(|()| spool.finish().map(drop)).unwrap_err();
    assert!(error.message().contains("create a spool file"), "{error}");
    assert!(!dir.exists());
}

#[test]
fn an_unfinished_upload_with_a_thread_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("upload");
    let mut spool = spooling_with_thread(&dir);
    for _ in 0..100_000 {
        spool.append(0, Value::Text("a")).unwrap();
        spool.end_row().unwrap();
    }
    drop(spool);
    assert!(!dir.exists());
}

#[test]
fn little_memory_makes_small_row_groups() {
    assert_eq!(row_groups(MemoryLimit::default()), 2);
    assert!(row_groups(MemoryLimit::new(64 << 20)) >= 5);
}

/// What a file remembers of its row groups is bounded as well: a wide result gets more files.
#[test]
fn wide_results_have_short_footers_and_no_dictionaries() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("upload");
    let columns: Vec<Column> = (0..1_600)
        .map(|n| {
            Column::new(
                format!("C{n}"),
                ColumnType::Number {
                    precision: 10,
                    scale: 0,
                },
            )
        })
        .collect();
    let memory = MemoryLimit::new(32 << 20);
    let options = SpoolOptions {
        memory,
        ..options(1 << 30)
    };
    let mut spool = SpoolWriter::create(&dir, &columns, &stamp(), &options).unwrap();
    for row in 0..4_000 {
        for column in 0..columns.len() {
            spool
                .append(column, Value::Int(row + column as i64))
                .unwrap();
        }
        spool.end_row().unwrap();
    }
    let manifest = spool.finish().unwrap();
    assert!(manifest.files.len() > 1, "{:?}", manifest.files);
    for file in &manifest.files {
        let reader = SerializedFileReader::new(File::open(dir.join(&file.name)).unwrap()).unwrap();
        let metadata = reader.metadata();
        assert!(metadata.num_row_groups() <= 6);
        assert!(
            metadata
                .row_group(0)
                .columns()
                .iter()
                .all(|column| column.dictionary_page_offset().is_none())
        );
    }
    assert!(ordinals(&dir, &manifest).into_iter().eq(1..=4_000));
}

/// A value that is large by itself has a file and a row group of its own, and small ones after it do too.
#[test]
fn large_values_get_files_of_their_own() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("upload");
    let columns = [Column::new("A", ColumnType::Text)];
    let options = SpoolOptions {
        memory: MemoryLimit::new(64 << 20),
        ..options(1 << 30)
    };
    let mut spool = SpoolWriter::create(&dir, &columns, &stamp(), &options).unwrap();
    let large = "x".repeat(20 << 20);
    for text in ["a", "b", &large, "c"] {
        spool.append(0, Value::Text(text)).unwrap();
        spool.end_row().unwrap();
    }
    let manifest = spool.finish().unwrap();
    assert_eq!(
        manifest
            .files
            .iter()
            .map(|file| file.rows)
            .collect::<Vec<_>>(),
        [4]
    );
    assert!(ordinals(&dir, &manifest).into_iter().eq(1..=4));

    let mut spool = SpoolWriter::create(&dir, &columns, &stamp(), &options).unwrap();
    let noise: String = (0..3_000_000)
        .map(|n: u64| char::from(b'a' + (n.wrapping_mul(n) % 23) as u8))
        .collect();
    for text in [noise.as_str(), &large, "c"] {
        spool.append(0, Value::Text(text)).unwrap();
        spool.end_row().unwrap();
    }
    let manifest = spool.finish().unwrap();
    assert_eq!(
        manifest
            .files
            .iter()
            .map(|file| file.rows)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    let file = File::open(dir.join(&manifest.files[1].name)).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    assert_eq!(reader.metadata().num_row_groups(), 2);
    assert!(ordinals(&dir, &manifest).into_iter().eq(1..=3));
}

#[test]
fn a_row_is_refused_whose_values_do_not_fit_beside_each_other() {
    let parent = tempfile::tempdir().unwrap();
    let columns = [
        Column::new("A", ColumnType::Text),
        Column::new("B", ColumnType::Text),
        Column::new("C", ColumnType::Text),
    ];
    let options = SpoolOptions {
        memory: MemoryLimit::new(8 << 20),
        ..options(1 << 30)
    };
    let mut spool =
        SpoolWriter::create(&parent.path().join("upload"), &columns, &stamp(), &options).unwrap();
    let (large, half) = ("x".repeat(16 << 20), "x".repeat(512 << 10));
    // The largest value has no limit but Snowflake's.
    for text in [&half, &large] {
        spool.append(0, Value::Text(text)).unwrap();
        spool.append(1, Value::Text(&half)).unwrap();
        spool.end_row().unwrap();
    }
    spool.append(0, Value::Text(&large)).unwrap();
    spool.append(1, Value::Text(&half)).unwrap();
    let error = spool
        .append(2, Value::Text(&large[..600 << 10]))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.message().starts_with("row 3: "), "{error}");
    assert!(error.hint().unwrap().contains("max_memory"));
}

/// What COPY does not ask for is not kept, and what repeats itself is written once.
#[test]
fn files_have_dictionaries_and_no_statistics() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("upload");
    let columns = [
        Column::new("REPEATED", ColumnType::Text),
        Column::new("EACH", ColumnType::Text),
    ];
    let mut spool = SpoolWriter::create(&dir, &columns, &stamp(), &options(1 << 30)).unwrap();
    for n in 0..60_000 {
        spool
            .append(0, Value::Text(["north", "south"][n % 2]))
            .unwrap();
        spool.append(1, Value::Text(&format!("{n:032}"))).unwrap();
        spool.end_row().unwrap();
    }
    let manifest = spool.finish().unwrap();
    let file = File::open(dir.join(&manifest.files[0].name)).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let row_group = reader.metadata().row_group(0);
    let is_plain = |column: usize| {
        row_group
            .column(column)
            .encodings()
            .any(|encoding| encoding == Encoding::PLAIN)
    };
    let has_plain_pages: Vec<bool> = (0..2)
        .map(|column| {
            let mut pages = reader
                .get_row_group(0)
                .unwrap()
                .get_column_page_reader(column)
                .unwrap();
            let mut plain = false;
            while let Some(page) = pages.get_next_page().unwrap() {
                plain |= matches!(
                    page,
                    Page::DataPage {
                        encoding: Encoding::PLAIN,
                        ..
                    }
                );
            }
            plain
        })
        .collect();
    assert!(is_plain(0), "the dictionary itself");
    assert_eq!(has_plain_pages, [false, true]);
    let has_dictionary: Vec<bool> = row_group
        .columns()
        .iter()
        .map(|column| column.dictionary_page_offset().is_some())
        .collect();
    // Of the stamp, and not of the ordinals, which are all different.
    assert_eq!(has_dictionary, [true, false, true, true, true, true, false]);
    for column in row_group.columns() {
        assert!(column.statistics().is_none() && column.column_index_offset().is_none());
    }
}

#[test]
fn what_compresses_well_is_still_read_in_pieces() {
    let parent = tempfile::tempdir().unwrap();
    let columns = [Column::new("A", ColumnType::Text)];
    let dir = parent.path().join("upload");
    let mut spool = SpoolWriter::create(&dir, &columns, &stamp(), &options(1 << 30)).unwrap();
    let value = "x".repeat(16 << 20);
    for _ in 0..20 {
        spool.append(0, Value::Text(&value)).unwrap();
        spool.end_row().unwrap();
    }
    let manifest = spool.finish().unwrap();
    assert_eq!(manifest.files.len(), 1);
    let file = File::open(dir.join(&manifest.files[0].name)).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    assert_eq!(reader.metadata().num_row_groups(), 2);
}

#[test]
fn columns_with_a_null_in_any_row_are_told() {
    let columns = ["A", "B", "C"].map(|name| Column::new(name, ColumnType::Boolean));
    for user_id in [Some("user 7".to_owned()), None] {
        let has_user = user_id.is_some();
        let stamp = Stamp { user_id, ..stamp() };
        for rows in [0, BATCH_ROWS * 2 + 1] {
            let parent = tempfile::tempdir().unwrap();
            let dir = parent.path().join("upload");
            let mut spool = SpoolWriter::create(&dir, &columns, &stamp, &options(1 << 20)).unwrap();
            for row in 0..rows {
                spool.append(0, Value::Bool(true)).unwrap();
                // One NULL, in a batch that is not the last; and nothing but NULLs that nobody wrote.
                let value = if row == BATCH_ROWS {
                    Value::Null
                } else {
                    Value::Bool(true)
                };
                spool.append(1, value).unwrap();
                spool.end_row().unwrap();
            }
            let manifest = spool.finish().unwrap();
            let told: Vec<&str> = manifest
                .columns
                .iter()
                .filter(|column| column.has_nulls)
                .map(|column| column.name.as_str())
                .collect();
            let expected: &[&str] = match (rows, has_user) {
                (0, _) => &[],
                (_, true) => &["B", "C"],
                (_, false) => &["B", "C", "USER_ID"],
            };
            assert_eq!(told, expected);
        }
    }
}

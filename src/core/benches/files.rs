//! Values into record batches, and batches into Parquet files: by kinds of columns, with compression and without.
#![allow(clippy::unwrap_used)]

use bridge_core::batch::{BatchBuilder, RowSink as _, Value};
use bridge_core::parquet::{Compression, FileOptions, FileWriter};
use bridge_core::types::{Column, ColumnType};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const ROWS: i64 = 100_000;
const ROW_GROUP_MEMORY: usize = 32 << 20;

/// Gives the builder the value of the row with that number.
type Fill = fn(&mut BatchBuilder, i64);

fn kinds() -> [(&'static str, Column, Fill); 5] {
    [
        (
            "integers",
            column(ColumnType::number(18, 0).unwrap()),
            |batch, n| {
                batch.append(0, Value::Int(n * 7_919)).unwrap();
            },
        ),
        (
            "decimals",
            column(ColumnType::number(38, 10).unwrap()),
            |batch, n| {
                let unscaled = i128::from(n) * 12_345_678_901_234_567;
                batch
                    .append(
                        0,
                        Value::Decimal {
                            unscaled,
                            scale: 10,
                        },
                    )
                    .unwrap();
            },
        ),
        ("doubles", column(ColumnType::Float), |batch, n| {
            #[allow(clippy::cast_precision_loss)]
            batch.append(0, Value::Float(n as f64 / 7.0)).unwrap();
        }),
        ("texts that differ", column(ColumnType::Text), |batch, n| {
            batch
                .append(0, Value::Text(&format!("order {} of {n}", n * 104_729)))
                .unwrap();
        }),
        ("texts of a few", column(ColumnType::Text), |batch, n| {
            let names = ["Berlin", "Paris", "London", "Madrid", "Rome"];
            let name = names.get(usize::try_from(n % 5).unwrap()).unwrap();
            batch.append(0, Value::Text(name)).unwrap();
        }),
    ]
}

fn column(column_type: ColumnType) -> Column {
    Column::new("A", column_type)
}

fn filled(column: &Column, fill: Fill) -> BatchBuilder {
    let mut batch = BatchBuilder::new(std::slice::from_ref(column));
    for n in 0..ROWS {
        fill(&mut batch, n);
        batch.end_row().unwrap();
    }
    batch
}

fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("values into a batch");
    group.throughput(Throughput::Elements(ROWS.unsigned_abs()));
    for (name, column, fill) in kinds() {
        group.bench_function(name, |bencher| {
            bencher.iter(|| filled(&column, fill).finish_batch().unwrap());
        });
    }
    group.finish();
}

fn files(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("part.parquet");
    for (title, compression) in [
        ("a batch into a file", Compression::default()),
        ("the same, not compressed", Compression::None),
    ] {
        let mut group = criterion.benchmark_group(title);
        group.throughput(Throughput::Elements(ROWS.unsigned_abs()));
        for (name, column, fill) in kinds() {
            let batch = filled(&column, fill).finish_batch().unwrap();
            let options = FileOptions {
                compression,
                row_group_memory: ROW_GROUP_MEMORY,
                is_for_large: false,
                helpers: 0,
                is_durable: false,
            };
            group.bench_function(name, |bencher| {
                bencher.iter_batched(
                    || {
                        let _ = std::fs::remove_file(&path);
                        FileWriter::create(&path, &batch.schema(), options).unwrap()
                    },
                    |mut file| {
                        file.write(batch.clone(), false).unwrap();
                        file.finish().unwrap()
                    },
                    BatchSize::PerIteration,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, batches, files);
criterion_main!(benches);

//! Files into tables: the whole way that an upload takes.

use std::path::Path;

use bridge_core::batch::{RowSink, Value};
use bridge_core::memory::MemoryLimit;
use bridge_core::names::UPLOAD_ID;
use bridge_core::parquet::Compression;
use bridge_core::snowflake::sql::{self, CopyColumn, TableName};
use bridge_core::snowflake::{Session, Statement};
use bridge_core::spool::{Manifest, SpoolOptions, SpoolWriter, Stamp};
use bridge_core::types::{Column, ColumnType};
use uuid::Uuid;

use crate::case::{Case, case};
use crate::world::{World, run};

pub fn cases() -> Vec<Case> {
    const ITEMS: &[&str] = &[
        "load.copy",
        "load.transaction",
        "load.again",
        "network.lost-answer",
    ];
    vec![
        case("load_from_amazon", ITEMS, |world| {
            from_a_file_to_rows(world, "s3")
        }),
        case("load_from_azure", ITEMS, |world| {
            from_a_file_to_rows(world, "azure")
        }),
        case("load_from_google", ITEMS, |world| {
            from_a_file_to_rows(world, "gcs")
        }),
        case(
            "load_a_large_file",
            &["put.amazon-parts"],
            a_large_file_in_parts,
        ),
    ]
}

const STAGE: &str = "~/snowflake_bridge/0/1/1/";
const UPLOAD: Uuid = Uuid::from_u128(1);

fn table() -> TableName {
    TableName {
        database: "ANALYTICS_DB".into(),
        schema: "REPORTS".into(),
        table: "it's \"quoted\"".into(),
    }
}

/// Rows with a number, a decimal, text that compresses badly, and JSON.
fn spool(directory: &Path, rows: usize, text_size: usize) -> Manifest {
    let columns = [
        Column::new(
            "N",
            ColumnType::Number {
                precision: 38,
                scale: 0,
            },
        ),
        Column::new(
            "D",
            ColumnType::Number {
                precision: 38,
                scale: 2,
            },
        ),
        Column::new("lower \"t\"", ColumnType::Text),
        Column::new("J", ColumnType::Variant),
    ];
    let stamp = Stamp {
        execution_id: "execution-1".into(),
        user_id: Some("user-1".into()),
        upload_id: UPLOAD,
        uploaded_at: chrono::DateTime::UNIX_EPOCH,
    };
    let options = SpoolOptions {
        compression: Compression::None,
        ..SpoolOptions::new(128 << 20, MemoryLimit::default())
    };
    let mut writer = SpoolWriter::create(directory, &columns, &stamp, &options).unwrap();
    for n in 0..rows {
        let text: String = (0..text_size)
            .map(|i| char::from(b'a' + ((n * 7 + i * i) % 26) as u8))
            .collect();
        writer.append(0, Value::Int(n as i64)).unwrap();
        writer
            .append(
                1,
                Value::Decimal {
                    unscaled: n as i128,
                    scale: 2,
                },
            )
            .unwrap();
        writer.append(2, Value::Text(&text)).unwrap();
        writer
            .append(3, Value::Json(&format!("{{\"row\": {n}}}")))
            .unwrap();
        writer.end_row().unwrap();
    }
    writer.finish().unwrap()
}

async fn put_all(session: &mut Session, directory: &Path, manifest: &Manifest) {
    for file in &manifest.files {
        session
            .put(&directory.join(&file.name), STAGE, &file.name, &|_| {})
            .await
            .unwrap();
    }
}

async fn copy(session: &mut Session, manifest: &Manifest, force: bool) {
    let names: Vec<_> = manifest
        .files
        .iter()
        .map(|file| file.name.as_str())
        .collect();
    let columns: Vec<_> = manifest
        .columns
        .iter()
        .map(|column| CopyColumn {
            field: column.name.clone(),
            name: column.name.clone(),
            column_type: column.column_type.snowflake(),
            expression: column.column_type.copy_expression(&column.name),
        })
        .collect();
    let copied = run(
        session,
        sql::copy_into(&table(), &columns, STAGE, &names, force),
    )
    .await;
    for row in 0..copied.rows.len() {
        assert_eq!(copied.value(row, "status"), Some("LOADED"));
    }
    let loaded: u64 = (0..copied.rows.len())
        .map(|row| {
            copied
                .value(row, "rows_loaded")
                .unwrap()
                .parse::<u64>()
                .unwrap()
        })
        .sum();
    assert_eq!(loaded, manifest.rows);
}

async fn from_a_file_to_rows(world: World, cloud: &str) {
    world.set_account(serde_json::json!({"cloud": cloud})).await;
    let directory = tempfile::tempdir().unwrap();
    let spooled = directory.path().join("spool");
    let manifest = spool(&spooled, 100, 20);
    let mut session = world.login().await;
    let missing = session
        .execute(&Statement::new(sql::describe_table(&table())))
        .await
        .unwrap_err();
    assert_eq!(missing.code(), Some("002003"));
    run(
        &mut session,
        sql::create_table(&table(), &manifest.columns, &[], "it's a comment"),
    )
    .await;
    let described = run(&mut session, sql::describe_table(&table())).await;
    assert_eq!(described.value(2, "name"), Some("lower \"t\""));
    assert_eq!(described.value(1, "type"), Some("NUMBER(38,2)"));

    put_all(&mut session, &spooled, &manifest).await;
    run(&mut session, sql::begin()).await;
    let transaction = run(&mut session, sql::current_transaction()).await;
    let transaction = transaction.first_value().expect("a transaction").to_owned();
    // Its answer is lost, and the copy not made twice for that.
    let lost = serde_json::json!({"lose_answer": true});
    world
        .fault(serde_json::json!({"sql": "^copy into"}), lost)
        .await;
    copy(&mut session, &manifest, false).await;
    run(&mut session, sql::commit()).await;
    let state = run(
        &mut session,
        sql::describe_transaction(&transaction).unwrap(),
    )
    .await;
    assert_eq!(state.value(0, "state"), Some("committed"));

    let sums = run(
        &mut session,
        format!(
            "select count(*), sum(n), sum(d), min(\"lower \"\"t\"\"\"), sum(j:row::number), min(execution_id), min(user_id) from {}",
            table().quoted()
        ),
    )
    .await;
    let values: Vec<_> = sums.rows[0]
        .iter()
        .map(|value| value.as_deref().unwrap_or("NULL"))
        .collect();
    assert_eq!(values[0], "100");
    assert_eq!(values[1], "4950");
    assert_eq!(values[2], "49.50");
    assert_eq!(values[3].len(), 20);
    assert_eq!(values[4..], ["4950", "execution-1", "user-1"]);

    // Running the load again is running it once.
    run(&mut session, sql::begin()).await;
    run(
        &mut session,
        sql::delete_uploads(&table(), UPLOAD_ID, &[UPLOAD], &[]),
    )
    .await;
    copy(&mut session, &manifest, true).await;
    let count = run(&mut session, sql::count_upload(&table(), UPLOAD_ID, UPLOAD)).await;
    assert_eq!(count.first_value(), Some("100"));
    run(&mut session, sql::rollback()).await;

    let tables = run(
        &mut session,
        sql::show_tables(Some("ANALYTICS_DB"), Some("REPORTS")).unwrap(),
    )
    .await;
    assert_eq!(
        (tables.value(0, "name"), tables.value(0, "rows")),
        (Some("it's \"quoted\""), Some("100"))
    );
    run(&mut session, sql::remove(STAGE)).await;
    let listed = run(&mut session, format!("list {}", sql::stage_path(STAGE))).await;
    assert!(listed.rows.is_empty());
    session.close().await;
}

async fn a_large_file_in_parts(world: World) {
    let directory = tempfile::tempdir().unwrap();
    let spooled = directory.path().join("spool");
    let manifest = spool(&spooled, 300, 100_000);
    assert!(manifest.bytes > 17 << 20, "{} bytes", manifest.bytes);
    let mut session = world.login().await;
    run(
        &mut session,
        sql::create_table(&table(), &manifest.columns, &[], ""),
    )
    .await;
    put_all(&mut session, &spooled, &manifest).await;
    let parts = world
        .audit(|record| {
            record["kind"] == "objectstore" && record["query"]["partNumber"].is_string()
        })
        .await;
    assert!(parts.len() >= 3, "{parts:#?}");
    copy(&mut session, &manifest, false).await;
    let sizes = run(
        &mut session,
        format!(
            "select count(*), min(length(\"lower \"\"t\"\"\")) from {}",
            table().quoted()
        ),
    )
    .await;
    assert_eq!(
        sizes.rows[0],
        [Some("300".to_owned()), Some("100000".to_owned())]
    );
}

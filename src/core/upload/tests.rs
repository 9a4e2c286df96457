//! Uploads against the warehouse in memory.

mod settling;
mod strategies;
mod together;

use std::collections::BTreeMap;

use super::fake::{FakeWarehouse, upload_id};
use super::fake_ledger::FakeLedger;
use super::*;
use crate::error::ErrorKind;
use crate::spool::SpoolFile;
use crate::types::{Column, ColumnType};

pub(super) fn upload(files: usize) -> Upload {
    let files: Vec<SpoolFile> = (0..files)
        .map(|number| SpoolFile {
            name: format!("part-{number:05}.parquet"),
            rows: 10,
            bytes: 5,
            digest: None,
        })
        .collect();
    Upload {
        upload_id: upload_id(),
        target: TableName {
            database: "DB".to_owned(),
            schema: "S".to_owned(),
            table: "T".to_owned(),
        },
        spool: PathBuf::from("/nowhere"),
        stage_directory: "~/snowflake_bridge/a/b/1/".to_owned(),
        manifest: Manifest {
            columns: vec![
                Column::new(
                    "N",
                    ColumnType::Number {
                        precision: 38,
                        scale: 0,
                    },
                ),
                Column::new("D", ColumnType::Date),
                Column::new("UPLOAD_ID", ColumnType::Text),
            ],
            rows: 10 * files.len() as u64,
            bytes: 5 * files.len() as u64,
            files,
            window: None,
            relation: None,
        },
        is_staged: false,
        transaction: None,
        transaction_table: None,
        is_moved: false,
        may_be_loaded: false,
        replaces: Vec::new(),
        strategy: Strategy::Append,
        cluster_by: ClusterBy::Nothing,
        evolve_schema: true,
        comment: "test".to_owned(),
        is_canceled: false,
        only_settles: false,
        is_several: false,
        is_alone: true,
    }
}

/// Attempts until one succeeds, each from what the ledger recorded, as the worker does it.
async fn run_to_the_end(warehouse: &mut FakeWarehouse, first: &Upload) -> Outcome {
    let ledger = FakeLedger::default();
    for _ in 0..5 {
        let mut attempt = first.clone();
        attempt.is_staged = *ledger.staged.lock().unwrap();
        attempt.transaction = ledger.transaction.lock().unwrap().clone();
        *ledger.is_undecided.lock().unwrap() = attempt.transaction.is_some();
        match run(&attempt, warehouse, &ledger).await {
            Ok(outcome) => {
                assert_eq!(*ledger.rows.lock().unwrap(), outcome.rows);
                return outcome;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Transient, "{error:?}"),
        }
        warehouse.disconnect();
        if !*ledger.is_undecided.lock().unwrap() {
            let counts = warehouse.counts();
            assert_eq!(counts.get(&upload_id().to_string()), None, "{counts:?}");
        }
    }
    panic!("five attempts failed: {:#?}", warehouse.log);
}

#[tokio::test]
async fn nothing_is_put_again_once_staged() {
    let mut warehouse = FakeWarehouse {
        staged: vec!["~/snowflake_bridge/a/b/1/part-00000.parquet".to_owned()],
        ..FakeWarehouse::default()
    };
    let mut staged = upload(1);
    staged.is_staged = true;
    run(&staged, &mut warehouse, &FakeLedger::default())
        .await
        .unwrap();
    assert!(
        !warehouse.log.iter().any(|line| line.starts_with("PUT")),
        "{:#?}",
        warehouse.log
    );
}

#[tokio::test]
async fn a_transaction_that_still_runs_is_ended_before_the_rows_are_loaded_again() {
    let mut warehouse = FakeWarehouse::default();
    warehouse.apply("CREATE TABLE IF NOT EXISTS").unwrap();
    warehouse.apply("BEGIN").unwrap();
    let mut again = upload(1);
    again.transaction = Some("1".to_owned());
    run(&again, &mut warehouse, &FakeLedger::default())
        .await
        .unwrap();
    assert_eq!(warehouse.states.get("1"), Some(&"rolled back"));
    assert_eq!(warehouse.counts().get(&upload_id().to_string()), Some(&10));
}

#[tokio::test]
async fn a_committed_upload_is_counted_by_what_the_table_calls_its_column_or_not_at_all() {
    for (column, rows) in [("Upload_Id", 7), ("UPLOAD_ID", 7), ("SOMETHING", 10)] {
        let mut warehouse = FakeWarehouse {
            columns: Some(vec![(column.to_owned(), "VARCHAR(20)".to_owned())]),
            ..FakeWarehouse::with_rows([])
        };
        warehouse.rows = (0..7).map(|key| (key, upload_id().to_string())).collect();
        warehouse.states.insert("1".to_owned(), "committed");
        let mut again = upload(1);
        again.transaction = Some("1".to_owned());
        again.strategy = Strategy::Upsert(Match::Keys(vec!["N".to_owned()]));
        let outcome = run(&again, &mut warehouse, &FakeLedger::default())
            .await
            .unwrap();
        assert_eq!(outcome.rows, rows, "{column}");
    }
}

#[tokio::test]
async fn earlier_uploads_of_the_execution_are_replaced() {
    let mut warehouse = FakeWarehouse::with_rows(0..4);
    let mut new = upload(1);
    new.replaces = vec![Uuid::from_u128(3)];
    run(&new, &mut warehouse, &FakeLedger::default())
        .await
        .unwrap();
    assert_eq!(
        warehouse.counts(),
        BTreeMap::from([(upload_id().to_string(), 10)])
    );
}

#[tokio::test]
async fn too_few_rows_are_never_committed() {
    let mut warehouse = FakeWarehouse {
        rows_reported: Some(9),
        ..FakeWarehouse::default()
    };
    let error = run(&upload(1), &mut warehouse, &FakeLedger::default())
        .await
        .unwrap_err();
    assert!(error.message().contains("9 rows"), "{error}");
    assert!(warehouse.rows.is_empty());
    assert!(warehouse.open.is_none(), "the transaction was left open");
}

#[tokio::test]
async fn an_empty_result_makes_the_table_and_loads_nothing() {
    let mut warehouse = FakeWarehouse::default();
    let outcome = run(&upload(0), &mut warehouse, &FakeLedger::default())
        .await
        .unwrap();
    assert_eq!((outcome.rows, outcome.query_id), (0, None));
    assert!(warehouse.columns.is_some());
    assert!(
        !warehouse
            .log
            .iter()
            .any(|line| line.starts_with("COPY") || line.starts_with("BEGIN"))
    );
}

/// Whoever drops the table, between whichever statements, and once more, finds it there again.
#[tokio::test]
async fn a_table_that_is_dropped_meanwhile_is_made_again() {
    let strategies = [Strategy::Append, Strategy::Replace];
    let drops = (0..16).flat_map(|first| (first..16).map(move |second| vec![first, second]));
    let all = strategies
        .iter()
        .flat_map(|strategy| drops.clone().map(move |drop| (strategy, drop)));
    for (strategy, drop) in all {
        let mut warehouse = FakeWarehouse {
            columns: Some(vec![
                ("D".to_owned(), "DATE".to_owned()),
                ("UPLOAD_ID".to_owned(), "VARCHAR(134217728)".to_owned()),
            ]),
            drop: drop.clone(),
            ..FakeWarehouse::default()
        };
        let mut upload = upload(1);
        upload.strategy = strategy.clone();
        let result = run(&upload, &mut warehouse, &FakeLedger::default()).await;
        let outcome =
            result.unwrap_or_else(|error| panic!("{error}: {drop:?} {:#?}", warehouse.log));
        assert_eq!(outcome.rows, 10);
    }
}

#[tokio::test]
async fn missing_columns_are_added_and_other_types_refused() {
    let mut warehouse = FakeWarehouse {
        columns: Some(vec![
            ("D".to_owned(), "DATE".to_owned()),
            ("UPLOAD_ID".to_owned(), "VARCHAR(134217728)".to_owned()),
        ]),
        ..FakeWarehouse::default()
    };
    run(&upload(1), &mut warehouse, &FakeLedger::default())
        .await
        .unwrap();
    assert!(
        warehouse
            .log
            .iter()
            .any(|line| line.starts_with("ALTER TABLE")),
        "{:#?}",
        warehouse.log
    );

    let mut warehouse = FakeWarehouse {
        columns: Some(vec![
            ("N".to_owned(), "DATE".to_owned()),
            ("UPLOAD_ID".to_owned(), "VARCHAR(134217728)".to_owned()),
        ]),
        ..FakeWarehouse::default()
    };
    let error = run(&upload(1), &mut warehouse, &FakeLedger::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    for part in ["\"N\"", "DATE", "NUMBER(38,0)"] {
        assert!(error.message().contains(part), "{part} is not in {error}");
    }
}

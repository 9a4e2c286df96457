use super::super::fake::Cut;
use super::super::together::{Member, clean_up_together, run_together};
use super::*;
use crate::snowflake::sql::TableName;

const INSTALLATION: Uuid = Uuid::from_u128(1);

/// An upload like the others, with so many files of its own.
fn one(number: u128, files: usize) -> Upload {
    let upload_id = Uuid::from_u128(number);
    Upload {
        upload_id,
        stage_directory: format!("{}1/", leftovers::directory(INSTALLATION, upload_id)),
        is_alone: false,
        ..upload(files)
    }
}

fn three() -> Vec<Upload> {
    vec![one(11, 1), one(12, 2), one(13, 1)]
}

async fn together(
    warehouse: &mut FakeWarehouse,
    uploads: &[Upload],
    ledgers: &[FakeLedger],
) -> Result<Vec<Outcome>> {
    let members: Vec<Member<'_>> = uploads
        .iter()
        .zip(ledgers)
        .map(|(upload, ledger)| Member { upload, ledger })
        .collect();
    run_together(&members, warehouse).await
}

fn ledgers() -> Vec<FakeLedger> {
    (0..3).map(|_| FakeLedger::default()).collect()
}

fn count(warehouse: &FakeWarehouse, statement: &str) -> usize {
    let lines = warehouse.log.iter();
    lines.filter(|line| line.starts_with(statement)).count()
}

fn all_are_there(warehouse: &FakeWarehouse) {
    let expected: BTreeMap<String, u64> = three()
        .iter()
        .map(|upload| (upload.upload_id.to_string(), upload.manifest.rows))
        .collect();
    assert_eq!(warehouse.counts(), expected, "{:#?}", warehouse.log);
}

#[tokio::test]
async fn one_copy_loads_them_all_and_each_is_recorded() {
    let mut warehouse = FakeWarehouse::default();
    let (uploads, ledgers) = (three(), ledgers());
    let outcomes = together(&mut warehouse, &uploads, &ledgers).await.unwrap();
    assert_eq!(count(&warehouse, "COPY"), 1);
    assert_eq!(count(&warehouse, "BEGIN"), 1);
    all_are_there(&warehouse);
    for ((upload, ledger), outcome) in uploads.iter().zip(&ledgers).zip(outcomes) {
        assert_eq!(outcome.rows, upload.manifest.rows);
        assert_eq!(*ledger.rows.lock().unwrap(), upload.manifest.rows);
        assert_eq!(ledger.transaction.lock().unwrap().as_deref(), Some("1"));
        assert!(*ledger.staged.lock().unwrap());
    }
    clean_up_together(&uploads, &mut warehouse).await.unwrap();
    let removal = warehouse.log.last().unwrap();
    assert!(removal.starts_with(
        "REMOVE '@~/snowflake_bridge/00000000-0000-0000-0000-000000000001/' PATTERN = "
    ));
    for upload in &uploads {
        assert!(removal.contains(&upload.upload_id.to_string()), "{removal}");
    }
}

#[tokio::test]
async fn wherever_it_breaks_each_goes_on_by_itself_and_has_its_rows_once() {
    let mut calls = FakeWarehouse::default();
    together(&mut calls, &three(), &ledgers()).await.unwrap();
    for call in 0..calls.calls {
        for cut in [Cut::Before, Cut::After, Cut::Misanswered] {
            let mut warehouse = FakeWarehouse {
                fault: Some((call, cut)),
                ..FakeWarehouse::default()
            };
            let (mut uploads, ledgers) = (three(), ledgers());
            if together(&mut warehouse, &uploads, &ledgers).await.is_ok() {
                // A COMMIT whose answer was lost was looked for and found.
                all_are_there(&warehouse);
                continue;
            }
            warehouse.disconnect();
            warehouse.fault = None;
            for (upload, ledger) in uploads.iter_mut().zip(&ledgers) {
                upload.is_staged = *ledger.staged.lock().unwrap();
                upload.transaction = ledger.transaction.lock().unwrap().clone();
                let outcome = run(upload, &mut warehouse, ledger).await.unwrap();
                assert_eq!(outcome.rows, upload.manifest.rows);
            }
            all_are_there(&warehouse);
        }
    }
}

#[tokio::test]
async fn a_count_that_is_wrong_commits_nothing() {
    let mut warehouse = FakeWarehouse {
        rows_reported: Some(9),
        ..FakeWarehouse::default()
    };
    let ledgers = ledgers();
    let error = together(&mut warehouse, &three(), &ledgers)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert!(warehouse.counts().is_empty());
    assert_eq!(warehouse.states.get("1"), Some(&"rolled back"));
    assert!(!*ledgers[0].is_undecided.lock().unwrap());
}

#[tokio::test]
async fn a_table_is_fitted_to_the_numbers_of_them_all() {
    for order in [[0, 1, 2], [2, 1, 0]] {
        let mut uploads = three();
        for (upload, scale) in uploads.iter_mut().zip(order) {
            upload.manifest.columns[0].column_type = ColumnType::Number {
                precision: 38,
                scale: 10,
            };
            upload.manifest.columns[0].narrowest = ColumnType::narrowest_number(2, scale);
        }
        let mut warehouse = FakeWarehouse::with_rows([]);
        warehouse.columns.as_mut().unwrap()[0].1 = "NUMBER(10,1)".to_owned();
        // One of them has two decimals, and to give the column a second one is for an upload that is alone.
        let error = together(&mut warehouse, &uploads, &ledgers())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NeedsTable, "{error}");
        assert!(warehouse.rows.is_empty());
    }
}

#[test]
fn only_what_adds_rows_for_the_first_time_may_share() {
    assert!(one(1, 1).may_share());
    let refused = [
        one(1, 0),
        Upload {
            is_staged: true,
            ..one(1, 1)
        },
        Upload {
            transaction: Some("1".to_owned()),
            ..one(1, 1)
        },
        Upload {
            replaces: vec![Uuid::nil()],
            ..one(1, 1)
        },
        Upload {
            strategy: Strategy::Replace,
            ..one(1, 1)
        },
        Upload {
            is_canceled: true,
            ..one(1, 1)
        },
        Upload {
            only_settles: true,
            ..one(1, 1)
        },
        Upload {
            is_alone: true,
            ..one(1, 1)
        },
    ];
    for upload in refused {
        assert!(!upload.may_share(), "{upload:?}");
    }
}

#[test]
fn those_share_that_bring_the_same_columns_to_the_same_table() {
    let first = one(1, 1);
    let mut with_nulls = one(2, 1);
    with_nulls.manifest.columns[0].has_nulls = true;
    assert!(first.fits(&with_nulls));
    let mut renamed = one(2, 1);
    renamed.manifest.columns[0].name = "M".to_owned();
    let mut text = one(2, 1);
    text.manifest.columns[0].column_type = ColumnType::Text;
    let mut more = one(2, 1);
    more.manifest
        .columns
        .push(Column::new("X", ColumnType::Text));
    let elsewhere = Upload {
        target: TableName {
            table: "U".to_owned(),
            ..first.target.clone()
        },
        ..one(2, 1)
    };
    let fixed = Upload {
        evolve_schema: false,
        ..one(2, 1)
    };
    for other in [renamed, text, more, elsewhere, fixed] {
        assert!(!first.fits(&other), "{other:?}");
    }
}

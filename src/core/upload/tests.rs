//! Uploads against a warehouse in memory that can fail before or after any statement, as a cut connection would.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::spool::SpoolFile;
use crate::types::{Column, ColumnType};

/// A table as a map from upload id to row count, and transactions that keep or drop what they did.
#[derive(Default)]
struct FakeWarehouse {
    columns: Option<Vec<(String, String)>>,
    rows: BTreeMap<String, u64>,
    open: Option<Open>,
    states: BTreeMap<String, &'static str>,
    staged: Vec<String>,
    log: Vec<String>,
    calls: usize,
    /// At this call (from 0): the connection is cut before or after the statement takes effect.
    fault: Option<(usize, Cut)>,
    rows_reported: Option<u64>,
}

struct Open {
    id: String,
    rows: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Before,
    After,
}

fn cut() -> Error {
    Error::new(ErrorKind::Transient, "connection cut")
}

impl FakeWarehouse {
    fn answer(columns: &[&str], rows: Vec<Vec<String>>) -> QueryResult {
        QueryResult {
            query_id: "01".to_owned(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
            rows: rows
                .into_iter()
                .map(|row| row.into_iter().map(Some).collect())
                .collect(),
        }
    }

    /// What a session's end does to its transaction.
    fn disconnect(&mut self) {
        if let Some(open) = self.open.take() {
            self.states.insert(open.id, "rolled back");
        }
    }

    fn apply(&mut self, text: &str) -> Result<QueryResult> {
        let none = || Ok(Self::answer(&[], Vec::new()));
        if text.starts_with("DESCRIBE TABLE") {
            let Some(columns) = &self.columns else {
                return Err(
                    Error::new(ErrorKind::Configuration, "no such table").with_code("002003")
                );
            };
            let rows = columns
                .iter()
                .map(|(name, kind)| vec![name.clone(), kind.clone()])
                .collect();
            return Ok(Self::answer(&["name", "type"], rows));
        }
        if text.starts_with("CREATE TABLE IF NOT EXISTS") {
            if self.columns.is_none() {
                self.columns = Some(vec![
                    ("N".to_owned(), "NUMBER(38,0)".to_owned()),
                    ("UPLOAD_ID".to_owned(), "VARCHAR(36)".to_owned()),
                ]);
            }
            return none();
        }
        if text.starts_with("ALTER TABLE") {
            let columns = self
                .columns
                .as_mut()
                .expect("ALTER of a table that was described");
            columns.push(("N".to_owned(), "NUMBER(38,0)".to_owned()));
            return none();
        }
        if text.starts_with("BEGIN") {
            let id = (self.states.len() + 1).to_string();
            self.states.insert(id.clone(), "running");
            self.open = Some(Open {
                id,
                rows: self.rows.clone(),
            });
            return none();
        }
        if text.contains("CURRENT_TRANSACTION") {
            let id = self
                .open
                .as_ref()
                .map(|open| open.id.clone())
                .unwrap_or_default();
            return Ok(Self::answer(&["ID"], vec![vec![id]]));
        }
        if text.starts_with("DELETE FROM") {
            let open = self.open.as_mut().expect("DELETE inside a transaction");
            open.rows
                .retain(|upload, _| !text.contains(upload.as_str()));
            return none();
        }
        if text.starts_with("COPY INTO") {
            let files: Vec<u64> = self
                .staged
                .iter()
                .filter(|name| text.contains(name.as_str()))
                .map(|_| 10)
                .collect();
            let open = self.open.as_mut().expect("COPY inside a transaction");
            *open.rows.entry(upload_id().to_string()).or_default() += files.iter().sum::<u64>();
            let rows = files
                .iter()
                .map(|rows| {
                    vec![
                        "LOADED".to_owned(),
                        self.rows_reported.unwrap_or(*rows).to_string(),
                    ]
                })
                .collect();
            return Ok(Self::answer(&["status", "rows_loaded"], rows));
        }
        if text.starts_with("SELECT COUNT") {
            let open = self.open.as_ref().expect("count inside the transaction");
            let count = open
                .rows
                .get(&upload_id().to_string())
                .copied()
                .unwrap_or(0);
            return Ok(Self::answer(&["COUNT"], vec![vec![count.to_string()]]));
        }
        if text.starts_with("COMMIT") {
            if let Some(open) = self.open.take() {
                self.rows = open.rows;
                self.states.insert(open.id, "committed");
            }
            return none();
        }
        if text.starts_with("ROLLBACK") {
            self.disconnect();
            return none();
        }
        if text.starts_with("DESCRIBE TRANSACTION") {
            let id = text.rsplit(' ').next().unwrap_or_default();
            let state = self.states.get(id).copied().unwrap_or("rolled back");
            return Ok(Self::answer(
                &["id", "state"],
                vec![vec![id.to_owned(), state.to_owned()]],
            ));
        }
        if text.contains("SYSTEM$ABORT_TRANSACTION") {
            self.disconnect();
            return none();
        }
        if text.starts_with("REMOVE") {
            self.staged.clear();
            return none();
        }
        panic!("the fake does not know {text}");
    }
}

#[async_trait]
impl Warehouse for FakeWarehouse {
    async fn execute(&mut self, statement: &Statement) -> Result<QueryResult> {
        let text = statement.text().to_owned();
        self.log.push(text.clone());
        let fault = self
            .fault
            .filter(|(call, _)| *call == self.calls)
            .map(|(_, cut)| cut);
        self.calls += 1;
        if fault == Some(Cut::Before) {
            return Err(cut());
        }
        let result = self.apply(&text);
        if fault == Some(Cut::After) {
            Err(cut())
        } else {
            result
        }
    }

    async fn put(
        &mut self,
        _: &Path,
        _: &str,
        name: &str,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        self.log.push(format!("PUT {name}"));
        let fault = self
            .fault
            .filter(|(call, _)| *call == self.calls)
            .map(|(_, cut)| cut);
        self.calls += 1;
        if fault == Some(Cut::Before) {
            return Err(cut());
        }
        if !self.staged.iter().any(|staged| staged == name) {
            self.staged.push(name.to_owned());
        }
        progress(5);
        if fault == Some(Cut::After) {
            Err(cut())
        } else {
            Ok(())
        }
    }
}

/// What the next attempt would read back.
#[derive(Default)]
struct FakeLedger {
    staged: Mutex<bool>,
    transaction: Mutex<Option<String>>,
}

#[async_trait]
impl Ledger for FakeLedger {
    async fn staged(&self) -> Result<()> {
        *self.staged.lock().unwrap() = true;
        Ok(())
    }

    async fn copying(&self, transaction: &str) -> Result<()> {
        *self.transaction.lock().unwrap() = Some(transaction.to_owned());
        Ok(())
    }

    fn progress(&self, _: Phase, _: u64) {}
}

fn upload_id() -> Uuid {
    Uuid::from_u128(7)
}

fn upload(files: usize) -> Upload {
    let files: Vec<SpoolFile> = (0..files)
        .map(|number| SpoolFile {
            name: format!("part-{number:05}.parquet"),
            rows: 10,
            bytes: 5,
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
                Column::new("UPLOAD_ID", ColumnType::Text),
            ],
            rows: 10 * files.len() as u64,
            bytes: 5 * files.len() as u64,
            files,
        },
        is_staged: false,
        transaction: None,
        replaces: Vec::new(),
        comment: "test".to_owned(),
    }
}

/// Attempts until one succeeds, each from what the ledger recorded, as the worker does it.
async fn run_to_the_end(warehouse: &mut FakeWarehouse, first: &Upload) -> Outcome {
    let ledger = FakeLedger::default();
    for _ in 0..5 {
        let mut attempt = first.clone();
        attempt.is_staged = *ledger.staged.lock().unwrap();
        attempt.transaction = ledger.transaction.lock().unwrap().clone();
        match run(&attempt, warehouse, &ledger).await {
            Ok(outcome) => return outcome,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Transient, "{error:?}"),
        }
        warehouse.disconnect();
    }
    panic!("five attempts failed: {:#?}", warehouse.log);
}

#[tokio::test]
async fn whatever_is_cut_the_rows_are_there_once() {
    let mut undisturbed = FakeWarehouse::default();
    run_to_the_end(&mut undisturbed, &upload(2)).await;
    let calls = undisturbed.calls;
    assert!(calls >= 10, "{:#?}", undisturbed.log);

    for call in 0..calls {
        for kind in [Cut::Before, Cut::After] {
            let mut warehouse = FakeWarehouse {
                fault: Some((call, kind)),
                ..FakeWarehouse::default()
            };
            let outcome = run_to_the_end(&mut warehouse, &upload(2)).await;
            assert_eq!(outcome.rows, 20);
            assert_eq!(
                warehouse.rows,
                BTreeMap::from([(upload_id().to_string(), 20)]),
                "cut {kind:?} call {call}: {:#?}",
                warehouse.log
            );
        }
    }
}

#[tokio::test]
async fn nothing_is_put_again_once_staged() {
    let mut warehouse = FakeWarehouse {
        staged: vec!["part-00000.parquet".to_owned()],
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
    assert_eq!(warehouse.rows.get(&upload_id().to_string()), Some(&10));
}

#[tokio::test]
async fn earlier_uploads_of_the_execution_are_replaced() {
    let mut warehouse = FakeWarehouse::default();
    let earlier = Uuid::from_u128(3);
    warehouse.rows.insert(earlier.to_string(), 4);
    let mut new = upload(1);
    new.replaces = vec![earlier];
    run(&new, &mut warehouse, &FakeLedger::default())
        .await
        .unwrap();
    assert_eq!(
        warehouse.rows,
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

#[tokio::test]
async fn missing_columns_are_added_and_other_types_refused() {
    let mut warehouse = FakeWarehouse {
        columns: Some(vec![("UPLOAD_ID".to_owned(), "VARCHAR(36)".to_owned())]),
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
            ("UPLOAD_ID".to_owned(), "VARCHAR(36)".to_owned()),
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

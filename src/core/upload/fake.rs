//! A warehouse and a ledger in memory. The warehouse can fail before or after any statement, as a cut connection would.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Ledger, Phase};
use crate::error::{Error, ErrorKind, Result};
use crate::snowflake::{QueryResult, Statement, Warehouse};

/// A table as a map from upload id to row count, and transactions that keep or drop what they did.
#[derive(Default)]
pub(super) struct FakeWarehouse {
    pub(super) columns: Option<Vec<(String, String)>>,
    pub(super) rows: BTreeMap<String, u64>,
    pub(super) open: Option<Open>,
    pub(super) states: BTreeMap<String, &'static str>,
    pub(super) staged: Vec<String>,
    pub(super) log: Vec<String>,
    pub(super) calls: usize,
    /// At this call (from 0): the connection is cut before or after the statement takes effect.
    pub(super) fault: Option<(usize, Cut)>,
    pub(super) rows_reported: Option<u64>,
}

pub(super) struct Open {
    id: String,
    pub(super) rows: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
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
    pub(super) fn disconnect(&mut self) {
        if let Some(open) = self.open.take() {
            self.states.insert(open.id, "rolled back");
        }
    }

    pub(super) fn apply(&mut self, text: &str) -> Result<QueryResult> {
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
pub(super) struct FakeLedger {
    pub(super) staged: Mutex<bool>,
    pub(super) transaction: Mutex<Option<String>>,
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

pub(super) fn upload_id() -> Uuid {
    Uuid::from_u128(7)
}

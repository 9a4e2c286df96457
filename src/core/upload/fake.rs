//! A warehouse in memory. The warehouse can fail before or after any statement, as a cut connection would.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::snowflake::QueryResult;

/// Rows of every staged file.
pub(super) const FILE_ROWS: u64 = 10;
/// Rows with keys that are the same after division by this are about the same day.
pub(super) const KEYS_PER_DAY: u64 = 5;

/// A row: its key, and the upload that brought it.
pub(super) type Row = (u64, String);

/// A table of rows, a temporary table of keys that ends with the session, and transactions that keep or drop what they did.
#[derive(Default)]
pub(super) struct FakeWarehouse {
    pub(super) columns: Option<Vec<(String, String)>>,
    pub(super) rows: Vec<Row>,
    pub(super) temporary: Option<Vec<u64>>,
    pub(super) open: Option<Open>,
    pub(super) states: BTreeMap<String, &'static str>,
    pub(super) staged: Vec<String>,
    pub(super) log: Vec<String>,
    pub(super) calls: usize,
    /// At this call (from 0): the connection is cut before or after the statement takes effect.
    pub(super) fault: Option<(usize, Cut)>,
    /// Before this call (from 0), somebody else aborts the transaction that is open.
    pub(super) abort: Option<usize>,
    /// Before these calls (from 0), somebody else drops the table.
    pub(super) drop: Vec<usize>,
    pub(super) rows_reported: Option<u64>,
    /// What is added to every count of the table's rows, or taken from it.
    pub(super) miscount: i64,
    /// The file's rows have keys from 0 up to this, again and again; distinct ones if it is 0.
    pub(super) distinct_keys: u64,
}

pub(super) struct Open {
    id: String,
    pub(super) rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Before,
    After,
    /// Not cut: it takes effect, and is answered with an error that nobody should repeat it for.
    Misanswered,
}

impl FakeWarehouse {
    /// A table that exists, with these rows of an earlier upload.
    pub(super) fn with_rows(keys: impl IntoIterator<Item = u64>) -> Self {
        let mut warehouse = Self::default();
        warehouse.apply("CREATE TABLE IF NOT EXISTS").unwrap();
        warehouse.rows = keys.into_iter().map(|key| (key, earlier())).collect();
        warehouse
    }

    /// How many rows each upload has in the table.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (_, upload) in &self.rows {
            *counts.entry(upload.clone()).or_default() += 1;
        }
        counts
    }

    /// The table's rows in order.
    pub(super) fn sorted(&self) -> Vec<Row> {
        let mut rows = self.rows.clone();
        rows.sort();
        rows
    }

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

    fn number(&self, count: usize) -> String {
        (i64::try_from(count).unwrap() + self.miscount).to_string()
    }

    /// What a session's end does to its transaction and its temporary table.
    pub(super) fn disconnect(&mut self) {
        self.temporary = None;
        self.roll_back();
    }

    pub(super) fn roll_back(&mut self) {
        if let Some(open) = self.open.take() {
            self.states.insert(open.id, "rolled back");
        }
    }

    /// The files of a COPY that are in the stage.
    fn files_of(&self, text: &str) -> Vec<String> {
        let between = |from: &str, to: char| {
            let (_, rest) = text.split_once(from).expect("a COPY of ours");
            rest.split(to).next().unwrap_or_default()
        };
        let directory = between("FROM '@", '\'');
        between("FILES = (", ')')
            .split(", ")
            .map(|name| format!("{directory}{}", name.trim_matches('\'')))
            .filter(|path| self.staged.contains(path))
            .collect()
    }

    /// The rows of files, each with the upload in whose directory it lies.
    fn rows_of_files(&self, files: &[String]) -> Vec<Row> {
        let rows = files.iter().enumerate().flat_map(|(number, path)| {
            let upload = path.rsplit('/').nth(2).and_then(|id| id.parse().ok());
            let upload = upload.unwrap_or_else(upload_id).to_string();
            (0..FILE_ROWS).map(move |row| (number as u64 * FILE_ROWS + row, upload.clone()))
        });
        rows.map(|(key, upload)| match self.distinct_keys {
            0 => (key, upload),
            keys => (key % keys, upload),
        })
        .collect()
    }

    /// The rows of the open transaction. Nothing but DDL may stand outside of one, unless somebody else has aborted it: the
    /// statement then begins another.
    fn writable(&mut self) -> &mut Vec<Row> {
        if self.open.is_none() {
            assert!(self.abort.is_some(), "a transaction is open");
            self.begin();
        }
        &mut self.open.as_mut().expect("a transaction is open").rows
    }

    fn begin(&mut self) {
        let id = (self.states.len() + 1).to_string();
        self.states.insert(id.clone(), "running");
        self.open = Some(Open {
            id,
            rows: self.rows.clone(),
        });
    }

    pub(super) fn apply(&mut self, text: &str) -> Result<QueryResult> {
        let none = || Ok(Self::answer(&[], Vec::new()));
        let is_temporary = text.contains("SNOWFLAKE_BRIDGE_");
        let names_table = text.contains("\"T\"") && !text.starts_with("CREATE");
        if self.columns.is_none() && names_table {
            return Err(Error::new(ErrorKind::Configuration, "no such table").with_code("002003"));
        }
        if text.starts_with("DESCRIBE TABLE") {
            let columns = self.columns.as_ref().expect("a table");
            let rows = columns
                .iter()
                .map(|(name, kind)| vec![name.clone(), kind.clone()])
                .collect();
            return Ok(Self::answer(&["name", "type"], rows));
        }
        if text.starts_with("CREATE TABLE IF NOT EXISTS") {
            if self.columns.is_none() {
                let columns = [
                    ("N", "NUMBER(38,0)"),
                    ("D", "DATE"),
                    ("UPLOAD_ID", "VARCHAR(134217728)"),
                ];
                let windows = ["TIME_WINDOW_START", "TIME_WINDOW_END"]
                    .map(|name| (name, "VARCHAR(134217728)"));
                self.columns = Some(
                    columns
                        .into_iter()
                        .chain(windows)
                        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
                        .collect(),
                );
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
        if text.starts_with("CREATE OR REPLACE TEMPORARY TABLE") {
            assert!(self.open.is_none(), "DDL would commit the transaction");
            self.temporary = Some(Vec::new());
            return none();
        }
        if text.starts_with("DROP TABLE") {
            self.temporary = None;
            return none();
        }
        if text.starts_with("BEGIN") {
            self.begin();
            return none();
        }
        if text.contains("CURRENT_TRANSACTION") {
            let id = self.open.iter().map(|open| vec![open.id.clone()]);
            return Ok(Self::answer(&["ID"], id.collect()));
        }
        if text.starts_with("DELETE FROM") && text.contains(" USING ") {
            let days: BTreeSet<u64> = self
                .temporary()
                .iter()
                .map(|key| key / KEYS_PER_DAY)
                .collect();
            self.writable()
                .retain(|(key, _)| !days.contains(&(key / KEYS_PER_DAY)));
            return none();
        }
        if text.starts_with("DELETE FROM") {
            self.writable()
                .retain(|(_, upload)| !text.contains(upload.as_str()));
            return none();
        }
        if text.starts_with("COPY INTO") {
            return Ok(self.copy(text, is_temporary));
        }
        if text.starts_with("INSERT") || text.starts_with("MERGE") {
            return Ok(self.take_over(text));
        }
        if let Some((_, condition)) = text.split_once("WHERE ")
            && text.starts_with("SELECT COUNT")
            && let Some(columns) = &self.columns
            && !columns
                .iter()
                .any(|(name, _)| condition.starts_with(&format!("\"{name}\"")))
        {
            return Err(Error::new(ErrorKind::Configuration, "no such column").with_code("000904"));
        }
        if text.starts_with("SELECT COUNT") {
            return Ok(self.count(text, is_temporary));
        }
        if text.starts_with("COMMIT") {
            if let Some(open) = self.open.take() {
                self.rows = open.rows;
                self.states.insert(open.id, "committed");
            }
            return none();
        }
        if text.starts_with("ROLLBACK") {
            self.roll_back();
            return none();
        }
        if text.starts_with("DESCRIBE TRANSACTION") {
            let id = text.rsplit(' ').next().unwrap_or_default();
            let Some(state) = self.states.get(id).copied() else {
                return Err(
                    Error::new(ErrorKind::Configuration, "no such transaction").with_code("002003")
                );
            };
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

    fn temporary(&self) -> &Vec<u64> {
        self.temporary
            .as_ref()
            .expect("the temporary table is there")
    }

    fn copy(&mut self, text: &str, is_temporary: bool) -> QueryResult {
        let files = self.files_of(text);
        let rows = self.rows_of_files(&files);
        if is_temporary {
            self.temporary
                .as_mut()
                .expect("the temporary table is there")
                .extend(rows.into_iter().map(|(key, _)| key));
        } else {
            self.writable().extend(rows);
        }
        let reported = self.rows_reported.unwrap_or(FILE_ROWS).to_string();
        let rows = files
            .iter()
            .map(|path| {
                let path = path.trim_start_matches("~/").to_owned();
                vec![path, "LOADED".to_owned(), reported.clone()]
            })
            .collect();
        Self::answer(&["file", "status", "rows_loaded"], rows)
    }

    fn take_over(&mut self, text: &str) -> QueryResult {
        let keys = self.temporary().clone();
        let upload = upload_id().to_string();
        let rows = self.writable();
        if text.starts_with("MERGE") {
            let (mut inserted, mut updated) = (0, 0);
            for key in BTreeSet::from_iter(keys) {
                let same: Vec<&mut Row> = rows.iter_mut().filter(|row| row.0 == key).collect();
                updated += same.len();
                if same.is_empty() {
                    inserted += 1;
                    rows.push((key, upload.clone()));
                } else {
                    same.into_iter().for_each(|row| row.1.clone_from(&upload));
                }
            }
            let counts = vec![vec![self.number(inserted), updated.to_string()]];
            return Self::answer(
                &["number of rows inserted", "number of rows updated"],
                counts,
            );
        }
        if text.starts_with("INSERT OVERWRITE") {
            rows.clear();
        }
        let count = keys.len();
        rows.extend(keys.into_iter().map(|key| (key, upload.clone())));
        Self::answer(&["number of rows inserted"], vec![vec![count.to_string()]])
    }

    fn count(&self, text: &str, is_temporary: bool) -> QueryResult {
        let rows = self.open.as_ref().map_or(&self.rows, |open| &open.rows);
        let of_upload = || {
            rows.iter()
                .filter(|row| !text.contains("WHERE") || text.contains(&row.1))
        };
        let count = if text.contains("LIMIT 1") {
            return Self::answer(&["COUNT"], vec![vec![rows.len().min(1).to_string()]]);
        } else if is_temporary {
            let count = BTreeSet::from_iter(self.temporary()).len();
            return Self::answer(&["COUNT"], vec![vec![count.to_string()]]);
        } else if text.contains("DISTINCT") {
            of_upload().map(|row| row.0).collect::<BTreeSet<_>>().len()
        } else {
            of_upload().count()
        };
        Self::answer(&["COUNT"], vec![vec![self.number(count)]])
    }
}

pub(super) fn upload_id() -> Uuid {
    Uuid::from_u128(7)
}

/// The upload that brought what is in the table before.
pub(super) fn earlier() -> String {
    Uuid::from_u128(3).to_string()
}

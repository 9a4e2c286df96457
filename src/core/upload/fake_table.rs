//! A table in memory, with values, and sessions that change it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::Upload;
use crate::error::{Error, ErrorKind, Result};
use crate::snowflake::{LocalFile, QueryResult, Statement, Warehouse};
use crate::spool::Manifest;
use crate::types::{Column, ColumnType};

/// A value that fits into NUMBER(38,0) and not into NUMBER(38,10).
pub(super) const HUGE: i64 = i64::MAX;

#[derive(Debug, Clone)]
pub(super) struct FakeColumn {
    pub(super) name: String,
    pub(super) column_type: String,
    pub(super) is_nullable: bool,
    pub(super) is_primary_key: bool,
    pub(super) default: &'static str,
    pub(super) policy: &'static str,
    pub(super) values: Vec<Option<i64>>,
}

pub(super) type Table = Arc<Mutex<Vec<FakeColumn>>>;

pub(super) fn table(columns: &[(&str, &str, &[Option<i64>])]) -> Table {
    let columns = columns
        .iter()
        .map(|(name, column_type, values)| FakeColumn {
            name: (*name).to_owned(),
            column_type: (*column_type).to_owned(),
            is_nullable: true,
            is_primary_key: false,
            default: "",
            policy: "",
            values: values.to_vec(),
        });
    Arc::new(Mutex::new(columns.collect()))
}

/// One session. It executes a statement for each permit that it is given.
pub(super) struct Session {
    pub(super) table: Table,
    pub(super) permits: Arc<Semaphore>,
    /// The statement, from 0, at which the connection is cut: before it, or after.
    pub(super) cut: Option<(usize, bool)>,
    pub(super) calls: usize,
    /// Whether the role owns the table: nobody else may change it.
    pub(super) is_owner: bool,
    pub(super) cluster_by: &'static str,
    /// Whether columns cannot be dropped.
    pub(super) keeps_columns: bool,
    pub(super) autocommit: bool,
}

impl Session {
    pub(super) fn free(table: &Table) -> Self {
        Self {
            table: Arc::clone(table),
            permits: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            cut: None,
            calls: 0,
            is_owner: true,
            cluster_by: "",
            keeps_columns: false,
            autocommit: false,
        }
    }
}

fn refused(what: &str) -> Error {
    Error::new(ErrorKind::Configuration, what)
}

/// The quoted names of a statement after those of the table.
fn names(text: &str) -> Vec<String> {
    let mut names: Vec<String> = text
        .split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    names.drain(..3);
    names
}

fn apply(table: &mut Vec<FakeColumn>, text: &str) -> Result<QueryResult> {
    let mut answer = QueryResult {
        query_id: "01".to_owned(),
        columns: Vec::new(),
        rows: Vec::new(),
    };
    let names = names(text);
    let find = |table: &[FakeColumn], name: &str| {
        table
            .iter()
            .position(|column| column.name == name)
            .ok_or_else(|| refused("no such column").with_code("000904"))
    };
    if text.starts_with("DESCRIBE TABLE") {
        answer.columns = [
            "name",
            "type",
            "null?",
            "default",
            "primary key",
            "policy name",
        ]
        .map(str::to_owned)
        .to_vec();
        answer.rows = table
            .iter()
            .map(|column| {
                let yes_or_no = |is: bool| if is { "Y" } else { "N" };
                [
                    &column.name,
                    &column.column_type,
                    yes_or_no(column.is_nullable),
                    column.default,
                    yes_or_no(column.is_primary_key),
                    column.policy,
                ]
                .map(|text| Some(text.to_owned()))
                .to_vec()
            })
            .collect();
    } else if text.contains(" ADD COLUMN ") {
        if names.iter().any(|name| find(table, name).is_ok()) {
            return Err(refused("column exists"));
        }
        let rows = table.first().map_or(0, |column| column.values.len());
        // After each name comes a type and what separates it from the next.
        let types = text.split('"').skip(8).step_by(2);
        for (name, column_type) in names.into_iter().zip(types) {
            table.push(FakeColumn {
                name,
                column_type: column_type.trim_matches([' ', ',']).to_owned(),
                is_nullable: true,
                is_primary_key: false,
                default: "",
                policy: "",
                values: vec![None; rows],
            });
        }
    } else if text.contains(" RENAME COLUMN ") {
        let at = find(table, &names[0])?;
        if find(table, &names[1]).is_ok() {
            return Err(refused("column exists"));
        }
        table[at].name.clone_from(&names[1]);
    } else if text.contains(" DROP COLUMN ") {
        for name in &names {
            find(table, name)?;
        }
        table.retain(|column| !names.contains(&column.name));
    } else if let Some((_, wider)) = text.split_once(" SET DATA TYPE ") {
        let at = find(table, &names[0])?;
        table[at].column_type = wider.to_owned();
    } else if text.ends_with(" DROP NOT NULL") {
        let at = find(table, &names[0])?;
        table[at].is_nullable = true;
    } else if text.contains("UPDATE ") {
        let [to, from, mark] = [0, 1, 2].map(|at| find(table, &names[at]));
        let (to, from, mark) = (to?, from?, mark?);
        let values = table[from].values.clone();
        if table[to].column_type != "NUMBER(38,0)" && values.contains(&Some(HUGE)) {
            return Err(Error::new(ErrorKind::Data, "out of range").with_code("100046"));
        }
        let is_exact = text.contains("IS DISTINCT FROM");
        for (row, value) in values.into_iter().enumerate() {
            let (had, is_marked) = (table[to].values[row], table[mark].values[row].is_some());
            if is_exact || !is_marked && had.is_none() && value.is_some() {
                table[to].values[row] = value;
                table[mark].values[row] = Some(1);
            }
        }
    } else {
        panic!("the fake does not know {text}");
    }
    Ok(answer)
}

#[async_trait]
impl Warehouse for Session {
    async fn execute(&mut self, statement: &Statement) -> Result<QueryResult> {
        self.permits.acquire().await.expect("never closed").forget();
        let cut = self.cut.filter(|(call, _)| *call == self.calls);
        self.calls += 1;
        let lost = || Error::new(ErrorKind::Transient, "connection cut");
        if let Some((_, false)) = cut {
            return Err(lost());
        }
        let text = statement.text();
        let result = if text.starts_with("SHOW TABLES") {
            let row = ["T", self.cluster_by].map(|text| Some(text.to_owned()));
            Ok(QueryResult {
                query_id: "01".to_owned(),
                columns: ["name", "cluster_by"].map(str::to_owned).to_vec(),
                rows: vec![row.to_vec()],
            })
        } else if let Some(autocommit) = text.strip_prefix("ALTER SESSION SET AUTOCOMMIT = ") {
            self.autocommit = autocommit == "TRUE";
            Ok(QueryResult::default())
        } else if text.starts_with("UPDATE") && !self.autocommit {
            panic!("{text} leaves a transaction open");
        } else if self.keeps_columns && text.contains(" DROP COLUMN ") {
            Err(refused("not dropped"))
        } else if !self.is_owner && text.starts_with("ALTER TABLE") {
            Err(refused("not the owner").with_code("003001"))
        } else {
            apply(&mut self.table.lock().unwrap(), text)
        };
        if cut.is_some() { Err(lost()) } else { result }
    }

    async fn put(
        &mut self,
        _: &str,
        _: &[LocalFile<'_>],
        _: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        Ok(())
    }
}

/// An upload of these columns whose files are staged.
pub(super) fn upload(columns: &[(&str, ColumnType)]) -> Upload {
    let columns = columns
        .iter()
        .map(|(name, column_type)| Column::new(*name, *column_type))
        .collect();
    Upload {
        manifest: Manifest {
            columns,
            rows: 1,
            ..Manifest::default()
        },
        is_staged: true,
        ..super::tests::upload(0)
    }
}

pub(super) fn number(scale: u8) -> ColumnType {
    ColumnType::Number {
        precision: 38,
        scale,
    }
}

//! The load itself: what stands between BEGIN and COMMIT for each strategy, and how it is known to be right.
//!
//! Every way to load can be repeated: a transaction that was rolled back left nothing, one that was committed is found by
//! its id, and the rows of a load carry the upload's id.

use uuid::Uuid;

use super::strategy::{Match, Strategy};
use super::table::Target;
use super::transaction::{check_open, commit, current};
use super::verify::{counted, verify_copy, verify_count};
use super::{Ledger, MAX_FILES_PER_COPY, Outcome, Phase, Upload, execute, outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::names::{TIME_WINDOW_END, TIME_WINDOW_START, UPLOAD_ID, USER_ID};
use crate::snowflake::Warehouse;
use crate::snowflake::sql::{self, TableName};

/// What a transaction does.
enum Work<'a> {
    /// COPY into the table itself, after these statements have made room.
    Copy { clear: Vec<String> },
    /// COPY into a table that had no rows. If it turns out that this alone is not right, nothing is done.
    CopyFirst { keys: &'a [&'a str] },
    /// The rows of the temporary table become those of the table.
    Overwrite { temporary: &'a TableName },
    /// They are merged by keys, of which there are so many different ones.
    Merge {
        temporary: &'a TableName,
        keys: &'a [&'a str],
        distinct: u64,
    },
    /// They are added after this statement has deleted what they replace.
    Exchange {
        temporary: &'a TableName,
        clear: String,
    },
}

/// What a transaction did: the rows that are in the table because of it, and the id of the statement that tells most.
struct Done {
    rows: u64,
    query_id: Option<String>,
}

/// Loads the rows by the upload's strategy. `is_repeated`: an earlier load may have been begun.
pub(super) async fn load(
    upload: &Upload,
    target: &Target,
    warehouse: &mut dyn Warehouse,
    ledger: &dyn Ledger,
    is_repeated: bool,
) -> Result<Outcome> {
    let has_files = !upload.manifest.files.is_empty();
    match &upload.strategy {
        Strategy::Append | Strategy::Upsert(Match::Window(_)) => {
            let mut remove = upload.replaces.clone();
            if cfg!(feature = "mutant_no_replace") {
                remove.clear();
            }
            if is_repeated && !cfg!(feature = "mutant_no_delete") {
                remove.push(upload.upload_id);
            }
            if !has_files && remove.is_empty() {
                return Ok(outcome(upload, None));
            }
            let window = match &upload.strategy {
                Strategy::Upsert(Match::Window(window)) => vec![
                    (target.name_of(TIME_WINDOW_START), window.start.as_str()),
                    (target.name_of(TIME_WINDOW_END), window.end.as_str()),
                ],
                _ => Vec::new(),
            };
            let mut clear = Vec::new();
            if !remove.is_empty() {
                let column = target.name_of(UPLOAD_ID);
                clear.push(sql::delete_uploads(
                    &upload.target,
                    column,
                    &remove,
                    &window,
                ));
            }
            Loader::new(upload, target, warehouse, ledger, is_repeated)
                .must(Work::Copy { clear })
                .await
        }
        Strategy::Upsert(_) if !has_files => Ok(outcome(upload, None)),
        Strategy::Upsert(Match::Nothing) => Err(Error::new(
            ErrorKind::Internal,
            "there are rows, but nothing to match them by",
        )),
        Strategy::Replace | Strategy::Upsert(Match::Keys(_) | Match::Dates(_)) => {
            let keys: Vec<&str> = match &upload.strategy {
                Strategy::Upsert(Match::Keys(keys)) => {
                    keys.iter().map(|key| target.name_of(key)).collect()
                }
                _ => Vec::new(),
            };
            let mut loader = Loader::new(upload, target, warehouse, ledger, is_repeated);
            if has_files && let Some(loaded) = loader.first(&keys).await? {
                return Ok(loaded);
            }
            loader.through_temporary_table(&keys).await
        }
    }
}

struct Loader<'a> {
    upload: &'a Upload,
    target: &'a Target,
    warehouse: &'a mut dyn Warehouse,
    ledger: &'a dyn Ledger,
    is_repeated: bool,
}

impl<'a> Loader<'a> {
    fn new(
        upload: &'a Upload,
        target: &'a Target,
        warehouse: &'a mut dyn Warehouse,
        ledger: &'a dyn Ledger,
        is_repeated: bool,
    ) -> Self {
        Self {
            upload,
            target,
            warehouse,
            ledger,
            is_repeated,
        }
    }

    /// A load into a table without rows needs nothing but COPY. `None`: it has rows, or the result has a key twice.
    async fn first(&mut self, keys: &[&str]) -> Result<Option<Outcome>> {
        let looked = execute(self.warehouse, sql::has_rows(&self.upload.target)).await?;
        if counted(&looked)? != 0 {
            return Ok(None);
        }
        self.transact(Work::CopyFirst { keys }).await
    }

    async fn through_temporary_table(&mut self, keys: &[&str]) -> Result<Outcome> {
        let temporary = sql::temporary_table(&self.upload.target, self.upload.upload_id);
        let mut columns = self.target.columns.clone();
        if !keys.is_empty() {
            columns.push(sql::ordinal_column());
        }
        execute(
            self.warehouse,
            sql::create_temporary_table(&temporary, &columns),
        )
        .await
        .map_err(|error| {
            error.in_context(
                format_args!("cannot create a temporary table beside table {}", self.upload.target),
                format_args!(
                    "The strategies upsert and replace need a role that may create tables in schema {}.{}.",
                    sql::quote_ident(&self.upload.target.database),
                    sql::quote_ident(&self.upload.target.schema)
                ),
            )
        })?;
        failpoint::reach("temporary-made")?;
        self.copy(&temporary, &columns, true).await?;
        execute(self.warehouse, sql::commit()).await?;
        failpoint::reach("temporary-loaded")?;
        let work = match &self.upload.strategy {
            Strategy::Upsert(Match::Keys(_)) => {
                let distinct =
                    execute(self.warehouse, sql::count_keys(&temporary, keys, None)).await?;
                Work::Merge {
                    temporary: &temporary,
                    keys,
                    distinct: counted(&distinct)?,
                }
            }
            Strategy::Upsert(Match::Dates(date)) => Work::Exchange {
                clear: sql::delete_dates(
                    &self.upload.target,
                    &temporary,
                    self.target.name_of(USER_ID),
                    self.target.column_of(&date.name)?,
                    date.is_timestamp,
                ),
                temporary: &temporary,
            },
            _ => Work::Overwrite {
                temporary: &temporary,
            },
        };
        self.must(work).await
    }

    /// Work that is done, or fails.
    async fn must(&mut self, work: Work<'_>) -> Result<Outcome> {
        self.transact(work)
            .await?
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a load was given up without an error"))
    }

    /// Does the work in one transaction. `None`: it would not have been right, and was rolled back.
    async fn transact(&mut self, work: Work<'_>) -> Result<Option<Outcome>> {
        execute(self.warehouse, sql::begin()).await?;
        match self.in_transaction(work).await {
            Ok((transaction, Some(done))) => {
                self.ledger
                    .progress(Phase::Committing, self.upload.manifest.bytes);
                failpoint::reach("loaded")?;
                commit(self.upload, self.warehouse, self.ledger, &transaction).await?;
                failpoint::reach("committed")?;
                Ok(Some(Outcome {
                    rows: done.rows,
                    ..outcome(self.upload, done.query_id)
                }))
            }
            Ok((_, None)) => {
                execute(self.warehouse, sql::rollback()).await?;
                Ok(None)
            }
            Err(error) => {
                // A session that is gone has rolled back by itself, so a failure here adds nothing.
                let _ = execute(self.warehouse, sql::rollback()).await;
                Err(self.target.explain(error))
            }
        }
    }

    /// Everything between BEGIN and COMMIT: the transaction's id, and what was done.
    async fn in_transaction(&mut self, work: Work<'_>) -> Result<(String, Option<Done>)> {
        let transaction = current(self.warehouse).await?.ok_or_else(|| {
            Error::new(
                ErrorKind::Transient,
                "Snowflake reports no transaction after BEGIN",
            )
        })?;
        let rows = match work {
            Work::Merge { distinct, .. } => distinct,
            _ => self.upload.manifest.rows,
        };
        self.ledger.copying(&transaction, rows).await?;
        failpoint::reach("intent-recorded")?;
        self.ledger
            .progress(Phase::Copying, self.upload.manifest.bytes);
        let done = match work {
            Work::Copy { clear } => Some(self.clear_and_copy(clear).await?),
            Work::CopyFirst { keys } => self.copy_first(keys).await?,
            Work::Overwrite { temporary } => Some(self.overwrite(temporary).await?),
            Work::Merge {
                temporary,
                keys,
                distinct,
            } => Some(self.merge(temporary, keys, distinct).await?),
            Work::Exchange { temporary, clear } => Some(self.exchange(temporary, clear).await?),
        };
        if done.is_some() {
            check_open(self.warehouse, &transaction).await?;
        }
        Ok((transaction, done))
    }

    async fn clear_and_copy(&mut self, clear: Vec<String>) -> Result<Done> {
        for statement in clear {
            execute(self.warehouse, statement).await?;
        }
        let query_id = self
            .copy(&self.upload.target, &self.target.columns, self.is_repeated)
            .await?;
        if self.is_repeated {
            self.verify_upload().await?;
        }
        Ok(self.all_rows(query_id))
    }

    async fn copy_first(&mut self, keys: &[&str]) -> Result<Option<Done>> {
        let table = &self.upload.target;
        let query_id = self.copy(table, &self.target.columns, true).await?;
        // Somebody else may have been faster; and rows that have the same key have to be merged.
        let statement = if keys.is_empty() {
            sql::count_rows(table)
        } else {
            sql::count_keys(table, keys, None)
        };
        let count = counted(&execute(self.warehouse, statement).await?)?;
        Ok((count == self.upload.manifest.rows).then(|| self.all_rows(query_id)))
    }

    async fn overwrite(&mut self, temporary: &TableName) -> Result<Done> {
        let table = &self.upload.target;
        let statement = sql::insert_overwrite(table, temporary, &self.target.columns);
        let inserted = execute(self.warehouse, statement).await?;
        let count = execute(self.warehouse, sql::count_rows(table)).await?;
        verify_count(&count, self.upload.manifest.rows, table, "rows")?;
        Ok(self.all_rows(Some(inserted.query_id)))
    }

    async fn merge(&mut self, temporary: &TableName, keys: &[&str], distinct: u64) -> Result<Done> {
        let table = &self.upload.target;
        let statement = sql::merge(table, temporary, &self.target.columns, keys);
        let merged = execute(self.warehouse, statement).await?;
        let number = |name: &str| -> u64 {
            merged
                .value(0, name)
                .and_then(|count| count.parse().ok())
                .unwrap_or(0)
        };
        let touched = number("number of rows inserted") + number("number of rows updated");
        if touched > distinct {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!("table {table} has several rows with the same key ({})", keys.join(", ")),
            )
            .with_hint("Remove the surplus rows in Snowflake, or name other key_columns; nothing was changed.")
            .with_query_id(merged.query_id));
        }
        let column = self.target.name_of(UPLOAD_ID);
        let statement = sql::count_keys(table, keys, Some((column, self.upload.upload_id)));
        let count = execute(self.warehouse, statement).await?;
        verify_count(&count, distinct, table, "keys of this upload")?;
        if touched < distinct {
            return Err(Error::new(
                ErrorKind::Transient,
                format!("MERGE touched {touched} rows of table {table} for {distinct} keys; nothing was committed"),
            )
            .with_query_id(merged.query_id));
        }
        Ok(Done {
            rows: distinct,
            query_id: Some(merged.query_id),
        })
    }

    async fn exchange(&mut self, temporary: &TableName, clear: String) -> Result<Done> {
        execute(self.warehouse, clear).await?;
        let statement = sql::insert_from(&self.upload.target, temporary, &self.target.columns);
        let inserted = execute(self.warehouse, statement).await?;
        self.verify_upload().await?;
        Ok(self.all_rows(Some(inserted.query_id)))
    }

    /// COPY of all files into `table`; the id of the last statement.
    async fn copy(
        &mut self,
        table: &TableName,
        columns: &[sql::CopyColumn],
        force: bool,
    ) -> Result<Option<String>> {
        let mut query_id = None;
        for files in self.upload.manifest.files.chunks(MAX_FILES_PER_COPY) {
            let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
            let directory = &self.upload.stage_directory;
            let statement = sql::copy_into(table, columns, directory, &names, force);
            let copied = execute(self.warehouse, statement).await?;
            verify_copy(&copied, files)?;
            query_id = Some(copied.query_id);
        }
        Ok(query_id)
    }

    async fn verify_upload(&mut self) -> Result<()> {
        let table = &self.upload.target;
        let statement = count_upload(self.target, table, self.upload.upload_id);
        let count = execute(self.warehouse, statement).await?;
        verify_count(
            &count,
            self.upload.manifest.rows,
            table,
            "rows of this upload",
        )
    }

    fn all_rows(&self, query_id: Option<String>) -> Done {
        Done {
            rows: self.upload.manifest.rows,
            query_id,
        }
    }
}

fn count_upload(target: &Target, table: &TableName, upload: Uuid) -> String {
    sql::count_upload(table, target.name_of(UPLOAD_ID), upload)
}

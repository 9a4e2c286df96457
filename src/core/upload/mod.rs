//! One upload, from files on local disk to verified rows in a Snowflake table, against any [`Warehouse`].
//!
//! The order of steps is what makes it safe to die anywhere. Before each step that the other side remembers, the
//! [`Ledger`] has recorded durably that it may have happened; a later attempt reads that record and goes on from there.
//! Running a load twice is running it once: each row carries the upload's id, and a repeated load removes those rows in
//! the same transaction in which it copies them again.

mod assignment;
mod clustering;
pub mod leftovers;
mod load;
mod nullability;
mod rebuild;
mod retention;
mod size;
mod step;
mod strategy;
mod table;
mod together;
mod transaction;
mod verify;

use std::path::PathBuf;

use async_trait::async_trait;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::names::{ColumnCase, UPLOAD_ID};
use crate::snowflake::STAGED_FILE_MISSING;
use crate::snowflake::sql::{self, TableName};
use crate::snowflake::{LocalFile, QueryResult, Statement, Warehouse, Written};
use crate::spool::Manifest;
use crate::types::Column;

pub use retention::delete_uploaded_before;
pub use strategy::{DateColumn, Match, Strategy, StrategyName};
pub use together::{Member, clean_up_together, run_together};
pub use transaction::abort;
use transaction::{Settled, settle};

/// COPY accepts no more than this many names in FILES.
pub const MAX_FILES_PER_COPY: usize = 1_000;

/// How often a load is begun anew because a column was not there any more that the table had just shown, or the table itself:
/// somebody was rebuilding it, or has dropped it.
const MAX_LOADS: usize = 5;

/// By what a table is clustered if this upload creates it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ClusterBy {
    /// By nothing.
    #[default]
    Nothing,
    /// By the day of the result's date column, if it has one.
    Auto,
    /// By these columns, as the user calls them, with what becomes of lower-case letters.
    Columns(Vec<String>, ColumnCase),
}

/// What there is to load, and what earlier attempts have already done.
#[derive(Debug, Clone)]
pub struct Upload {
    /// Written to every row as UPLOAD_ID.
    pub upload_id: Uuid,
    /// The table.
    pub target: TableName,
    /// Where the files lie here.
    pub spool: PathBuf,
    /// Where they go: `~/snowflake_bridge/<installation>/<upload>/<claim>/`.
    pub stage_directory: String,
    /// The columns and files.
    pub manifest: Manifest,
    /// An earlier attempt recorded that all files are in the stage: nothing is put again.
    pub is_staged: bool,
    /// The transaction in which an earlier attempt may have loaded the rows.
    pub transaction: Option<String>,
    /// The table of that transaction, which may be another one than today's target.
    pub transaction_table: Option<TableName>,
    /// It was begun under another host name than today's: maybe of another account, which gives the same ids to transactions of its
    /// own.
    pub is_moved: bool,
    /// It may have been loaded, whatever is known of a transaction: a load was begun once, or the records are older than what was
    /// done, as on a standby that lagged behind when it was promoted, or in a dump.
    pub may_be_loaded: bool,
    /// Uploads whose rows an append replaces: earlier ones of the same execution.
    pub replaces: Vec<Uuid>,
    /// How the rows meet those that are there.
    pub strategy: Strategy,
    /// By what the table is clustered, if it is created.
    pub cluster_by: ClusterBy,
    /// Whether the table is changed where it does not take the result.
    pub evolve_schema: bool,
    /// The comment on the table, if it is created.
    pub comment: String,
    /// Somebody wants it to stop: nothing is begun any more, but what an earlier attempt may have loaded is found out.
    pub is_canceled: bool,
    /// What an earlier attempt may have loaded is found out, and nothing else.
    pub only_settles: bool,
    /// It stands for several, of which nobody knows by the rows of one whether they are all there.
    pub is_several: bool,
    /// Nobody else of this installation loads into the table meanwhile. Only then is a column made anew: what a COPY that had
    /// begun before brings later would be lost with the old column.
    pub is_alone: bool,
}

impl Upload {
    /// The columns that the table needs, those that have one value in all rows with that value.
    fn columns(&self) -> impl Iterator<Item = (Column, Option<String>)> + '_ {
        let of_files = self.manifest.columns.iter().cloned();
        let constants = self.strategy.constants().into_iter();
        of_files
            .map(|column| (column, None))
            .chain(constants.map(|(column, value)| (column, Some(value))))
    }

    /// The table into which an earlier attempt may have loaded the rows.
    fn earlier_table(&self) -> &TableName {
        self.transaction_table.as_ref().unwrap_or(&self.target)
    }

    fn uses_temporary_table(&self) -> bool {
        matches!(
            self.strategy,
            Strategy::Replace | Strategy::Upsert(Match::Keys(_) | Match::Dates(_))
        )
    }
}

/// How far an upload has come, for progress displays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Rows are read into files. Never told by [`run`], which begins after that.
    Reading,
    /// Files travel to the stage.
    Staging,
    /// The table is looked at, created or extended.
    Preparing,
    /// COPY runs.
    Copying,
    /// The transaction is being committed.
    Committing,
}

/// What must be durable on our side before the next step may happen on the other.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Records that every file is in the stage.
    ///
    /// # Errors
    /// If it could not be made durable; the upload then stops.
    async fn staged(&self) -> Result<()>;

    /// Records the transaction in which the rows are about to be loaded, and how many of them there will be in the table.
    ///
    /// # Errors
    /// If it could not be made durable; the upload then stops.
    async fn copying(&self, transaction: &str, rows: u64) -> Result<()>;

    /// The recorded transaction has left nothing in the table, and never will. Until this is told, or an attempt has recorded
    /// another transaction and not begun to commit it, it is open what became of the rows.
    fn rolled_back(&self);

    /// Tells how far the upload is; `staged` counts bytes of this attempt.
    fn progress(&self, phase: Phase, staged: u64);
}

/// What came of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Rows that are now in the table because of this upload.
    pub rows: u64,
    /// Bytes of the files they came in.
    pub bytes: u64,
    /// Snowflake's id of the (last) COPY; `None` for a result without rows, or one that an earlier attempt had loaded.
    pub query_id: Option<String>,
    /// An earlier attempt has loaded them, into the table that it has recorded.
    pub is_settled: bool,
}

/// Carries `upload` to its end.
///
/// # Errors
/// [`ErrorKind::Transient`] if another attempt may succeed; anything else needs somebody to act. The table then holds
/// either all rows of the upload or none.
pub async fn run(
    upload: &Upload,
    warehouse: &mut dyn Warehouse,
    ledger: &dyn Ledger,
) -> Result<Outcome> {
    if let Some(transaction) = &upload.transaction
        && settle(
            upload,
            upload.earlier_table(),
            warehouse,
            ledger,
            (transaction, upload.is_moved),
        )
        .await?
            == Settled::Committed
    {
        return settled_outcome(upload, warehouse).await;
    }
    if upload.is_canceled {
        return Err(canceled());
    }
    if upload.only_settles {
        return Err(Error::new(
            ErrorKind::Transient,
            "the last attempt ended before Snowflake answered, which has not kept its rows, and there are to be no more attempts",
        )
        .with_hint("Call snowflake_bridge.retry_upload once Snowflake can be reached again."));
    }
    if !upload.is_staged {
        stage_files(upload, warehouse, ledger).await?;
    }
    ledger.progress(Phase::Preparing, upload.manifest.bytes);
    let mut is_repeated = upload.transaction.is_some() || upload.may_be_loaded;
    let mut loads = 0;
    loop {
        let target = table::prepare(warehouse, upload).await?;
        failpoint::reach("prepared")?;
        loads += 1;
        match load::load(upload, &target, warehouse, ledger, is_repeated).await {
            Err(error)
                if matches!(error.code(), Some(INVALID_IDENTIFIER | OBJECT_MISSING))
                    && loads < MAX_LOADS =>
            {
                is_repeated = true;
            }
            result => return result,
        }
    }
}

/// What becomes of an upload that somebody has asked to stop.
#[must_use]
pub fn canceled() -> Error {
    Error::new(ErrorKind::Canceled, "canceled on request")
}

/// "Invalid identifier": there is no such column.
const INVALID_IDENTIFIER: &str = "000904";

/// "The number of waiters for this lock exceeds the limit": the table's queue is full.
const TOO_MANY_WAITERS: &str = "000625";

/// "Object does not exist or not authorized".
const OBJECT_MISSING: &str = "002003";

/// Whether an attempt failed because somebody has removed files that were staged: the next one must stage them again.
#[must_use]
pub fn is_stage_incomplete(error: &Error) -> bool {
    error.code() == Some(STAGED_FILE_MISSING)
}

/// Whether an attempt failed because others were before it, which says nothing about the upload: it is to come later.
#[must_use]
pub fn is_throttled(error: &Error) -> bool {
    error.kind() == ErrorKind::Throttled || error.code() == Some(TOO_MANY_WAITERS)
}

/// What an earlier attempt loaded, whose end it did not see itself.
async fn settled_outcome(upload: &Upload, warehouse: &mut dyn Warehouse) -> Result<Outcome> {
    let mut outcome = outcome(upload, None);
    outcome.is_settled = true;
    if matches!(upload.strategy, Strategy::Upsert(Match::Keys(_))) {
        match count_settled(upload, warehouse).await {
            Ok(rows) => outcome.rows = rows,
            Err(error) if error.kind().is_retryable() => return Err(error),
            // The rows are there, whoever has taken the table away or may not be asked any more.
            Err(_) => {}
        }
    }
    Ok(outcome)
}

/// The rows of the upload that are in the table, by what this calls its columns.
async fn count_settled(upload: &Upload, warehouse: &mut dyn Warehouse) -> Result<u64> {
    let table = upload.earlier_table();
    let columns = table::describe(warehouse, table).await?;
    let column = assignment::name_of(UPLOAD_ID, &columns.unwrap_or_default());
    let count = sql::count_upload(table, &column, upload.upload_id);
    verify::counted(&execute(warehouse, count).await?)
}

/// Removes the staged files and the temporary table. Best effort: what stays behind costs storage, not correctness.
///
/// # Errors
/// What Snowflake answered.
pub async fn clean_up(upload: &Upload, warehouse: &mut dyn Warehouse) -> Result<()> {
    failpoint::reach("clean-up")?;
    if upload.uses_temporary_table() {
        let temporary = sql::temporary_table(&upload.target, upload.upload_id);
        execute(warehouse, sql::drop_table(&temporary)).await?;
    }
    if upload.manifest.files.is_empty() {
        return Ok(());
    }
    match upload
        .stage_directory
        .trim_end_matches('/')
        .rsplit_once('/')
    {
        Some((of_all_attempts, _)) => {
            leftovers::remove(&format!("{of_all_attempts}/"), warehouse).await
        }
        None => Ok(()),
    }
}

/// Puts the files into the stage, and records it.
async fn stage_files(
    upload: &Upload,
    warehouse: &mut dyn Warehouse,
    ledger: &dyn Ledger,
) -> Result<()> {
    size::check(upload)?;
    let files: Vec<LocalFile<'_>> = local_files(upload).collect();
    put(&files, &upload.stage_directory, warehouse, ledger).await
}

/// The files as they lie in the spool, each with its name in the directory of the attempt.
fn local_files(upload: &Upload) -> impl Iterator<Item = LocalFile<'_>> {
    upload.manifest.files.iter().map(|file| LocalFile {
        path: upload.spool.join(&file.name),
        written: file.digest.as_deref().map(|digest| Written {
            bytes: file.bytes,
            digest,
        }),
        name: &file.name,
    })
}

async fn put(
    files: &[LocalFile<'_>],
    directory: &str,
    warehouse: &mut dyn Warehouse,
    ledger: &dyn Ledger,
) -> Result<()> {
    let report = |sent: u64| ledger.progress(Phase::Staging, sent);
    report(0);
    if !files.is_empty() {
        failpoint::during("put", warehouse.put(directory, files, &report)).await?;
    }
    failpoint::reach("put-done")?;
    ledger.staged().await?;
    failpoint::reach("staged")
}

fn outcome(upload: &Upload, query_id: Option<String>) -> Outcome {
    Outcome {
        rows: upload.manifest.rows,
        bytes: upload.manifest.bytes,
        query_id,
        is_settled: false,
    }
}

async fn execute(warehouse: &mut dyn Warehouse, text: String) -> Result<QueryResult> {
    let statement = Statement::new(text);
    failpoint::during(statement.text(), warehouse.execute(&statement)).await
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod fake_connection;
#[cfg(test)]
mod fake_ledger;
#[cfg(test)]
mod fake_table;
#[cfg(test)]
mod tests;

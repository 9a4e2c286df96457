//! One upload, from files on local disk to verified rows in a Snowflake table, against any [`Warehouse`].
//!
//! The order of steps is what makes it safe to die anywhere. Before each step that the other side remembers, the
//! [`Ledger`] has recorded durably that it may have happened; a later attempt reads that record and goes on from there.
//! Running a load twice is running it once: each row carries the upload's id, and a repeated load removes those rows in
//! the same transaction in which it copies them again.

mod table;
mod transaction;

use std::path::PathBuf;

use async_trait::async_trait;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::snowflake::sql::{self, CopyColumn, TableName};
use crate::snowflake::{QueryResult, Statement, Warehouse};
use crate::spool::Manifest;

use transaction::{Settled, commit, settle};

/// COPY accepts no more than this many names in FILES.
const MAX_FILES_PER_COPY: usize = 1_000;

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
    /// Uploads whose rows this one replaces: earlier ones of the same execution.
    pub replaces: Vec<Uuid>,
    /// The comment on the table, if it is created.
    pub comment: String,
}

/// How far an upload has come, for progress displays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
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

    /// Records the transaction in which the rows are about to be loaded.
    ///
    /// # Errors
    /// If it could not be made durable; the upload then stops.
    async fn copying(&self, transaction: &str) -> Result<()>;

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
        && settle(warehouse, transaction).await? == Settled::Committed
    {
        return Ok(outcome(upload, None));
    }
    if !upload.is_staged {
        stage(upload, warehouse, ledger).await?;
        ledger.staged().await?;
    }
    ledger.progress(Phase::Preparing, upload.manifest.bytes);
    let columns = table::prepare(warehouse, upload).await?;
    load(upload, &columns, warehouse, ledger).await
}

/// Removes the staged files. Best effort: what stays behind costs storage, not correctness.
///
/// # Errors
/// What Snowflake answered.
pub async fn clean_stage(upload: &Upload, warehouse: &mut dyn Warehouse) -> Result<()> {
    // With what earlier attempts left: theirs are the directories beside this one.
    let directory = upload.stage_directory.trim_end_matches('/');
    if let Some((of_all_attempts, _)) = directory.rsplit_once('/')
        && !upload.manifest.files.is_empty()
    {
        execute(warehouse, sql::remove(&format!("{of_all_attempts}/"))).await?;
    }
    Ok(())
}

async fn stage(upload: &Upload, warehouse: &mut dyn Warehouse, ledger: &dyn Ledger) -> Result<()> {
    let mut done = 0;
    ledger.progress(Phase::Staging, done);
    for file in &upload.manifest.files {
        let before = done;
        let report = |sent: u64| ledger.progress(Phase::Staging, before + sent);
        warehouse
            .put(
                &upload.spool.join(&file.name),
                &upload.stage_directory,
                &file.name,
                &report,
            )
            .await?;
        done += file.bytes;
    }
    Ok(())
}

async fn load(
    upload: &Upload,
    columns: &[CopyColumn],
    warehouse: &mut dyn Warehouse,
    ledger: &dyn Ledger,
) -> Result<Outcome> {
    let mut remove = upload.replaces.clone();
    let is_repeated = upload.transaction.is_some();
    if is_repeated {
        remove.push(upload.upload_id);
    }
    if upload.manifest.files.is_empty() && remove.is_empty() {
        return Ok(outcome(upload, None));
    }
    execute(warehouse, sql::begin()).await?;
    match load_in_transaction(upload, columns, warehouse, ledger, &remove, is_repeated).await {
        Ok((transaction, query_id)) => {
            ledger.progress(Phase::Committing, upload.manifest.bytes);
            commit(warehouse, &transaction).await?;
            Ok(outcome(upload, query_id))
        }
        Err(error) => {
            // A session that is gone has rolled back by itself, so a failure here adds nothing.
            let _ = execute(warehouse, sql::rollback()).await;
            Err(error)
        }
    }
}

/// Everything between BEGIN and COMMIT: the transaction's id, and that of the COPY.
async fn load_in_transaction(
    upload: &Upload,
    columns: &[CopyColumn],
    warehouse: &mut dyn Warehouse,
    ledger: &dyn Ledger,
    remove: &[Uuid],
    is_repeated: bool,
) -> Result<(String, Option<String>)> {
    let current = execute(warehouse, sql::current_transaction()).await?;
    let transaction = current.first_value().map(str::to_owned).ok_or_else(|| {
        Error::new(
            ErrorKind::Internal,
            "Snowflake reports no transaction after BEGIN",
        )
    })?;
    ledger.copying(&transaction).await?;
    ledger.progress(Phase::Copying, upload.manifest.bytes);
    if !remove.is_empty() {
        execute(warehouse, sql::delete_uploads(&upload.target, remove)).await?;
    }
    let mut query_id = None;
    for files in upload.manifest.files.chunks(MAX_FILES_PER_COPY) {
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        let copied = execute(
            warehouse,
            sql::copy_into(
                &upload.target,
                columns,
                &upload.stage_directory,
                &names,
                is_repeated,
            ),
        )
        .await?;
        verify_copy(
            &copied,
            files.len(),
            files.iter().map(|file| file.rows).sum(),
        )?;
        query_id = Some(copied.query_id);
    }
    if is_repeated {
        verify_count(upload, warehouse).await?;
    }
    Ok((transaction, query_id))
}

/// Every file must be reported LOADED, with all the rows that were written to it.
fn verify_copy(copied: &QueryResult, files: usize, rows: u64) -> Result<()> {
    let loaded = (0..copied.rows.len())
        .filter(|&row| {
            copied
                .value(row, "status")
                .is_some_and(|status| status.eq_ignore_ascii_case("LOADED"))
        })
        .count();
    let mut loaded_rows: u64 = 0;
    for row in 0..copied.rows.len() {
        let count = copied.value(row, "rows_loaded").unwrap_or("0");
        loaded_rows += count.parse::<u64>().map_err(|_| {
            Error::new(
                ErrorKind::Internal,
                "Snowflake reported a row count that is no number",
            )
        })?;
    }
    if loaded == files && loaded_rows == rows {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Transient,
        format!("COPY loaded {loaded_rows} rows of {loaded} files, but {rows} rows of {files} files were staged; nothing was committed"),
    )
    .with_query_id(copied.query_id.clone()))
}

async fn verify_count(upload: &Upload, warehouse: &mut dyn Warehouse) -> Result<()> {
    let counted = execute(
        warehouse,
        sql::count_upload(&upload.target, upload.upload_id),
    )
    .await?;
    let count: Option<u64> = counted.first_value().and_then(|count| count.parse().ok());
    if count == Some(upload.manifest.rows) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Transient,
        format!(
            "table {} holds {} rows of this upload instead of {}; nothing was committed",
            upload.target,
            count.map_or_else(
                || "an unknown number of".to_owned(),
                |count| count.to_string()
            ),
            upload.manifest.rows
        ),
    )
    .with_query_id(counted.query_id))
}

fn outcome(upload: &Upload, query_id: Option<String>) -> Outcome {
    Outcome {
        rows: upload.manifest.rows,
        bytes: upload.manifest.bytes,
        query_id,
    }
}

async fn execute(warehouse: &mut dyn Warehouse, text: String) -> Result<QueryResult> {
    warehouse.execute(&Statement::new(text)).await
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

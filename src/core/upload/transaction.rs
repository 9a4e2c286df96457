//! The end of a load's transaction, seen or not.

use super::table;
use super::{Ledger, OBJECT_MISSING, Upload, assignment, execute, verify};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::names::UPLOAD_ID;
use crate::snowflake::Warehouse;
use crate::snowflake::sql::{self, TableName};

/// How often a transaction that Snowflake still calls running is aborted and looked at again before the attempt gives up.
const MAX_ABORTS: usize = 5;

/// The session's transaction.
pub(super) async fn current(warehouse: &mut dyn Warehouse) -> Result<Option<String>> {
    let current = execute(warehouse, sql::current_transaction()).await?;
    Ok(current.first_value().map(str::to_owned))
}

/// Refuses to commit any other transaction than the recorded one. If that was aborted, by somebody who took the upload over
/// or by hand, the next statement of the load has begun one that nobody knows of.
pub(super) async fn check_open(warehouse: &mut dyn Warehouse, transaction: &str) -> Result<()> {
    if current(warehouse).await?.as_deref() == Some(transaction) {
        return Ok(());
    }
    Err(aborted(transaction))
}

fn aborted(transaction: &str) -> Error {
    Error::new(
        ErrorKind::Transient,
        format!(
            "somebody aborted transaction {transaction} while it was loading; nothing was committed"
        ),
    )
}

/// COMMIT, and the look at what became of it, whatever the answer says: a bad one may be that of a repeated request, and a
/// COMMIT is answered well even if somebody has aborted the transaction since the last look and there is nothing to commit.
pub(super) async fn commit(
    upload: &Upload,
    warehouse: &mut dyn Warehouse,
    ledger: &dyn Ledger,
    transaction: &str,
) -> Result<()> {
    let answer = execute(warehouse, sql::commit()).await;
    // If this fails as well, the recorded transaction lets the next attempt ask again.
    match settle(
        upload,
        &upload.target,
        warehouse,
        ledger,
        (transaction, false),
    )
    .await?
    {
        Settled::Committed => Ok(()),
        Settled::RolledBack => Err(answer.err().unwrap_or_else(|| aborted(transaction))),
    }
}

/// Ends a transaction of another session that nobody holds any more. Best effort, and harmless if it has ended.
///
/// # Errors
/// What Snowflake answered.
pub async fn abort(transaction: &str, warehouse: &mut dyn Warehouse) -> Result<()> {
    execute(warehouse, sql::abort_transaction(transaction)?).await?;
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    Committed,
    RolledBack,
}

/// What became of a transaction whose end we did not see. One that is still running belongs to a session that nobody
/// holds any more: it is aborted, and looked at again, since its COMMIT may have been on the way. Of one that Snowflake does
/// not know (any more), the rows tell, in the table that it was about; so they do where the host has another name than then
/// (`is_moved`), since the transaction with that id may be a stranger's.
pub(super) async fn settle(
    upload: &Upload,
    table: &TableName,
    warehouse: &mut dyn Warehouse,
    ledger: &dyn Ledger,
    (transaction, is_moved): (&str, bool),
) -> Result<Settled> {
    failpoint::reach("settling")?;
    for _ in 0..MAX_ABORTS {
        let described = match state(warehouse, transaction).await {
            // Who may not ask for the transaction may still see its rows.
            Err(error) if !error.kind().is_retryable() && !upload.is_several => {
                return match is_visible(upload, table, warehouse, transaction).await {
                    Ok(true) => Ok(Settled::Committed),
                    _ => Err(error),
                };
            }
            described => described?,
        };
        let state = match described.as_deref() {
            Some("committed" | "rolled back") if is_moved => {
                by_rows(upload, table, warehouse).await?
            }
            Some("running") if is_moved => return Err(still_running(transaction)),
            Some("committed") => Settled::Committed,
            Some("rolled back") => Settled::RolledBack,
            Some("running") => {
                abort(transaction, warehouse).await?;
                continue;
            }
            Some(other) => {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!(
                        "Snowflake reports transaction {transaction} as {other:?}, whatever that means"
                    ),
                ));
            }
            None if upload.is_several => break,
            None => {
                // What is not known can hardly be aborted, and if it can, the rows are not there after it.
                let _ = abort(transaction, warehouse).await;
                by_rows(upload, table, warehouse).await?
            }
        };
        if state == Settled::RolledBack {
            ledger.rolled_back();
        }
        return Ok(state);
    }
    Err(Error::new(
        ErrorKind::Transient,
        format!("Snowflake does not tell what became of transaction {transaction}"),
    ))
}

/// Nobody but its session, or Snowflake after a while, ends what may be a stranger's.
fn still_running(transaction: &str) -> Error {
    Error::new(
        ErrorKind::Transient,
        format!(
            "transaction {transaction}, in which the rows may be loaded, is still running, and its account had another name when it began"
        ),
    )
    .with_hint(format!(
        "If SHOW TRANSACTIONS IN ACCOUNT names it as this user's, SELECT SYSTEM$ABORT_TRANSACTION({transaction}) ends it at once; Snowflake ends it by itself."
    ))
}

async fn by_rows(
    upload: &Upload,
    table: &TableName,
    warehouse: &mut dyn Warehouse,
) -> Result<Settled> {
    Ok(if has_rows(upload, table, warehouse).await? {
        Settled::Committed
    } else {
        Settled::RolledBack
    })
}

/// How Snowflake calls the state of a transaction, in lower case; `None` if it knows no such transaction.
async fn state(warehouse: &mut dyn Warehouse, transaction: &str) -> Result<Option<String>> {
    match execute(warehouse, sql::describe_transaction(transaction)?).await {
        Ok(described) => Ok(described.value(0, "state").map(str::to_ascii_lowercase)),
        Err(error) if error.code() == Some(OBJECT_MISSING) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the upload's rows are in the table for others than the transaction itself. That there are none says nothing: it may be
/// running.
async fn is_visible(
    upload: &Upload,
    table: &TableName,
    warehouse: &mut dyn Warehouse,
    transaction: &str,
) -> Result<bool> {
    Ok(current(warehouse).await?.as_deref() != Some(transaction)
        && has_rows(upload, table, warehouse).await?)
}

/// Whether the upload's rows are in the table.
async fn has_rows(
    upload: &Upload,
    table: &TableName,
    warehouse: &mut dyn Warehouse,
) -> Result<bool> {
    let Some(columns) = table::describe(warehouse, table).await? else {
        return Ok(false);
    };
    let column = assignment::name_of(UPLOAD_ID, &columns);
    let count = sql::count_upload(table, &column, upload.upload_id);
    Ok(verify::counted(&execute(warehouse, count).await?)? > 0)
}

//! The end of a load's transaction, seen or not.

use super::execute;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::snowflake::{Warehouse, sql};

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
    Err(Error::new(
        ErrorKind::Transient,
        format!(
            "somebody aborted transaction {transaction} while it was loading; nothing was committed"
        ),
    ))
}

/// COMMIT, and after a lost answer the search for what became of it.
pub(super) async fn commit(warehouse: &mut dyn Warehouse, transaction: &str) -> Result<()> {
    let error = match execute(warehouse, sql::commit()).await {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    if !error.kind().is_retryable() {
        return Err(error);
    }
    // If this fails as well, the recorded transaction lets the next attempt ask again.
    match settle(warehouse, transaction).await? {
        Settled::Committed => Ok(()),
        Settled::RolledBack => Err(error),
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
/// holds any more: it is aborted, and looked at again, since its COMMIT may have been on the way.
pub(super) async fn settle(warehouse: &mut dyn Warehouse, transaction: &str) -> Result<Settled> {
    failpoint::reach("settling")?;
    for _ in 0..MAX_ABORTS {
        let described = execute(warehouse, sql::describe_transaction(transaction)?).await?;
        match described
            .value(0, "state")
            .map(str::to_ascii_lowercase)
            .as_deref()
        {
            Some("committed") => return Ok(Settled::Committed),
            Some("running") => {
                abort(transaction, warehouse).await?;
            }
            Some(_) => return Ok(Settled::RolledBack),
            None => break,
        }
    }
    Err(Error::new(
        ErrorKind::Transient,
        format!("Snowflake does not tell what became of transaction {transaction}"),
    ))
}

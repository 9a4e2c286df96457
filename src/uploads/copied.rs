//! Uploads that came with a copy of the database.

use pgrx::prelude::*;

use crate::error::Result;
use crate::tx;

/// Cancels what the original of this copy has not finished, or not even queued: it is the original's to send. Returns how many there were.
///
/// # Errors
/// If the statement fails.
pub fn cancel_copied() -> Result<i64> {
    Spi::run("delete from snowflake_bridge.missed")?;
    Spi::connect_mut(|client| {
        let canceled = client.update(
            "update snowflake_bridge.uploads u set state = 'canceled', completed_at = clock_timestamp(), \
                 error_message = 'the database that this one was copied from sends it', \
                 error_hint = 'If it does not, call snowflake_bridge.retry_upload.', \
                 needs_mirror = true, mirror_after = clock_timestamp() \
             where u.state in ('queued', 'claimed', 'staged', 'copying', 'retry', 'needs_credentials')",
            None,
            &[],
        )?;
        Ok(i64::try_from(canceled.len()).unwrap_or(i64::MAX))
    })
}

/// How many uploads are still to be sent.
///
/// # Errors
/// If the statement fails.
pub fn count_unfinished() -> Result<i64> {
    Ok(tx::read(
        "select count(*) from snowflake_bridge.uploads u \
         where u.state in ('queued', 'claimed', 'staged', 'copying', 'retry', 'needs_credentials')",
        &[],
    )?
    .unwrap_or(0))
}

//! Uploads that came with a copy of the database. What the original has loaded, or is loading, is the original's.

use pgrx::prelude::*;

use crate::error::Result;
use crate::tx;

/// Cancels what the original of this copy has not finished, or not even queued: it is the original's to send. Whatever may still be
/// loaded here gets an upload id of its own, and nothing that the original has begun is taken for this installation's: no load here
/// deletes the original's rows, ends its transactions or counts on its files. Returns how many unfinished uploads there were.
///
/// # Errors
/// If the statement fails.
pub fn cancel_copied() -> Result<i64> {
    Spi::run("delete from snowflake_bridge.missed")?;
    // Of an upload that has completed only the memory is left, which names the rows of the original.
    Spi::run(
        "update snowflake_bridge.uploads u set may_be_loaded = false, clean_up_after = null \
         where u.state = 'completed' and (u.may_be_loaded or u.clean_up_after is not null)",
    )?;
    Spi::run(
        "update snowflake_bridge.uploads u set upload_id = gen_random_uuid(), may_be_loaded = false, \
             transaction_id = null, transaction_table = null, staged_claim = null, staged_for = null, clean_up_after = null, \
             manifest = case when u.watch_id is not null then u.manifest end \
         where u.state <> 'completed'",
    )?;
    Spi::connect_mut(|client| {
        let canceled = client.update(
            "update snowflake_bridge.uploads u set state = 'canceled', completed_at = clock_timestamp(), \
                 error_message = 'the database that this one was copied from sends it', \
                 error_hint = case when u.watch_id is null then 'If it does not, run the query again here.' \
                     else 'If it does not, call snowflake_bridge.retry_upload.' end, \
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

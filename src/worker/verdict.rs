//! What becomes of an upload after an attempt that failed.

use std::time::Duration;

use bridge_core::ErrorKind;
use bridge_core::retry::Backoff;
use pgrx::prelude::*;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::uploads::{self, Claim, NextState, unpack_sqlstate};
use crate::{configs, guc};

/// Only what can succeed on its own is tried again, and not for ever; unless it is open whether the rows are in the table
/// (`is_undecided`): that has to be found out, whatever the error is.
pub(super) fn next_state(error: &Error, attempt: i32, is_undecided: bool) -> NextState {
    let (kind, retry_after) = match error {
        Error::Core(error) => (error.kind(), error.retry_after()),
        // Our own or the application's tables could not be read: a lock, a full disk, a deadlock. Or the row is bad.
        // What was taken over is somebody else's to judge.
        Error::Spi(_) | Error::TakenOver { .. } => (ErrorKind::Transient, None),
        // Not counted as an attempt, see `record_error`.
        Error::Server { sqlstate, .. } if is_lock_conflict(*sqlstate) => {
            return NextState::Retry(guc::retry_base_delay());
        }
        Error::Server { sqlstate, .. } if is_passing(*sqlstate) => (ErrorKind::Transient, None),
        Error::Server { .. } | Error::User { .. } => (ErrorKind::Data, None),
    };
    match kind {
        ErrorKind::Credentials => NextState::NeedsCredentials,
        kind if is_undecided || kind.is_retryable() && attempt < guc::max_attempts() => {
            let backoff = Backoff {
                base: guc::retry_base_delay(),
                max: guc::retry_max_delay(),
            };
            let mut delay = backoff.base;
            for _ in 0..attempt {
                delay = backoff.delay(delay, &mut rand::thread_rng());
            }
            NextState::Retry(delay.max(retry_after.unwrap_or_default()))
        }
        ErrorKind::Canceled => NextState::Canceled,
        _ => NextState::Failed,
    }
}

fn is_lock_conflict(sqlstate: PgSqlErrorCode) -> bool {
    matches!(
        sqlstate,
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
    )
}

/// Writes down what becomes of an upload. Credentials that Snowflake refused, those of this version of the configuration,
/// are marked in the same transaction: as long as that holds the configuration, nobody brings others without seeing that
/// this upload waits for them. Returns what was recorded: others may have come before.
///
/// # Errors
/// [`Error::TakenOver`]; `55P03` if somebody is changing the configuration; or if a statement fails.
pub(super) fn record_failure(
    claim: Claim,
    config: Option<(Uuid, i64)>,
    mut next: NextState,
    error: &Error,
    is_undecided: bool,
) -> Result<NextState> {
    if next == NextState::NeedsCredentials {
        Spi::run("set local lock_timeout = '50ms'")?;
        if let Some((id, version)) = config {
            configs::mark_refused(id, version, &error.to_string())?;
        }
        if !uploads::is_refused(claim)? {
            next = NextState::Retry(Duration::ZERO);
        }
    }
    uploads::record_error(claim, next, error, is_undecided)?;
    Ok(next)
}

/// Classes 40 (conflict), 53 (resources), 55 (locks), 57 (operator), 58 (system): not the row's fault.
fn is_passing(sqlstate: PgSqlErrorCode) -> bool {
    matches!(
        unpack_sqlstate(sqlstate).get(..2),
        Some("40" | "53" | "55" | "57" | "58")
    )
}

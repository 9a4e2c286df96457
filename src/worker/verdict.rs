//! What becomes of an upload after an attempt that failed.

use bridge_core::ErrorKind;
use bridge_core::retry::Backoff;
use pgrx::prelude::*;

use crate::error::Error;
use crate::guc;
use crate::uploads::{NextState, unpack_sqlstate};

/// Only what can succeed on its own is tried again, and not for ever.
pub(super) fn next_state(error: &Error, attempt: i32) -> NextState {
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
        kind if kind.is_retryable() && attempt < guc::max_attempts() => {
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
        ErrorKind::Credentials => NextState::NeedsCredentials,
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

/// Classes 40 (conflict), 53 (resources), 55 (locks), 57 (operator), 58 (system): not the row's fault.
fn is_passing(sqlstate: PgSqlErrorCode) -> bool {
    matches!(
        unpack_sqlstate(sqlstate).get(..2),
        Some("40" | "53" | "55" | "57" | "58")
    )
}

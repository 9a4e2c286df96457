//! What becomes of an upload after an attempt that failed.

use std::time::Duration;

use bridge_core::ErrorKind;
use bridge_core::retry::Backoff;
use pgrx::prelude::*;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::setting::set_for_transaction;
use crate::uploads::{self, Claim, Claimed, NextState, unpack_sqlstate};
use crate::{configs, guc};

/// By then the wait has long become the longest one.
const MAX_STEPS: i32 = 50;

/// After an upload has only logged in.
const TURN_DELAY: Duration = Duration::from_millis(20);

/// Only what can succeed on its own is tried again, and not for ever. While it is open whether the rows are in the table
/// (`is_undecided`), that has to be found out: this is tried as often whatever the error is, and without end if it can succeed
/// on its own and nobody wants the upload to stop. An attempt that Snowflake has only asked to come later
/// says nothing about the upload, and is not counted for a day.
pub(super) fn next_state(error: &Error, upload: &Claimed, is_undecided: bool) -> NextState {
    let attempt = upload.attempt;
    let (kind, retry_after) = match error {
        Error::Core(error) => (error.kind(), error.retry_after()),
        // Our own or the application's tables could not be read: a lock, a full disk, a deadlock. Or the row is bad.
        // What was taken over is somebody else's to judge.
        Error::Spi(_) | Error::TakenOver { .. } => (ErrorKind::Transient, None),
        // Not counted as an attempt, see `record_error`.
        Error::Server { sqlstate, .. } if is_lock_conflict(*sqlstate) => {
            return NextState::Retry(guc::retry_base_delay());
        }
        Error::NoAllowance { delay, .. } => {
            return NextState::Waits((*delay).min(guc::retry_max_delay()));
        }
        Error::Server { sqlstate, .. } if is_passing(*sqlstate) => (ErrorKind::Transient, None),
        Error::Server { .. } | Error::User { .. } => (ErrorKind::Data, None),
    };
    let (has_attempts, is_retryable) = (attempt < guc::max_attempts(), kind.is_retryable());
    let finds_out = is_undecided && (has_attempts || is_retryable && !upload.cancel_requested);
    let delay = |steps| delay(steps).max(retry_after.unwrap_or_default());
    match kind {
        ErrorKind::Credentials => NextState::NeedsCredentials,
        ErrorKind::NeedsTable => NextState::Alone,
        ErrorKind::NeedsTurn if upload.is_let_in => {
            NextState::Waits(guc::retry_base_delay().min(TURN_DELAY))
        }
        // It could not be marked, as when somebody is at its connection's row, and would only log in once more.
        ErrorKind::NeedsTurn => NextState::Waits(guc::retry_base_delay()),
        _ if is_throttled(error) && !upload.throttled_too_long => {
            NextState::Later(delay(upload.claim.min(MAX_STEPS)))
        }
        _ if finds_out || is_retryable && has_attempts && !upload.has_crashed_too_often() => {
            NextState::Retry(delay(attempt))
        }
        ErrorKind::Canceled => NextState::Canceled,
        _ if is_undecided && upload.cancel_requested => NextState::Canceled,
        _ => NextState::Failed,
    }
}

/// The same of an attempt during which Snowflake could not even be asked. If somebody wants the upload to stop, it does, unless what
/// was in the way passes: what became of an earlier attempt then stays open.
pub(super) fn next_unless_begun(error: &Error, upload: &Claimed) -> NextState {
    if !(upload.is_undecided() && upload.cancel_requested) {
        return next_state(error, upload, upload.is_undecided());
    }
    match next_state(error, upload, false) {
        NextState::Failed | NextState::NeedsCredentials => NextState::Canceled,
        next => next,
    }
}

/// The error of an attempt that has only found out that the rows were not loaded, because the worker had crashed too often.
pub(super) fn crashed() -> Error {
    bridge_core::Error::new(ErrorKind::Transient, uploads::CRASHED)
        .with_hint(uploads::CRASHED_HINT)
        .into()
}

fn is_throttled(error: &Error) -> bool {
    matches!(error, Error::Core(error) if bridge_core::upload::is_throttled(error))
}

/// What is waited after so many attempts.
fn delay(steps: i32) -> Duration {
    let backoff = Backoff {
        base: guc::retry_base_delay(),
        max: guc::retry_max_delay(),
    };
    (0..steps).fold(backoff.base, |delay, _| {
        backoff.delay(delay, &mut rand::thread_rng())
    })
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
        set_for_transaction(c"lock_timeout", c"50ms");
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

/// Classes 08 (connection, to a foreign server), 40 (conflict), 53 (resources), 55 (locks), 57 (operator), 58 (system): not the
/// row's fault.
fn is_passing(sqlstate: PgSqlErrorCode) -> bool {
    matches!(
        unpack_sqlstate(sqlstate).get(..2),
        Some("08" | "40" | "53" | "55" | "57" | "58")
    )
}

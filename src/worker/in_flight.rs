//! An upload in flight, as the main thread knows it: how far it is, and what is recorded when it ends.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bridge_core::ErrorKind;
use bridge_core::upload::{Outcome, Phase};
use pgrx::pg_sys;
use pgrx::prelude::*;
use uuid::Uuid;

use super::registry::{self, Live};
use super::runner::Canceler;
use super::verdict::{crashed, next_state, next_unless_begun, record_failure};
use crate::error::{Error, Result, log_error, log_message};
use crate::uploads::{self, Claimed, NextState};
use crate::{failpoint, tx};

/// Until a configuration that somebody is changing is looked at again.
const CHANGING_DELAY: Duration = Duration::from_secs(1);

/// An upload that was claimed.
pub(super) struct InFlight {
    pub upload: Claimed,
    pub config_id: Option<(Uuid, i64)>,
    pub spool: PathBuf,
    pub begun: Instant,
    pub total_bytes: u64,
    /// Of these, what is still to be put into the stage.
    pub unsent_bytes: u64,
    pub rows: u64,
    pub stage: Stage,
    /// Somebody wants it to stop.
    pub is_canceled: bool,
    /// It shares the slot and the COPY of another one.
    pub follows: bool,
}

/// Who is at an upload in flight.
pub(super) enum Stage {
    /// Nobody: every reader is busy.
    WaitsForReader,
    /// A reader, which has ended by then or will be.
    Reader {
        until: Instant,
    },
    Network(Option<Canceler>),
}

/// How an attempt has ended.
pub(super) enum Ending {
    /// Its rows are in the table.
    Completed { target: String, outcome: Outcome },
    /// Without.
    Failed { error: Error, is_undecided: bool },
    /// Before the network was used.
    NotBegun { error: Rc<Error> },
    /// What it shared with others has failed: it goes on by itself.
    Parted {
        cause: Arc<bridge_core::Error>,
        is_undecided: bool,
    },
}

/// Whether that is written down.
pub(super) enum Recorded {
    Yes,
    /// The upload is another worker's.
    TakenOver,
    NotYet(Error),
}

impl InFlight {
    /// The account that it is at, once nothing is left to be read.
    pub(super) fn account(&self) -> Option<&str> {
        matches!(self.stage, Stage::Network(_)).then_some(self.upload.account.as_str())
    }

    /// Shows how far it is to whoever asks.
    pub(super) fn show(&self, phase: Phase, staged: u64) {
        registry::show_progress(Live {
            upload: self.upload.id,
            database: pg_sys::InvalidOid,
            phase: phase as u8,
            rows: self.rows,
            staged_bytes: staged,
            total_bytes: self.total_bytes,
        });
    }

    /// Writes down how this attempt has ended.
    pub(super) fn record(&self, ending: &Ending) -> Recorded {
        match ending {
            Ending::Completed { target, outcome } => self.completed(target, outcome),
            Ending::Failed {
                error,
                is_undecided,
            } => self.failed(
                error,
                next_state(error, &self.upload, *is_undecided),
                *is_undecided,
            ),
            Ending::NotBegun { error } => {
                let next = next_unless_begun(error, &self.upload);
                self.failed(error, next, self.upload.is_undecided())
            }
            Ending::Parted {
                cause,
                is_undecided,
            } => {
                let claim = self.upload.as_claim();
                let error = shared(cause).into();
                let recorded = tx::transaction(|| {
                    uploads::record_error(claim, NextState::ByItself, &error, *is_undecided)
                });
                self.end(recorded, false)
            }
        }
    }

    fn completed(&self, target: &str, outcome: &Outcome) -> Recorded {
        let recorded = tx::transaction(|| {
            failpoint::reach("completing");
            let claim = self.upload.as_claim();
            if outcome.is_settled {
                return uploads::record_settled(claim);
            }
            uploads::record_completed(
                claim,
                target,
                outcome.rows,
                outcome.bytes,
                outcome.query_id.as_deref(),
            )
        });
        let recorded = self.end(recorded, true);
        if matches!(recorded, Recorded::Yes) {
            log_message(&format!(
                "snowflake_bridge: upload {} of execution {} completed: {} rows into {target} in {:.3} s",
                self.upload.id,
                quoted(&self.upload.execution_id),
                outcome.rows,
                self.begun.elapsed().as_secs_f64()
            ));
        }
        recorded
    }

    fn failed(&self, error: &Error, next: NextState, is_undecided: bool) -> Recorded {
        let id = self.upload.id;
        let claim = self.upload.as_claim();
        let crashed =
            (next == NextState::Failed && self.upload.has_crashed_too_often()).then(crashed);
        let error = crashed.as_ref().unwrap_or(error);
        let (next, recorded) = match tx::transaction(|| {
            record_failure(claim, self.config_id, next, error, is_undecided)
        }) {
            Ok(next) => (next, Ok(())),
            // Somebody is changing the configuration, and is not waited for.
            Err(Error::Server {
                sqlstate: PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
                ..
            }) => {
                let next = NextState::Retry(CHANGING_DELAY);
                let recorded =
                    tx::transaction(|| uploads::record_error(claim, next, error, is_undecided));
                (next, recorded)
            }
            Err(error) => (next, Err(error)),
        };
        let recorded = self.end(recorded, next == NextState::Canceled);
        if !matches!(recorded, Recorded::Yes) {
            return recorded;
        }
        let execution = quoted(&self.upload.execution_id);
        match next {
            NextState::Retry(delay) | NextState::Later(delay) => pgrx::warning!(
                "snowflake_bridge: upload {id} of execution {execution}, attempt {}, will be retried in {:.1} s: {error}",
                self.upload.attempt,
                delay.as_secs_f64()
            ),
            NextState::Waits(_) => log_message(&format!(
                "snowflake_bridge: upload {id} of execution {execution} waits: {error}"
            )),
            NextState::Alone => log_message(&format!(
                "snowflake_bridge: upload {id} of execution {execution} goes on alone: {error}"
            )),
            _ => log_error(
                &format!("snowflake_bridge: upload {id} of execution {execution} failed"),
                error,
            ),
        }
        recorded
    }

    /// The files of an attempt go with it. Those that a caller left stay until the upload `is_over`: nobody can read their
    /// rows again. If the upload was taken over, all but this claim's own files are somebody else's.
    fn end(&self, recorded: Result<()>, is_over: bool) -> Recorded {
        let Claimed {
            id, claim, attempt, ..
        } = self.upload;
        registry::end_progress(id);
        match recorded {
            Ok(()) => {
                if is_over || self.upload.watch_id.is_some() {
                    bridge_core::spool::remove(&self.spool);
                }
                Recorded::Yes
            }
            Err(Error::TakenOver { .. }) => {
                bridge_core::spool::remove(&self.spool.join(claim.to_string()));
                pgrx::warning!(
                    "snowflake_bridge: upload {id} of execution {} was taken over while this worker was at it; nothing of its attempt {attempt} is recorded",
                    quoted(&self.upload.execution_id)
                );
                Recorded::TakenOver
            }
            Err(error) => Recorded::NotYet(error),
        }
    }
}

/// What is recorded of each upload that shared a COPY, with what Snowflake said: whether a file was missing, say, so that all are
/// staged again.
fn shared(cause: &bridge_core::Error) -> bridge_core::Error {
    let message = format!(
        "what it shared with others was not loaded, it is loaded by itself now: {}",
        cause.message()
    );
    let mut error = bridge_core::Error::new(ErrorKind::Transient, message);
    if let Some(code) = cause.code() {
        error = error.with_code(code);
    }
    if let Some(query_id) = cause.query_id() {
        error = error.with_query_id(query_id);
    }
    error
}

/// An execution's id in a log line: it came from a user, so it is kept short and on one line.
pub(super) fn quoted(execution_id: &str) -> String {
    format!("{:?}", execution_id.chars().take(100).collect::<String>())
}

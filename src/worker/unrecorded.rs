//! Ends of attempts that cannot be written down at once: somebody has the table or the row locked for a moment, or a disk is full. What
//! is in flight beside them goes on meanwhile.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use pgrx::pg_sys;
use tokio::sync::oneshot;

use super::entry;
use super::in_flight::{Ending, InFlight, Recorded};
use super::service::Service;
use crate::error::{Error, log_error, log_message};
use crate::uploads::unpack_sqlstate;

/// Between two attempts to write an end down.
pub(super) const DELAY: Duration = Duration::from_secs(1);
/// How long each of them waits for a lock.
const AGAIN: &str = "50ms";
/// By then it is no passing trouble. The next worker finds the upload in flight and asks Snowflake what came of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// An attempt that has ended.
pub(super) struct Unrecorded {
    in_flight: InFlight,
    ending: Ending,
    /// Told when it is recorded: then what the attempt left is this worker's to tidy up.
    listener: Option<oneshot::Sender<()>>,
    since: Instant,
    due: Instant,
}

impl Service {
    /// An attempt has ended, which is recorded now, or as soon as it can be. What has waited for it may begin then.
    pub(super) fn end(
        &mut self,
        in_flight: InFlight,
        ending: Ending,
        listener: Option<oneshot::Sender<()>>,
    ) {
        self.looks_again = true;
        let now = Instant::now();
        let ended = Unrecorded {
            in_flight,
            ending,
            listener,
            since: now,
            due: now,
        };
        self.unrecorded.extend(ended.record());
    }

    /// Writes down what could not be written before.
    pub(super) fn record_again(&mut self) {
        let now = Instant::now();
        if !self.unrecorded.iter().any(|ended| ended.due <= now) {
            return;
        }
        // One that is still locked keeps nobody waiting.
        if let Err(error) = entry::wait_for_locks(AGAIN) {
            log_error("snowflake_bridge: worker", &error);
        }
        let (due, rest) = std::mem::take(&mut self.unrecorded)
            .into_iter()
            .partition(|ended: &Unrecorded| ended.due <= now);
        self.unrecorded = rest;
        self.unrecorded
            .extend(due.into_iter().filter_map(Unrecorded::record));
        if let Err(error) = entry::wait_for_locks(entry::LOCK_TIMEOUT) {
            log_error("snowflake_bridge: worker", &error);
        }
    }
}

impl Unrecorded {
    /// The number of the upload.
    pub(super) fn upload(&self) -> i64 {
        self.in_flight.upload.id
    }

    /// Returns itself if it has to be tried again.
    fn record(mut self) -> Option<Self> {
        let error = match self.in_flight.record(&self.ending) {
            Recorded::Yes => {
                if let Some(listener) = self.listener {
                    // Nobody listens where nothing is left to tidy up.
                    let _ = listener.send(());
                }
                return None;
            }
            Recorded::TakenOver => return None,
            Recorded::NotYet(error) => error,
        };
        let id = self.upload();
        if !passes(&error) || self.since.elapsed() >= PATIENCE {
            log_error(
                &format!(
                    "snowflake_bridge: cannot record the end of upload {id}; the worker starts anew"
                ),
                &error,
            );
            // SAFETY: ends this process in order.
            unsafe { pg_sys::proc_exit(1) };
        }
        if self.due == self.since {
            log_message(&format!(
                "snowflake_bridge: the end of upload {id} is recorded later: {error}"
            ));
        }
        self.due = Instant::now() + DELAY;
        Some(self)
    }
}

/// Whether others came first (class 40, and locks), or there was no room (class 53).
fn passes(error: &Error) -> bool {
    let sqlstate = error.sqlstate_and_hint().0;
    error.is_lock_not_available() || matches!(unpack_sqlstate(sqlstate).get(..2), Some("40" | "53"))
}

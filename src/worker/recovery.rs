//! What a worker does first: it takes over what the one before it has left in flight.

use std::path::Path;

use super::registry::{Before, WorkerState};
use super::service::Service;
use super::{entry, stubborn, witness};
use crate::error::{Result, log_message};
use crate::installation;
use crate::timer::Purpose;
use crate::uploads::{self, Blame, Claim, Recovered};
use crate::{failpoint, guc, tx};

/// Puts the uploads of the worker before back in the queue. Returns what somebody has locked, and nobody waits for.
///
/// # Errors
/// If that cannot be recorded; what the worker before has left then stays for the next one.
pub(super) fn recover(spool_root: &Path, before: &Before) -> Result<Option<Left>> {
    // If the worker left in good order, nobody has died, and a reader of it may just be ending.
    let mut blame = if before.state == WorkerState::LeftCleanly {
        Blame::default()
    } else {
        witness::look(spool_root)
    };
    // It may have left in good order, and have been ended all the same.
    if let Some(Purpose::Reading { upload, .. }) = before.stuck_at {
        blame.readings.push(upload);
    }
    entry::patiently(|| stubborn::remember(before))?;
    let recovered = entry::patiently(|| {
        failpoint::reach("recovering");
        if installation::note_timeline()? {
            log_message(
                "snowflake_bridge: this server went on from an earlier state: what is queued may have been loaded since, and replaces its rows",
            );
        }
        uploads::recover(&blame, None, guc::max_crashes(), guc::crash_retry_delay())
    })?;
    witness::forget(spool_root);
    report(&recovered);
    witness::begin(spool_root, None)?;
    Ok(Left::of(recovered, blame))
}

/// Uploads of the worker before that somebody has locked.
pub(super) struct Left {
    uploads: Vec<i64>,
    blame: Blame,
}

impl Left {
    fn of(recovered: Recovered, blame: Blame) -> Option<Self> {
        (!recovered.locked.is_empty()).then_some(Self {
            uploads: recovered.locked,
            blame,
        })
    }
}

impl Service {
    /// Comes back to what was locked when this worker began.
    ///
    /// # Errors
    /// If that cannot be recorded; it is tried again then.
    pub(super) fn recover_rest(&mut self) -> Result<()> {
        let Some(mut left) = self.left.take() else {
            return Ok(());
        };
        // Whoever had it locked may have let this worker have it meanwhile.
        left.uploads.retain(|id| {
            let is_own = |claim: &Claim| claim.upload == *id;
            !self.in_flight.keys().any(is_own)
                && !self.unrecorded.iter().any(|ended| ended.upload() == *id)
        });
        let recovered = tx::transaction(|| {
            uploads::recover(
                &left.blame,
                Some(&left.uploads),
                guc::max_crashes(),
                guc::crash_retry_delay(),
            )
        });
        match recovered {
            Ok(recovered) => {
                report(&recovered);
                self.left = Left::of(recovered, left.blame);
                Ok(())
            }
            Err(error) => {
                self.left = Some(left);
                Err(error)
            }
        }
    }
}

fn report(recovered: &Recovered) {
    for (id, died) in &recovered.uploads {
        log_message(&format!(
            "snowflake_bridge: upload {id} was in flight when the worker {}; it goes on {}",
            if *died {
                "died, maybe of it"
            } else {
                "stopped"
            },
            if *died {
                "after a delay, or has failed"
            } else {
                "now"
            }
        ));
    }
}

//! What a worker does first: it takes over what the one before it has left in flight.

use std::path::Path;

use super::registry::{Before, WorkerState};
use super::{stubborn, witness};
use crate::error::{Result, log_message};
use crate::installation;
use crate::timer::Purpose;
use crate::uploads::{self, Blame};
use crate::{failpoint, guc, tx};

/// Puts the uploads of the worker before back in the queue.
///
/// # Errors
/// If that cannot be recorded; what the worker before has left then stays for the next one.
pub(super) fn recover(spool_root: &Path, before: &Before) -> Result<()> {
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
    stubborn::remember(before.stubborn);
    let recovered = tx::transaction(|| {
        failpoint::reach("recovering");
        if installation::note_timeline()? {
            log_message(
                "snowflake_bridge: this server went on from an earlier state: what is queued may have been loaded since, and replaces its rows",
            );
        }
        uploads::recover(&blame, guc::max_crashes(), guc::crash_retry_delay())
    })?;
    witness::forget(spool_root);
    for (id, died) in recovered {
        log_message(&format!(
            "snowflake_bridge: upload {id} was in flight when the worker {}; it goes on {}",
            if died { "died, maybe of it" } else { "stopped" },
            if died {
                "after a delay, or has failed"
            } else {
                "now"
            }
        ));
    }
    witness::begin(spool_root, None)
}

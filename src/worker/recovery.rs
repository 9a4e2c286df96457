//! What a worker does first: it takes over what the one before it has left in flight.

use std::path::Path;

use super::{mirror, witness};
use crate::error::{Result, log_message};
use crate::timer::Purpose;
use crate::uploads::{self, Blame};
use crate::{failpoint, guc, tx};

/// Puts the uploads of the worker before back in the queue. `stuck_at` is what ended that one, though it left in good order.
///
/// # Errors
/// If that cannot be recorded; what the worker before has left then stays for the next one.
pub(super) fn recover(
    spool_root: &Path,
    left_cleanly: bool,
    stuck_at: Option<Purpose>,
) -> Result<()> {
    // If the worker left in good order, nobody has died, and a reader of it may just be ending.
    let mut blame = if left_cleanly {
        Blame::default()
    } else {
        witness::look(spool_root)
    };
    match stuck_at {
        Some(Purpose::Reading(upload)) => blame.readings.push(upload),
        Some(Purpose::Mirroring(watch)) => mirror::avoid(watch),
        None => {}
    }
    let recovered = tx::transaction(|| {
        failpoint::reach("recovering");
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

//! Times of the queue that this machine's clock does not reach: it was set back since they were written.

use std::time::Duration;

use pgrx::prelude::*;

use super::leftovers::KEPT_FOR_RETRY;
use crate::error::Result;

/// Brings back what is due later than anything is ever put off, by `longest`: retries and statuses are due at once, what is
/// queued always is. Returns how many uploads that were. Waits for nobody.
///
/// # Errors
/// If a statement fails.
pub fn bring_back(longest: Duration) -> Result<usize> {
    const FROM_NOW: &str = "clock_timestamp() + make_interval(secs => $1)";
    let bring_back = |changes: &str, condition: &str| -> Result<usize> {
        Spi::connect_mut(|client| {
            let brought = client.update(
                &format!(
                    "update snowflake_bridge.uploads u set {changes} where u.id in ( \
                         select l.id from snowflake_bridge.uploads l where {condition} for update skip locked) returning u.id"
                ),
                None,
                &[longest.as_secs_f64().into()],
            )?;
            Ok(brought.len())
        })
    };
    let attempts = bring_back(
        "next_attempt_at = clock_timestamp()",
        &format!(
            "l.state = 'queued' and l.next_attempt_at > clock_timestamp() \
             or l.state = 'retry' and l.next_attempt_at > {FROM_NOW}"
        ),
    )?;
    let mirrors = bring_back(
        "mirror_after = clock_timestamp()",
        &format!("l.needs_mirror and l.mirror_after > {FROM_NOW}"),
    )?;
    let kept = format!("'{KEPT_FOR_RETRY}'::interval");
    let leftovers = bring_back(
        &format!("clean_up_after = clock_timestamp() + {kept}"),
        &format!("l.clean_up_after > {FROM_NOW} + {kept}"),
    )?;
    Ok(attempts + mirrors + leftovers)
}

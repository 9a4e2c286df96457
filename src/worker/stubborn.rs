//! Watches whose relations run code that does not let itself be canceled: it has cost a worker its process. What such code
//! is needed for is left to readers, which are ended without anybody else, or is left undone. Whoever has several such watches
//! would have more: all of theirs are taken for such.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use bridge_core::culprits::Culprits;
use bridge_core::{Error as CoreError, ErrorKind};

use super::registry::{self, Before};
use crate::error::{Error, Result, log_message};
use crate::timer::Purpose;
use crate::watches::Watch;
use crate::{guc, tx};

/// So long no status is written to their rows: somebody has to act, and there is no hurry.
const MIRROR_DELAY: Duration = Duration::from_secs(3_600);

thread_local! {
    static KNOWN: RefCell<Culprits> = RefCell::new(Culprits::default());
    /// Until when no status is written to their rows.
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Leaves word for the next worker of what this one could not end, and has that one started at once: it does not run into
/// the same again.
pub(super) fn leave(stuck_at: Purpose) {
    let database = registry::my_database();
    if registry::update_slot(database, |slot| slot.stuck_at = Some(stuck_at)).is_some() {
        registry::want_worker(database);
    }
}

/// What the worker before could not end has been recorded.
pub(super) fn settle() {
    registry::update_slot(registry::my_database(), |slot| slot.stuck_at = None);
}

/// This worker ends for another reason: the next one tries everything again.
pub(super) fn forget() {
    registry::update_slot(registry::my_database(), |slot| {
        slot.stubborn = Culprits::default();
    });
}

/// Remembers what the workers before had to be ended for, for this worker and those after it.
///
/// # Errors
/// If it cannot be found out whose that is.
pub(super) fn remember(before: &Before) -> Result<()> {
    let mut known = before.stubborn;
    let latest = before.stuck_at.map(Purpose::watch);
    if let Some(watch) = latest.map(Watch::load).transpose()?.flatten() {
        known.add(watch.owner.oid().to_u32(), watch.id);
        log_message(&format!(
            "snowflake_bridge: code of role \"{}\" on the table of watch {} did not end when it was canceled, which has cost a worker its \
             process; the statuses of {} are left alone for an hour",
            watch.owner.user_id(),
            watch.id,
            if known.things().any(|known| known == watch.id) {
                "that table"
            } else if known.is_everybody() {
                "all tables, since too many owners have such code,"
            } else {
                "all tables of that role, since it has several such,"
            }
        ));
    }
    registry::update_slot(registry::my_database(), |slot| slot.stubborn = known);
    UNTIL.set(Some(Instant::now() + MIRROR_DELAY));
    KNOWN.set(known);
    Ok(())
}

/// Whether nothing of this watch is to be run by the worker itself. Where everybody would be meant, that is for readers to do, if
/// there are any.
pub(super) fn is(watch: &Watch) -> bool {
    KNOWN.with_borrow(|known| {
        known.includes(watch.owner.oid().to_u32(), watch.id)
            && (!known.is_everybody() || guc::max_reader_processes() > 0)
    })
}

/// Watches to whose rows no status is written for now.
///
/// # Errors
/// If it cannot be found out which these are.
pub(super) fn not_mirrored() -> Result<Vec<i64>> {
    const OF_OWNERS: &str = "select coalesce(array_agg(w.id), '{}') from snowflake_bridge.watches w \
         where $1 or w.owner_oid::bigint = any ($2)";
    if resumes_in().is_none_or(|left| left.is_zero()) {
        UNTIL.set(None);
        return Ok(Vec::new());
    }
    let known = KNOWN.with_borrow(|known| *known);
    let owners: Vec<i64> = known.owners().map(i64::from).collect();
    let of_owners = if known.is_everybody() || !owners.is_empty() {
        let args = [known.is_everybody().into(), owners.into()];
        tx::read::<Vec<i64>>(OF_OWNERS, &args)?
    } else {
        None
    };
    Ok(known
        .things()
        .chain(of_owners.unwrap_or_default())
        .collect())
}

/// How long until that changes by itself.
pub(super) fn resumes_in() -> Option<Duration> {
    let until = UNTIL.get()?;
    Some(until.saturating_duration_since(Instant::now()))
}

/// What becomes of a result that only a reader could read, where there are none.
pub(super) fn needs_reader() -> Error {
    CoreError::new(
        ErrorKind::Configuration,
        "reading this table runs code that does not end when it is canceled, which has cost the worker its process",
    )
    .with_hint("Make the policies of the table end when they are canceled, or raise snowflake_bridge.max_reader_processes; then call snowflake_bridge.retry_upload.")
    .into()
}

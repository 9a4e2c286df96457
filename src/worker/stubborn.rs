//! Watches whose relations run code that does not let itself be canceled: it has cost a worker its process. What such code
//! is needed for is left to readers, which are ended without anybody else, or is left undone.

use std::cell::RefCell;
use std::collections::HashSet;

use bridge_core::{Error as CoreError, ErrorKind};

use super::{mirror, registry};
use crate::error::Error;
use crate::timer::Purpose;

/// Watches of one database that are remembered.
const MAX: usize = 32;

thread_local! {
    static WATCHES: RefCell<HashSet<i64>> = RefCell::new(HashSet::new());
}

/// What one worker leaves to the next: the latest watches that ended one, 0 where there are no more.
#[derive(Clone, Copy, Default)]
pub(super) struct Stubborn([i64; MAX]);

impl Stubborn {
    /// Adds a watch, in place of the oldest if there are too many. Returns whether the next worker is spared it, and loses
    /// sight of no other.
    fn add(&mut self, watch: i64) -> bool {
        let Self(watches) = self;
        if watches.contains(&watch) {
            return false;
        }
        let has_room = watches.contains(&0);
        watches.rotate_right(1);
        if let Some(first) = watches.first_mut() {
            *first = watch;
        }
        has_room
    }
}

/// Leaves word for the next worker of what this one could not end, and has that one started at once: it does not run into
/// the same again.
pub(super) fn leave(stuck_at: Purpose) {
    let database = registry::my_database();
    let is_spared = registry::update_slot(database, |slot| {
        slot.stuck_at = Some(stuck_at);
        slot.stubborn.add(stuck_at.watch())
    });
    if is_spared == Some(true) {
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
        slot.stubborn = Stubborn::default();
    });
}

/// Remembers what the workers before had to be ended for.
pub(super) fn remember(Stubborn(watches): Stubborn) {
    for watch in watches.into_iter().filter(|watch| *watch != 0) {
        mirror::avoid(watch);
        WATCHES.with_borrow_mut(|known| known.insert(watch));
    }
}

/// Whether nothing of this watch is to be run by the worker itself.
pub(super) fn is(watch: i64) -> bool {
    WATCHES.with_borrow(|known| known.contains(&watch))
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

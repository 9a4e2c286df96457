//! What was read once and holds until a relation that it depends on has changed. PostgreSQL tells every session of DDL by the time
//! it gets a lock on what was changed, and so before it can act on it.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::tx;

thread_local! {
    /// Counts all changes that this session has been told of.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    /// The last one that may have been any relation's.
    static LAST_OF_ANY: Cell<u64> = const { Cell::new(0) };
    /// Of the relations that something here depends on, the last one.
    static LAST: RefCell<HashMap<pg_sys::Oid, u64>> = RefCell::default();
    static CALLBACKS_REGISTERED: Cell<bool> = const { Cell::new(false) };
    static ENDS_WITH_TRANSACTION: Cell<bool> = const { Cell::new(false) };
}

/// The moment before something was read, and what that depends on.
#[derive(Clone)]
pub struct ReadAt {
    change: u64,
    relations: Vec<pg_sys::Oid>,
}

impl ReadAt {
    /// Now, inside a transaction. What is read on an old snapshot holds until the transaction ends: it may lag behind the
    /// changes that this session has been told of.
    pub fn now() -> Self {
        if !CALLBACKS_REGISTERED.replace(true) {
            // SAFETY: callbacks that live as long as the library, which is never unloaded.
            unsafe {
                pg_sys::CacheRegisterRelcacheCallback(
                    Some(at_relation_change),
                    pg_sys::Datum::from(0),
                );
                pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
            }
        }
        if !tx::sees_later_commits() {
            ENDS_WITH_TRANSACTION.set(true);
        }
        Self {
            change: CHANGES.get(),
            relations: Vec::new(),
        }
    }

    /// What was read since depends on these relations, and on no other.
    #[must_use]
    pub fn depending_on(mut self, relations: impl IntoIterator<Item = pg_sys::Oid>) -> Self {
        self.relations.extend(relations);
        // Of a relation that nothing depended on, it is not known when it changed.
        LAST.with_borrow_mut(|last| {
            for relation in &self.relations {
                last.entry(*relation).or_insert_with(|| CHANGES.get());
            }
        });
        self
    }

    /// Whether what was read then is still so.
    pub fn holds(&self) -> bool {
        LAST_OF_ANY.get() <= self.change
            && LAST.with_borrow(|last| {
                let mut changes = self.relations.iter().map(|relation| last.get(relation));
                changes.all(|change| change.is_some_and(|change| *change <= self.change))
            })
    }
}

/// The number of a change that was just made known.
fn next() -> u64 {
    CHANGES.set(CHANGES.get() + 1);
    CHANGES.get()
}

#[pg_guard]
unsafe extern "C-unwind" fn at_relation_change(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    let change = next();
    if relation == pg_sys::InvalidOid {
        LAST_OF_ANY.set(change);
        return;
    }
    LAST.with_borrow_mut(|last| {
        if let Some(last) = last.get_mut(&relation) {
            *last = change;
        }
    });
}

#[pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(
    event: pg_sys::XactEvent::Type,
    _argument: *mut std::ffi::c_void,
) {
    let has_ended = matches!(
        event,
        pg_sys::XactEvent::XACT_EVENT_COMMIT
            | pg_sys::XactEvent::XACT_EVENT_ABORT
            | pg_sys::XactEvent::XACT_EVENT_PREPARE
    );
    if has_ended && ENDS_WITH_TRANSACTION.take() {
        LAST_OF_ANY.set(next());
    }
}

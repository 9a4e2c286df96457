//! What was read once and holds until some relation has changed. PostgreSQL tells every session of DDL by the time it gets a
//! lock on what was changed, and so before it can act on it.
#![allow(unsafe_code)]

use std::cell::Cell;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::tx;

thread_local! {
    static GENERATION: Cell<u64> = const { Cell::new(0) };
    static CALLBACKS_REGISTERED: Cell<bool> = const { Cell::new(false) };
    static ENDS_WITH_TRANSACTION: Cell<bool> = const { Cell::new(false) };
}

/// The moment before something was read.
#[derive(Clone, Copy)]
pub struct ReadAt(u64);

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
        Self(GENERATION.get())
    }

    /// Whether what was read then is still so.
    pub fn holds(self) -> bool {
        self.0 == GENERATION.get()
    }
}

fn forget() {
    GENERATION.set(GENERATION.get().wrapping_add(1));
}

#[pg_guard]
unsafe extern "C-unwind" fn at_relation_change(_argument: pg_sys::Datum, _relation: pg_sys::Oid) {
    forget();
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
        forget();
    }
}

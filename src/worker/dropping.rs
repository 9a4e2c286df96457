//! DROP EXTENSION, which waits for whoever reads a watched table: while it runs, the worker looks often whether somebody has locked its
//! own tables, and then ends its readers.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::c_void;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::registry::{self, Wake};

thread_local! {
    static IS_DROPPING: Cell<bool> = const { Cell::new(false) };
    static CALLBACK_REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a statement drops an extension. Which one, the worker sees: a look too many costs next to nothing.
///
/// # Safety
/// With a live statement.
pub unsafe fn drops_extension(statement: *mut pg_sys::Node) -> bool {
    // SAFETY: every node begins with its tag, which tells its type.
    unsafe {
        (*statement).type_ == pg_sys::NodeTag::T_DropStmt
            && (*statement.cast::<pg_sys::DropStmt>()).removeType
                == pg_sys::ObjectType::OBJECT_EXTENSION
    }
}

/// The statement begins.
#[pg_guard]
pub extern "C-unwind" fn begins() {
    if registry::my_worker().is_none() || IS_DROPPING.replace(true) {
        return;
    }
    if !CALLBACK_REGISTERED.replace(true) {
        // SAFETY: a callback that lives as long as the library, which is never unloaded.
        unsafe { pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut()) };
    }
    registry::count_drop(1);
    registry::wake_worker();
    // It ends with its extension.
    registry::wake_at_commit(Wake::Worker);
}

/// The statement has ended, and waits for nobody any more.
#[pg_guard]
pub extern "C-unwind" fn ends() {
    if IS_DROPPING.take() {
        registry::count_drop(-1);
    }
}

/// Where an ERROR has ended the statement.
#[pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(
    event: pg_sys::XactEvent::Type,
    _argument: *mut c_void,
) {
    if event == pg_sys::XactEvent::XACT_EVENT_ABORT {
        ends();
    }
}

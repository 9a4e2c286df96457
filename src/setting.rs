//! Settings of the session that hold for a moment, as a function's own `SET` does.
#![allow(unsafe_code)]

use std::ffi::CStr;

use pgrx::pg_sys;

/// Puts back what was set, when it is dropped.
pub struct ForNow(i32);

impl ForNow {
    /// Sets these, until this is dropped or the transaction is rolled back. Inside a transaction only.
    pub fn set(settings: &[(&CStr, &CStr)]) -> Self {
        // SAFETY: on the main thread, in a level of its own, which `drop` ends.
        let level = unsafe { pg_sys::NewGUCNestLevel() };
        for (name, value) in settings {
            set(name, value, ANYBODY, pg_sys::GucAction::GUC_ACTION_SAVE);
        }
        Self(level)
    }
}

impl Drop for ForNow {
    fn drop(&mut self) {
        // SAFETY: ends the level begun by `set`; it only assigns backend-local state and is what PostgreSQL itself does when it
        // ends a (sub)transaction.
        unsafe { pg_sys::AtEOXact_GUC(false, self.0) };
    }
}

/// Has the current transaction not wait for the disk when it commits. Until some other transaction has waited, a crash of the
/// server may undo it.
pub fn commit_without_waiting() {
    set_for_transaction(c"synchronous_commit", c"off");
}

/// As SET LOCAL: until the transaction ends.
pub fn set_for_transaction(name: &CStr, value: &CStr) {
    set(name, value, ANYBODY, pg_sys::GucAction::GUC_ACTION_LOCAL);
}

const ANYBODY: pg_sys::GucContext::Type = pg_sys::GucContext::PGC_USERSET;

/// Sets with the rights of `context`, for as long as `action` says. Inside a transaction only.
pub fn set(
    name: &CStr,
    value: &CStr,
    context: pg_sys::GucContext::Type,
    action: pg_sys::GucAction::Type,
) {
    // SAFETY: inside a transaction on the main thread; both are texts, which PostgreSQL copies.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            context,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        );
    }
}

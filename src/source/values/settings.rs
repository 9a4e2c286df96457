//! The settings under which values are turned into text, whatever the caller's session or the query says: what arrives
//! must not depend on who asks. The query itself runs under the caller's own.
#![allow(unsafe_code)]

use std::ffi::CStr;

use pgrx::pg_sys;

const PINNED: [(&CStr, &CStr); 7] = [
    (c"datestyle", c"ISO, YMD"),
    (c"intervalstyle", c"iso_8601"),
    (c"timezone", c"UTC"),
    // The shortest text that names the very same number.
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    // Names of relations, functions and types come with their schema.
    (c"search_path", c"pg_catalog"),
    (c"quote_all_identifiers", c"off"),
];

/// As long as this lives, text is made in one way.
pub struct Pinned {
    guc_level: i32,
}

impl Pinned {
    /// # Safety
    /// On the main thread, inside a transaction.
    pub unsafe fn new() -> Self {
        // SAFETY: as the caller promises; what is set here is undone in `drop`, or by a rollback.
        unsafe {
            let guc_level = pg_sys::NewGUCNestLevel();
            for (name, value) in PINNED {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
            Self { guc_level }
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: ends the level begun in `new`, as PostgreSQL does when a function with SET clauses returns.
        unsafe { pg_sys::AtEOXact_GUC(true, self.guc_level) };
    }
}

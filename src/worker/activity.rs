//! What `pg_stat_activity` shows of our processes: which upload they are at, and nothing of what is in it.
#![allow(unsafe_code)]

use pgrx::pg_sys;

/// This process does something.
pub(super) fn running(what: &str) {
    if let Ok(text) = std::ffi::CString::new(what) {
        // SAFETY: PostgreSQL copies the text.
        unsafe {
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr())
        };
    }
}

/// The worker looks after uploads.
pub(super) fn working(in_flight: usize) {
    running(&format!("snowflake_bridge: {in_flight} uploads under way"));
}

/// The worker waits for something to do. The text stays while the process is idle.
pub(super) fn idle(in_flight: usize) {
    working(in_flight);
    // SAFETY: no text is given.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null()) };
}

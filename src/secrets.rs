//! Keeps a statement that carries a secret out of the server log and out of `pg_stat_activity`.
//!
//! By default PostgreSQL logs the text of every statement that fails. A function that takes a secret calls
//! [`hide_statement`] first; nothing is shown again before the client's next statement, because the text holds the
//! secret however this one ends.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};

use once_cell::sync::OnceCell;
use pgrx::pg_sys;

/// Whether the statement that runs now is hidden. Only this process's main thread reads and writes it.
static HIDING: AtomicBool = AtomicBool::new(false);
/// The hook that was there before ours. Set once per process, when the first secret arrives.
static PREVIOUS_HOOK: OnceCell<pg_sys::emit_log_hook_type> = OnceCell::new();

/// Hides the client's statement from here on; others see `activity` in its place.
pub fn hide_statement(activity: &'static CStr) {
    PREVIOUS_HOOK.get_or_init(|| {
        // SAFETY: backend-local; hooks are only called on the main thread, on which this runs.
        unsafe {
            let previous = pg_sys::emit_log_hook;
            pg_sys::emit_log_hook = Some(hide_text);
            previous
        }
    });
    HIDING.store(true, Ordering::Relaxed);
    // SAFETY: `debug_query_string` is only read for logging, and null is what it holds between statements.
    // `pgstat_report_activity` copies the text.
    unsafe {
        pg_sys::debug_query_string = std::ptr::null();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, activity.as_ptr());
    }
}

/// Takes statement and context (the calling PL/pgSQL line, bound parameters) out of a log entry. The client still gets
/// the context: the text came from there.
unsafe extern "C-unwind" fn hide_text(report: *mut pg_sys::ErrorData) {
    // SAFETY: PostgreSQL passes the entry it is about to write; a hook may change its two flags.
    unsafe {
        if HIDING.load(Ordering::Relaxed) {
            // PostgreSQL sets it again when the client's next statement arrives.
            if pg_sys::debug_query_string.is_null() {
                (*report).hide_stmt = true;
                (*report).hide_ctx = true;
            } else {
                HIDING.store(false, Ordering::Relaxed);
            }
        }
        if let Some(Some(previous)) = PREVIOUS_HOOK.get() {
            previous(report);
        }
    }
}

//! Keeps a statement that carries a secret out of the server log and out of `pg_stat_activity`, and what a worker knows out of
//! core files.
//!
//! PostgreSQL logs the text of every statement that fails, and if asked that of every statement, with its parameters or its
//! plan: much of it before the statement runs. So the log is watched for statements that name one of [`TAKING_SECRETS`]. A call by other ways, through a function of somebody's say, is known when it arrives: [`hide_statement`] then
//! hides the rest. Nothing is shown again before the client's next statement, because the text holds the secret however this
//! one ends.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicBool, Ordering};

use once_cell::sync::OnceCell;
use pgrx::pg_sys;

use crate::guards;

/// Whether the statement that runs now is hidden. Only this process's main thread reads and writes it.
static HIDING: AtomicBool = AtomicBool::new(false);
/// The hook that was there before ours.
static PREVIOUS_HOOK: OnceCell<pg_sys::emit_log_hook_type> = OnceCell::new();

/// What the log has in place of an error's detail: it may quote what was given, as that of malformed JSON does.
const HIDDEN_DETAIL: &CStr = c"hidden, since the statement may carry a secret";

/// The functions that are given secrets.
const TAKING_SECRETS: [&[u8]; 3] = [b"create_config", b"update_config", b"test_connection"];

/// Watches what this process logs from here on. Called once from `_PG_init`.
pub fn watch_log() {
    if !guards::ON {
        return;
    }
    PREVIOUS_HOOK.get_or_init(|| {
        // SAFETY: the library is being loaded, on the main thread, on which alone hooks are called.
        unsafe {
            let previous = pg_sys::emit_log_hook;
            pg_sys::emit_log_hook = Some(hide_text);
            previous
        }
    });
}

/// Hides the client's statement from here on; others see `activity` in its place.
pub fn hide_statement(activity: &'static CStr) {
    if !guards::ON {
        return;
    }
    HIDING.store(true, Ordering::Relaxed);
    // SAFETY: `debug_query_string` is only read for logging, and null is what it holds between statements.
    // `pgstat_report_activity` copies the text.
    unsafe {
        pg_sys::debug_query_string = std::ptr::null();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, activity.as_ptr());
    }
}

/// Should this process crash, its core file tells where it was and what it had mapped, and holds none of its memory: keys,
/// passwords and tokens are there. Where the operating system has no such choice, nothing changes.
pub fn keep_out_of_core_files() {
    if !guards::ON {
        return;
    }
    // Bit 4: the first pages of mapped files, by which a debugger knows them.
    let _ = std::fs::write("/proc/self/coredump_filter", "0x10");
}

/// Takes statement, inner statement, detail and context (the calling PL/pgSQL line, bound parameters) out of an error about a statement
/// with secrets. The client still gets detail and context: the text came from there. What is no error does not get into the log at all, since
/// it may tell the statement, its parameters, parse tree or plan, at whatever level somebody has chosen for that; how long it took does,
/// if that is all.
unsafe extern "C-unwind" fn hide_text(report: *mut pg_sys::ErrorData) {
    // SAFETY: PostgreSQL passes the entry it is about to write; a hook may change these flags. Strings are null or live.
    unsafe {
        let is_hidden = match text(pg_sys::debug_query_string) {
            // PostgreSQL sets the text again when the client's next statement arrives.
            None => HIDING.load(Ordering::Relaxed),
            Some(statement) => {
                HIDING.store(false, Ordering::Relaxed);
                may_call_any(statement)
            }
        };
        // A function's or block's own statement may be the one that names them, while the client's says nothing.
        let is_inside = || {
            [(*report).internalquery, (*report).context]
                .into_iter()
                .any(|inner| text(inner).is_some_and(may_call_any))
        };
        if is_hidden || is_inside() {
            (*report).hide_stmt = true;
            (*report).hide_ctx = true;
            (*report).internalquery = std::ptr::null_mut();
            (*report).internalpos = 0;
            if !(*report).detail.is_null() || !(*report).detail_log.is_null() {
                // Freed with the entry, in whose memory this is called.
                (*report).detail_log = pg_sys::pstrdup(HIDDEN_DETAIL.as_ptr());
            }
            let is_error = (*report).elevel >= pg_sys::PGERROR as i32;
            if !is_error && text((*report).message_id) != Some(b"duration: %s ms") {
                (*report).output_to_server = false;
            }
        }
        if let Some(Some(previous)) = PREVIOUS_HOOK.get() {
            previous(report);
        }
    }
}

/// # Safety
/// Null, or a string that lives as long as what is returned.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: as the caller promises.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// Whether one of the functions is named, wherever that is, or a name is spelled by code points, which may be one of theirs: to
/// hide too much costs little.
fn may_call_any(statement: &[u8]) -> bool {
    let has = |text: &[u8]| {
        statement
            .windows(text.len())
            .any(|found| found.eq_ignore_ascii_case(text))
    };
    TAKING_SECRETS.iter().any(|name| has(name)) || has(b"u&\"")
}

//! Signals of the launcher and the workers. Not pgrx's handlers: those make a worker that waits for a lock wait on
//! through a shutdown, and re-read the configuration inside the handler.
#![allow(unsafe_code)]

use pgrx::pg_sys;

/// SIGTERM ends the process at its next check for interrupts; SIGHUP is noted.
pub fn install() {
    // SAFETY: PostgreSQL's own handlers, installed before signals are unblocked.
    unsafe {
        pg_sys::pqsignal(libc::SIGTERM, Some(handle_term));
        pg_sys::pqsignal(libc::SIGHUP, Some(handle_hup));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

// Not guarded: they only call PostgreSQL's handlers, which set flags and the latch and never raise.
unsafe extern "C-unwind" fn handle_term(signal: i32) {
    // SAFETY: made to be called in a signal handler.
    unsafe { pg_sys::die(signal) }
}

unsafe extern "C-unwind" fn handle_hup(signal: i32) {
    // SAFETY: made to be called in a signal handler.
    unsafe { pg_sys::SignalHandlerForConfigReload(signal) }
}

/// Reads the configuration again if SIGHUP asked for it. Returns whether it did.
pub fn reload_if_asked() -> bool {
    // SAFETY: the flag is written by the handler only and read here on the main thread; a value set in between is seen
    // the next time.
    unsafe {
        if (&raw const pg_sys::ConfigReloadPending).read_volatile() == 0 {
            return false;
        }
        (&raw mut pg_sys::ConfigReloadPending).write_volatile(0);
        pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
    }
    true
}

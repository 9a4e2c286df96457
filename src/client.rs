//! Noticing that the client of this backend is gone. PostgreSQL looks only while it waits for the next command, unless
//! `client_connection_check_interval` is set; nobody should have to set that for functions that are known to take long.
#![allow(unsafe_code)]

use pgrx::pg_sys;

/// In milliseconds: a lost client is noticed in time for the work to end within 200.
const LOOK_INTERVAL: &std::ffi::CStr = c"50";

/// Runs `work`, which checks for interrupts: a client that is gone meanwhile is one, as a termination is.
pub fn watched<T>(work: impl FnOnce() -> T) -> T {
    let _watch = Watch::begin();
    work()
}

/// The setting as it was before.
struct Watch {
    guc_level: i32,
}

impl Watch {
    fn begin() -> Self {
        // SAFETY: inside a transaction on the main thread; the setting is put back in `drop`, and by PostgreSQL itself when
        // the transaction is rolled back. The flags say that a look is due, which arms the timer of the next one.
        unsafe {
            let guc_level = pg_sys::NewGUCNestLevel();
            pg_sys::set_config_option(
                c"client_connection_check_interval".as_ptr(),
                LOOK_INTERVAL.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
            // Processes without a client have nobody to lose.
            if !pg_sys::MyProcPort.is_null() {
                (&raw mut pg_sys::CheckClientConnectionPending).write_volatile(1);
                (&raw mut pg_sys::InterruptPending).write_volatile(1);
            }
            Self { guc_level }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: only assigns backend-local state. What the work itself has set stays. A timer that is still armed finds the
        // setting as it was.
        unsafe { pg_sys::AtEOXact_GUC(true, self.guc_level) };
    }
}

//! A limit on how long something may run on the main thread of a worker, where no client sets `statement_timeout`.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, Result};

/// `STATEMENT_TIMEOUT` in PostgreSQL's `enum TimeoutId`, the same in versions 14 to 18. Every process that is connected
/// to a database has registered it; its handler cancels what runs.
const STATEMENT_TIMEOUT: c_int = 3;

// Of `utils/timeout.h`, which pgrx does not bind.
unsafe extern "C-unwind" {
    fn enable_timeout_after(id: c_int, delay_ms: c_int);
    fn disable_timeout(id: c_int, keep_indicator: bool);
}

/// What came of work that had a limit.
pub enum Limited<T> {
    InTime(Result<T>),
    /// It was canceled after the limit, and rolled back.
    TooLong,
}

/// Runs `work`, which runs transactions of its own, and cancels it after `limit`. For a worker's main thread only.
pub fn limited<T>(limit: Duration, work: impl FnOnce() -> Result<T>) -> Limited<T> {
    let millis = c_int::try_from(limit.as_millis()).unwrap_or(c_int::MAX);
    let begun = Instant::now();
    // SAFETY: outside of transactions; the timer is disarmed below, since `work` catches what is raised in it.
    unsafe { enable_timeout_after(STATEMENT_TIMEOUT, millis) };
    let result = work();
    // SAFETY: as above. A cancel that came too late for `work` is not meant for what follows.
    unsafe {
        disable_timeout(STATEMENT_TIMEOUT, false);
        (&raw mut pg_sys::QueryCancelPending).write_volatile(0);
    }
    match result {
        Err(Error::Server {
            sqlstate: PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
            ..
        }) if begun.elapsed() >= limit => Limited::TooLong,
        result => Limited::InTime(result),
    }
}

//! A limit on how long something may run on the main thread of a worker, where no client sets `statement_timeout`. What
//! runs is other people's code, and may catch its cancellation: the process then ends, and the next one knows why.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, Result};
use crate::net;

/// What was canceled gets this long to end.
pub const GRACE: Duration = Duration::from_secs(1);

/// For whom somebody's code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To read the result of this upload, of this watch.
    Reading { upload: i64, watch: i64 },
    /// To write statuses to the rows of this watch's relation.
    Mirroring(i64),
}

impl Purpose {
    /// The watch to whose relation the code is attached.
    pub fn watch(self) -> i64 {
        match self {
            Self::Reading { watch, .. } | Self::Mirroring(watch) => watch,
        }
    }
}

thread_local! {
    static PURPOSE: Cell<Option<Purpose>> = const { Cell::new(None) };
}

/// Whether this process is ended because something would not.
static IS_STUCK: AtomicBool = AtomicBool::new(false);

/// What for this process ran the code that would not end, if it ends because of that.
pub fn stuck_at() -> Option<Purpose> {
    IS_STUCK
        .load(Ordering::Relaxed)
        .then(|| PURPOSE.get())
        .flatten()
}

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

/// Runs `work`, which runs transactions of its own, and cancels it after `limit`. For a worker's main thread only. Where there
/// is a network thread, it ends the process when that does not help: see [`stuck_at`].
pub fn limited<T>(
    limit: Duration,
    purpose: Purpose,
    work: impl FnOnce() -> Result<T>,
) -> Limited<T> {
    PURPOSE.set(Some(purpose));
    let watchdog = net::after(limit, GRACE, || {
        IS_STUCK.store(true, Ordering::Relaxed);
        // SAFETY: a signal to this process, whose main thread takes it as any request to end.
        unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
    });
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
    drop(watchdog);
    PURPOSE.set(None);
    match result {
        Err(Error::Server {
            sqlstate: PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
            ..
        }) if begun.elapsed() >= limit => Limited::TooLong,
        result => Limited::InTime(result),
    }
}

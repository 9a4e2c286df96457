//! Databases that a statement needs for itself: while it runs, the database's worker stays away.
//!
//! The list is shared memory. Whoever adds a database first and then looks for its worker, and a worker that first enters
//! the registry and then looks at the list, cannot miss each other.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::time::{Duration, Instant};

use pgrx::lwlock::PgLwLock;
use pgrx::pg_shmem_init;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::shmem::PGRXSharedMemory;

use super::registry;
use crate::net;

/// Statements at once that can have a database vacated; one more goes on as if the worker were any other session.
const MAX_VACANCIES: usize = 16;
/// As long as the statement itself would then wait for sessions to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks whether the worker has left, which takes it some milliseconds.
const LOOK: Duration = Duration::from_millis(5);

// SAFETY: initialised by `register` in _PG_init before any use: nothing here is called unless it was.
static VACANCIES: PgLwLock<Vacancies> = unsafe { PgLwLock::new(c"snowflake_bridge vacancies") };

#[derive(Clone, Copy, Default)]
struct Vacancies([Vacancy; MAX_VACANCIES]);

// SAFETY: plain numbers only.
unsafe impl PGRXSharedMemory for Vacancies {}

#[derive(Clone, Copy, Default)]
struct Vacancy {
    database: pg_sys::Oid,
    /// The process whose transaction wants it.
    holder: i32,
}

thread_local! {
    /// The subtransaction in which this process had databases vacated, if it did.
    static HOLDING: Cell<Option<pg_sys::SubTransactionId>> = const { Cell::new(None) };
    static CALLBACKS_REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// Reserves the shared memory. Only in the postmaster, while it loads its preloaded libraries.
pub(super) fn register() {
    pg_shmem_init!(VACANCIES);
}

/// Whether the database must be left alone.
pub(super) fn is_vacated(database: pg_sys::Oid) -> bool {
    VACANCIES
        .share()
        .0
        .iter()
        .any(|vacancy| vacancy.database == database)
}

/// Has the worker of a database leave, and waits until it has, at most five seconds and interruptibly. It may return when
/// the current transaction, or the subtransaction that undoes the statement, has ended.
pub(super) fn vacate(database: pg_sys::Oid) {
    // SAFETY: variables and state of this process, inside a transaction.
    let (pid, subtransaction) =
        unsafe { (pg_sys::MyProcPid, pg_sys::GetCurrentSubTransactionId()) };
    // First, since what comes may be interrupted.
    release_at_end();
    HOLDING.set(Some(HOLDING.get().unwrap_or(subtransaction)));
    {
        let mut vacancies = VACANCIES.exclusive();
        let free = vacancies
            .0
            .iter_mut()
            .find(|vacancy| vacancy.database == pg_sys::InvalidOid);
        let Some(free) = free else {
            return;
        };
        *free = Vacancy {
            database,
            holder: pid,
        };
    }
    let Some(worker) = registry::worker_of(database) else {
        return;
    };
    // SAFETY: a signal to a process of ours: it takes its pid off the registry before it ends.
    unsafe { libc::kill(worker.pid, libc::SIGTERM) };
    let deadline = Instant::now() + PATIENCE;
    while registry::worker_of(database).is_some() && Instant::now() < deadline {
        net::sleep(LOOK);
    }
}

fn release_at_end() {
    if !CALLBACKS_REGISTERED.replace(true) {
        // SAFETY: callbacks that live as long as the library, which is never unloaded.
        unsafe {
            pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
            pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), std::ptr::null_mut());
        }
    }
}

/// Lets workers return to what this process had vacated.
fn release() {
    if HOLDING.take().is_none() {
        return;
    }
    // SAFETY: a variable of this process.
    let pid = unsafe { pg_sys::MyProcPid };
    for vacancy in &mut VACANCIES.exclusive().0 {
        if vacancy.holder == pid {
            registry::want_worker(vacancy.database);
            *vacancy = Vacancy::default();
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(
    event: pg_sys::XactEvent::Type,
    _argument: *mut std::ffi::c_void,
) {
    if matches!(
        event,
        pg_sys::XactEvent::XACT_EVENT_COMMIT
            | pg_sys::XactEvent::XACT_EVENT_ABORT
            // Whoever ends a prepared transaction knows nothing of this; a worker that comes too early waits for its lock.
            | pg_sys::XactEvent::XACT_EVENT_PREPARE
    ) {
        release();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    own: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    if HOLDING.get() != Some(own) {
        return;
    }
    match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => HOLDING.set(Some(parent)),
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => release(),
        _ => {}
    }
}

//! Shared memory: which worker serves which database, and how far its uploads are. Any backend reads it; a commit that
//! enqueued something uses it to wake the worker.
#![allow(unsafe_code)]

use std::cell::Cell;

use pgrx::lwlock::PgLwLock;
use pgrx::pg_shmem_init;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::shmem::PGRXSharedMemory;

use crate::timer::Purpose;

/// Databases that can have a worker at once.
const MAX_DATABASES: usize = 64;
/// Uploads whose live progress can be shown at once, over all databases.
const MAX_LIVE: usize = 256;

static REGISTRY: PgLwLock<Registry> = unsafe {
    // SAFETY: initialised by `register` in _PG_init before any use, which `is_available` tells.
    PgLwLock::new(c"snowflake_bridge registry")
};

#[derive(Clone, Copy)]
struct Registry {
    launcher: usize,
    /// Set by CREATE EXTENSION: databases that had none must be looked at again.
    rescan: bool,
    workers: [WorkerSlot; MAX_DATABASES],
    live: [Live; MAX_LIVE],
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            launcher: 0,
            rescan: false,
            workers: [WorkerSlot::default(); MAX_DATABASES],
            live: [Live::default(); MAX_LIVE],
        }
    }
}

// SAFETY: plain numbers only; the latch addresses point into the postmaster's shared memory, which every process maps
// at the same place.
unsafe impl PGRXSharedMemory for Registry {}

/// The worker of a database, as others see it.
#[derive(Clone, Copy, Default)]
pub struct WorkerSlot {
    pub database: pg_sys::Oid,
    pub pid: i32,
    pub started_at: i64,
    /// Seconds by which this machine's clock was ahead of Snowflake's when that last answered.
    pub clock_ahead: Option<i64>,
    latch: usize,
    state: WorkerState,
    /// What ended the worker before, if it would not end itself.
    stuck_at: Option<Purpose>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum WorkerState {
    #[default]
    Unknown,
    Running,
    /// The worker looked, and the database does not have the extension.
    NoExtension,
    /// The worker left in good order; an upload it left in flight is not to blame.
    LeftCleanly,
}

/// How far an upload in flight is.
#[derive(Clone, Copy, Default)]
pub struct Live {
    pub upload: i64,
    pub database: pg_sys::Oid,
    pub phase: u8,
    pub rows: u64,
    pub staged_bytes: u64,
    pub total_bytes: u64,
}

thread_local! {
    static WAKE_AT_COMMIT: Cell<Option<Wake>> = const { Cell::new(None) };
    static CALLBACK_REGISTERED: Cell<bool> = const { Cell::new(false) };
    static PRELOADED: Cell<bool> = const { Cell::new(false) };
}

#[derive(Clone, Copy)]
pub enum Wake {
    Worker,
    Launcher,
}

/// Reserves the shared memory. Only in the postmaster, while it loads its preloaded libraries.
pub fn register() {
    pg_shmem_init!(REGISTRY);
    PRELOADED.set(true);
}

/// Whether the library was preloaded. Inherited by every process, since they are forks.
pub fn is_available() -> bool {
    PRELOADED.get()
}

/// Wakes somebody when the current transaction commits; nobody if it does not.
pub fn wake_at_commit(wake: Wake) {
    if !is_available() {
        return;
    }
    if !CALLBACK_REGISTERED.replace(true) {
        // SAFETY: a callback that lives as long as the library, which is never unloaded.
        unsafe { pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut()) };
    }
    // CREATE EXTENSION may enqueue as well; the launcher then starts a worker, which looks at the queue by itself.
    if !matches!(WAKE_AT_COMMIT.get(), Some(Wake::Launcher)) {
        WAKE_AT_COMMIT.set(Some(wake));
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(
    event: pg_sys::XactEvent::Type,
    _argument: *mut std::ffi::c_void,
) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT => match WAKE_AT_COMMIT.take() {
            Some(Wake::Worker) => wake_worker(),
            Some(Wake::Launcher) => wake_launcher(true),
            None => {}
        },
        // A prepared transaction is found by the poll: nothing of ours runs when it is committed.
        pg_sys::XactEvent::XACT_EVENT_ABORT | pg_sys::XactEvent::XACT_EVENT_PREPARE => {
            WAKE_AT_COMMIT.set(None)
        }
        _ => {}
    }
}

/// Wakes the worker of this database, if there is one.
pub fn wake_worker() {
    if !is_available() {
        return;
    }
    let database = my_database();
    let latch = REGISTRY
        .share()
        .workers
        .iter()
        .find(|slot| slot.database == database && slot.latch != 0)
        .map(|slot| slot.latch);
    set_latch(latch.unwrap_or(0));
}

/// Wakes the launcher; with `rescan`, to look again at databases that had no extension.
pub fn wake_launcher(rescan: bool) {
    if !is_available() {
        return;
    }
    let mut registry = REGISTRY.exclusive();
    registry.rescan |= rescan;
    set_latch(registry.launcher);
}

fn set_latch(address: usize) {
    if address != 0 {
        // SAFETY: the address of a process's latch in the shared array of processes, which exists as long as the
        // server; if that process is gone, its latch has no owner, or another one that only wakes up once too often.
        unsafe { pg_sys::SetLatch(address as *mut pg_sys::Latch) };
    }
}

fn my_latch() -> usize {
    // SAFETY: this process's own latch, set up before any of our code runs.
    unsafe { pg_sys::MyLatch as usize }
}

fn my_database() -> pg_sys::Oid {
    // SAFETY: a backend-local variable.
    unsafe { pg_sys::MyDatabaseId }
}

/// Enters this process as the launcher.
pub fn enter_launcher() {
    REGISTRY.exclusive().launcher = my_latch();
}

/// Whether databases without the extension must be looked at again. Asking resets it.
pub fn take_rescan() -> bool {
    std::mem::take(&mut REGISTRY.exclusive().rescan)
}

/// Enters this process as the worker of its database. Returns how the one before it left, and what it could not end.
pub fn enter_worker(pid: i32, started_at: i64) -> (WorkerState, Option<Purpose>) {
    let mut stuck_at = None;
    let before = update_slot(|slot| {
        let before = slot.state;
        stuck_at = slot.stuck_at.take();
        slot.pid = pid;
        slot.started_at = started_at;
        slot.latch = my_latch();
        slot.state = WorkerState::Running;
        before
    });
    (before, stuck_at)
}

/// Leaves word for the next worker of what this one could not end.
pub fn leave_stuck(stuck_at: Option<Purpose>) {
    update_slot(|slot| {
        slot.stuck_at = stuck_at;
        slot.state
    });
}

/// Notes why the worker of this database is not there any more.
pub fn leave_worker(state: WorkerState) {
    update_slot(|slot| {
        slot.pid = 0;
        slot.latch = 0;
        slot.state = state;
        slot.state
    });
    let database = my_database();
    for live in &mut REGISTRY.exclusive().live {
        if live.database == database {
            *live = Live::default();
        }
    }
}

fn update_slot(change: impl FnOnce(&mut WorkerSlot) -> WorkerState) -> WorkerState {
    let database = my_database();
    let mut registry = REGISTRY.exclusive();
    let position = registry
        .workers
        .iter()
        .position(|slot| slot.database == database)
        .or_else(|| {
            registry
                .workers
                .iter()
                .position(|slot| slot.database == pg_sys::InvalidOid)
        });
    match position.and_then(|position| registry.workers.get_mut(position)) {
        Some(slot) => {
            slot.database = database;
            change(slot)
        }
        None => WorkerState::Unknown,
    }
}

/// Notes how this machine's clock stands to Snowflake's.
pub fn note_clock(ahead: i64) {
    update_slot(|slot| {
        slot.clock_ahead = Some(ahead);
        slot.state
    });
}

/// Frees the slots of databases that are gone.
pub fn retain(databases: &[pg_sys::Oid]) {
    for slot in &mut REGISTRY.exclusive().workers {
        if slot.database != pg_sys::InvalidOid && !databases.contains(&slot.database) {
            *slot = WorkerSlot::default();
        }
    }
}

/// The state of the worker of `database`, as the launcher needs it.
pub fn worker_state(database: pg_sys::Oid) -> WorkerState {
    REGISTRY
        .share()
        .workers
        .iter()
        .find(|slot| slot.database == database)
        .map_or(WorkerState::Unknown, |slot| slot.state)
}

/// The running worker of this database.
pub fn my_worker() -> Option<WorkerSlot> {
    if !is_available() {
        return None;
    }
    let database = my_database();
    REGISTRY
        .share()
        .workers
        .iter()
        .find(|slot| slot.database == database && slot.pid != 0)
        .copied()
}

/// Shows or updates the progress of an upload of this database.
pub fn show_progress(live: Live) {
    let live = Live {
        database: my_database(),
        ..live
    };
    let mut registry = REGISTRY.exclusive();
    let position = registry
        .live
        .iter()
        .position(|entry| entry.upload == live.upload && entry.database == live.database)
        .or_else(|| registry.live.iter().position(|entry| entry.upload == 0));
    if let Some(entry) = position.and_then(|position| registry.live.get_mut(position)) {
        *entry = live;
    }
}

/// Forgets the progress of an upload that has ended.
pub fn end_progress(upload: i64) {
    let database = my_database();
    for entry in &mut REGISTRY.exclusive().live {
        if entry.upload == upload && entry.database == database {
            *entry = Live::default();
        }
    }
}

/// The progress of this database's uploads.
pub fn live_progress() -> Vec<Live> {
    if !is_available() {
        return Vec::new();
    }
    let database = my_database();
    REGISTRY
        .share()
        .live
        .iter()
        .filter(|entry| entry.upload != 0 && entry.database == database)
        .copied()
        .collect()
}

/// Shows in `pg_stat_activity` what this process does.
pub fn report_running(what: &str) {
    if let Ok(text) = std::ffi::CString::new(what) {
        // SAFETY: PostgreSQL copies the text.
        unsafe {
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr())
        };
    }
}

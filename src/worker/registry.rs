//! Shared memory: which worker serves which database, and how far its uploads are. Any backend reads it; a commit that
//! enqueued something uses it to wake the worker.
#![allow(unsafe_code)]

use std::cell::Cell;

use bridge_core::culprits::Culprits;
use pgrx::lwlock::PgLwLock;
use pgrx::pg_shmem_init;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::shmem::PGRXSharedMemory;

use super::live;
pub use super::live::Live;
use crate::timer::Purpose;

/// Databases that can have a worker at once.
pub const MAX_DATABASES: usize = 64;

/// What to do where there are more.
pub const TOO_MANY_DATABASES_HINT: &str = "Name in snowflake_bridge.databases those that are to have one and reload, or drop the extension where it is not needed. The \
    worker starts by itself within five minutes after, at once after a reload.";

// SAFETY: initialised by `register` in _PG_init before any use, which `is_available` tells.
static REGISTRY: PgLwLock<Registry> = unsafe { PgLwLock::new(c"snowflake_bridge registry") };

#[derive(Clone, Copy)]
struct Registry {
    launcher: usize,
    /// The launcher found no process for a worker.
    short_of_processes: bool,
    workers: [WorkerSlot; MAX_DATABASES],
    live: live::Table,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            launcher: 0,
            short_of_processes: false,
            workers: [WorkerSlot::default(); MAX_DATABASES],
            live: live::Table::default(),
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
    /// Something keeps it from sending anything.
    pub is_waiting: bool,
    /// A result waits for a process that would read it, and none is free.
    pub lacks_reader: bool,
    /// Sessions that are dropping an extension.
    drops: u32,
    /// How often in a row a worker has ended soon after its start.
    pub failed_starts: u32,
    latch: usize,
    state: WorkerState,
    /// A worker is to be started at once, whatever became of the one before it.
    is_wanted: bool,
    /// What ended the worker before, if it would not end itself.
    pub(super) stuck_at: Option<Purpose>,
    /// The watches that have ended workers so, and their owners.
    pub(super) stubborn: Culprits,
}

/// What a worker finds of those before it.
pub(super) struct Before {
    pub state: WorkerState,
    /// What the last one could not end, until that is settled.
    pub stuck_at: Option<Purpose>,
    /// The watches that have ended workers one after the other, and their owners.
    pub stubborn: Culprits,
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

thread_local! {
    static WAKE_AT_COMMIT: Cell<Option<Wake>> = const { Cell::new(None) };
    static CALLBACK_REGISTERED: Cell<bool> = const { Cell::new(false) };
    static PRELOADED: Cell<bool> = const { Cell::new(false) };
}

/// Whom a commit wakes. Who comes later in this list does for all before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// The worker of this database: something is due.
    Worker,
    /// The launcher: there may be another database.
    Launcher,
    /// The launcher: this database wants a worker, which then looks at the queue by itself.
    NewWorker,
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
    WAKE_AT_COMMIT.set(WAKE_AT_COMMIT.get().max(Some(wake)));
}

#[pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(
    event: pg_sys::XactEvent::Type,
    _argument: *mut std::ffi::c_void,
) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT => match WAKE_AT_COMMIT.take() {
            Some(Wake::Worker) => wake_worker(),
            Some(Wake::Launcher) => wake_launcher(),
            Some(Wake::NewWorker) => {
                want_worker(my_database());
                wake_worker();
            }
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
    if let Some(worker) = my_worker() {
        set_latch(worker.latch);
    }
}

/// Wakes the launcher: there is something to look at.
pub(super) fn wake_launcher() {
    let launcher = REGISTRY.share().launcher;
    set_latch(launcher);
}

/// Has the launcher start a worker for this database at once, if it may have one.
pub(super) fn want_worker(database: pg_sys::Oid) {
    update_slot(database, |slot| slot.is_wanted = true);
    wake_launcher();
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

pub(super) fn my_database() -> pg_sys::Oid {
    // SAFETY: a backend-local variable.
    unsafe { pg_sys::MyDatabaseId }
}

/// Enters this process as the launcher.
pub fn enter_launcher() {
    REGISTRY.exclusive().launcher = my_latch();
}

/// One session more, or one less, is dropping an extension of this database.
pub(super) fn count_drop(change: i32) {
    let database = my_database();
    for slot in &mut REGISTRY.exclusive().workers {
        if slot.database == database {
            slot.drops = slot.drops.saturating_add_signed(change);
        }
    }
}

/// Whether somebody is dropping an extension of this database.
pub(super) fn is_being_dropped() -> bool {
    my_slot().is_some_and(|slot| slot.drops > 0)
}

/// Whether this database has no place among those that can have a worker, and none is free.
pub fn is_full() -> bool {
    let places = [my_database(), pg_sys::InvalidOid];
    is_available()
        && !REGISTRY
            .share()
            .workers
            .iter()
            .any(|slot| places.contains(&slot.database))
}

/// Whether the launcher lacks processes for workers: that `max_worker_processes` is too small.
pub fn is_short_of_processes() -> bool {
    is_available() && REGISTRY.share().short_of_processes
}

pub(super) fn set_short_of_processes(is_short: bool) {
    REGISTRY.exclusive().short_of_processes = is_short;
}

/// Whether a worker was wanted for this database since this was asked the last time.
pub(super) fn take_wanted(database: pg_sys::Oid) -> bool {
    REGISTRY
        .exclusive()
        .workers
        .iter_mut()
        .find(|slot| slot.database == database)
        .is_some_and(|slot| std::mem::take(&mut slot.is_wanted))
}

/// Enters this process as the worker of its database; `None` if no place is left.
pub(super) fn enter_worker(pid: i32, started_at: i64) -> Option<Before> {
    update_slot(my_database(), |slot| {
        slot.pid = pid;
        slot.started_at = started_at;
        slot.latch = my_latch();
        slot.is_waiting = false;
        slot.lacks_reader = false;
        Before {
            state: std::mem::replace(&mut slot.state, WorkerState::Running),
            stuck_at: slot.stuck_at,
            stubborn: slot.stubborn,
        }
    })
}

/// Notes whether something keeps the worker of this database from sending anything.
pub(super) fn set_waiting(is_waiting: bool) {
    update_slot(my_database(), |slot| slot.is_waiting = is_waiting);
}

/// Notes whether there is no process for a reader of this database.
pub(super) fn set_lacks_reader(lacks_reader: bool) {
    update_slot(my_database(), |slot| slot.lacks_reader = lacks_reader);
}

/// Notes why the worker of this database is not there any more.
pub(super) fn leave_worker(state: WorkerState) {
    let database = my_database();
    update_slot(database, |slot| {
        slot.pid = 0;
        slot.latch = 0;
        slot.state = state;
    });
    REGISTRY.exclusive().live.end_all(database);
}

/// Notes how often in a row a worker of this database has ended soon after its start.
pub(super) fn set_failed_starts(database: pg_sys::Oid, failed_starts: u32) {
    update_slot(database, |slot| slot.failed_starts = failed_starts);
}

/// Changes the slot of a database, which gets one if it has none; `None` if no slot is free.
pub(super) fn update_slot<T>(
    database: pg_sys::Oid,
    change: impl FnOnce(&mut WorkerSlot) -> T,
) -> Option<T> {
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
    let slot = registry.workers.get_mut(position?)?;
    slot.database = database;
    Some(change(slot))
}

/// Notes how this machine's clock stands to Snowflake's.
pub(super) fn note_clock(ahead: i64) {
    update_slot(my_database(), |slot| slot.clock_ahead = Some(ahead));
}

/// Frees the slots of all databases but these. Returns the workers that still run there.
pub(super) fn retain(databases: &[pg_sys::Oid]) -> Vec<i32> {
    let mut running = Vec::new();
    for slot in &mut REGISTRY.exclusive().workers {
        if slot.database != pg_sys::InvalidOid && !databases.contains(&slot.database) {
            if slot.pid == 0 {
                *slot = WorkerSlot::default();
            } else {
                running.push(slot.pid);
            }
        }
    }
    running
}

/// Frees the slot of a database that does not have the extension, unless it has got it since.
pub(super) fn forget(database: pg_sys::Oid) {
    for slot in &mut REGISTRY.exclusive().workers {
        if slot.database == database && slot.pid == 0 && !slot.is_wanted {
            *slot = WorkerSlot::default();
        }
    }
}

/// The state of the worker of `database`, as the launcher needs it.
pub fn worker_state(database: pg_sys::Oid) -> WorkerState {
    slot_of(database).map_or(WorkerState::Unknown, |slot| slot.state)
}

/// What is known of this database's workers.
pub fn my_slot() -> Option<WorkerSlot> {
    slot_of(my_database())
}

/// The running worker of this database.
pub fn my_worker() -> Option<WorkerSlot> {
    worker_of(my_database())
}

/// The running worker of a database.
pub(super) fn worker_of(database: pg_sys::Oid) -> Option<WorkerSlot> {
    slot_of(database).filter(|slot| slot.pid != 0)
}

fn slot_of(database: pg_sys::Oid) -> Option<WorkerSlot> {
    if !is_available() {
        return None;
    }
    REGISTRY
        .share()
        .workers
        .iter()
        .find(|slot| slot.database == database)
        .copied()
}

/// Shows or updates the progress of an upload of this database.
pub fn show_progress(live: Live) {
    let live = Live {
        database: my_database(),
        ..live
    };
    REGISTRY.exclusive().live.show(live);
}

/// Forgets the progress of an upload that has ended.
pub fn end_progress(upload: i64) {
    REGISTRY.exclusive().live.end(my_database(), upload);
}

/// The progress of this database's uploads.
pub fn live_progress() -> Vec<Live> {
    if !is_available() {
        return Vec::new();
    }
    REGISTRY.share().live.of(my_database())
}

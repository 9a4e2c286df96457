//! The process of one database's worker: how it begins, when there is nothing for it to do, and how it ends.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::time::Duration;

use pgrx::bgworkers::BackgroundWorker;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::reader;
use super::registry::{self, MAX_DATABASES, WorkerState};
use super::service::{self, Service};
use super::{activity, memory, signals, stubborn, vacancy};
use crate::error::{Error, Result, log_error, log_message};
use crate::installation::Installation;
use crate::{guards, guc, keys, net, secrets, setting, timer, tx};

/// Class of the lock that one worker per database holds; PostgreSQL's own advisory locks use 1 and 2.
const LOCK_CLASS: u16 = 0x5342;
/// Between two attempts to read our tables while somebody keeps them locked.
const LOCKED_DELAY: Duration = Duration::from_millis(250);

thread_local! {
    /// What others are told when this worker is gone; until it has recovered, what the one before it has left.
    static LEAVES_AS: Cell<WorkerState> = const { Cell::new(WorkerState::LeftCleanly) };
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn snowflake_bridge_worker_main(_argument: pg_sys::Datum) {
    signals::install();
    secrets::keep_out_of_core_files();
    memory::share_among_threads();
    let database = BackgroundWorker::get_extra().to_owned();
    BackgroundWorker::connect_worker_to_spi(Some(&database), guc::worker_role().as_deref());
    // SAFETY: a callback of this library, which stays loaded until the process has gone.
    unsafe { pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::from(0)) };

    if !take_lock() {
        // Another worker serves this database; the launcher looks again later.
        return;
    }
    // SAFETY: variables of this process.
    let (pid, now, database) = unsafe {
        (
            pg_sys::MyProcPid,
            pg_sys::GetCurrentTimestamp(),
            pg_sys::MyDatabaseId,
        )
    };
    let Some(before) = registry::enter_worker(pid, now) else {
        log_error("snowflake_bridge: no worker", &too_many_databases());
        return;
    };
    LEAVES_AS.set(match before.state {
        WorkerState::LeftCleanly | WorkerState::NoExtension => WorkerState::LeftCleanly,
        WorkerState::Running | WorkerState::Unknown => WorkerState::Unknown,
    });
    if vacancy::is_vacated(database) {
        return;
    }
    keys::keep();
    let service = settle_session("snowflake_bridge worker")
        .and_then(|()| patiently(Installation::find))
        .and_then(|found| {
            let installation = found.unwrap_or_else(|| end_without_extension());
            // Whatever else waits for a process may be started now.
            registry::wake_launcher();
            wait_for_obstacles(installation)
        })
        .and_then(|installation| Service::start(installation, &before));
    match service {
        Ok(mut service) => {
            log_message("snowflake_bridge: worker started");
            service.run();
        }
        Err(error) => {
            log_error("snowflake_bridge: worker cannot start", &error);
            // SAFETY: ends this process in order; the launcher starts another one later.
            unsafe { pg_sys::proc_exit(1) };
        }
    }
}

fn too_many_databases() -> Error {
    Error::user(
        PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        format!("{MAX_DATABASES} databases have workers, which is as many as can"),
    )
    .hint(registry::TOO_MANY_DATABASES_HINT)
}

/// What the worker before has left is settled: from now on this one answers for itself.
pub(super) fn has_recovered() {
    LEAVES_AS.set(WorkerState::LeftCleanly);
    stubborn::settle();
}

/// Waits until nothing keeps the worker from sending, and says once what does.
fn wait_for_obstacles(mut installation: Installation) -> Result<Installation> {
    let mut said = String::new();
    while let Some(obstacle) = patiently(|| installation.obstacle())? {
        let message = obstacle.message();
        if message != said {
            log_message(&format!(
                "snowflake_bridge: the worker waits: {message}. {}",
                obstacle.hint()
            ));
            said = message;
        }
        registry::set_waiting(true);
        activity::running("snowflake_bridge: waiting; check() tells for what");
        net::sleep(guc::poll_interval());
        signals::reload_if_asked();
        installation = found_or_end()?;
    }
    registry::set_waiting(false);
    Ok(installation)
}

/// Runs `work` in a transaction, as soon as nobody keeps our tables locked: an open DROP EXTENSION, say, that may yet be
/// rolled back. Such a statement may in turn wait for a watched table that is being read.
pub(super) fn patiently<T>(work: impl Fn() -> Result<T>) -> Result<T> {
    loop {
        match tx::transaction(&work) {
            Err(error)
                if error.sqlstate_and_hint().0 == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE =>
            {
                activity::running("snowflake_bridge: waiting for a lock on its tables");
                reader::make_way();
                net::sleep(LOCKED_DELAY);
            }
            result => return result,
        }
    }
}

/// An orderly end, by SIGTERM or an ERROR: what was in flight is not to blame. A process that is killed never gets here.
#[pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: i32, _argument: pg_sys::Datum) {
    if registry::my_worker().is_some_and(|slot| {
        // SAFETY: a variable of this process.
        slot.pid == unsafe { pg_sys::MyProcPid }
    }) {
        reader::end_all();
        registry::leave_worker(LEAVES_AS.get());
        match timer::stuck_at() {
            Some(stuck_at) => stubborn::leave(stuck_at),
            None => stubborn::forget(),
        }
        service::say_goodbye();
    }
}

/// What these processes wait for a lock of our own tables'.
pub(super) const LOCK_TIMEOUT: &str = "2s";

/// Settings for the whole session, whatever the server, the database or the role has for others: these processes speak in their
/// own, qualified words, what they record is durable, they see what others commit meanwhile, and they lose deadlocks.
///
/// # Errors
/// If they cannot be set.
pub(super) fn settle_session(application_name: &str) -> Result<()> {
    let settings = [
        ("search_path", "pg_catalog, pg_temp"),
        ("synchronous_commit", "on"),
        ("application_name", application_name),
        ("jit", "off"),
        // The application's own transactions would fail beside ours.
        ("default_transaction_isolation", "read committed"),
        ("default_transaction_read_only", "off"),
        ("default_transaction_deferrable", "off"),
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        ("transaction_timeout", "0"),
        ("lock_timeout", LOCK_TIMEOUT),
        // Of two that wait for each other, who looks first is the victim.
        ("deadlock_timeout", "10ms"),
        // It would log every wait that is longer than that; who waits for these processes is logged as ever.
        ("log_lock_waits", "off"),
    ];
    tx::transaction(|| {
        settings
            .into_iter()
            .filter(|(name, _)| guards::ON || *name != "search_path")
            .try_for_each(|(name, value)| set(name, value, pg_sys::GucAction::GUC_ACTION_SET))
    })
}

/// How long this session waits for locks from now on.
///
/// # Errors
/// If that cannot be set.
pub(super) fn wait_for_locks(at_most: &str) -> Result<()> {
    tx::transaction(|| set("lock_timeout", at_most, pg_sys::GucAction::GUC_ACTION_SET))
}

/// Has this transaction give up what it waits for before somebody whom it keeps waiting looks for a deadlock, whose victim would be the
/// application then.
///
/// # Errors
/// If that cannot be set.
pub(super) fn lose_deadlocks() -> Result<()> {
    const LONGEST_MS: u32 = 2_000;
    // SAFETY: PostgreSQL gives a C string for a setting that it knows: what the server has, in milliseconds, whatever this session has.
    let others = unsafe {
        CStr::from_ptr(pg_sys::GetConfigOptionResetString(
            c"deadlock_timeout".as_ptr(),
        ))
    };
    let others = others.to_string_lossy().parse().unwrap_or(LONGEST_MS);
    // 0 would be no limit.
    let limit = format!("{}ms", (others / 2).clamp(1, LONGEST_MS));
    set("lock_timeout", &limit, pg_sys::GucAction::GUC_ACTION_LOCAL)
}

/// Sets what only superusers may as well: the role of these processes may be none.
fn set(name: &str, value: &str, action: pg_sys::GucAction::Type) -> Result<()> {
    let text =
        |text: &str| CString::new(text).map_err(|_| Error::invalid("a setting contains a NUL"));
    let (name, value) = (text(name)?, text(value)?);
    setting::set(&name, &value, pg_sys::GucContext::PGC_SUSET, action);
    Ok(())
}

/// The installation of this database, while it has one.
///
/// # Errors
/// If the catalog cannot be read.
fn found_or_end() -> Result<Installation> {
    Ok(patiently(Installation::find)?.unwrap_or_else(|| {
        log_message("snowflake_bridge: the extension was dropped; worker ends");
        end_without_extension()
    }))
}

/// Without the extension there is nothing to do; CREATE EXTENSION brings another worker.
fn end_without_extension() -> ! {
    LEAVES_AS.set(WorkerState::NoExtension);
    // SAFETY: ends this process in order.
    unsafe { pg_sys::proc_exit(0) };
}

/// Ends this process if the extension was dropped, made anew, updated or adopted: what is in flight belongs to the
/// installation that was, and its numbers mean nothing in another one.
///
/// # Errors
/// If the catalog cannot be read.
pub(super) fn end_unless_same(installation: &Installation) -> Result<()> {
    if found_or_end()? != *installation {
        log_message("snowflake_bridge: the extension has changed; the worker starts anew");
        // SAFETY: a variable of this process.
        registry::want_worker(unsafe { pg_sys::MyDatabaseId });
        // SAFETY: ends this process in order.
        unsafe { pg_sys::proc_exit(0) };
    }
    Ok(())
}

/// Ends this process if another one is this database's worker. Code of the application's can have released the lock of this
/// one with `pg_advisory_unlock_all`, and then it is taken again; and what such code has locked for the session is released: this
/// session does not end.
pub(super) fn end_unless_alone() {
    if !take_lock() {
        log_message("snowflake_bridge: another worker serves this database; this one ends");
        // SAFETY: ends this process in order.
        unsafe { pg_sys::proc_exit(0) };
    }
}

/// One worker per database, whatever started it. Held until the process ends; to take it once more costs next to nothing.
fn take_lock() -> bool {
    // SAFETY: outside of transactions; the tag is plain data. The transaction holds the lock as well while the session lets go of
    // all its own, so that nobody else gets it meanwhile.
    unsafe {
        let mut tag = pg_sys::LOCKTAG {
            locktag_field1: pg_sys::MyDatabaseId.to_u32(),
            locktag_field2: 0,
            locktag_field3: 0,
            locktag_field4: LOCK_CLASS,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        };
        let mut acquire = |for_session| {
            let mode = pg_sys::ExclusiveLock as i32;
            pg_sys::LockAcquire(&raw mut tag, mode, for_session, true)
                != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
        };
        pg_sys::StartTransactionCommand();
        let is_taken = acquire(false) && {
            pg_sys::LockReleaseSession(pg_sys::USER_LOCKMETHOD as pg_sys::LOCKMETHODID);
            acquire(true)
        };
        pg_sys::CommitTransactionCommand();
        is_taken
    }
}

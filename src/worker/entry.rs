//! The process of one database's worker: how it begins, when there is nothing for it to do, and how it ends.
#![allow(unsafe_code)]

use pgrx::bgworkers::BackgroundWorker;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::reader;
use super::registry::{self, WorkerState};
use super::service::{self, Service};
use super::signals;
use crate::error::{Result, log_error, log_message};
use crate::{guc, keys, timer, tx};

/// Class of the lock that one worker per database holds; PostgreSQL's own advisory locks use 1 and 2.
const LOCK_CLASS: u16 = 0x5342;

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn snowflake_bridge_worker_main(_argument: pg_sys::Datum) {
    signals::install();
    let database = BackgroundWorker::get_extra().to_owned();
    BackgroundWorker::connect_worker_to_spi(Some(&database), guc::worker_role().as_deref());
    // SAFETY: a callback of this library, which stays loaded until the process has gone.
    unsafe { pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::from(0)) };

    if !has_extension() {
        registry::leave_worker(WorkerState::NoExtension);
        return;
    }
    if !take_lock() {
        // Another worker serves this database; the launcher looks again later.
        return;
    }
    // SAFETY: variables of this process.
    let (pid, now) = unsafe { (pg_sys::MyProcPid, pg_sys::GetCurrentTimestamp()) };
    let (before, stuck_at) = registry::enter_worker(pid, now);
    keys::keep();
    let service = settle_session("snowflake_bridge worker")
        .and_then(|()| Service::start(before == WorkerState::LeftCleanly, stuck_at));
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

/// An orderly end, by SIGTERM or an ERROR: what was in flight is not to blame. A process that is killed never gets here.
#[pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: i32, _argument: pg_sys::Datum) {
    if registry::my_worker().is_some_and(|slot| {
        // SAFETY: a variable of this process.
        slot.pid == unsafe { pg_sys::MyProcPid }
    }) {
        reader::end_all();
        registry::leave_stuck(timer::stuck_at());
        registry::leave_worker(WorkerState::LeftCleanly);
        service::close_sessions();
    }
}

/// Settings for the whole session: these processes speak in their own, qualified words, and what they record is durable.
///
/// # Errors
/// If they cannot be set.
pub(super) fn settle_session(application_name: &str) -> Result<()> {
    tx::transaction(|| {
        for (name, value) in [
            ("search_path", "pg_catalog, pg_temp"),
            ("synchronous_commit", "on"),
            ("application_name", application_name),
            ("lock_timeout", "2s"),
            ("jit", "off"),
        ] {
            Spi::run_with_args(
                "select pg_catalog.set_config($1, $2, false)",
                &[name.into(), value.into()],
            )?;
        }
        Ok(())
    })
}

/// Ends this process with an error if the catalog cannot be read: the launcher then starts another one later.
fn has_extension() -> bool {
    let found = tx::transaction(|| {
        Ok(Spi::get_one::<bool>(
            "select exists (select from pg_catalog.pg_extension where extname = 'snowflake_bridge')",
        )?)
    });
    match found {
        Ok(found) => found == Some(true),
        Err(error) => {
            log_error("snowflake_bridge: cannot look for the extension", &error);
            // SAFETY: ends this process in order.
            unsafe { pg_sys::proc_exit(1) };
        }
    }
}

/// One worker per database, whatever started it. Held until the process ends.
fn take_lock() -> bool {
    // SAFETY: a session lock outside of transactions, as a process may hold; the tag is plain data.
    unsafe {
        let mut tag = pg_sys::LOCKTAG {
            locktag_field1: pg_sys::MyDatabaseId.to_u32(),
            locktag_field2: 0,
            locktag_field3: 0,
            locktag_field4: LOCK_CLASS,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        };
        pg_sys::StartTransactionCommand();
        let result = pg_sys::LockAcquire(&raw mut tag, pg_sys::ExclusiveLock as i32, true, true);
        pg_sys::CommitTransactionCommand();
        result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }
}

/// After DROP EXTENSION there is nothing left to do here; CREATE EXTENSION brings another worker.
pub(super) fn end_if_dropped() {
    if !has_extension() {
        log_message("snowflake_bridge: the extension was dropped; worker ends");
        registry::leave_worker(WorkerState::NoExtension);
        // SAFETY: ends this process in order.
        unsafe { pg_sys::proc_exit(0) };
    }
}

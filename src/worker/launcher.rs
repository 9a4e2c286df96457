//! The launcher: keeps one worker running for each database that has the extension, and decides nothing else.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::bgworkers::{
    BackgroundWorkerBuilder, BackgroundWorkerStatus, BgWorkerStartTime, DynamicBackgroundWorker,
};
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::registry::{self, WorkerState};
use super::signals;
use crate::error::log_message;
use crate::{guc, net, tx};

/// Between two looks at the list of databases; CREATE EXTENSION wakes the launcher earlier.
const SCAN_INTERVAL: Duration = Duration::from_secs(30);
/// Wait before a worker that ended with an error is started again.
const RESTART_DELAY: Duration = Duration::from_secs(5);

struct Worker {
    handle: DynamicBackgroundWorker,
    started: Instant,
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn snowflake_bridge_launcher_main(_argument: pg_sys::Datum) {
    signals::install();
    // SAFETY: once, at the start of the process; no database is needed to read the shared list of databases.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0) };
    registry::enter_launcher();

    let mut workers: HashMap<pg_sys::Oid, Worker> = HashMap::new();
    let mut registration_failed = false;
    loop {
        signals::reload_if_asked();
        let look_again = registry::take_rescan();
        let databases = match tx::transaction(databases) {
            Ok(databases) => databases,
            Err(error) => {
                crate::error::log_error("snowflake_bridge: cannot list the databases", &error);
                net::sleep(RESTART_DELAY);
                continue;
            }
        };
        registry::retain(&databases.iter().map(|(oid, _)| *oid).collect::<Vec<_>>());
        workers.retain(|oid, _| databases.iter().any(|(known, _)| known == oid));
        let mut all_registered = true;
        for (oid, name) in databases {
            if !needs_worker(oid, workers.get(&oid), look_again) {
                continue;
            }
            match start(oid, &name) {
                Some(handle) => {
                    workers.insert(
                        oid,
                        Worker {
                            handle,
                            started: Instant::now(),
                        },
                    );
                }
                None => all_registered = false,
            }
        }
        if !all_registered && !registration_failed {
            log_message(
                "snowflake_bridge: no free background worker slot; raise max_worker_processes (one for the launcher and one for each database)",
            );
        }
        registration_failed = !all_registered;
        net::sleep(if workers.values().any(is_waiting_for_restart) {
            RESTART_DELAY
        } else {
            SCAN_INTERVAL
        });
    }
}

fn is_running(worker: &Worker) -> bool {
    match worker.handle.pid() {
        Ok(_) => true,
        Err(status) => matches!(status, BackgroundWorkerStatus::NotYetStarted),
    }
}

fn is_waiting_for_restart(worker: &Worker) -> bool {
    !is_running(worker)
}

fn needs_worker(oid: pg_sys::Oid, worker: Option<&Worker>, look_again: bool) -> bool {
    // One that an earlier launcher started may still run.
    if registry::worker_state(oid) == WorkerState::Running {
        return false;
    }
    let Some(worker) = worker else {
        return true;
    };
    if is_running(worker) {
        return false;
    }
    if registry::worker_state(oid) == WorkerState::NoExtension {
        return look_again;
    }
    worker.started.elapsed() >= RESTART_DELAY
}

fn start(oid: pg_sys::Oid, name: &str) -> Option<DynamicBackgroundWorker> {
    BackgroundWorkerBuilder::new(&format!("snowflake_bridge worker: {name}"))
        .set_type("snowflake_bridge worker")
        .set_library("snowflake_bridge")
        .set_function("snowflake_bridge_worker_main")
        .set_argument(Some(pg_sys::Datum::from(oid)))
        .set_extra(name)
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        // The launcher starts it again, and knows when not to.
        .set_restart_time(None)
        // SAFETY: a variable of this process.
        .set_notify_pid(unsafe { pg_sys::MyProcPid })
        .load_dynamic()
        .ok()
}

/// Databases that may have a worker: OID and name. Read straight from the shared catalog, since without a database
/// there is no SQL.
fn databases() -> crate::error::Result<Vec<(pg_sys::Oid, String)>> {
    let wanted = guc::databases();
    let mut found = Vec::new();
    // SAFETY: inside a transaction; the scan is that of the autovacuum launcher. Tuples are read before the scan moves.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, lock);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let database: *const pg_sys::FormData_pg_database = pg_sys::GETSTRUCT(tuple).cast();
            let name = CStr::from_ptr((*database).datname.data.as_ptr())
                .to_string_lossy()
                .into_owned();
            if (*database).datallowconn
                && !(*database).datistemplate
                && (wanted.is_empty() || wanted.contains(&name))
            {
                found.push(((*database).oid, name));
            }
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(relation, lock);
    }
    Ok(found)
}

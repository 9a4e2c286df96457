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
use super::{signals, vacancy};
use crate::error::log_message;
use crate::{guc, net, tx};

/// Between two looks at the list of databases; CREATE EXTENSION wakes the launcher earlier.
const SCAN_INTERVAL: Duration = Duration::from_secs(30);
/// Wait before a worker that ended by itself is started again, and before another look for a free process.
const RESTART_DELAY: Duration = Duration::from_secs(5);
/// The wait doubles with every start that fails, up to this.
const MAX_RESTART_DELAY: Duration = Duration::from_secs(300);
/// A worker that ends before it has run so long has failed to start.
const HEALTHY: Duration = Duration::from_secs(10);
/// Workers at once of which it is not known yet whether their database has the extension: many databases without it must
/// not take all processes of the server.
const MAX_PROBES: usize = 2;

/// What the launcher knows of a database.
struct Worker {
    handle: DynamicBackgroundWorker,
    started: Instant,
    /// How often in a row a worker ended soon after its start.
    failed_starts: u32,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    /// Started, and not yet heard of.
    Starting,
    Running,
    /// It ended, and another one is due then.
    Ended(Instant),
    /// There is nothing to do in its database.
    NoExtension,
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn snowflake_bridge_launcher_main(_argument: pg_sys::Datum) {
    signals::install();
    // SAFETY: once, at the start of the process; no database is needed to read the shared list of databases.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0) };
    registry::enter_launcher();

    let mut workers: HashMap<pg_sys::Oid, Worker> = HashMap::new();
    let mut was_short = false;
    loop {
        if signals::reload_if_asked() {
            // Whoever mended something need not wait.
            workers.retain(|_, worker| matches!(worker.state, State::Starting | State::Running));
        }
        let databases = match tx::transaction(databases) {
            Ok(databases) => databases,
            Err(error) => {
                crate::error::log_error("snowflake_bridge: cannot list the databases", &error);
                net::sleep(RESTART_DELAY);
                continue;
            }
        };
        end_others(&databases);
        workers.retain(|oid, _| databases.iter().any(|(known, _)| known == oid));
        let now = Instant::now();
        let is_short = !start_due(&databases, &mut workers, now);
        if is_short && !was_short {
            log_message(
                "snowflake_bridge: no free background worker slot; raise max_worker_processes (one for the launcher and one for each database)",
            );
        }
        registry::set_short_of_processes(is_short);
        was_short = is_short;
        net::sleep(if is_short {
            RESTART_DELAY
        } else {
            until_next_start(&workers, now)
        });
    }
}

/// Workers of databases that are not to have one any more, by `snowflake_bridge.databases` for instance.
fn end_others(databases: &[(pg_sys::Oid, String)]) {
    let oids: Vec<_> = databases.iter().map(|(oid, _)| *oid).collect();
    for pid in registry::retain(&oids) {
        // SAFETY: a signal to a process of ours: it takes its pid off the registry before it ends.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Starts every worker that is due now. Returns whether there was a process for each.
fn start_due(
    databases: &[(pg_sys::Oid, String)],
    workers: &mut HashMap<pg_sys::Oid, Worker>,
    now: Instant,
) -> bool {
    for (oid, worker) in workers.iter_mut() {
        worker.look(*oid);
    }
    for (oid, name) in databases {
        // One that an earlier launcher started may still run.
        if vacancy::is_vacated(*oid) || registry::worker_state(*oid) == WorkerState::Running {
            continue;
        }
        let probes = workers
            .values()
            .filter(|worker| {
                // One that waits for a lock on its database does not hold up the others.
                worker.state == State::Starting && worker.started.elapsed() < HEALTHY
            })
            .count();
        if probes >= MAX_PROBES {
            // Whatever a probe finds wakes the launcher.
            break;
        }
        let known = workers.get(oid);
        let is_due = match known.map(|worker| &worker.state) {
            None => true,
            Some(State::Starting | State::Running) => false,
            Some(State::Ended(due)) => *due <= now || registry::take_wanted(*oid),
            Some(State::NoExtension) => registry::take_wanted(*oid),
        };
        if !is_due {
            continue;
        }
        let failed_starts = known.map_or(0, |worker| worker.failed_starts);
        // SAFETY: a variable of this process.
        let Some(handle) = start(*oid, name, unsafe { pg_sys::MyProcPid }) else {
            return false;
        };
        workers.insert(
            *oid,
            Worker {
                handle,
                started: Instant::now(),
                failed_starts,
                state: State::Starting,
            },
        );
    }
    true
}

/// Until another worker is due. One that was due and was not started waits for something whose end wakes the launcher, or
/// for a worker that runs already.
fn until_next_start(workers: &HashMap<pg_sys::Oid, Worker>, now: Instant) -> Duration {
    workers
        .values()
        .filter_map(|worker| match worker.state {
            State::Ended(due) if due > now => Some(due - now),
            _ => None,
        })
        .fold(SCAN_INTERVAL, Duration::min)
}

impl Worker {
    /// Learns what has become of it.
    fn look(&mut self, database: pg_sys::Oid) {
        if !matches!(self.state, State::Starting | State::Running) {
            return;
        }
        if matches!(
            self.handle.pid(),
            Ok(_) | Err(BackgroundWorkerStatus::NotYetStarted)
        ) {
            if registry::worker_state(database) == WorkerState::Running {
                self.state = State::Running;
            }
            return;
        }
        if registry::worker_state(database) == WorkerState::NoExtension {
            registry::forget(database);
            self.failed_starts = 0;
            self.state = State::NoExtension;
            return;
        }
        self.failed_starts = if self.started.elapsed() < HEALTHY {
            self.failed_starts.saturating_add(1)
        } else {
            0
        };
        registry::set_failed_starts(database, self.failed_starts);
        let delay =
            RESTART_DELAY * 2_u32.saturating_pow(self.failed_starts.saturating_sub(1).min(16));
        self.state = State::Ended(Instant::now() + delay.min(MAX_RESTART_DELAY));
    }
}

/// Starts a worker, of whose start and end the process `launcher` is told. `None` if no process is free.
pub(super) fn start(
    oid: pg_sys::Oid,
    name: &str,
    launcher: i32,
) -> Option<DynamicBackgroundWorker> {
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
        .set_notify_pid(launcher)
        .load_dynamic()
        .ok()
}

/// Databases that may have a worker: OID and name. To one whose DROP DATABASE was interrupted nobody can connect. Read straight
/// from the shared catalog, since without a database there is no SQL.
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
                && (*database).datconnlimit != pg_sys::DATCONNLIMIT_INVALID_DB
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

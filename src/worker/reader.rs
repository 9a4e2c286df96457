//! Readers: processes that each read one result, which takes long or runs somebody's function or view, so that the worker
//! goes on with all others meanwhile. A reader changes nothing in the database. What it has to say it leaves in a file beside
//! the rows, and ends; the worker goes on from there.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use bridge_core::spool::{self, storage};
use bridge_core::upload::Phase;
use bridge_core::{Error as CoreError, ErrorKind};
use pgrx::bgworkers::{
    BackgroundWorker, BackgroundWorkerBuilder, BackgroundWorkerStatus, BgWorkerStartTime,
    DynamicBackgroundWorker,
};
use pgrx::pg_sys;
use pgrx::prelude::*;
use serde::{Deserialize, Serialize};

use super::reading::{self, Read};
use super::registry::{self, Live};
use super::{activity, entry, signals, witness};
use crate::error::{Error, Result, log_error};
use crate::source::spooled;
use crate::uploads::{self, Claim, Claimed};
use crate::{guc, secrets, tx};

/// Between two looks of others at how many rows were read.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Bytes that are kept free for what a reader reports. An error takes less; the list of some thousand files takes more.
const REPORT_ROOM: u64 = 16 << 10;

thread_local! {
    /// The readers that this worker has started.
    static RUNNING: RefCell<HashMap<Claim, DynamicBackgroundWorker>> = RefCell::new(HashMap::new());
}

/// Whether another reader may be started.
pub(super) fn is_one_free() -> bool {
    RUNNING.with_borrow(HashMap::len) < guc::max_reader_processes()
}

/// Starts a reader for an upload. Returns whether there was a process for it.
///
/// # Errors
/// `Transient` if the spool directory has no room for the few words with which the reader ends.
pub(super) fn start(upload: &Claimed, spool_root: &Path) -> Result<bool> {
    let report = report_file(upload, spool_root);
    spooled::make_private(report.parent().unwrap_or(spool_root))?;
    // One that has filled the disk, or found it full, must still be able to say so.
    spool::reserve(&unfinished(&report), REPORT_ROOM)?;
    // SAFETY: variables of this process.
    let (database, user, pid) = unsafe {
        (
            pg_sys::MyDatabaseId,
            pg_sys::GetAuthenticatedUserId(),
            pg_sys::MyProcPid,
        )
    };
    let task = Task {
        database: database.to_u32(),
        user: user.to_u32(),
        claim: upload.as_claim(),
    };
    let started = BackgroundWorkerBuilder::new(&format!("snowflake_bridge reader: {}", upload.id))
        .set_type("snowflake_bridge reader")
        .set_library("snowflake_bridge")
        .set_function("snowflake_bridge_reader_main")
        .set_extra(&task.to_string())
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(None)
        .set_notify_pid(pid)
        .load_dynamic();
    match started {
        Ok(handle) => {
            RUNNING.with_borrow_mut(|running| running.insert(upload.as_claim(), handle));
            Ok(true)
        }
        Err(_) => Ok(false),
    }
}

/// The claims whose readers have ended since this was asked the last time.
pub(super) fn ended() -> Vec<Claim> {
    RUNNING.with_borrow_mut(|running| {
        let ended: Vec<Claim> = running
            .iter()
            .filter(|(_, reader)| {
                matches!(
                    reader.pid(),
                    Err(BackgroundWorkerStatus::Stopped | BackgroundWorkerStatus::PostmasterDied)
                )
            })
            .map(|(claim, _)| *claim)
            .collect();
        for claim in &ended {
            running.remove(claim);
        }
        ended
    })
}

/// Tells the reader of a claim to end; it is among the [`ended`] once it has.
pub(super) fn end(claim: Claim) {
    RUNNING.with_borrow(|running| {
        if let Some(reader) = running.get(&claim) {
            tell_to_end(reader);
        }
    });
}

/// Tells all readers the same: somebody wants what they have locked.
pub(super) fn make_way() {
    RUNNING.with_borrow(|running| running.values().for_each(tell_to_end));
}

/// One that has not begun yet is told at the next look.
fn tell_to_end(reader: &DynamicBackgroundWorker) {
    if let Ok(pid) = reader.pid() {
        // SAFETY: a signal to a process of ours, which PostgreSQL says is running.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Ends every reader: nobody is left for whom they read.
pub(super) fn end_all() {
    for (_, reader) in RUNNING.take() {
        reader.terminate();
    }
}

/// What the reader of an upload has left.
///
/// # Errors
/// What reading failed with; `Transient` if the reader ended without a word.
pub(super) fn result(upload: &Claimed, spool_root: &Path) -> Result<Read> {
    let report = fs::read(report_file(upload, spool_root))
        .ok()
        .and_then(|report| serde_json::from_slice::<Report>(&report).ok());
    match report {
        Some(Report::Read(read)) => Ok(read),
        Some(Report::Core {
            kind,
            message,
            hint,
        }) => {
            let error = CoreError::new(kind, message);
            Err(match hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            }
            .into())
        }
        Some(Report::Server {
            sqlstate,
            message,
            hint,
        }) => Err(Error::Server {
            sqlstate: PgSqlErrorCode::from(sqlstate),
            message,
            hint,
        }),
        None => Err(CoreError::new(
            ErrorKind::Transient,
            "the process that read the result ended before it was done",
        )
        .with_hint("The server log tells why.")
        .into()),
    }
}

fn report_file(upload: &Claimed, spool_root: &Path) -> PathBuf {
    spool_root
        .join(upload.upload_id.to_string())
        .join(format!("{}.json", upload.claim))
}

/// What a reader is told, in the few bytes that PostgreSQL hands to a new process.
#[derive(Clone, Copy)]
struct Task {
    database: u32,
    user: u32,
    claim: Claim,
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            database,
            user,
            claim: Claim { upload, number },
        } = self;
        write!(f, "{database} {user} {upload} {number}")
    }
}

impl FromStr for Task {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        fn number<T: FromStr>(word: Option<&str>) -> Result<T> {
            word.and_then(|word| word.parse().ok())
                .ok_or_else(|| Error::invalid("this process is started by the worker only"))
        }
        let mut words = text.split(' ');
        Ok(Self {
            database: number(words.next())?,
            user: number(words.next())?,
            claim: Claim {
                upload: number(words.next())?,
                number: number(words.next())?,
            },
        })
    }
}

/// What a reader leaves for the worker.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Report {
    Read(Read),
    Core {
        kind: ErrorKind,
        message: String,
        hint: Option<String>,
    },
    Server {
        sqlstate: i32,
        message: String,
        hint: Option<String>,
    },
}

impl From<Result<Read>> for Report {
    fn from(result: Result<Read>) -> Self {
        match result {
            Ok(read) => Self::Read(read),
            Err(error) if error.is_disk_full() => Self::server(&error),
            Err(Error::Core(error)) => Self::Core {
                kind: error.kind(),
                message: error.message().to_owned(),
                hint: error.hint().map(str::to_owned),
            },
            Err(Error::Spi(error)) => Self::Core {
                kind: ErrorKind::Transient,
                message: Error::Spi(error).to_string(),
                hint: None,
            },
            Err(error) => Self::server(&error),
        }
    }
}

impl Report {
    fn server(error: &Error) -> Self {
        let (sqlstate, hint) = error.sqlstate_and_hint();
        Self::Server {
            sqlstate: sqlstate as i32,
            message: error.to_string(),
            hint,
        }
    }
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn snowflake_bridge_reader_main(_argument: pg_sys::Datum) {
    signals::install();
    secrets::keep_out_of_core_files();
    let task = match Task::from_str(BackgroundWorker::get_extra()) {
        Ok(task) => task,
        Err(error) => {
            log_error("snowflake_bridge: reader", &error);
            return;
        }
    };
    BackgroundWorker::connect_worker_to_spi_by_oid(
        Some(pg_sys::Oid::from(task.database)),
        Some(pg_sys::Oid::from(task.user)),
    );
    if let Err(error) = work(task) {
        log_error("snowflake_bridge: reader", &error);
    }
}

fn work(task: Task) -> Result<()> {
    entry::settle_session("snowflake_bridge reader")?;
    let spool_root = spooled::root()?;
    let Some(upload) = tx::transaction(|| uploads::of_claim(task.claim))? else {
        // Canceled, or taken anew by another worker.
        return Ok(());
    };
    let read = read(&upload, &spool_root);
    bridge_core::failpoint::reach("reader-done")?;
    leave(&report_file(&upload, &spool_root), &Report::from(read))
        .map_err(|error| storage("write to the spool directory", error).into())
}

fn read(upload: &Claimed, spool_root: &Path) -> Result<Read> {
    witness::begin(spool_root, Some(upload.id))?;
    activity::running(&format!("snowflake_bridge: reading upload {}", upload.id));
    let last = Cell::new(None::<Instant>);
    reading::read_all(upload, spool_root, &|rows| {
        if last
            .get()
            .is_none_or(|last| last.elapsed() >= PROGRESS_INTERVAL)
        {
            last.set(Some(Instant::now()));
            registry::show_progress(Live {
                upload: upload.id,
                phase: Phase::Reading as u8,
                rows,
                ..Live::default()
            });
        }
    })
}

/// Whole or not at all: a reader may be ended at any moment.
fn leave(path: &Path, report: &Report) -> std::io::Result<()> {
    let report = serde_json::to_vec(report)?;
    // Into the room that was reserved.
    let mut file = OpenOptions::new().write(true).open(unfinished(path))?;
    file.write_all(&report)?;
    file.set_len(report.len() as u64)?;
    file.sync_all()?;
    fs::rename(unfinished(path), path)
}

fn unfinished(report: &Path) -> PathBuf {
    report.with_extension("json.tmp")
}

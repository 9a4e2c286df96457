//! What uploads and the worker are doing, for whoever may see it.
#![allow(unsafe_code)]

use bridge_core::upload::Phase;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::error::Result;
use crate::installation::Installation;
use crate::owner::{Owner, current_role, is_superuser};
use crate::worker::registry::{self, Live, Wake};
use crate::{guards, keys, sandbox};

#[pg_extern(volatile, parallel_unsafe)]
fn upload_progress() -> Result<
    TableIterator<
        'static,
        (
            name!(id, i64),
            name!(execution_id, String),
            name!(state, String),
            name!(phase, Option<String>),
            name!(attempt, i32),
            name!(rows, Option<i64>),
            name!(staged_bytes, Option<i64>),
            name!(total_bytes, Option<i64>),
            name!(running_for, Option<pgrx::datum::Interval>),
            name!(error_message, Option<String>),
        ),
    >,
    ErrorReport,
> {
    Ok(TableIterator::new(sandbox::as_caller(progress)?))
}

type Progress = (
    i64,
    String,
    String,
    Option<String>,
    i32,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<pgrx::datum::Interval>,
    Option<String>,
);

/// Unfinished uploads that row level security lets the caller see.
fn progress() -> Result<Vec<Progress>> {
    let live = registry::live_progress();
    Spi::connect(|client| {
        let rows = client.select(
            "select u.id, u.execution_id, u.state, u.attempt_count, \
                 case when u.state in ('claimed', 'staged', 'copying') then pg_catalog.clock_timestamp() - u.claimed_at end, u.error_message \
             from snowflake_bridge.uploads u \
             where u.state in ('queued', 'claimed', 'staged', 'copying', 'retry', 'needs_credentials') order by u.id",
            None,
            &[],
        )?;
        let mut progress = Vec::new();
        for row in rows {
            let id = row.get(1)?.unwrap_or_default();
            let live = live.iter().find(|live| live.upload == id);
            let number = |value: u64| i64::try_from(value).ok();
            progress.push((
                id,
                row.get(2)?.unwrap_or_default(),
                row.get(3)?.unwrap_or_default(),
                live.map(|live| phase_name(live).to_owned()),
                row.get(4)?.unwrap_or_default(),
                live.and_then(|live| number(live.rows)),
                live.and_then(|live| number(live.staged_bytes)),
                live.and_then(|live| number(live.total_bytes)),
                row.get(5)?,
                row.get(6)?,
            ));
        }
        Ok(progress)
    })
}

fn phase_name(live: &Live) -> &'static str {
    const NAMES: [(Phase, &str); 5] = [
        (Phase::Reading, "reading"),
        (Phase::Staging, "staging"),
        (Phase::Preparing, "preparing"),
        (Phase::Copying, "copying"),
        (Phase::Committing, "committing"),
    ];
    NAMES
        .iter()
        .find(|(phase, _)| *phase as u8 == live.phase)
        .map_or("unknown", |(_, name)| name)
}

/// One line on an upload that somebody waits for.
pub fn describe_progress(id: i64, state: &str) -> String {
    match registry::live_progress()
        .iter()
        .find(|live| live.upload == id)
    {
        Some(live) => format!(
            "{state}, {}: {} rows, {} of {} bytes staged",
            phase_name(live),
            live.rows,
            live.staged_bytes,
            live.total_bytes
        ),
        None => state.to_owned(),
    }
}

#[pg_extern(volatile, parallel_unsafe)]
fn worker_status() -> Result<
    TableIterator<
        'static,
        (
            name!(database, String),
            name!(running, bool),
            name!(pid, Option<i32>),
            name!(started_at, Option<TimestampWithTimeZone>),
            name!(queued, i64),
            name!(in_flight, i64),
            name!(retrying, i64),
            name!(needs_credentials, i64),
            name!(failed, i64),
            name!(completed, i64),
            name!(mirrors_pending, i64),
            name!(oldest_waiting, Option<TimestampWithTimeZone>),
            name!(last_error_sqlstate, Option<String>),
            name!(key_usable, bool),
            name!(readers, i64),
            name!(memory_bytes, Option<i64>),
            name!(version, String),
            name!(hint, Option<String>),
        ),
    >,
    ErrorReport,
> {
    Ok(TableIterator::once(status()?))
}

type Status = (
    String,
    bool,
    Option<i32>,
    Option<TimestampWithTimeZone>,
    i64,
    i64,
    i64,
    i64,
    i64,
    i64,
    i64,
    Option<TimestampWithTimeZone>,
    Option<String>,
    bool,
    i64,
    Option<i64>,
    String,
    Option<String>,
);

/// Counts only, over all owners, except for the last error, which is the caller's own, or a superuser's to see: no row of anybody
/// else's is shown.
fn status() -> Result<Status> {
    let caller = Owner::current()?;
    let sees_all = !guards::ON || is_superuser(current_role());
    let worker = registry::my_worker();
    let missing = match (registry::is_available(), &worker) {
        (_, Some(_)) => None,
        (false, None) => Some(
            "Add snowflake_bridge to shared_preload_libraries and restart the server.".to_owned(),
        ),
        (true, None) => {
            Some("No worker runs for this database: snowflake_bridge.check() tells why.".to_owned())
        }
    };
    sandbox::as_extension_owner(|| {
        let mismatch = match Installation::find()? {
            Some(installation) => installation.mismatch()?,
            None => None,
        };
        let hint = match (missing, mismatch) {
            (Some(missing), _) => Some(missing),
            (None, Some(mismatch)) => Some(format!("The worker waits: {}. {}", mismatch.message(), mismatch.hint())),
            (None, None) if worker.is_some_and(|worker| worker.is_waiting) => Some(
                "The worker waits: stored secrets cannot be decrypted. To a superuser snowflake_bridge.check() says why."
                    .to_owned(),
            ),
            (None, None) => None,
        };
        Spi::connect(|client| {
            let rows = client.select(
                "select current_database()::text, \
                     count(*) filter (where state = 'queued'), \
                     count(*) filter (where state in ('claimed', 'staged', 'copying')), \
                     count(*) filter (where state = 'retry'), \
                     count(*) filter (where state = 'needs_credentials'), \
                     count(*) filter (where state = 'failed'), \
                     count(*) filter (where state = 'completed'), \
                     count(*) filter (where needs_mirror), \
                     min(created_at) filter (where state in ('queued', 'retry')), \
                     $1::timestamptz, \
                     (select e.error_sqlstate from snowflake_bridge.uploads e \
                      where e.error_sqlstate is not null and e.state <> 'canceled' \
                          and ($2 or (e.owner_kind = $3 and e.user_id = $4 and e.owner_oid = $5)) order by e.claimed_at desc nulls last limit 1), \
                     (select count(*) from pg_catalog.pg_stat_activity a \
                      where a.datname = current_database() and a.backend_type = 'snowflake_bridge reader') \
                 from snowflake_bridge.uploads",
                Some(1),
                &[
                    worker
                        .and_then(|worker| TimestampWithTimeZone::try_from(worker.started_at).ok())
                        .into(),
                    sees_all.into(),
                    caller.kind().into(),
                    caller.user_id().into(),
                    caller.oid_argument(),
                ],
            )?;
            let row = rows.first();
            let count = |ordinal| -> Result<i64> { Ok(row.get(ordinal)?.unwrap_or(0)) };
            Ok((
                row.get(1)?.unwrap_or_default(),
                worker.is_some(),
                worker.map(|worker| worker.pid),
                row.get(10)?,
                count(2)?,
                count(3)?,
                count(4)?,
                count(5)?,
                count(6)?,
                count(7)?,
                count(8)?,
                row.get(9)?,
                row.get(11)?,
                matches!(keys::find(), Ok(Some(_))),
                count(12)?,
                worker.and_then(|worker| private_memory(worker.pid)),
                env!("CARGO_PKG_VERSION").to_owned(),
                hint,
            ))
        })
    })
}

/// Bytes that a process has for itself, which leaves out the server's shared memory; where the operating system tells.
fn private_memory(pid: i32) -> Option<i64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kilobytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1_024)
}

/// Called by the install script: a database that has just got the extension gets a worker when this commits.
#[pg_extern(volatile, parallel_unsafe)]
fn notify_launcher() {
    registry::wake_at_commit(Wake::NewWorker);
}

//! The steps of a worker as SQL functions, each in the caller's transaction: `tests/isolation/` puts them and the
//! statements of others in every order. Only a build with the feature `failpoints` has them; what they call is what the
//! worker calls.
// As in src/api: an SQL function fails with pgrx's own report, and a result's columns are read from its type.
#![allow(clippy::result_large_err, clippy::type_complexity)]

use std::cell::RefCell;
use std::time::Duration;

use bridge_core::fairness::Closed;
use bridge_core::snowflake::sql::TableName;
use bridge_core::spool::Manifest;
use bridge_core::{Error as CoreError, ErrorKind};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::mirror::{self, Mirror, Written};
use super::verdict::record_failure;
use super::{launcher, plan, registry};
use crate::error::{Error, Result};
use crate::guc;
use crate::options::TargetOptions;
use crate::uploads::{self, Blame, Claim, NextState, Turn};

/// Takes what is due, as the worker's loop does.
#[pg_extern(volatile, parallel_unsafe)]
fn step_claim(
    maximum: default!(i32, 1),
) -> Result<TableIterator<'static, (name!(execution_id, String), name!(claim, i32))>, ErrorReport> {
    let turn = Turn {
        after: None,
        closed: Closed::nothing(),
        suspects: true,
    };
    let mut claimed = Vec::new();
    for _ in 0..maximum {
        let Some(upload) = uploads::claim(&turn)? else {
            break;
        };
        claimed.push(upload);
    }
    Ok(TableIterator::new(
        claimed
            .into_iter()
            .map(|upload| (upload.execution_id, upload.claim)),
    ))
}

/// Takes what goes with an upload that this worker has taken, as it does for one COPY.
#[pg_extern(volatile, parallel_unsafe)]
fn step_claim_beside(
    execution_id: &str,
    claim: i32,
) -> Result<TableIterator<'static, (name!(execution_id, String), name!(claim, i32))>, ErrorReport> {
    let mut claimed = Vec::new();
    if let Some(first) = uploads::of_claim(of(execution_id, claim)?)? {
        while let Some(upload) = uploads::claim_beside(&first)? {
            claimed.push((upload.execution_id, upload.claim));
        }
    }
    Ok(TableIterator::new(claimed))
}

/// With whose configuration, and which version of it, an attempt would begin.
#[pg_extern(volatile, parallel_unsafe)]
fn step_plan(execution_id: &str, claim: i32) -> Result<String, ErrorReport> {
    Ok(plan(execution_id, claim)?)
}

fn plan(execution_id: &str, claim: i32) -> Result<String> {
    let claim = of(execution_id, claim)?;
    let Some(upload) = uploads::of_claim(claim)? else {
        return Err(Error::TakenOver {
            upload: claim.upload,
        });
    };
    let plan = plan::plan(&upload, &TargetOptions::parse(&upload.options)?)?;
    Ok(format!(
        "{} version {}",
        plan.config.name, plan.config.version
    ))
}

/// Writes down how far a claim has come: `read`, `staged`, `copying`, `completed`, or an attempt's end without: `retry`,
/// `itself` (what it shared with others has failed), `failed`, `canceled`, `refused` (the credentials of version 1 of the configuration).
#[pg_extern(volatile, parallel_unsafe)]
fn step_record(execution_id: &str, claim: i32, what: &str) -> Result<(), ErrorReport> {
    Ok(record(execution_id, claim, what)?)
}

fn record(execution_id: &str, claim: i32, what: &str) -> Result<()> {
    let claim = of(execution_id, claim)?;
    match what {
        "read" => {
            let manifest = Manifest {
                columns: Vec::new(),
                files: Vec::new(),
                rows: 1,
                bytes: 0,
                window: None,
                relation: None,
            };
            let config = configuration()?;
            uploads::record_read(claim, config, "account/user", &manifest, None)
        }
        "staged" => uploads::record_staged(claim),
        "copying" => {
            let target = TableName::from(["D", "S", "T"].map(str::to_owned));
            uploads::record_copying(claim, &format!("17{}", claim.number), &target, 1, 1)
        }
        "completed" => uploads::record_completed(claim, "\"T\"", 1, 1, None),
        "retry" => record_error(claim, NextState::Retry(Duration::ZERO)),
        "itself" => record_error(claim, NextState::ByItself),
        "failed" => record_error(claim, NextState::Failed),
        "canceled" => record_error(claim, NextState::Canceled),
        "refused" => {
            let error = CoreError::new(ErrorKind::Credentials, "refused");
            let (config, next) = (configuration()?, NextState::NeedsCredentials);
            record_failure(claim, Some((config, 1)), next, &error.into(), false).map(drop)
        }
        _ => Err(Error::invalid(format!(
            "a worker does not record \"{what}\""
        ))),
    }
}

fn record_error(claim: Claim, next: NextState) -> Result<()> {
    let error = CoreError::new(ErrorKind::Transient, "the attempt ended");
    uploads::record_error(claim, next, &error.into(), false)
}

/// Whether a claim has to stop.
#[pg_extern(volatile, parallel_unsafe)]
fn step_must_stop(execution_id: &str, claim: i32) -> Result<bool, ErrorReport> {
    let claim = of(execution_id, claim)?;
    Ok(uploads::to_stop(&[claim])?.contains(&claim))
}

/// What a worker does first that starts where another one died; returns how many uploads it found in flight.
#[pg_extern(volatile, parallel_unsafe)]
fn step_recover() -> Result<i64, ErrorReport> {
    let blame = Blame {
        readings: Vec::new(),
        worker_died: true,
    };
    let recovered = uploads::recover(&blame, None, guc::max_crashes(), Duration::ZERO)?;
    Ok(i64::try_from(recovered.uploads.len()).unwrap_or(i64::MAX))
}

/// Starts a worker of this database beside the one that it has, as the launcher of this process id would that did not know of that one.
#[pg_extern(volatile, parallel_unsafe)]
fn step_start_worker(launcher: i32) -> Result<bool, ErrorReport> {
    Ok(start_worker(launcher)?)
}

fn start_worker(launcher: i32) -> Result<bool> {
    let name = Spi::get_one::<String>("select pg_catalog.current_database()::text")?;
    Ok(
        name.is_some_and(|name| {
            launcher::start(registry::my_database(), &name, launcher).is_some()
        }),
    )
}

thread_local! {
    /// What [`step_mirror_look`] has found.
    static SEEN: RefCell<Vec<Mirror>> = const { RefCell::new(Vec::new()) };
}

/// Looks which of the application's rows are not up to date; returns how many.
#[pg_extern(volatile, parallel_unsafe)]
fn step_mirror_look() -> Result<i64, ErrorReport> {
    let seen = mirror::pending()?;
    let count = i64::try_from(seen.len()).unwrap_or(i64::MAX);
    SEEN.set(seen);
    Ok(count)
}

/// Brings those rows up to date: what came of each.
#[pg_extern(volatile, parallel_unsafe)]
fn step_mirror_write() -> Result<
    TableIterator<'static, (name!(execution_id, String), name!(outcome, String))>,
    ErrorReport,
> {
    let mut shown = Vec::new();
    for mirror in SEEN.take() {
        let outcome = match mirror::show(&mirror)? {
            Written::Done => "done",
            Written::Changed => "changed",
            Written::Locked => "locked",
        };
        shown.push((mirror.execution_id, outcome.to_owned()));
    }
    Ok(TableIterator::new(shown))
}

/// A claim of the latest upload of an execution that was ever claimed.
fn of(execution_id: &str, number: i32) -> Result<Claim> {
    let upload = Spi::get_one_with_args::<i64>(
        "select max(u.id) from snowflake_bridge.uploads u where u.execution_id = $1 and u.claim_count > 0",
        &[execution_id.into()],
    )?;
    Ok(Claim {
        upload: upload.ok_or_else(|| Error::missing(format!("no upload of {execution_id}")))?,
        number,
    })
}

/// The only configuration.
fn configuration() -> Result<uuid::Uuid> {
    let id =
        Spi::get_one::<pgrx::Uuid>("select c.id from snowflake_bridge.snowflake_configurations c")?;
    id.map(uploads::from_pg_uuid)
        .ok_or_else(|| Error::missing("there is no configuration"))
}

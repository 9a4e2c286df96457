//! The queue and state machine of uploads: every statement that moves a row of `uploads` is here. The caller has raised
//! its rights (the worker has them); each transition is one statement in the caller's transaction.

mod claim;
mod spooled;
mod turns;

use std::time::Duration;

use bridge_core::spool::Manifest;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid as PgUuid};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::owner::Owner;
pub use claim::{Claimed, cancel_requests, claim, of_claim};
pub use spooled::{Spooled, drop_files, enqueue_spooled, with_files};

/// What to enter in the queue.
pub struct NewUpload<'a> {
    pub watch_id: i64,
    pub execution_id: &'a str,
    pub owner: &'a Owner,
    pub row_user_id: Option<&'a str>,
    pub options: serde_json::Value,
}

/// Puts an execution in the queue, or lets the upload that already waits for it cover the change. The row lock this
/// takes keeps the worker from reading the execution before the caller's transaction has ended.
///
/// # Errors
/// If the statement fails.
pub fn enqueue(new: &NewUpload<'_>) -> Result<i64> {
    one(
        "insert into snowflake_bridge.uploads as u (watch_id, execution_id, user_id, owner_kind, owner_oid, row_user_id, options) \
         values ($1, $2, $3, $4, $5, $6, $7) \
         on conflict (watch_id, execution_id) where state = 'queued' do update set \
             generation = u.generation + 1, row_user_id = excluded.row_user_id, options = excluded.options, \
             next_attempt_at = least(u.next_attempt_at, now()), needs_mirror = true \
         returning id",
        &[
            new.watch_id.into(),
            new.execution_id.into(),
            new.owner.user_id().into(),
            new.owner.kind().into(),
            new.owner.oid_argument(),
            new.row_user_id.into(),
            JsonB(new.options.clone()).into(),
        ],
    )
}

/// When the next upload is due, counted from now; `None` if none waits.
///
/// # Errors
/// If the statement fails.
pub fn next_due() -> Result<Option<Duration>> {
    let seconds: Option<f64> = Spi::get_one(
        "select extract(epoch from least( \
             (select min(next_attempt_at) from snowflake_bridge.uploads where state in ('queued', 'retry')), \
             (select min(mirror_after) from snowflake_bridge.uploads where needs_mirror)) - clock_timestamp())::float8",
    )?;
    Ok(seconds.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))))
}

/// Records what was read, and by whose configuration it travels. The files are still on local disk only. How many values
/// were out of range is known of what the worker read; what a caller read was counted then.
///
/// # Errors
/// If the statement fails.
pub fn record_read(
    id: i64,
    config_id: Uuid,
    destination: &str,
    manifest: &Manifest,
    out_of_range: Option<u64>,
) -> Result<()> {
    run(
        "update snowflake_bridge.uploads set config_id = $2, manifest = $3, staged_claim = null, staged_for = $4, \
             out_of_range_count = coalesce($5, out_of_range_count), transaction_id = case when staged_for = $4 then transaction_id end where id = $1",
        &[
            id.into(),
            to_pg_uuid(config_id).into(),
            manifest_json(manifest)?.into(),
            destination.into(),
            out_of_range
                .map(|count| i64::try_from(count).unwrap_or(i64::MAX))
                .into(),
        ],
    )
}

/// Records the configuration of an attempt that reads nothing, because an earlier one has staged the files.
///
/// # Errors
/// If the statement fails.
pub fn record_config(id: i64, config_id: Uuid) -> Result<()> {
    run(
        "update snowflake_bridge.uploads set config_id = $2 where id = $1",
        &[id.into(), to_pg_uuid(config_id).into()],
    )
}

/// Every file is in Snowflake's stage; later attempts load these and put nothing again.
///
/// # Errors
/// If the statement fails.
pub fn record_staged(id: i64) -> Result<()> {
    run(
        "update snowflake_bridge.uploads set state = 'staged', staged_claim = claim_count where id = $1",
        &[id.into()],
    )
}

/// The rows are about to be loaded in this Snowflake transaction.
///
/// # Errors
/// If the statement fails.
pub fn record_copying(id: i64, transaction: &str) -> Result<()> {
    run(
        "update snowflake_bridge.uploads set state = 'copying', transaction_id = $2 where id = $1",
        &[id.into(), transaction.into()],
    )
}

/// The rows are in the table, counted.
///
/// # Errors
/// If the statement fails.
pub fn record_completed(
    id: i64,
    target: &str,
    rows: u64,
    bytes: u64,
    query_id: Option<&str>,
) -> Result<()> {
    run(
        "update snowflake_bridge.uploads set state = 'completed', target = $2, row_count = $3, byte_count = $4, \
             query_id = $5, error_message = null, error_hint = null, error_code = null, error_sqlstate = null, \
             completed_at = clock_timestamp(), needs_mirror = true, mirror_after = clock_timestamp() where id = $1",
        &[
            id.into(),
            target.into(),
            i64::try_from(rows).unwrap_or(i64::MAX).into(),
            i64::try_from(bytes).unwrap_or(i64::MAX).into(),
            query_id.into(),
        ],
    )
}

/// What becomes of an upload after an attempt that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextState {
    Retry(Duration),
    Failed,
    Canceled,
    NeedsCredentials,
}

/// The attempt ended with an error.
///
/// # Errors
/// If the statement fails.
pub fn record_error(id: i64, next: NextState, error: &Error) -> Result<()> {
    let (state, delay) = match next {
        NextState::Retry(delay) => ("retry", delay),
        NextState::Failed => ("failed", Duration::ZERO),
        NextState::Canceled => ("canceled", Duration::ZERO),
        NextState::NeedsCredentials => ("needs_credentials", Duration::ZERO),
    };
    let (sqlstate, mut hint) = error.sqlstate_and_hint();
    if next == NextState::NeedsCredentials {
        let cure = "Correct the configuration with snowflake_bridge.update_config; the upload then goes on by itself.";
        hint = Some(hint.map_or_else(|| cure.to_owned(), |hint| format!("{hint} {cure}")));
    }
    let (code, remote_sqlstate, query_id) = match error {
        Error::Core(core) => (core.code(), core.sqlstate(), core.query_id()),
        _ => (None, None, None),
    };
    let message = match error {
        Error::Core(core) => core.message().to_owned(),
        other => other.to_string(),
    };
    run(
        "update snowflake_bridge.uploads set state = $2, \
             next_attempt_at = clock_timestamp() + case when cancel_requested then '0' else make_interval(secs => $3) end, \
             error_message = $4, error_hint = $5, error_code = $6, error_sqlstate = $7, query_id = $8, \
             completed_at = case when $2 = 'retry' then null else clock_timestamp() end, \
             staged_claim = case when $2 = 'canceled' then null else staged_claim end, \
             manifest = case when $2 = 'canceled' and watch_id is null then null else manifest end, \
             needs_mirror = true, mirror_after = clock_timestamp() where id = $1",
        &[
            id.into(),
            state.into(),
            delay.as_secs_f64().into(),
            message.into(),
            hint.into(),
            code.into(),
            remote_sqlstate
                .map_or_else(|| unpack_sqlstate(sqlstate), str::to_owned)
                .into(),
            query_id.into(),
        ],
    )
}

/// Uploads whose rows a load of this one replaces: earlier ones of the same execution that may have loaded something.
///
/// # Errors
/// If the statement fails.
pub fn replaced_by(upload: &Claimed) -> Result<Vec<Uuid>> {
    Spi::connect(|client| {
        let rows = client.select(
            "select e.upload_id from snowflake_bridge.uploads e where e.watch_id = $1 and e.execution_id = $2 \
             and e.id < $3 and e.transaction_id is not null order by e.id",
            None,
            &[upload.watch_id.into(), upload.execution_id.as_str().into(), upload.id.into()],
        )?;
        let mut replaced = Vec::new();
        for row in rows {
            replaced.extend(row.get::<PgUuid>(1)?.map(from_pg_uuid));
        }
        Ok(replaced)
    })
}

/// Puts what the process before this one left in flight back in the queue: `(upload, died)` for each. An upload during
/// which the process died waits, and after `max_crashes` it has failed; after an orderly end, or a restart of the
/// server, it just goes on.
///
/// # Errors
/// If the statement fails.
pub fn recover(
    left_cleanly: bool,
    max_crashes: i32,
    crash_retry_delay: Duration,
) -> Result<Vec<(i64, bool)>> {
    Spi::connect_mut(|client| {
        let rows = client.update(
            "with in_flight as ( \
                 select id, not $1 and claimed_at > pg_postmaster_start_time() as died \
                 from snowflake_bridge.uploads where state in ('claimed', 'staged', 'copying') for update) \
             update snowflake_bridge.uploads u set \
                 crash_count = u.crash_count + f.died::integer, \
                 state = case when f.died and u.crash_count + 1 >= $2 then 'failed' else 'retry' end, \
                 attempt_count = u.attempt_count - (not f.died)::integer, \
                 next_attempt_at = clock_timestamp() + case when f.died then make_interval(secs => $3) else '0' end, \
                 error_message = case when f.died then 'the worker process crashed during this upload' end, \
                 error_hint = case when f.died then 'The server log tells why. Call snowflake_bridge.retry_upload once the cause is gone.' end, \
                 completed_at = case when f.died and u.crash_count + 1 >= $2 then clock_timestamp() end, \
                 needs_mirror = true, mirror_after = clock_timestamp() \
             from in_flight f where u.id = f.id returning u.id, f.died",
            None,
            &[left_cleanly.into(), max_crashes.into(), crash_retry_delay.as_secs_f64().into()],
        )?;
        let mut recovered = Vec::new();
        for row in rows {
            if let (Some(id), Some(died)) = (row.get(1)?, row.get(2)?) {
                recovered.push((id, died));
            }
        }
        Ok(recovered)
    })
}

/// The identity under which this database writes to a stage.
///
/// # Errors
/// If the statement fails.
pub fn installation_id() -> Result<Uuid> {
    Ok(from_pg_uuid(one(
        "select id from snowflake_bridge.installation",
        &[],
    )?))
}

fn manifest_json(manifest: &Manifest) -> Result<JsonB> {
    let json = serde_json::to_value(manifest).map_err(|error| {
        let kind = bridge_core::ErrorKind::Internal;
        bridge_core::Error::new(kind, "cannot write the manifest").with_source(error)
    })?;
    Ok(JsonB(json))
}

fn run(query: &str, args: &[DatumWithOid<'_>]) -> Result<()> {
    Ok(Spi::run_with_args(query, args)?)
}

fn one<T: FromDatum + IntoDatum>(query: &str, args: &[DatumWithOid<'_>]) -> Result<T> {
    Spi::get_one_with_args(query, args)?
        .ok_or_else(|| Error::missing("a statement that always gives a row gave none"))
}

pub fn to_pg_uuid(id: Uuid) -> PgUuid {
    PgUuid::from_bytes(*id.as_bytes())
}

pub fn from_pg_uuid(id: PgUuid) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

/// The five characters of a SQLSTATE that PostgreSQL keeps six bits each.
pub fn unpack_sqlstate(sqlstate: PgSqlErrorCode) -> String {
    let mut packed = sqlstate as i32;
    (0..5)
        .map(|_| {
            let character = char::from(b'0' + u8::try_from(packed & 0x3F).unwrap_or(0));
            packed >>= 6;
            character
        })
        .collect()
}

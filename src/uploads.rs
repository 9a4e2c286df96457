//! The queue and state machine of uploads: every statement that moves a row of `uploads` is here. The caller has raised
//! its rights (the worker has them); each transition is one statement in the caller's transaction.

mod allowance;
mod cancel;
mod claim;
mod claimed;
mod clock;
mod copied;
mod enqueue;
mod entry;
mod history;
mod leftovers;
mod missing;
mod record;
mod shown;
mod spooled;
mod turns;

use std::time::Duration;

use bridge_core::spool::Manifest;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid as PgUuid};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::statement::{kept, kept_for_queue};
use crate::tx;
pub use allowance::{expect_allowance, forget_sent, require_allowance};
pub use cancel::{cancel_waiting, forget_cancel, request_cancel, settle_cancellations, to_stop};
pub use claim::{Lane, Turn, claim, claim_beside, of_claim};
pub use claimed::{Claim, Claimed};
pub use clock::bring_back;
pub use copied::{cancel_copied, count_unfinished};
pub use enqueue::{NewUpload, enqueue, enqueue_all, enqueue_finished, note_missed};
pub use history::forget_old;
pub use leftovers::{Leftovers, are_removable, cleaned, leftovers};
pub use missing::{
    cancel_of_watch, count_missing, enqueue_missed, enqueue_missed_of_block, enqueue_missing,
    too_long,
};
pub use record::{
    NextState, is_refused, record_completed, record_config, record_copying, record_error,
    record_moved, record_owner, record_read, record_settled, record_staged,
};
pub use shown::{MESSAGE, STATUS};
pub use spooled::{OVERHEAD, Spooled, drop_files, enqueue_spooled, spooled_bytes, with_files};

/// Whether it is open what became of the rows of an upload of `uploads u`: a load was begun, and only Snowflake can tell how it
/// ended. Such an upload is not ended by anybody but the worker, who asks.
pub const UNDECIDED: &str =
    "u.transaction_id is not null and u.state not in ('completed', 'failed', 'canceled')";

/// Whether rows of an upload of `uploads u` may be in its table of which no record tells: since it was queued, the server went on
/// from an earlier state. Only its own load, which replaces them, settles that.
pub const MAY_BE_LOADED: &str =
    "u.id <= (select i.may_be_loaded_up_to from snowflake_bridge.installation i)";

/// What is added to the message of an upload that ends while that is open. One that has not begun has no table yet.
const ROWS_MAY_BE_THERE: &str =
    "'; its rows may be in ' || coalesce('table ' || target, 'Snowflake')";
/// And how to see whether they are.
pub const FIND_ROWS: &str = "Rows of this upload have its upload_id in column UPLOAD_ID.";

/// What is said of an upload during which the worker crashed.
pub const CRASHED: &str = "the worker process crashed during this upload";
/// What to do about it.
pub const CRASHED_HINT: &str =
    "The server log tells why. Call snowflake_bridge.retry_upload once the cause is gone.";

/// What an upload can be in.
pub const STATES: [&str; 9] = [
    "queued",
    "claimed",
    "staged",
    "copying",
    "completed",
    "retry",
    "failed",
    "canceled",
    "needs_credentials",
];

/// What there is to be done next.
pub struct Outlook {
    /// When the next upload or mirror is due, counted from now; `None` if none waits.
    pub due: Option<Duration>,
    /// Somebody wants to stop an upload, and it is not only waited for its next attempt.
    pub has_cancellations: bool,
    /// Somebody could not enter an execution in the queue.
    pub has_missed: bool,
}

/// Looks at what there is to be done next, leaving out the mirrors of `paused` watches.
///
/// # Errors
/// If the statement fails.
pub fn outlook(paused: &[i64]) -> Result<Outlook> {
    // What is queued is due at once.
    const OUTLOOK: &str = "select extract(epoch from least( \
             (select now() where exists (select from snowflake_bridge.uploads where state = 'queued')), \
             (select min(next_attempt_at) from snowflake_bridge.uploads where state = 'retry'), \
             (select min(mirror_after) from snowflake_bridge.uploads where needs_mirror and (watch_id is null or watch_id <> all ($1)))) \
                 - clock_timestamp())::float8, \
             exists (select from snowflake_bridge.cancellations c where not c.is_hastened \
                 or (select u.state from snowflake_bridge.uploads u where u.id = c.upload) is distinct from 'retry'), \
             exists (select from snowflake_bridge.missed)";
    Spi::connect(|client| {
        let args = [paused.to_vec().into()];
        let rows = client.select(kept_for_queue(client, OUTLOOK, &args)?, Some(1), &args)?;
        let row = rows.first();
        let due: Option<f64> = row.get(1)?;
        Ok(Outlook {
            due: due.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))),
            has_cancellations: row.get(2)? == Some(true),
            has_missed: row.get(3)? == Some(true),
        })
    })
}

/// Uploads whose rows a load of this one replaces: earlier ones of the same execution that may have loaded something. Those that have
/// completed do not change any more, so that their own records tell, also where these may be older than what was done.
///
/// # Errors
/// If the statement fails.
pub fn replaced_by(upload: &Claimed) -> Result<Vec<Uuid>> {
    const REPLACED: &str = "select e.upload_id from snowflake_bridge.uploads e where e.watch_id = $1 and e.execution_id = $2 \
        and e.id < $3 and (e.may_be_loaded \
            or e.state <> 'completed' and e.id <= (select i.may_be_loaded_up_to from snowflake_bridge.installation i)) order by e.id";
    Spi::connect(|client| {
        let args = [
            upload.watch_id.into(),
            upload.execution_id.as_str().into(),
            upload.id.into(),
        ];
        let rows = client.select(kept(client, REPLACED, &args)?, None, &args)?;
        let mut replaced = Vec::new();
        for row in rows {
            replaced.extend(row.get::<PgUuid>(1)?.map(from_pg_uuid));
        }
        Ok(replaced)
    })
}

/// Whose fault it is that processes ended with uploads in flight.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Blame {
    /// Uploads that were being read by a process that died, or had to end because of it.
    pub readings: Vec<i64>,
    /// The worker has died while it read nothing: any upload in flight may be the cause, and if one of them has been through
    /// that before, that one is.
    pub worker_died: bool,
}

/// What became of uploads that were in flight.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Those that are in the queue again, and whether a process may have died of them.
    pub uploads: Vec<(i64, bool)>,
    /// Those that somebody has locked: nothing was done about them.
    pub locked: Vec<i64>,
}

/// Puts what the process before this one left in flight back in the queue, or what of it is among `only`. An upload that is to
/// blame waits, and after `max_crashes` it has failed, unless it is undecided: then Snowflake is asked, once. The others just
/// go on, and so do all after a restart of the server: before what came later, which may wait for the transactions that they
/// left open.
///
/// # Errors
/// If the statement fails.
pub fn recover(
    blame: &Blame,
    only: Option<&[i64]>,
    max_crashes: i32,
    crash_retry_delay: Duration,
) -> Result<Recovered> {
    let has_failed = format!("f.died and u.crash_count + 1 >= $3 + ({UNDECIDED})::integer");
    Spi::connect_mut(|client| {
        let rows = client.update(
            &format!("with wanted as ( \
                 select id from snowflake_bridge.uploads \
                 where state in ('claimed', 'staged', 'copying') and ($7 is null or id = any ($7))), \
             in_flight as ( \
                 select id, crash_count, server_started_at is not distinct from pg_postmaster_start_time() as is_of_this_server \
                 from snowflake_bridge.uploads where state in ('claimed', 'staged', 'copying') \
                     and id in (select id from wanted) for update skip locked), \
             blamed as ( \
                 select i.id, i.is_of_this_server and case when cardinality($1) > 0 then i.id = any ($1) \
                     else $2 and (i.crash_count > 0 or not exists (select from in_flight s where s.crash_count > 0)) end as died \
                 from in_flight i), \
             recovered as (update snowflake_bridge.uploads u set \
                 crash_count = u.crash_count + f.died::integer, \
                 state = case when {has_failed} then 'failed' else 'retry' end, \
                 attempt_count = u.attempt_count - (not f.died)::integer, \
                 next_attempt_at = case when f.died then clock_timestamp() + make_interval(secs => $4) else u.created_at end, \
                 error_message = case when f.died then $5 || case when {has_failed} and ({UNDECIDED} or {MAY_BE_LOADED}) \
                     then {ROWS_MAY_BE_THERE} else '' end end, \
                 error_hint = case when f.died then $6 || case when {has_failed} and ({UNDECIDED} or {MAY_BE_LOADED}) \
                     then ' {FIND_ROWS}' else '' end end, \
                 completed_at = case when {has_failed} then clock_timestamp() end, \
                 needs_mirror = true, mirror_after = clock_timestamp() \
             from blamed f where u.id = f.id returning u.id, f.died) \
             select r.id, r.died from recovered r \
             union all select w.id, null from wanted w where w.id not in (select id from in_flight)"),
            None,
            &[blame.readings.clone().into(), blame.worker_died.into(), max_crashes.into(), crash_retry_delay.as_secs_f64().into(),
                CRASHED.into(), CRASHED_HINT.into(), only.map(<[i64]>::to_vec).into()],
        )?;
        let mut recovered = Recovered::default();
        for row in rows {
            match (row.get(1)?, row.get(2)?) {
                (Some(id), Some(died)) => recovered.uploads.push((id, died)),
                (Some(id), None) => recovered.locked.push(id),
                _ => {}
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
    let id = tx::read("select id from snowflake_bridge.installation", &[])?;
    Ok(from_pg_uuid(id.ok_or_else(|| {
        Error::missing("the table snowflake_bridge.installation is empty")
    })?))
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
    Spi::get_one_with_args(query, args)?.ok_or_else(no_row)
}

fn no_row() -> Error {
    Error::missing("a statement that always gives a row gave none")
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

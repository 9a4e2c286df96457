//! The mirror: an upload's state on the application's own row. Written as the watch's owner in the sandbox, one row at
//! a time, owner after owner, never waiting for a lock the application holds; what fails is tried again, and never disturbs the
//! upload.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bridge_core::{Error as CoreError, ErrorKind};
use pgrx::prelude::*;
use pgrx::spi::SpiTupleTable;

use super::{activity, stubborn};
use crate::error::{Error, Result, log_error};
use crate::owner::Owner;
use crate::setting::{commit_without_waiting, set_for_transaction};
use crate::statement::{kept_for_queue, kept_mut};
use crate::timer::{Limited, Purpose, limited};
use crate::uploads::{MESSAGE, STATUS};
use crate::watches::{Access, Watch};
use crate::{failpoint, guc, sandbox, tx};

/// Rows that a pass reads of a long backlog, and of one owner's.
const BATCH: i64 = 64;
const BATCH_OF_OWNER: i64 = 16;
/// After so long a pass begins no other row: whoever has something to upload, or to stop, waits no longer for what is only shown.
const PATIENCE: Duration = Duration::from_millis(100);
/// The application holds the row, or the table: look again soon.
const LOCKED_DELAY: Duration = Duration::from_secs(1);
/// The application's table or triggers refuse: somebody has to act.
const FAILED_DELAY: Duration = Duration::from_secs(60);

thread_local! {
    /// Watches whose tables are locked, or on whose rows code of the application's ran too long, and until when they are
    /// left alone.
    static PAUSED: RefCell<HashMap<i64, Instant>> = RefCell::new(HashMap::new());
    /// Whose turn was last: those after it come first.
    static LAST: RefCell<Option<Owner>> = const { RefCell::new(None) };
}

pub(super) struct Mirror {
    upload: i64,
    owner: Owner,
    /// How many of the owner's come up to this one.
    round: i64,
    /// None for what has no row: nothing is to be written then.
    watch_id: Option<i64>,
    pub execution_id: String,
    status: String,
    message: Option<String>,
    uploaded_at: Option<TimestampWithTimeZone>,
    row_count: Option<i64>,
    attempts: i32,
    /// Tells whether somebody changed the upload since it was read here.
    row_version: String,
}

pub(super) enum Written {
    Done,
    /// The upload has changed since, or somebody is changing it: its state is written again.
    Changed,
    /// The application has locked the row.
    Locked,
}

/// Brings the application's rows up to date for a while, doing `between` before each. Returns whether there may be more to do
/// at once.
///
/// # Errors
/// If our own tables cannot be read.
pub fn run(mut between: impl FnMut()) -> Result<bool> {
    let pending = tx::transaction(pending)?;
    let is_cut = pending.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX)
        || pending.iter().any(|mirror| mirror.round == BATCH_OF_OWNER);
    let (begun, limit) = (Instant::now(), guc::mirror_timeout());
    // Somebody may be at all of these uploads, and then there is no hurry.
    let mut goes_on = false;
    for mirror in &pending {
        if begun.elapsed() >= PATIENCE {
            return Ok(goes_on);
        }
        between();
        LAST.set(Some(mirror.owner.clone()));
        // Of what has no row, nothing runs.
        let watch_id = mirror.watch_id.unwrap_or_default();
        if PAUSED.with_borrow(|paused| paused.contains_key(&watch_id)) {
            continue;
        }
        activity::running(&format!(
            "snowflake_bridge: status of upload {}",
            mirror.upload
        ));
        let purpose = Purpose::Mirroring(watch_id);
        let written = limited(limit, purpose, || tx::transaction(|| show(mirror)));
        let written = match written {
            Limited::InTime(written) => written,
            Limited::TooLong => {
                let error = took_too_long(limit);
                log_error(
                    &format!(
                        "snowflake_bridge: cannot write the status of upload {} to its row; that of others in its table waits too",
                        mirror.upload
                    ),
                    &error,
                );
                pause(watch_id, FAILED_DELAY);
                tx::transaction(|| record_paused(watch_id, &error))?;
                continue;
            }
        };
        match written {
            Ok(Written::Done) => {}
            Ok(Written::Changed) => continue,
            Ok(Written::Locked) => {
                tx::transaction(|| postpone(mirror.upload, LOCKED_DELAY, None))?;
            }
            Err(error) if error.is_lock_not_available() => {
                // Most likely the whole table is locked. If it is only this row's trigger that waits, others come first.
                pause(watch_id, LOCKED_DELAY);
                tx::transaction(|| postpone(mirror.upload, LOCKED_DELAY, None))?;
            }
            // Others came first at this row, at what its triggers use, or at the table's name: if they keep coming, it is said why.
            Err(error) if error.is_lost_conflict() => {
                tx::transaction(|| postpone(mirror.upload, LOCKED_DELAY, Some(&error)))?;
            }
            Err(error) => {
                log_error(
                    &format!(
                        "snowflake_bridge: cannot write the status of upload {} to its row",
                        mirror.upload
                    ),
                    &error,
                );
                tx::transaction(|| postpone(mirror.upload, FAILED_DELAY, Some(&error)))?;
            }
        }
        goes_on = true;
    }
    Ok(is_cut && goes_on)
}

/// What makes one row of a table slow makes all of them slow, and everybody else would wait for each.
fn pause(watch_id: i64, delay: Duration) {
    PAUSED.with_borrow_mut(|paused| paused.insert(watch_id, Instant::now() + delay));
}

/// Watches whose rows are left alone for now.
///
/// # Errors
/// If our own tables cannot be read.
pub fn paused() -> Result<Vec<i64>> {
    let mut watches = stubborn::not_mirrored()?;
    PAUSED.with_borrow_mut(|paused| {
        paused.retain(|_, until| Instant::now() < *until);
        watches.extend(paused.keys());
    });
    Ok(watches)
}

/// How long until the first of them is looked at again.
pub fn resumes_in() -> Option<Duration> {
    let first = PAUSED.with_borrow(|paused| paused.values().min().copied());
    let paused = first.map(|first| first.saturating_duration_since(Instant::now()));
    paused.into_iter().chain(stubborn::resumes_in()).min()
}

fn took_too_long(limit: Duration) -> Error {
    CoreError::new(
        ErrorKind::Configuration,
        format!(
            "writing the status to the row took longer than snowflake_bridge.mirror_timeout, {} ms",
            limit.as_millis()
        ),
    )
    .with_hint("Make the triggers and policies of the table faster, or raise the setting.")
    .into()
}

/// Writes an upload's state to its row, and that it was written. A crash of the server undoes both or neither.
pub(super) fn show(mirror: &Mirror) -> Result<Written> {
    failpoint::reach("mirroring");
    commit_without_waiting();
    let written = write(mirror)?;
    failpoint::reach("mirrored");
    match written {
        Written::Done if !finish(mirror)? => Ok(Written::Changed),
        written => Ok(written),
    }
}

/// By the index `uploads_mirror`: of the owners of whose rows one is due, the first of each, then the second of each and so on,
/// beginning after the owner whose turn was last. Its parameters are that owner, the limits and the watches that are left alone.
static PENDING: LazyLock<String> = LazyLock::new(|| {
    let owner = |alias| format!("{alias}.owner_kind, {alias}.user_id, {alias}.owner_oid");
    let next_owner = |after: &str| {
        format!(
            "select {u} from snowflake_bridge.uploads u where u.needs_mirror and ({u}) > ({after}) order by {u} limit 1",
            u = owner("u")
        )
    };
    let (given, none) = ("$1, $2, $3::bigint::oid", "'', '', 0::oid");
    // Looked at beside the index, which for such an end would be read on for as long as its first column is the same.
    let next_up_to_given = |after: &str| {
        format!(
            "select n.* from ({}) n where ({}) <= ({given})",
            next_owner(after),
            owner("n")
        )
    };
    let due = format!(
        "from snowflake_bridge.uploads u where u.needs_mirror and ({}) = ({}) and u.mirror_after <= clock_timestamp() \
             and (u.watch_id is null or u.watch_id <> all ($6))",
        owner("u"),
        owner("o")
    );
    format!(
        "with recursive later as ( \
             ({first_later}) union all select n.* from later o cross join lateral ({next_later}) n), \
         earlier as ( \
             ({first_earlier}) union all select n.* from earlier o cross join lateral ({next_earlier}) n), \
         turns as (select row_number() over () as turn, o.* \
             from (table later union all table earlier) o where exists (select {due}) limit $4), \
         pending as (select o.turn, m.* from turns o cross join lateral ( \
             select row_number() over () as round, u.* from ( \
                 select u.*, u.xmin {due} order by u.mirror_after limit $5) u) m) \
         select u.id, u.watch_id, u.execution_id, {STATUS}, {MESSAGE}, \
             case when u.state = 'completed' then u.completed_at end, \
             case when u.state = 'completed' then u.row_count end, u.attempt_count, u.xmin::text, u.round, {u} \
         from pending u order by u.round, u.turn limit $4",
        u = owner("u"),
        first_later = next_owner(given),
        next_later = next_owner(&owner("o")),
        first_earlier = next_up_to_given(none),
        next_earlier = next_up_to_given(&owner("o")),
    )
});

pub(super) fn pending() -> Result<Vec<Mirror>> {
    let last = LAST.with_borrow(Clone::clone);
    let last = last.as_ref();
    let paused = paused()?;
    Spi::connect(|client| {
        let args = [
            last.map_or("", Owner::kind).into(),
            last.map_or("", Owner::user_id).into(),
            last.map_or(0, |last| i64::from(last.oid().to_u32())).into(),
            BATCH.into(),
            BATCH_OF_OWNER.into(),
            paused.into(),
        ];
        let rows = client.select(kept_for_queue(client, &PENDING, &args)?, None, &args)?;
        let mut pending = Vec::new();
        for row in rows {
            let missing = || Error::missing("a row of snowflake_bridge.uploads is incomplete");
            pending.push(Mirror {
                upload: row.get(1)?.ok_or_else(missing)?,
                watch_id: row.get(2)?,
                execution_id: row.get(3)?.ok_or_else(missing)?,
                status: row.get(4)?.ok_or_else(missing)?,
                message: row.get::<String>(5)?.filter(|message| !message.is_empty()),
                uploaded_at: row.get(6)?,
                row_count: row.get(7)?,
                attempts: row.get(8)?.unwrap_or(0),
                row_version: row.get(9)?.ok_or_else(missing)?,
                round: row.get(10)?.ok_or_else(missing)?,
                owner: Owner::from_columns(
                    &row.get::<String>(11)?.ok_or_else(missing)?,
                    row.get(12)?.ok_or_else(missing)?,
                    row.get(13)?.unwrap_or(pg_sys::InvalidOid),
                ),
            });
        }
        Ok(pending)
    })
}

fn write(mirror: &Mirror) -> Result<Written> {
    let Some(watch) = mirror.watch_id.map(Watch::load).transpose()?.flatten() else {
        return Ok(Written::Done);
    };
    // The row shows the latest upload of its execution.
    let is_superseded = tx::read::<bool>(
        "select exists (select from snowflake_bridge.uploads e where e.watch_id = $1 and e.execution_id = $2 and e.id > $3)",
        &[
            watch.id.into(),
            mirror.execution_id.as_str().into(),
            mirror.upload.into(),
        ],
    )?;
    if is_superseded == Some(true) {
        return Ok(Written::Done);
    }
    let Some(held) = watch.hold(Access::Write)? else {
        return Ok(Written::Done);
    };
    let key = held.key()?;
    let (relation, column, condition) = (&held.name, &key.column, key.condition());
    let update = held.statement(format!(
        "with free as (select {column} as key from {relation} where {condition} for no key update skip locked), \
         done as (update {relation} t set snowflake_status = $2, snowflake_error_message = $3, \
             snowflake_uploaded_at = coalesce($4, t.snowflake_uploaded_at), \
             snowflake_row_count = coalesce($5, t.snowflake_row_count), snowflake_attempt_count = $6 \
             from free where t.{column} = free.key returning 1) \
         select f.rows, d.rows from (select count(*) as rows from free) f cross join (select count(*) as rows from done) d"
    ));
    let look = held.statement(format!(
        "select coalesce(snowflake_status::text = $2, false) from {relation} where {condition} limit 1"
    ));
    sandbox::as_table_owner(watch.owner.oid(), || {
        // The table and its parts are locked; what else there is to wait for, as what triggers need, the application holds for a
        // moment only.
        set_for_transaction(c"lock_timeout", c"50ms");
        let id = || key.id.value(&mirror.execution_id);
        let (free, updated) = update.run_prepared(|update| {
            let args = [
                id()?,
                mirror.status.as_str().into(),
                mirror.message.as_deref().into(),
                mirror.uploaded_at.into(),
                mirror.row_count.into(),
                mirror.attempts.into(),
            ];
            let counts = |rows: SpiTupleTable<'_>| rows.first().get_two::<i64, i64>();
            let (free, updated) =
                Spi::connect_mut(|client| Ok::<_, Error>(counts(update.update(client, &args)?)?))?;
            Ok((free.unwrap_or(0), updated.unwrap_or(0)))
        })?;
        if updated > 0 {
            return Ok(Written::Done);
        }
        let is_shown = look.run_prepared(|look| {
            Spi::connect(|client| {
                let args = [id()?, mirror.status.as_str().into()];
                let row = look.select(client, 1, &args)?.next();
                Ok(row.map_or(Ok(None), |row| row.get::<bool>(1))?)
            })
        })?;
        match (is_shown, free) {
            // A trigger may leave alone what changes nothing.
            (None, _) | (Some(true), 1..) => Ok(Written::Done),
            (Some(_), 0) => Ok(Written::Locked),
            (Some(_), _) => Err(not_written()),
        }
    })
}

fn not_written() -> Error {
    Error::user(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "the row is there and was not changed: a rule, trigger or policy of the table keeps its status from being written",
    )
    .hint("Let the table's owner update columns of its rows whose names begin with snowflake_.")
}

/// Neither this nor [`postpone`] waits for a transaction that has the upload's row: it changes the row, and the mirror is
/// brought up to date again afterwards. Returns whether it is now.
fn finish(mirror: &Mirror) -> Result<bool> {
    const FINISH: &str = "update snowflake_bridge.uploads set needs_mirror = false, mirror_error = null \
         where id = (select id from snowflake_bridge.uploads where id = $1 and xmin::text = $2 for no key update skip locked) \
         returning true";
    Spi::connect_mut(|client| {
        let args = [mirror.upload.into(), mirror.row_version.as_str().into()];
        let finished = client.update(kept_mut(client, FINISH, &args)?, None, &args)?;
        Ok(!finished.is_empty())
    })
}

/// A row that is not watched any more was to be written once, if that can be done.
fn postpone(upload: i64, delay: Duration, error: Option<&Error>) -> Result<()> {
    Ok(Spi::run_with_args(
        "update snowflake_bridge.uploads u set mirror_after = clock_timestamp() + make_interval(secs => $2), mirror_error = $3, \
             needs_mirror = $3 is null or exists (select from snowflake_bridge.watches w where w.id = u.watch_id and w.is_active) \
         where u.id = (select id from snowflake_bridge.uploads where id = $1 for no key update skip locked)",
        &[
            upload.into(),
            delay.as_secs_f64().into(),
            error.map(ToString::to_string).into(),
        ],
    )?)
}

fn record_paused(watch_id: i64, error: &Error) -> Result<()> {
    Ok(Spi::run_with_args(
        "update snowflake_bridge.uploads u set mirror_error = $2, \
             needs_mirror = exists (select from snowflake_bridge.watches w where w.id = u.watch_id and w.is_active) \
         where u.id in (select id from snowflake_bridge.uploads where watch_id = $1 and needs_mirror for no key update skip locked)",
        &[watch_id.into(), error.to_string().into()],
    )?)
}

//! Uploads that should be there and are not.

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;

use super::enqueue::{arguments, columns, insert, listed};
use super::{FIND_ROWS, MAY_BE_LOADED, NewUpload, UNDECIDED};
use crate::error::{Error, Result, log_error};
use crate::halves::half_by_half;
use crate::tx;

/// What `unwatch` says of the uploads that it cancels; by this they are found again.
const UNWATCHED: &str = "the relation is not watched any more";

/// Cancels what waits for a watch that is ended. What a worker is at, or has to ask Snowflake about, goes on to its end.
///
/// # Errors
/// If the statement fails.
pub fn cancel_of_watch(watch_id: i64) -> Result<()> {
    Ok(Spi::run_with_args(
        &format!(
            "update snowflake_bridge.uploads u set state = 'canceled', completed_at = now(), needs_mirror = true, \
                 mirror_after = now(), error_message = $2, \
                 error_hint = 'Call snowflake_bridge.watch and then snowflake_bridge.backfill to have it uploaded after all.' \
                     || case when {MAY_BE_LOADED} then ' {FIND_ROWS}' else '' end \
             where u.watch_id = $1 and u.state in ('queued', 'retry', 'needs_credentials') and not ({UNDECIDED})"
        ),
        &[watch_id.into(), UNWATCHED.into()],
    )?)
}

/// Those that have no upload, or whose last one `unwatch` has canceled; with `$10` those too whose last one has completed.
macro_rules! missing {
    () => {
        " where coalesce((select u.state = 'canceled' and coalesce(u.error_message, '') = $9 or $10 and u.state = 'completed' \
              from snowflake_bridge.uploads u where u.watch_id = e.watch_id and u.execution_id = e.execution_id \
              order by u.id desc limit 1), true)"
    };
}

/// Puts those of these executions in the queue that have no upload, or whose last one `unwatch` has canceled; `again` those too whose
/// last one has completed, and whose rows are then replaced. Returns how many.
///
/// # Errors
/// If the statement fails.
pub fn enqueue_missing(executions: &[NewUpload], again: bool) -> Result<usize> {
    const ENQUEUE: &str = concat!(
        insert!(),
        listed!(", not e.is_shown"),
        missing!(),
        " on conflict (watch_id, execution_id) where state = 'queued' do nothing returning id"
    );
    let arguments = missing_arguments(executions, again);
    Spi::connect_mut(|client| Ok(client.update(ENQUEUE, None, &arguments)?.len()))
}

/// How many of these executions [`enqueue_missing`] would put in the queue.
///
/// # Errors
/// If the statement fails.
pub fn count_missing(executions: &[NewUpload], again: bool) -> Result<usize> {
    const COUNT: &str = concat!(listed!(""), missing!());
    let arguments = missing_arguments(executions, again);
    Spi::connect(|client| Ok(client.select(COUNT, None, &arguments)?.len()))
}

fn missing_arguments(executions: &[NewUpload], again: bool) -> Vec<DatumWithOid<'_>> {
    let more = [UNWATCHED.into(), again.into()];
    arguments(executions).into_iter().chain(more).collect()
}

/// Why an execution cannot be entered in the queue, whose indexes do not take it, now or later.
pub fn too_long(error: &Error) -> Error {
    Error::user(
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        format!(
            "the execution's id, its user or where it goes is longer than the queue's indexes take: {error}"
        ),
    )
    .hint("Write a shorter one into its row, then call snowflake_bridge.upload with the execution's id.")
}

/// Has uploaded what [`note_missed`](super::note_missed) has left word of. As `retry`, of which there may be several beside one that is queued: so
/// this waits for nobody either. One that proves unnecessary loads the same rows again.
///
/// # Errors
/// If the statement fails.
pub fn enqueue_missed() -> Result<()> {
    Ok(Spi::run(&enter_missed(""))?)
}

/// The same for what stands in one block of the table, without what cannot be entered: that stays, unless it is too long for ever.
/// Returns whether there is such a block.
///
/// # Errors
/// If another transaction comes first, or if the table cannot be read.
pub fn enqueue_missed_of_block(block: i64) -> Result<bool> {
    const PLACES: &str = "select m.ctid::text from snowflake_bridge.missed m \
         where m.ctid >= pg_catalog.format('(%s,0)', $1)::tid and m.ctid < pg_catalog.format('(%s,0)', $1 + 1)::tid";
    const BLOCKS: &str = "select pg_catalog.pg_relation_size('snowflake_bridge.missed'::regclass) \
         / pg_catalog.current_setting('block_size')::bigint";
    if block >= tx::read::<i64>(BLOCKS, &[])?.unwrap_or(0) {
        return Ok(false);
    }
    let places: Vec<String> = Spi::connect(|client| {
        client
            .select(PLACES, None, &[block.into()])?
            .filter_map(|row| row.get(1).transpose())
            .collect::<Result<_, _>>()
    })?;
    let mut lost = None;
    let mut refused: Vec<String> = Vec::new();
    if !places.is_empty() {
        let enter = enter_missed("where ctid = any ($1::tid[])");
        half_by_half(
            &places,
            &mut |places| {
                tx::subtransaction(|| Ok(Spi::run_with_args(&enter, &[places.to_vec().into()])?))
            },
            &mut |places, error| {
                if error.is_lost_conflict() || error.is_canceled() {
                    lost = Some(error);
                } else if error.is_too_large() {
                    log_error(
                        "snowflake_bridge: an execution will not be uploaded",
                        &too_long(&error),
                    );
                    refused.extend_from_slice(places);
                }
            },
        );
    }
    if !refused.is_empty() {
        Spi::run_with_args(
            "delete from snowflake_bridge.missed where ctid = any ($1::tid[])",
            &[refused.into()],
        )?;
    }
    lost.map_or(Ok(true), Err)
}

/// Of several for one execution the last.
fn enter_missed(condition: &str) -> String {
    format!(
        "with missed as (delete from snowflake_bridge.missed {condition} returning *) \
         insert into snowflake_bridge.uploads (state, watch_id, execution_id, user_id, owner_kind, owner_oid, row_user_id, options) \
         select distinct on (m.watch_id, m.execution_id) \
             'retry', m.watch_id, m.execution_id, m.user_id, m.owner_kind, m.owner_oid, m.row_user_id, m.options \
         from missed m join snowflake_bridge.watches w on w.id = m.watch_id and w.is_active \
         order by m.watch_id, m.execution_id, m.missed_at desc"
    )
}

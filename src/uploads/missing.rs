//! Uploads that should be there and are not.

use pgrx::JsonB;
use pgrx::prelude::*;

use super::{NewUpload, UNDECIDED};
use crate::error::Result;

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
             where u.watch_id = $1 and u.state in ('queued', 'retry', 'needs_credentials') and not ({UNDECIDED})"
        ),
        &[watch_id.into(), UNWATCHED.into()],
    )?)
}

/// Puts those of these executions in the queue that have no upload, or whose last one `unwatch` has canceled. Returns how
/// many.
///
/// # Errors
/// If the statement fails.
pub fn enqueue_missing(watch_id: i64, executions: &[NewUpload]) -> Result<usize> {
    let column = |value: fn(&NewUpload) -> String| executions.iter().map(value).collect();
    let execution_ids: Vec<String> = column(|new| new.execution_id.clone());
    let user_ids: Vec<String> = column(|new| new.owner.user_id().to_owned());
    let owner_kinds: Vec<String> = column(|new| new.owner.kind().to_owned());
    let owner_oids: Vec<pg_sys::Oid> = executions.iter().map(|new| new.owner.oid()).collect();
    let row_user_ids: Vec<Option<String>> = executions
        .iter()
        .map(|new| new.row_user_id.clone())
        .collect();
    let options: Vec<JsonB> = executions
        .iter()
        .map(|new| JsonB(new.options.clone()))
        .collect();
    Spi::connect_mut(|client| {
        let queued = client.update(
            "insert into snowflake_bridge.uploads (watch_id, execution_id, user_id, owner_kind, owner_oid, row_user_id, options) \
             select $1, e.execution_id, e.user_id, e.owner_kind, e.owner_oid, e.row_user_id, e.options \
             from unnest($2, $3, $4, $5, $6, $7) as e (execution_id, user_id, owner_kind, owner_oid, row_user_id, options) \
             where coalesce((select u.state = 'canceled' and u.error_message = $8 \
                 from snowflake_bridge.uploads u where u.watch_id = $1 and u.execution_id = e.execution_id \
                 order by u.id desc limit 1), true) \
             on conflict (watch_id, execution_id) where state = 'queued' do nothing returning id",
            None,
            &[
                watch_id.into(),
                execution_ids.into(),
                user_ids.into(),
                owner_kinds.into(),
                owner_oids.into(),
                row_user_ids.into(),
                options.into(),
                UNWATCHED.into(),
            ],
        )?;
        Ok(queued.len())
    })
}

/// Leaves word of an execution that cannot be entered in the queue now, because another transaction is at it. Waits for nobody.
///
/// # Errors
/// If the statement fails.
pub fn note_missed(new: &NewUpload) -> Result<()> {
    Ok(Spi::run_with_args(
        "insert into snowflake_bridge.missed (watch_id, execution_id, user_id, owner_kind, owner_oid, row_user_id, options) \
         values ($1, $2, $3, $4, $5, $6, $7)",
        &[
            new.watch_id.into(),
            new.execution_id.as_str().into(),
            new.owner.user_id().into(),
            new.owner.kind().into(),
            new.owner.oid_argument(),
            new.row_user_id.as_deref().into(),
            JsonB(new.options.clone()).into(),
        ],
    )?)
}

/// Has uploaded what [`note_missed`] has left word of. As `retry`, of which there may be several beside one that is queued: so
/// this waits for nobody either. One that proves unnecessary loads the same rows again.
///
/// # Errors
/// If the statement fails.
pub fn enqueue_missed() -> Result<()> {
    Ok(Spi::run(
        "with missed as (delete from snowflake_bridge.missed returning *) \
         insert into snowflake_bridge.uploads (state, watch_id, execution_id, user_id, owner_kind, owner_oid, row_user_id, options) \
         select distinct on (m.watch_id, m.execution_id) \
             'retry', m.watch_id, m.execution_id, m.user_id, m.owner_kind, m.owner_oid, m.row_user_id, m.options \
         from missed m join snowflake_bridge.watches w on w.id = m.watch_id and w.is_active \
         order by m.watch_id, m.execution_id, m.missed_at desc",
    )?)
}

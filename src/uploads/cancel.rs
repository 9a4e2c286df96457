//! Stopping uploads. One that waits is canceled where it stands; for one that a worker is at, a request is left beside the
//! queue: whoever asks may keep the transaction open, and a lock on the upload's own row would hold up the worker, and
//! with it everybody else.

use pgrx::prelude::*;

use super::{Claim, FIND_ROWS, MAY_BE_LOADED, ROWS_MAY_BE_THERE, UNDECIDED};
use crate::error::Result;
use crate::statement::kept;

/// Cancels an upload that nobody is at and of which nothing can be in Snowflake's table. One that failed but still has its
/// caller's files counts as one that waits. One that waits for credentials cannot ask Snowflake, so whether its rows are there
/// is left open, and said. Returns whether it was one.
///
/// # Errors
/// If the statement fails.
pub fn cancel_waiting(id: i64) -> Result<bool> {
    changes(
        &ending(&format!(
            "u.id = $1 and (u.state in ('queued', 'needs_credentials') \
             or u.state = 'retry' and not ({UNDECIDED}) \
             or u.state = 'failed' and u.watch_id is null and u.manifest is not null)"
        )),
        id,
    )
}

/// The statement that cancels the uploads of which `condition` holds.
fn ending(condition: &str) -> String {
    // One that has failed so keeps to it.
    let is_open =
        format!("{UNDECIDED} or {MAY_BE_LOADED} or position('{FIND_ROWS}' in u.error_hint) > 0");
    format!(
        "update snowflake_bridge.uploads u set state = 'canceled', completed_at = now(), \
             error_message = 'canceled on request' || case when {is_open} then {ROWS_MAY_BE_THERE} else '' end, \
             error_hint = case when {is_open} then '{FIND_ROWS}' end, \
             staged_claim = null, \
             clean_up_after = case when u.clean_up_after is not null then now() end, \
             needs_mirror = u.watch_id is not null, mirror_after = now() \
         where {condition} returning true"
    )
}

/// Asks the worker to stop an upload. Returns whether there is something to stop; asking again changes nothing.
///
/// # Errors
/// If the statement fails.
pub fn request_cancel(id: i64) -> Result<bool> {
    changes(
        &format!(
            "with wanted as (select u.id from snowflake_bridge.uploads u where u.id = $1 \
                 and (u.state in ('claimed', 'staged', 'copying') or u.state = 'retry' and {UNDECIDED})), \
             entered as (insert into snowflake_bridge.cancellations (upload) select w.id from wanted w \
                 on conflict do nothing) \
             select w.id from wanted w"
        ),
        id,
    )
}

/// Takes back what was asked of an earlier attempt.
///
/// # Errors
/// If the statement fails.
pub fn forget_cancel(id: i64) -> Result<()> {
    super::run(
        "delete from snowflake_bridge.cancellations where upload = $1",
        &[id.into()],
    )
}

/// Makes uploads due at once, for one time, that wait for another attempt and are to be stopped; cancels those that wait for
/// credentials since; and forgets what was asked of an upload that has ended. Waits for nobody who has locked any of them.
///
/// # Errors
/// If a statement fails.
pub fn settle_cancellations() -> Result<()> {
    let asked = |what: &str| {
        format!(
            "select u.id from snowflake_bridge.uploads u join snowflake_bridge.cancellations c on c.upload = u.id \
             where {what} for no key update skip locked"
        )
    };
    Spi::run(&format!(
        "with hastened as (update snowflake_bridge.uploads set next_attempt_at = clock_timestamp() \
             where id in ({}) returning id) \
         update snowflake_bridge.cancellations c set is_hastened = true from hastened h where h.id = c.upload",
        asked("u.state = 'retry' and not c.is_hastened")
    ))?;
    Spi::run(&ending(&format!(
        "u.id in ({})",
        asked("u.state = 'needs_credentials'")
    )))?;
    Ok(Spi::run(
        "delete from snowflake_bridge.cancellations where upload in (select c.upload from snowflake_bridge.cancellations c \
             where not exists (select from snowflake_bridge.uploads u \
                 where u.id = c.upload and u.state in ('claimed', 'staged', 'copying', 'retry')) \
             for update skip locked)",
    )?)
}

/// Which of these claims have to stop: somebody wants that, or has taken the upload over.
///
/// # Errors
/// If the statement fails.
pub fn to_stop(claims: &[Claim]) -> Result<Vec<Claim>> {
    let (uploads, numbers): (Vec<i64>, Vec<i32>) = claims
        .iter()
        .map(|claim| (claim.upload, claim.number))
        .unzip();
    // By the limit, each is looked for by its id: few are, among very many.
    const TO_STOP: &str = "select c.upload, c.number from unnest($1, $2) as c (upload, number) \
        left join lateral (select u.id from snowflake_bridge.uploads u where u.id = c.upload and u.claim_count = c.number \
            and u.state || '' in ('claimed', 'staged', 'copying') limit 1) u on true \
        where u.id is null or exists (select from snowflake_bridge.cancellations r where r.upload = c.upload)";
    Spi::connect(|client| {
        let args = [uploads.into(), numbers.into()];
        let rows = client.select(kept(client, TO_STOP, &args)?, None, &args)?;
        let mut stopped = Vec::new();
        for row in rows {
            if let (Some(upload), Some(number)) = (row.get(1)?, row.get(2)?) {
                stopped.push(Claim { upload, number });
            }
        }
        Ok(stopped)
    })
}

fn changes(statement: &str, id: i64) -> Result<bool> {
    Spi::connect_mut(|client| Ok(!client.update(statement, Some(1), &[id.into()])?.is_empty()))
}

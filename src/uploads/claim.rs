//! Taking uploads out of the queue: which are due, whose turn it is, and what a worker is told of each.

use bridge_core::spool::Manifest;
use pgrx::prelude::*;
use pgrx::spi::SpiTupleTable;
use pgrx::{JsonB, pg_sys};
use uuid::Uuid;

use super::{from_pg_uuid, turns};
use crate::error::{Error, Result};
use crate::owner::Owner;

/// One taking of an upload by a worker. Whoever takes it again gets another number, and nobody else's counts any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    pub upload: i64,
    pub number: i32,
}

/// An upload that this worker has taken.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub id: i64,
    pub upload_id: Uuid,
    /// None for rows that their caller has read into the spool.
    pub watch_id: Option<i64>,
    pub owner: Owner,
    pub execution_id: String,
    pub row_user_id: Option<String>,
    pub options: serde_json::Value,
    pub attempt: i32,
    pub manifest: Option<Manifest>,
    /// The number of this claim.
    pub claim: i32,
    /// The claim that staged all files, if one did.
    pub staged_claim: Option<i32>,
    /// Account and user of the last attempt that read or staged.
    pub staged_for: Option<String>,
    pub transaction: Option<String>,
    /// Somebody wants it to stop.
    pub cancel_requested: bool,
}

impl Claimed {
    /// Under which the worker records what comes of it.
    pub fn as_claim(&self) -> Claim {
        Claim {
            upload: self.id,
            number: self.claim,
        }
    }
}

/// Takes up to `limit` due uploads. The attempt is counted here, and committed before the row is touched. An execution
/// whose earlier upload has not ended waits, so that its rows are replaced in order. No connection holds more than
/// `share` of the slots, so that one that is slow or dead leaves room for the others; an upload during which the worker
/// crashed runs alone.
///
/// # Errors
/// If the statement fails.
pub fn claim(limit: usize, share: usize) -> Result<Vec<Claimed>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let share = i64::try_from(share).unwrap_or(i64::MAX);
    Spi::connect_mut(|client| {
        let rows = client.update(
            &format!("with {}, busy as materialized ( \
                 select b.owner_kind, b.user_id, b.owner_oid, coalesce(b.options ->> 'config', 'default') as config \
                 from snowflake_bridge.uploads b where b.state in ('claimed', 'staged', 'copying') \
                 group by 1, 2, 3, 4 having count(*) >= $2), \
             due as materialized ( \
                 select d.id from snowflake_bridge.uploads d \
                 where d.state in ('queued', 'retry') and d.next_attempt_at <= clock_timestamp() \
                   and not exists (select from snowflake_bridge.uploads e \
                       where e.watch_id = d.watch_id and e.execution_id = d.execution_id and e.id < d.id \
                         and e.state in ('queued', 'retry', 'claimed', 'staged', 'copying')) \
                   and (d.crash_count = 0 or not exists (select from snowflake_bridge.uploads f \
                       where f.state in ('claimed', 'staged', 'copying'))) \
                   and not exists (select from snowflake_bridge.uploads s \
                       where s.state in ('claimed', 'staged', 'copying') and s.crash_count > 0) \
                   and (d.owner_kind, d.user_id, d.owner_oid, coalesce(d.options ->> 'config', 'default')) not in (table busy) \
                   and d.id not in (table waiting) \
                 order by d.next_attempt_at, d.id limit $1 for update skip locked) \
             update snowflake_bridge.uploads u set \
                 state = 'claimed', claim_count = u.claim_count + 1, attempt_count = u.attempt_count + 1, claimed_at = clock_timestamp(), \
                 error_message = null, error_hint = null, error_code = null, error_sqlstate = null, query_id = null, \
                 needs_mirror = true, mirror_after = clock_timestamp() \
             from due where u.id = due.id returning {CLAIMED}", turns::TURNS),
            None,
            &[limit.into(), share.into()],
        )?;
        let mut claimed = claimed(rows)?;
        claimed.sort_by_key(|upload| upload.id);
        Ok(claimed)
    })
}

/// The upload of this claim, for another process of the worker's.
///
/// # Errors
/// If the statement fails.
pub fn of_claim(claim: Claim) -> Result<Option<Claimed>> {
    Spi::connect(|client| {
        let rows = client.select(
            &format!(
                "select {CLAIMED} from snowflake_bridge.uploads u \
                 where u.id = $1 and u.claim_count = $2 and u.state = 'claimed'"
            ),
            Some(1),
            &[claim.upload.into(), claim.number.into()],
        )?;
        Ok(claimed(rows)?.pop())
    })
}

/// The columns that [`claimed`] reads, of `uploads u`.
const CLAIMED: &str = "u.id, u.upload_id, u.watch_id, u.execution_id, u.row_user_id, u.options, u.attempt_count, u.manifest, \
    u.staged_claim, u.transaction_id, u.staged_for, u.claim_count, u.owner_kind, u.user_id, u.owner_oid, \
    exists (select from snowflake_bridge.cancellations c where c.upload = u.id)";

fn claimed(rows: SpiTupleTable<'_>) -> Result<Vec<Claimed>> {
    let mut claimed = Vec::new();
    for row in rows {
        let missing = || Error::missing("a row of snowflake_bridge.uploads is incomplete");
        let manifest: Option<JsonB> = row.get(8)?;
        claimed.push(Claimed {
            id: row.get(1)?.ok_or_else(missing)?,
            upload_id: from_pg_uuid(row.get(2)?.ok_or_else(missing)?),
            watch_id: row.get(3)?,
            owner: Owner::from_columns(
                &row.get::<String>(13)?.ok_or_else(missing)?,
                row.get(14)?.ok_or_else(missing)?,
                row.get(15)?.unwrap_or(pg_sys::InvalidOid),
            ),
            execution_id: row.get(4)?.ok_or_else(missing)?,
            row_user_id: row.get(5)?,
            options: row
                .get::<JsonB>(6)?
                .map_or(serde_json::Value::Null, |options| options.0),
            attempt: row.get(7)?.ok_or_else(missing)?,
            // A manifest that a newer version wrote is read anew.
            manifest: manifest.and_then(|manifest| serde_json::from_value(manifest.0).ok()),
            staged_claim: row.get(9)?,
            staged_for: row.get(11)?,
            claim: row.get(12)?.ok_or_else(missing)?,
            transaction: row.get(10)?,
            cancel_requested: row.get(16)?.unwrap_or(false),
        });
    }
    Ok(claimed)
}

//! What uploads that have ended may have left in Snowflake's stage, and when it goes.

use pgrx::Uuid as PgUuid;
use pgrx::prelude::*;
use uuid::Uuid;

use super::{Claim, from_pg_uuid, to_pg_uuid};
use crate::error::{Error, Result};
use crate::statement::kept_mut;

/// The network thread removes the files of an upload itself when it has completed or was canceled; this is how long it may
/// take.
pub(super) const BEING_REMOVED: &str = "5 minutes";

/// What failed may be tried again as soon as somebody has mended the cause, and then need not be sent again.
pub(super) const KEPT_FOR_RETRY: &str = "1 day";

/// Until the next try to remove what could not be removed.
const NEXT_TRY: &str = "1 hour";

/// Uploads whose files are to be removed from one stage.
pub struct Leftovers {
    /// The configuration by which they were put there; `None` if it was never known.
    pub config_id: Option<Uuid>,
    /// The last claim, the id that names the directory, and whose stage it is.
    pub uploads: Vec<(Claim, Uuid, Option<String>)>,
}

/// Takes up to `limit` uploads that used one configuration and whose files are due to be removed. Another attempt at one
/// of them stages its files anew, and if they are not removed now, the next try is in an hour.
///
/// # Errors
/// If the statement fails.
pub fn leftovers(limit: i64) -> Result<Option<Leftovers>> {
    Spi::connect_mut(|client| {
        let rows = client.update(
            "with due as materialized ( \
                 select u.id, u.config_id, u.clean_up_after from snowflake_bridge.uploads u \
                 where u.clean_up_after <= clock_timestamp() and u.state in ('completed', 'failed', 'canceled') \
                 order by u.clean_up_after limit $1 for no key update skip locked), \
             first as (select d.config_id from due d order by d.clean_up_after limit 1) \
             update snowflake_bridge.uploads u set clean_up_after = clock_timestamp() + $2::interval, staged_claim = null \
             from due d, first f where u.id = d.id and d.config_id is not distinct from f.config_id \
             returning u.id, u.claim_count, u.upload_id, u.staged_for, u.config_id",
            None,
            &[limit.into(), NEXT_TRY.into()],
        )?;
        let mut leftovers = None::<Leftovers>;
        for row in rows {
            let missing = || Error::missing("a row of snowflake_bridge.uploads is incomplete");
            let claim = Claim {
                upload: row.get(1)?.ok_or_else(missing)?,
                number: row.get(2)?.ok_or_else(missing)?,
            };
            let upload = (
                claim,
                from_pg_uuid(row.get(3)?.ok_or_else(missing)?),
                row.get(4)?,
            );
            let config_id = row.get::<PgUuid>(5)?.map(from_pg_uuid);
            leftovers
                .get_or_insert(Leftovers {
                    config_id,
                    uploads: Vec::new(),
                })
                .uploads
                .push(upload);
        }
        Ok(leftovers)
    })
}

/// The files of uploads, up to these claims, are gone, or nobody can reach them any more. Those of an upload that has begun anew
/// since are another matter.
///
/// # Errors
/// If the statement fails.
pub fn cleaned(claims: &[Claim]) -> Result<()> {
    let (uploads, numbers): (Vec<i64>, Vec<i32>) = claims
        .iter()
        .map(|claim| (claim.upload, claim.number))
        .unzip();
    // Each by its id, and not by an index of states.
    const CLEANED: &str = "update snowflake_bridge.uploads u set clean_up_after = null from unnest($1, $2) as c (upload, number) \
        where u.id = c.upload and u.claim_count = c.number and u.state || '' in ('completed', 'failed', 'canceled')";
    Spi::connect_mut(|client| {
        let args = [uploads.into(), numbers.into()];
        client.update(kept_mut(client, CLEANED, &args)?, None, &args)?;
        Ok(())
    })
}

/// Of directories that were found in the stage, with whether they are old: those of which something may go, and what, by the last
/// claim that may have put it there. A directory of an upload that has ended an hour ago and left nothing that is known; and an old
/// one, whole, of an upload that is not remembered.
///
/// # Errors
/// If the statement fails.
pub fn are_removable(found: &[(Uuid, bool)]) -> Result<Vec<(Uuid, i32)>> {
    let ids: Vec<PgUuid> = found.iter().map(|(id, _)| to_pg_uuid(*id)).collect();
    let old: Vec<bool> = found.iter().map(|(_, is_old)| *is_old).collect();
    Spi::connect(|client| {
        client
            .select(
                "select f.id, u.claim_count from unnest($1::uuid[], $2::boolean[]) f (id, is_old) \
                 left join snowflake_bridge.uploads u on u.upload_id = f.id \
                 where case when u.id is null then f.is_old \
                     else u.state in ('completed', 'failed', 'canceled') and u.clean_up_after is null \
                         and (u.state <> 'failed' or u.staged_claim is null) and u.completed_at < clock_timestamp() - interval '1 hour' end",
                None,
                &[ids.into(), old.into()],
            )?
            .filter_map(|row| {
                let id = row.get::<PgUuid>(1).transpose()?;
                Some(id.and_then(|id| Ok((from_pg_uuid(id), row.get(2)?.unwrap_or(i32::MAX)))))
            })
            .map(|found| Ok(found?))
            .collect()
    })
}

//! Uploads without a watch: their rows were read by their caller, and wait in the spool from the beginning.

use bridge_core::spool::Manifest;
use pgrx::Uuid as PgUuid;
use pgrx::prelude::*;
use pgrx::{JsonB, spi};
use uuid::Uuid;

use super::{from_pg_uuid, manifest_json, no_row, one, to_pg_uuid};
use crate::error::Result;
use crate::owner::Owner;
use crate::tx;

/// What to enter in the queue.
pub struct Spooled<'a> {
    pub upload_id: Uuid,
    pub execution_id: &'a str,
    pub owner: &'a Owner,
    pub options: serde_json::Value,
    pub manifest: &'a Manifest,
    /// Values that Snowflake could not hold as what they are.
    pub out_of_range: u64,
}

/// Puts an upload in the queue whose files lie in the spool.
///
/// # Errors
/// If the statement fails.
pub fn enqueue_spooled(new: &Spooled<'_>) -> Result<i64> {
    one(
        "insert into snowflake_bridge.uploads (upload_id, execution_id, user_id, owner_kind, owner_oid, row_user_id, \
             options, manifest, out_of_range_count, byte_count, needs_mirror) \
         values ($1, $2, $3, $4, $5, $3, $6, $7, $8, $9, false) returning id",
        &[
            to_pg_uuid(new.upload_id).into(),
            new.execution_id.into(),
            new.owner.user_id().into(),
            new.owner.kind().into(),
            new.owner.oid_argument(),
            JsonB(new.options.clone()).into(),
            manifest_json(new.manifest)?.into(),
            i64::try_from(new.out_of_range).unwrap_or(i64::MAX).into(),
            i64::try_from(new.manifest.bytes).unwrap_or(i64::MAX).into(),
        ],
    )
}

/// What an upload takes of the disk besides the bytes of its files: two directories, and the rest of a block.
pub const OVERHEAD: u64 = 12 << 10;

/// How many bytes the files take that an owner's uploads of this kind have in the spool, as of now: all of those that have not
/// ended well, whoever queued them.
///
/// # Errors
/// If the statement fails.
pub fn spooled_bytes(owner: &Owner) -> Result<u64> {
    const BYTES: &str = "
        select (coalesce(pg_catalog.sum(u.byte_count), 0) + $4 * pg_catalog.count(*))::pg_catalog.int8
          from snowflake_bridge.uploads u
         where u.owner_kind = $1 and u.user_id = $2 and u.owner_oid = $3
           and u.watch_id is null and u.state not in ('completed', 'canceled')";
    let arguments = [
        owner.kind().into(),
        owner.user_id().into(),
        owner.oid_argument(),
        OVERHEAD.cast_signed().into(),
    ];
    let bytes: Option<i64> = tx::with_latest_snapshot(|| tx::read(BYTES, &arguments))?;
    Ok(bytes.unwrap_or(0).unsigned_abs())
}

/// Ids of uploads whose files in the spool may still be needed: those in flight, and of those that their caller has read
/// all that have not ended well. Nobody could read these again.
///
/// # Errors
/// If the statement fails.
pub fn with_files() -> Result<Vec<Uuid>> {
    Spi::connect(|client| {
        client
            .select(
                "select upload_id from snowflake_bridge.uploads where state in ('claimed', 'staged', 'copying') \
                 or watch_id is null and manifest is not null and state not in ('completed', 'canceled')",
                None,
                &[],
            )?
            .map(|row| row.get::<PgUuid>(1))
            .filter_map(Result::<_, spi::Error>::transpose)
            .map(|id| Ok(from_pg_uuid(id?)))
            .collect()
    })
}

/// Files that an upload had, and nobody needs any more.
pub struct Dropped {
    pub upload_id: Uuid,
    pub owner: Owner,
    /// What they take of the disk.
    pub bytes: u64,
}

/// Forgets the files of an upload that was canceled and whose caller had read its rows. Returns which these are, if it is one.
///
/// # Errors
/// If the statement fails.
pub fn drop_files(id: i64) -> Result<Option<Dropped>> {
    Spi::connect_mut(|client| {
        let mut dropped = client.update(
            "update snowflake_bridge.uploads u set manifest = null \
             where u.id = $1 and u.watch_id is null and u.state = 'canceled' \
             returning u.upload_id, u.owner_kind, u.user_id, u.owner_oid, u.byte_count",
            Some(1),
            &[id.into()],
        )?;
        let Some(row) = dropped.next() else {
            return Ok(None);
        };
        let bytes = row.get::<i64>(5)?.unwrap_or(0).unsigned_abs();
        Ok(Some(Dropped {
            upload_id: from_pg_uuid(row.get::<PgUuid>(1)?.ok_or_else(no_row)?),
            owner: Owner::from_columns(
                &row.get::<String>(2)?.ok_or_else(no_row)?,
                row.get(3)?.ok_or_else(no_row)?,
                row.get(4)?.unwrap_or(pg_sys::InvalidOid),
            ),
            bytes: bytes + OVERHEAD,
        }))
    })
}

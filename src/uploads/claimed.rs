//! What a worker is told of an upload that it has taken.

use std::sync::LazyLock;

use bridge_core::snowflake::sql::TableName;
use bridge_core::spool::Manifest;
use pgrx::spi::SpiTupleTable;
use pgrx::{JsonB, pg_sys};
use uuid::Uuid;

use super::claim::Lane;
use super::turns::ALONE;
use super::{MAY_BE_LOADED, from_pg_uuid};
use crate::error::{Error, Result};
use crate::guc;
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
    pub lane: Lane,
    /// Where the account of its connection is reached; empty where there is none.
    pub account: String,
    /// During how many earlier attempts a worker crashed.
    pub crash_count: i32,
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
    /// The table that this transaction was about.
    pub transaction_table: Option<TableName>,
    /// Its rows may be in Snowflake, in whichever account: a load was begun once, or it was queued before these records went back in
    /// time.
    pub may_be_loaded: bool,
    /// Somebody wants it to stop.
    pub cancel_requested: bool,
    /// For so long that it is not waited for any more, Snowflake has asked it to come later.
    pub throttled_too_long: bool,
    /// No other upload is taken for its table until this attempt has ended.
    pub is_alone: bool,
    /// Snowflake was known to let its connection in, so that nobody is at its table who must not be.
    pub is_let_in: bool,
    /// A newer upload of its execution has begun, and does not wait for this one.
    pub(super) is_superseded: bool,
}

impl Claimed {
    /// Under which the worker records what comes of it.
    pub fn as_claim(&self) -> Claim {
        Claim {
            upload: self.id,
            number: self.claim,
        }
    }

    /// Whether it may be to blame for a crash of the worker.
    pub fn is_suspect(&self) -> bool {
        self.crash_count > 0
    }

    /// Whether it may not begin another load.
    pub fn has_crashed_too_often(&self) -> bool {
        self.crash_count >= guc::max_crashes()
    }

    /// Whether it is open what became of the rows, see [`super::UNDECIDED`].
    pub fn is_undecided(&self) -> bool {
        self.transaction.is_some()
    }
}

/// The columns that [`claimed`] reads, of `uploads u`; the account comes after them.
pub(super) static CLAIMED: LazyLock<String> = LazyLock::new(|| {
    format!(
        "u.id, u.upload_id, u.watch_id, u.execution_id, u.row_user_id, u.options, u.attempt_count, u.manifest, \
         u.staged_claim, u.transaction_id, u.staged_for, u.claim_count, u.owner_kind, u.user_id, u.owner_oid, \
         exists (select from snowflake_bridge.cancellations c where c.upload = u.id), \
         coalesce(u.options ->> 'config', 'default'), u.crash_count, \
         exists (select from snowflake_bridge.uploads n where n.watch_id = u.watch_id and n.execution_id = u.execution_id \
             and n.id > u.id and n.state not in ('queued', 'canceled')), \
         coalesce(u.throttled_since < clock_timestamp() - interval '1 day', false), {ALONE}, u.transaction_table, \
         u.may_be_loaded or {MAY_BE_LOADED}, u.is_let_in"
    )
});

/// The rows of a statement that returns [`CLAIMED`], and the account after it.
pub(super) fn claimed(rows: SpiTupleTable<'_>) -> Result<Vec<Claimed>> {
    let mut claimed = Vec::new();
    for row in rows {
        let missing = || Error::missing("a row of snowflake_bridge.uploads is incomplete");
        let manifest: Option<JsonB> = row.get(8)?;
        claimed.push(Claimed {
            id: row.get(1)?.ok_or_else(missing)?,
            upload_id: from_pg_uuid(row.get(2)?.ok_or_else(missing)?),
            watch_id: row.get(3)?,
            lane: Lane {
                owner: Owner::from_columns(
                    &row.get::<String>(13)?.ok_or_else(missing)?,
                    row.get(14)?.ok_or_else(missing)?,
                    row.get(15)?.unwrap_or(pg_sys::InvalidOid),
                ),
                config: row.get(17)?.ok_or_else(missing)?,
            },
            account: row.get(25)?.unwrap_or_default(),
            crash_count: row.get(18)?.unwrap_or(0),
            is_superseded: row.get(19)?.unwrap_or(false),
            is_alone: row.get(21)?.unwrap_or(false),
            is_let_in: row.get(24)?.unwrap_or(false),
            throttled_too_long: row.get(20)?.unwrap_or(false),
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
            transaction_table: row
                .get::<Vec<String>>(22)?
                .and_then(|parts| <[String; 3]>::try_from(parts).ok())
                .map(TableName::from),
            may_be_loaded: row.get(23)?.unwrap_or(true),
            cancel_requested: row.get(16)?.unwrap_or(false),
        });
    }
    Ok(claimed)
}

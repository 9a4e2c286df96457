//! How much an owner has sent to Snowflake within a day, which may be limited.
//!
//! It is counted by the hour, when all files of an attempt are in the stage. What was sent counts until the hour in which it was is a
//! day ago: within no 24 hours is it more than the limit.

use std::time::Duration;

use pgrx::prelude::*;

use super::{Claim, Claimed};
use crate::error::{Error, Result};
use crate::owner::Owner;
use crate::{guards, guc, tx};

/// From the beginning of an hour until nothing that was sent in it counts any more.
const COUNTS_FOR: &str = "25 hours";

/// What an owner has sent lately.
struct Sent {
    bytes: u64,
    /// When the first of it stops to count.
    less_in: Duration,
}

/// What the owner has sent within the last day.
///
/// # Errors
/// If the statement fails.
fn sent_lately(owner: &Owner) -> Result<Sent> {
    Spi::connect(|client| {
        let rows = client.select(
            "select coalesce(sum(s.bytes), 0)::bigint, \
                 coalesce(extract(epoch from min(s.hour) + $4::interval - clock_timestamp()), 0)::float8 \
             from snowflake_bridge.sent_bytes s \
             where (s.owner_kind, s.user_id, s.owner_oid) = ($1, $2, $3::oid) and s.hour > clock_timestamp() - $4::interval",
            Some(1),
            &[
                owner.kind().into(),
                owner.user_id().into(),
                i64::from(owner.oid().to_u32()).into(),
                COUNTS_FOR.into(),
            ],
        )?;
        let row = rows.first();
        let seconds = row.get::<f64>(2)?.unwrap_or_default();
        Ok(Sent {
            bytes: row.get::<i64>(1)?.map_or(0, |bytes| bytes.max(0) as u64),
            less_in: Duration::from_secs_f64(seconds.clamp(0.0, 90_000.0)),
        })
    })
}

/// Counts what the attempt of this claim has sent, where that is limited.
///
/// # Errors
/// If the statement fails.
pub(super) fn count_sent(claim: Claim) -> Result<()> {
    if guc::max_daily_upload_per_owner().is_none() {
        return Ok(());
    }
    Ok(Spi::run_with_args(
        "insert into snowflake_bridge.sent_bytes as s \
         select u.owner_kind, u.user_id, u.owner_oid, date_trunc('hour', clock_timestamp(), 'UTC'), (u.manifest ->> 'bytes')::bigint \
         from snowflake_bridge.uploads u where u.id = $1 and u.manifest is not null \
         on conflict (owner_kind, user_id, owner_oid, hour) do update set bytes = s.bytes + excluded.bytes",
        &[claim.upload.into()],
    )?)
}

/// Forgets what counts no more.
///
/// # Errors
/// If the statement fails.
pub fn forget_sent() -> Result<()> {
    Ok(Spi::run_with_args(
        "delete from snowflake_bridge.sent_bytes where hour <= clock_timestamp() - $1::interval",
        &[COUNTS_FOR.into()],
    )?)
}

/// Refuses an attempt that is to be begun, while others of the owner are about to send `under_way` bytes, if it is likely to be
/// refused by [`require_allowance`] later: by what it took when it was read before, if it was. Where there is a limit, runs a
/// transaction of its own.
///
/// # Errors
/// [`Error::NoAllowance`]; or if a statement fails.
pub fn expect_allowance(upload: &Claimed, under_way: u64) -> Result<()> {
    let Some(most) = limit() else {
        return Ok(());
    };
    match upload.manifest.as_ref().map_or(1, |of| of.bytes.max(1)) {
        // It may have become less; if not, that is found once it is read.
        before if before > most => Ok(()),
        before => require_room(&upload.lane.owner, most, under_way, before),
    }
}

/// Refuses an attempt that would send so many bytes: it has to wait. What is more than one may send in a day fails, since it would
/// wait for ever. Where there is a limit, runs a transaction of its own.
///
/// # Errors
/// [`Error::NoAllowance`]; `53400` for what can never be sent; or if a statement fails.
pub fn require_allowance(upload: &Claimed, under_way: u64, bytes: u64) -> Result<()> {
    let Some(most) = limit() else {
        return Ok(());
    };
    let owner = &upload.lane.owner;
    if bytes > most {
        return Err(Error::user(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            format!(
                "its files take {} MB, and user \"{}\" may send {} MB within 24 hours (snowflake_bridge.max_daily_upload_per_owner)",
                bytes.div_ceil(1 << 20),
                owner.user_id(),
                most >> 20
            ),
        )
        .hint("Upload less at once, or have a superuser raise the setting, and call snowflake_bridge.retry_upload()."));
    }
    require_room(owner, most, under_way, bytes)
}

fn limit() -> Option<u64> {
    guc::max_daily_upload_per_owner().filter(|_| guards::ON)
}

fn require_room(owner: &Owner, most: u64, under_way: u64, bytes: u64) -> Result<()> {
    let sent = tx::transaction(|| sent_lately(owner))?;
    if sent.bytes + under_way + bytes <= most {
        return Ok(());
    }
    Err(Error::NoAllowance {
        message: format!(
            "user \"{}\" would send more than {} MB within 24 hours (snowflake_bridge.max_daily_upload_per_owner)",
            owner.user_id(),
            most >> 20
        ),
        // What is under way may yet fail, and then was not sent.
        delay: if sent.bytes + bytes <= most {
            guc::retry_base_delay()
        } else {
            sent.less_in
        },
    })
}

//! What a worker writes down about an upload that it has claimed. Each statement names the claim, and changes nothing if
//! that is not the upload's any more: somebody else has taken the upload over, and only they know how it stands.

use std::time::Duration;

use bridge_core::snowflake::sql::TableName;
use bridge_core::spool::Manifest;
use bridge_core::upload;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use uuid::Uuid;

use super::allowance::count_sent;
use super::{
    Claim, FIND_ROWS, MAY_BE_LOADED, ROWS_MAY_BE_THERE, leftovers, manifest_json, to_pg_uuid,
    unpack_sqlstate,
};
use crate::error::{Error, Result};
use crate::owner::Owner;
use crate::statement::kept_mut;

/// Records what was read, and by whose configuration it travels. The files are still on local disk only. How many values
/// were out of range is known of what the worker read; what a caller read was counted then.
///
/// # Errors
/// [`Error::TakenOver`], or if the statement fails.
pub fn record_read(
    claim: Claim,
    config_id: Uuid,
    destination: &str,
    manifest: &Manifest,
    out_of_range: Option<u64>,
) -> Result<()> {
    record(
        claim,
        "config_id = $3, manifest = $4, staged_claim = null, staged_for = $5, \
             out_of_range_count = coalesce($6, out_of_range_count), \
             clean_up_after = case when $7 then clock_timestamp() else clean_up_after end",
        [
            to_pg_uuid(config_id).into(),
            manifest_json(manifest)?.into(),
            destination.into(),
            out_of_range
                .map(|count| i64::try_from(count).unwrap_or(i64::MAX))
                .into(),
            (!manifest.files.is_empty()).into(),
        ],
    )
}

/// Records the configuration of an attempt that reads nothing, because an earlier one has staged the files.
///
/// # Errors
/// [`Error::TakenOver`], or if the statement fails.
pub fn record_config(claim: Claim, config_id: Uuid) -> Result<()> {
    record(claim, "config_id = $3", [to_pg_uuid(config_id).into()])
}

/// Records whose upload it is now, by whose connection it goes from its next attempt on.
///
/// # Errors
/// [`Error::TakenOver`], or if the statement fails.
pub fn record_owner(claim: Claim, owner: &Owner) -> Result<()> {
    record(
        claim,
        "owner_kind = $3, user_id = $4, owner_oid = $5::oid",
        [
            owner.kind().into(),
            owner.user_id().into(),
            owner.oid_argument(),
        ],
    )
}

/// Records that this attempt, which reads nothing, goes to another stage than the one before, in which what lies there is out of
/// reach. Where the transaction of the rows was begun stays recorded.
///
/// # Errors
/// [`Error::TakenOver`], or if the statement fails.
pub fn record_moved(claim: Claim, config_id: Uuid) -> Result<()> {
    record(
        claim,
        "config_id = $3, staged_claim = null",
        [to_pg_uuid(config_id).into()],
    )
}

/// Every file is in Snowflake's stage; later attempts load these and put nothing again.
///
/// # Errors
/// [`Error::TakenOver`], or if the statement fails.
pub fn record_staged(claim: Claim) -> Result<()> {
    record(claim, "state = 'staged', staged_claim = claim_count", [])?;
    count_sent(claim)
}

/// The rows are about to be loaded in this Snowflake transaction, so many into this table.
///
/// # Errors
/// [`Error::TakenOver`], or if the statement fails.
pub fn record_copying(
    claim: Claim,
    transaction: &str,
    target: &TableName,
    rows: u64,
    bytes: u64,
) -> Result<()> {
    record(
        claim,
        "state = 'copying', may_be_loaded = true, transaction_id = $3, target = $4, transaction_table = $5, row_count = $6, byte_count = $7",
        [
            transaction.into(),
            target.to_string().into(),
            vec![
                target.database.as_str(),
                target.schema.as_str(),
                target.table.as_str(),
            ]
            .into(),
            i64::try_from(rows).unwrap_or(i64::MAX).into(),
            i64::try_from(bytes).unwrap_or(i64::MAX).into(),
        ],
    )
}

/// The rows are in the table, counted.
///
/// # Errors
/// [`Error::TakenOver`], or if the statement fails.
pub fn record_completed(
    claim: Claim,
    target: &str,
    rows: u64,
    bytes: u64,
    query_id: Option<&str>,
) -> Result<()> {
    record(
        claim,
        &format!("{COMPLETED}, target = $4, row_count = $5, byte_count = $6, query_id = $7"),
        [
            leftovers::BEING_REMOVED.into(),
            target.into(),
            i64::try_from(rows).unwrap_or(i64::MAX).into(),
            i64::try_from(bytes).unwrap_or(i64::MAX).into(),
            query_id.into(),
        ],
    )
}

/// The rows are in the table since an earlier attempt, as [`record_copying`] has recorded it: what this one would have loaded,
/// and where, may be something else.
///
/// # Errors
/// [`Error::TakenOver`], or if the statement fails.
pub fn record_settled(claim: Claim) -> Result<()> {
    record(claim, COMPLETED, [leftovers::BEING_REMOVED.into()])
}

const COMPLETED: &str = "state = 'completed', \
    error_message = null, error_hint = null, error_code = null, error_sqlstate = null, \
    completed_at = clock_timestamp(), clean_up_after = clock_timestamp() + case when clean_up_after is not null then $3::interval end, \
    needs_mirror = true, mirror_after = clock_timestamp()";

/// What becomes of an upload after an attempt that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextState {
    Retry(Duration),
    /// Tried again as well, but Snowflake has only asked to come later: the attempt is not counted.
    Later(Duration),
    /// Tried again at once, as the only one at its table. The attempt is not counted.
    Alone,
    /// Tried again at once, sharing nothing with others. The attempt is not counted.
    ByItself,
    /// Tried again once its owner may send more. The attempt is not counted.
    Waits(Duration),
    Failed,
    Canceled,
    NeedsCredentials,
}

/// The attempt ended with an error. One that only lost a lock is not counted: how long somebody keeps a lock says nothing
/// about the upload. Unless it `is_undecided` what became of the rows, an upload that begins anew has loaded nothing yet.
///
/// # Errors
/// [`Error::TakenOver`], or if the statement fails.
pub fn record_error(
    claim: Claim,
    next: NextState,
    error: &Error,
    is_undecided: bool,
) -> Result<()> {
    let (state, delay) = match next {
        NextState::Retry(delay) | NextState::Later(delay) | NextState::Waits(delay) => {
            ("retry", delay)
        }
        NextState::Alone | NextState::ByItself => ("retry", Duration::ZERO),
        NextState::Failed => ("failed", Duration::ZERO),
        NextState::Canceled => ("canceled", Duration::ZERO),
        NextState::NeedsCredentials => ("needs_credentials", Duration::ZERO),
    };
    let (sqlstate, mut hint) = error.sqlstate_and_hint();
    if next == NextState::NeedsCredentials {
        let cure = "Correct the configuration with snowflake_bridge.update_config; the upload then goes on by itself.";
        hint = Some(hint.map_or_else(|| cure.to_owned(), |hint| format!("{hint} {cure}")));
    }
    let (code, remote_sqlstate, query_id) = match error {
        Error::Core(core) => (core.code(), core.sqlstate(), core.query_id()),
        _ => (None, None, None),
    };
    let is_stage_incomplete =
        matches!(error, Error::Core(core) if upload::is_stage_incomplete(core));
    let message = match error {
        Error::Core(core) => core.message().to_owned(),
        other => other.to_string(),
    };
    record(
        claim,
        &format!(
            "state = $3, \
             next_attempt_at = clock_timestamp() + make_interval(secs => $4), \
             attempt_count = attempt_count - ($14 or $15 or $16 or $3 = 'retry' and $8 in ('55P03', '40P01'))::integer, \
             needs_table = needs_table or $15, \
             throttled_since = case when $14 then coalesce(throttled_since, clock_timestamp()) else throttled_since end, \
             error_message = $5 || case when $17 and ($13 or {MAY_BE_LOADED}) then {ROWS_MAY_BE_THERE} else '' end, \
             error_hint = nullif(concat_ws(' ', $6, case when $17 and ($13 or {MAY_BE_LOADED}) then '{FIND_ROWS}' end), ''), error_code = $7, error_sqlstate = $8, query_id = $9, \
             completed_at = case when $3 = 'retry' then null else clock_timestamp() end, \
             staged_claim = case when $3 = 'canceled' or $10 then null else staged_claim end, \
             transaction_id = case when $13 or staged_claim is not null and not $10 then transaction_id end, \
             manifest = case when $3 = 'canceled' and watch_id is null then null else manifest end, \
             clean_up_after = clock_timestamp() + case when clean_up_after is not null then \
                 case when $3 = 'canceled' then $11::interval else $12::interval end end, \
             needs_mirror = true, mirror_after = clock_timestamp()"
        ),
        [
            state.into(),
            delay.as_secs_f64().into(),
            message.into(),
            hint.into(),
            code.into(),
            remote_sqlstate
                .map_or_else(|| unpack_sqlstate(sqlstate), str::to_owned)
                .into(),
            query_id.into(),
            is_stage_incomplete.into(),
            leftovers::BEING_REMOVED.into(),
            leftovers::KEPT_FOR_RETRY.into(),
            is_undecided.into(),
            matches!(next, NextState::Later(_)).into(),
            (next == NextState::Alone).into(),
            matches!(next, NextState::ByItself | NextState::Waits(_)).into(),
            matches!(next, NextState::Failed | NextState::Canceled).into(),
        ],
    )
}

/// Whether the configuration that an upload was begun with is one that Snowflake refused. Nobody changes it before the
/// transaction ends.
///
/// # Errors
/// If the statement fails.
pub fn is_refused(claim: Claim) -> Result<bool> {
    Spi::connect_mut(|client| {
        let refused = client.update(
            "select from snowflake_bridge.snowflake_configurations c \
             join snowflake_bridge.uploads u on u.config_id = c.id \
             where u.id = $1 and not c.is_active for share of c",
            None,
            &[claim.upload.into()],
        )?;
        Ok(!refused.is_empty())
    })
}

/// Assigns to the columns of a claimed upload; `$3` is the first of `values`.
fn record<'a>(
    claim: Claim,
    assignments: &str,
    values: impl IntoIterator<Item = DatumWithOid<'a>>,
) -> Result<()> {
    let mut arguments = vec![claim.upload.into(), claim.number.into()];
    arguments.extend(values);
    // A state that is compared as an expression says nothing of partial indexes: the plan has to be the one that goes by the id.
    let statement = format!(
        "update snowflake_bridge.uploads u set {assignments} \
         where id = $1 and claim_count = $2 and state || '' in ('claimed', 'staged', 'copying') returning id"
    );
    let is_ours = Spi::connect_mut(|client| {
        let statement = kept_mut(client, &statement, &arguments)?;
        let recorded = client.update(statement, None, &arguments)?;
        Ok::<_, Error>(!recorded.is_empty())
    })?;
    if is_ours {
        Ok(())
    } else {
        Err(Error::TakenOver {
            upload: claim.upload,
        })
    }
}

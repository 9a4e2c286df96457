//! `backfill`: what should have been uploaded and never was.

use pgrx::default;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use super::row::{self, Row, owner_of};
use super::upload::resolve_watch;
use crate::error::{Error, Result};
use crate::owner::{current_role, has_rights_of};
use crate::uploads::{self, NewUpload};
use crate::watches::{Access, Held, Key, Watch, column_type};
use crate::worker::registry::{self, Wake};
use crate::{sandbox, tx};

/// Rows that are looked at together.
const BATCH: i64 = 1000;

#[pg_extern(volatile, parallel_unsafe)]
fn backfill(
    since: Option<TimestampWithTimeZone>,
    relation: default!(Option<&str>, "null"),
    time_column: default!(&str, "'completed_at'"),
    again: default!(bool, false),
    dry_run: default!(bool, false),
) -> Result<i64, ErrorReport> {
    let period = Period {
        since,
        column: time_column,
    };
    let enter = match dry_run {
        true => uploads::count_missing,
        false => uploads::enqueue_missing,
    };
    Ok(queue_missing(relation, &period, &|found| {
        enter(found, again)
    })?)
}

/// Which executions are looked at, by when they finished.
struct Period<'a> {
    since: Option<TimestampWithTimeZone>,
    column: &'a str,
}

fn queue_missing(
    relation: Option<&str>,
    period: &Period<'_>,
    enter: &dyn Fn(&[NewUpload]) -> Result<usize>,
) -> Result<i64> {
    tx::require_primary("backfill")?;
    sandbox::require_unrestricted()?;
    let watches = match relation {
        Some(_) => vec![resolve_watch(relation)?],
        None => sandbox::as_extension_owner(Watch::all)?
            .into_iter()
            .filter(|watch| has_rights_of(current_role(), watch.owner.oid()))
            .collect(),
    };
    let mut count = 0;
    for watch in &watches {
        if !has_rights_of(current_role(), watch.owner.oid()) {
            let name = watch.existing_name()?;
            return Err(Error::denied(format!("must be owner of table {name}")));
        }
        let held = watch.hold_existing(Access::Read)?;
        count += queue_missing_of(&held, period, enter)?;
    }
    registry::wake_at_commit(Wake::Worker);
    Ok(count)
}

/// Looks through a relation as its owner, and enters in the queue what is missing there, batch by batch.
fn queue_missing_of(
    held: &Held<'_>,
    period: &Period<'_>,
    enter: &dyn Fn(&[NewUpload]) -> Result<usize>,
) -> Result<i64> {
    let (since, time_column) = (period.since, period.column);
    let (watch, name) = (held.watch, &held.name);
    let key = Key::of(watch.relation, &watch.columns.execution_id)?;
    let not_before = match since {
        Some(_) => {
            column_type(watch.relation, time_column).map_err(|_| {
                Error::user(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                    format!("table {name} has no column \"{time_column}\""),
                )
                .hint("Name the column that tells when an execution finished: backfill(…, time_column => …), or pass NULL for all rows.")
            })?;
            format!("and {} >= $2", quote_identifier(time_column))
        }
        None => "and $2 is null".to_owned(),
    };
    let query = held.statement(format!(
        "select {} from {name} where snowflake_enabled and {}::pg_catalog.text = any ($1) and {} is not null {not_before}",
        row::columns(watch, &key),
        quote_identifier(&watch.columns.status),
        key.column
    ));
    let owner = watch.owner.oid();
    query.run(|query| {
        Spi::connect(|client| {
            let mut cursor = sandbox::as_table_owner(owner, || {
                Ok(client.open_cursor(query, &[watch.finished.clone().into(), since.into()]))
            })?;
            let mut count = 0;
            loop {
                let found = sandbox::as_table_owner(owner, || {
                    cursor
                        .fetch(BATCH)?
                        .map(|row| {
                            let row = Row::of(&row)?;
                            Ok(NewUpload {
                                watch_id: watch.id,
                                owner: owner_of(watch, row.user_id.as_deref()),
                                execution_id: row.execution_id,
                                options: row.options,
                                row_user_id: row.user_id,
                                is_shown: false,
                            })
                        })
                        .collect::<Result<Vec<NewUpload>>>()
                })?;
                if found.is_empty() {
                    return Ok(count);
                }
                let queued = sandbox::as_extension_owner(|| enter(&found))?;
                count += i64::try_from(queued).unwrap_or(i64::MAX);
            }
        })
    })
}

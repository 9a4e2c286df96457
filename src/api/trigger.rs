//! The two triggers of a watched relation. Whatever happens in them, the application's statement succeeds.
#![allow(unsafe_code)]

use pgrx::AllocatedByRust;
use pgrx::heap_tuple::PgHeapTuple;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::trigger_support::PgTriggerError;

use crate::error::{Error, Result};
use crate::source::Tuple;
use crate::uploads::{self, NewUpload};
use crate::watches::Watch;
use crate::worker::registry::{self, Wake};
use crate::{sandbox, tx};

/// BEFORE: shows the user that an upload will come. The worker's own updates of the row never fire it.
#[pg_trigger(sql = "
create function snowflake_bridge.mark_pending() returns trigger language c as 'MODULE_PATHNAME', 'mark_pending_wrapper';
")]
fn mark_pending<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, AllocatedByRust>>, PgTriggerError> {
    let new = trigger.new().map(PgHeapTuple::into_owned);
    let is_news = shielded(|| is_news(&watch(trigger)?, trigger));
    Ok(new.map(|mut new| {
        if is_news == Some(true) {
            // A missing column is reported by the AFTER trigger's warning and by check(); the statement goes on.
            let _ = new.set_by_name("snowflake_status", "pending");
            let _ = new.set_by_name("snowflake_error_message", None::<&str>);
        }
        new
    }))
}

/// AFTER: puts the execution in the queue, in the application's own transaction.
#[pg_trigger(sql = "
create function snowflake_bridge.enqueue() returns trigger language c as 'MODULE_PATHNAME', 'enqueue_wrapper';
")]
fn enqueue<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, AllocatedByRust>>, PgTriggerError> {
    match tx::subtransaction(|| enter(trigger, |new| uploads::enqueue(new).map(drop))) {
        // Another transaction has the execution's place in the queue, and may yet be rolled back.
        Err(error) if error.is_lost_conflict() => {
            shielded(|| enter(trigger, uploads::note_missed));
        }
        result => {
            unless_failed(result);
        }
    }
    // What an AFTER trigger returns is ignored.
    Ok(None)
}

/// Hands a row that has just finished to `note`, with the rights of the extension's owner.
fn enter(trigger: &PgTrigger<'_>, note: impl FnOnce(&NewUpload) -> Result<()>) -> Result<()> {
    let watch = watch(trigger)?;
    if is_news(&watch, trigger)? {
        let (new, _) = Tuple::of_trigger(trigger.trigger_data())?;
        let upload = describe(&watch, &new)?;
        sandbox::as_extension_owner(|| note(&upload))?;
        registry::wake_at_commit(Wake::Worker);
    }
    Ok(())
}

/// An error becomes a WARNING, and everything that `work` did is undone.
fn shielded<T>(work: impl FnOnce() -> Result<T>) -> Option<T> {
    unless_failed(tx::subtransaction(work))
}

fn unless_failed<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            let (sqlstate, hint) = error.sqlstate_and_hint();
            // Whoever cancels the statement means the statement.
            let level = match sqlstate {
                PgSqlErrorCode::ERRCODE_QUERY_CANCELED => PgLogLevel::ERROR,
                _ => PgLogLevel::WARNING,
            };
            let report = pgrx::pg_sys::panic::ErrorReport::new(
                sqlstate,
                format!("snowflake_bridge: the result will not be uploaded: {error}"),
                "snowflake_bridge",
            );
            match hint {
                Some(hint) => report.set_hint(hint),
                None => report,
            }
            .report(level);
            None
        }
    }
}

fn watch(trigger: &PgTrigger<'_>) -> Result<Watch> {
    let id = trigger
        .extra_args()
        .ok()
        .and_then(|arguments| arguments.first().and_then(|id| id.parse::<i64>().ok()))
        .ok_or_else(|| Error::invalid("the trigger has no watch as its argument"))?;
    let relation = trigger
        .relation()
        .map(|relation| relation.oid())
        .map_err(|error| Error::invalid(error.to_string()))?;
    sandbox::as_extension_owner(|| {
        match Watch::load(id)? {
        Some(watch) if is_of(relation, watch.relation)? => Ok(watch),
        _ => Err(Error::missing("the relation's watch is gone")
            .hint("Drop the triggers snowflake_bridge_pending and snowflake_bridge_upload, or call snowflake_bridge.watch again.")),
    }
    })
}

/// Whether a row of `relation` is one of `watched`, of which it may be a partition. Anybody who may create triggers can
/// name any watch in one: rows of another table would be uploaded with the rights and the connection of its owner.
fn is_of(relation: pg_sys::Oid, watched: pg_sys::Oid) -> Result<bool> {
    if relation == watched {
        return Ok(true);
    }
    Ok(Spi::get_one_with_args::<bool>(
        "select exists (select from pg_catalog.pg_partition_ancestors($1) a where a.relid = $2)",
        &[relation.into(), watched.into()],
    )? == Some(true))
}

/// Whether the row is finished and enabled now, and was not before, or had another result.
fn is_news(watch: &Watch, trigger: &PgTrigger<'_>) -> Result<bool> {
    let (new, old) = Tuple::of_trigger(trigger.trigger_data())?;
    if !is_due(watch, &new)? {
        return Ok(false);
    }
    let Some(old) = old else {
        return Ok(true);
    };
    if !is_due(watch, &old)? {
        return Ok(true);
    }
    for column in watch.result.watched_columns() {
        if !new.same(&old, column)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_due(watch: &Watch, row: &Tuple) -> Result<bool> {
    if row.text("snowflake_enabled")?.as_deref() != Some("t") {
        return Ok(false);
    }
    let status = row.text(&watch.columns.status)?;
    Ok(status.is_some_and(|status| watch.finished.contains(&status)))
}

fn describe(watch: &Watch, row: &Tuple) -> Result<NewUpload> {
    let execution_id = row.text(&watch.columns.execution_id)?.ok_or_else(|| {
        Error::invalid(format!("column \"{}\" is NULL", watch.columns.execution_id))
    })?;
    let user_id = watch
        .columns
        .user_id
        .as_ref()
        .map(|name| row.text(name))
        .transpose()?
        .flatten();
    Ok(NewUpload {
        watch_id: watch.id,
        owner: super::upload::owner_of(watch, user_id.as_deref()),
        options: super::upload::options(
            row.text("snowflake_options")?.as_deref(),
            row.text("snowflake_table_name")?,
            row.text("snowflake_schema_name")?,
        ),
        execution_id,
        row_user_id: user_id,
    })
}

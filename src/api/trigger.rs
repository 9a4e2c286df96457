//! The triggers of a watched relation. Whatever happens in them, the application's statement succeeds.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::AllocatedByPostgres;
use pgrx::heap_tuple::PgHeapTuple;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::trigger_support::PgTriggerError;

use crate::cached::ReadAt;
use crate::error::{Error, Result};
use crate::finished::{self, shielded, shielded_in_silence};
use crate::source::{Tuple, argument};
use crate::uploads::NewUpload;
use crate::watches::Watch;
use crate::{guards, sandbox, tx};

/// What a trigger returns.
type Row<'a> = Result<Option<PgHeapTuple<'a, AllocatedByPostgres>>, PgTriggerError>;

/// BEFORE, for each row: shows the user that an upload will come. The worker's own updates of the row never fire it.
#[pg_trigger(sql = "
create function snowflake_bridge.mark_pending() returns trigger language c as 'MODULE_PATHNAME', 'mark_pending_wrapper';
")]
fn mark_pending<'a>(trigger: &'a PgTrigger<'a>) -> Row<'a> {
    let marked = match plain_news(trigger) {
        Some(news) => news.and_then(|news| pending(&news.new)),
        // Of what is wrong, the AFTER trigger tells: this one is fired for rows that are not finished too.
        None => shielded_in_silence(|| {
            let (new, old) = Tuple::of_trigger(trigger.trigger_data())?;
            let is_news = is_news(&*watch(trigger)?, &new, old.as_ref())?;
            Ok(is_news.then(|| pending(&new)).flatten())
        })
        .flatten(),
    };
    Ok(marked.map_or_else(|| trigger.new(), Some))
}

/// The row as the user is to see it. Where one of these columns is missing, the statement goes on.
fn pending<'a>(row: &Tuple) -> Option<PgHeapTuple<'a, AllocatedByPostgres>> {
    row.with_texts(&[
        ("snowflake_status", Some("pending")),
        ("snowflake_error_message", None),
    ])
    .ok()
}

/// AFTER, for each row: has the execution put in the queue, in the application's own transaction.
#[pg_trigger(sql = "
create function snowflake_bridge.enqueue() returns trigger language c as 'MODULE_PATHNAME', 'enqueue_wrapper';
")]
fn enqueue<'a>(trigger: &'a PgTrigger<'a>) -> Row<'a> {
    let upload = match plain_news(trigger) {
        Some(None) => None,
        Some(Some(news)) => news
            .plain_description()
            .or_else(|| shielded(|| describe(&news.watch, &news.new))),
        None => shielded(|| {
            let watch = watch(trigger)?;
            let (new, old) = Tuple::of_trigger(trigger.trigger_data())?;
            let is_news = is_news(&watch, &new, old.as_ref())?;
            is_news.then(|| describe(&watch, &new)).transpose()
        })
        .flatten(),
    };
    if let Some(upload) = upload {
        finished::gather(upload);
    }
    // What an AFTER trigger returns is ignored.
    Ok(None)
}

/// BEFORE and AFTER, for each statement: what its rows have brought goes into the queue together.
#[pg_trigger(sql = "
create function snowflake_bridge.gather() returns trigger language c as 'MODULE_PATHNAME', 'gather_wrapper';
")]
fn gather<'a>(trigger: &'a PgTrigger<'a>) -> Row<'a> {
    match (trigger.level(), trigger.when()?) {
        (PgTriggerLevel::Statement, PgTriggerWhen::Before) => finished::begin_statement(),
        (PgTriggerLevel::Statement, _) => finished::end_statement(),
        (PgTriggerLevel::Row, _) => {}
    }
    Ok(trigger.new())
}

thread_local! {
    /// Watches, by their id and the relation of the trigger that names it.
    static WATCHES: RefCell<HashMap<(i64, pg_sys::Oid), (ReadAt, Rc<Watch>)>> = RefCell::default();
}

/// The watch that a trigger names, if it is known and has not changed.
fn known_watch(id: i64, relation: pg_sys::Oid) -> Option<Rc<Watch>> {
    WATCHES.with_borrow(|watches| {
        let (read_at, watch) = watches.get(&(id, relation))?;
        read_at.holds().then(|| Rc::clone(watch))
    })
}

/// The watch that a trigger names. Whoever changes one changes the relation's triggers too.
fn watch(trigger: &PgTrigger<'_>) -> Result<Rc<Watch>> {
    let id = argument(trigger.trigger_data())
        .ok_or_else(|| Error::invalid("the trigger has no watch as its argument"))?;
    let relation = trigger
        .relid()
        .map_err(|error| Error::invalid(error.to_string()))?;
    if let Some(watch) = known_watch(id, relation) {
        return Ok(watch);
    }
    let read_at = ReadAt::now();
    let watch = tx::with_latest_snapshot(|| {
        sandbox::as_extension_owner(|| {
            match Watch::load(id)? {
            Some(watch) if is_of(relation, watch.relation)? => Ok(Rc::new(watch)),
            _ => Err(Error::missing("the relation's watch is gone")
                .hint("Drop the triggers snowflake_bridge_pending and snowflake_bridge_upload, or call snowflake_bridge.watch again.")),
        }
        })
    })?;
    let read_at = read_at.depending_on([relation, watch.relation]);
    WATCHES.with_borrow_mut(|watches| {
        watches.retain(|_, (read_at, _)| read_at.holds());
        watches.insert((id, relation), (read_at, Rc::clone(&watch)))
    });
    Ok(watch)
}

/// Whether a row of `relation` is one of `watched`, of which it may be a partition. Anybody who may create triggers can
/// name any watch in one: rows of another table would be uploaded with the rights and the connection of its owner.
fn is_of(relation: pg_sys::Oid, watched: pg_sys::Oid) -> Result<bool> {
    if relation == watched || !guards::ON {
        return Ok(true);
    }
    Ok(tx::read::<bool>(
        "select exists (select from pg_catalog.pg_partition_ancestors($1) a where a.relid = $2)",
        &[relation.into(), watched.into()],
    )? == Some(true))
}

/// A row that is news, with its watch.
struct News {
    watch: Rc<Watch>,
    new: Tuple,
}

impl News {
    /// As [`describe`], as far as looking at the row tells.
    fn plain_description(&self) -> Option<NewUpload> {
        let Self { watch, new } = self;
        if new.plain_text("snowflake_options")?.is_some() {
            return None;
        }
        let user_id = match &watch.columns.user_id {
            Some(name) => new.plain_text(name)?,
            None => None,
        };
        let text = |name| Some(new.plain_text(name)?.map(str::to_owned));
        Some(NewUpload {
            watch_id: watch.id,
            owner: super::row::owner_of(watch, user_id),
            options: super::row::options(
                None,
                text("snowflake_table_name")?,
                text("snowflake_schema_name")?,
            ),
            execution_id: text(&watch.columns.execution_id)??,
            row_user_id: user_id.map(str::to_owned),
            is_shown: is_shown(new),
        })
    }
}

/// The news that a row brings, if it does, as far as looking at it tells. Nothing in here can fail, so that no subtransaction is
/// needed: for most rows of most statements, that is all.
fn plain_news(trigger: &PgTrigger<'_>) -> Option<Option<News>> {
    let data = trigger.trigger_data();
    let watch = known_watch(argument(data)?, trigger.relid().ok()?)?;
    let (new, old) = Tuple::of_trigger(data).ok()?;
    if !is_plainly_due(&watch, &new)? {
        return Some(None);
    }
    if let Some(old) = &old
        && is_plainly_due(&watch, old)?
    {
        let mut columns = watch.result.watched_columns();
        let is_same = columns.all(|column| new.is_stored_alike(old, column));
        return is_same.then_some(None);
    }
    Some(Some(News { watch, new }))
}

/// Whether the row is finished and enabled now, and was not before, or had another result.
fn is_news(watch: &Watch, new: &Tuple, old: Option<&Tuple>) -> Result<bool> {
    if !is_due(watch, new)? {
        return Ok(false);
    }
    let Some(old) = old else {
        return Ok(true);
    };
    if !is_due(watch, old)? {
        return Ok(true);
    }
    for column in watch.result.watched_columns() {
        if !new.same(old, column)? {
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

fn is_plainly_due(watch: &Watch, row: &Tuple) -> Option<bool> {
    if row.plain_text("snowflake_enabled")? != Some("t") {
        return Some(false);
    }
    let status = row.plain_text(&watch.columns.status)?;
    Some(status.is_some_and(|status| watch.finished.iter().any(|name| name == status)))
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
        owner: super::row::owner_of(watch, user_id.as_deref()),
        options: super::row::options(
            row.text("snowflake_options")?.as_deref(),
            row.text("snowflake_table_name")?,
            row.text("snowflake_schema_name")?,
        ),
        execution_id,
        row_user_id: user_id,
        is_shown: is_shown(row),
    })
}

/// Whether the row says what the mirror would write to it: [`mark_pending`] has, and its number of attempts is of no earlier upload.
fn is_shown(row: &Tuple) -> bool {
    row.plain_text("snowflake_status") == Some(Some("pending"))
        && row.plain_text("snowflake_error_message") == Some(None)
        && matches!(
            row.plain_integer("snowflake_attempt_count"),
            Some(None | Some(0))
        )
}

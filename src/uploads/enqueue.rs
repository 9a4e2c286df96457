//! How executions get into the queue: one, many at once, or as word for the worker to do it.

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;

use super::{entry, no_row};
use crate::error::{Error, Result};
use crate::owner::Owner;
use crate::statement::kept_mut;

/// What to enter in the queue.
pub struct NewUpload {
    pub watch_id: i64,
    pub execution_id: String,
    pub owner: Owner,
    pub row_user_id: Option<String>,
    /// A JSON object.
    pub options: String,
    /// The row says already that an upload waits.
    pub is_shown: bool,
}

/// What is told of an execution.
macro_rules! columns {
    () => {
        "watch_id, execution_id, user_id, owner_kind, owner_oid, row_user_id, options"
    };
}

/// What is entered in the queue.
macro_rules! insert {
    () => {
        concat!(
            "insert into snowflake_bridge.uploads as u (",
            columns!(),
            ", needs_mirror)"
        )
    };
}

/// The upload that already waits for an execution covers the change.
macro_rules! on_conflict {
    () => {
        " on conflict (watch_id, execution_id) where state = 'queued' do update set \
            generation = u.generation + 1, user_id = excluded.user_id, owner_kind = excluded.owner_kind, \
            owner_oid = excluded.owner_oid, row_user_id = excluded.row_user_id, options = excluded.options, \
            next_attempt_at = least(u.next_attempt_at, now()), needs_mirror = u.needs_mirror or excluded.needs_mirror"
    };
}

/// A query for what [`arguments`] holds, and for more of it.
macro_rules! listed {
    ($more:literal) => {
        concat!(
            " select e.watch_id, e.execution_id, e.user_id, e.owner_kind, e.owner_oid::oid, e.row_user_id, e.options::jsonb",
            $more,
            " from unnest($1, $2, $3, $4, $5, $6, $7, $8) as e (",
            columns!(),
            ", is_shown)"
        )
    };
}
pub(super) use {columns, insert, listed};

/// The arguments of a statement for many, column by column.
pub(super) fn arguments(uploads: &[NewUpload]) -> [DatumWithOid<'_>; 8] {
    fn column<'a, T>(uploads: &'a [NewUpload], value: impl Fn(&'a NewUpload) -> T) -> Vec<T> {
        uploads.iter().map(value).collect()
    }
    [
        column(uploads, |new| new.watch_id).into(),
        column(uploads, |new| new.execution_id.as_str()).into(),
        column(uploads, |new| new.owner.user_id()).into(),
        column(uploads, |new| new.owner.kind()).into(),
        // An array of OIDs would have NULL for 0.
        column(uploads, |new| i64::from(new.owner.oid().to_u32())).into(),
        column(uploads, |new| new.row_user_id.as_deref()).into(),
        column(uploads, |new| new.options.as_str()).into(),
        column(uploads, |new| new.is_shown).into(),
    ]
}

/// Puts an execution in the queue, or lets the upload that already waits for it cover the change. The row lock this
/// takes keeps the worker from reading the execution before the caller's transaction has ended.
///
/// # Errors
/// If the statement fails.
pub fn enqueue(new: &NewUpload) -> Result<i64> {
    const ENQUEUE: &str = concat!(
        insert!(),
        " values ($1, $2, $3, $4, $5, $6, $7::jsonb, not $8)",
        on_conflict!(),
        " returning id"
    );
    let id = Spi::connect_mut(|client| {
        let args = [
            new.watch_id.into(),
            new.execution_id.as_str().into(),
            new.owner.user_id().into(),
            new.owner.kind().into(),
            new.owner.oid_argument(),
            new.row_user_id.as_deref().into(),
            new.options.as_str().into(),
            new.is_shown.into(),
        ];
        let queued = client.update(kept_mut(client, ENQUEUE, &args)?, None, &args)?;
        Ok::<_, Error>(queued.first().get_one::<i64>()?)
    })?;
    id.ok_or_else(no_row)
}

/// The same for many, of which none may be there twice: all of them or none.
///
/// # Errors
/// If the statement fails.
pub fn enqueue_all(uploads: &[NewUpload]) -> Result<()> {
    const ENQUEUE: &str = concat!(insert!(), listed!(", not e.is_shown"), on_conflict!());
    match uploads {
        [] => Ok(()),
        [new] => enqueue(new).map(drop),
        _ => write(ENQUEUE, uploads),
    }
}

/// The same for an execution that has just finished, of which most likely none waits.
///
/// # Errors
/// `23505` if somebody else has entered it at the same moment, which a statement would have noticed; else as [`enqueue_all`].
pub fn enqueue_finished(uploads: &[NewUpload]) -> Result<()> {
    match uploads {
        [new] if entry::insert(new)? => Ok(()),
        _ => enqueue_all(uploads),
    }
}

/// Leaves word of executions that cannot be entered in the queue now, because another transaction is at one of them or the queue
/// cannot be written. Waits for nobody.
///
/// # Errors
/// If the statement fails.
pub fn note_missed(uploads: &[NewUpload]) -> Result<()> {
    const NOTE: &str = concat!(
        "insert into snowflake_bridge.missed (",
        columns!(),
        ")",
        listed!("")
    );
    write(NOTE, uploads)
}

fn write(statement: &'static str, uploads: &[NewUpload]) -> Result<()> {
    Spi::connect_mut(|client| {
        let args = arguments(uploads);
        client.update(kept_mut(client, statement, &args)?, None, &args)?;
        Ok(())
    })
}

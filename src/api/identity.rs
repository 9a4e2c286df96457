//! Who the extension takes the caller for: what row level security compares a row's owner with.

use pgrx::pg_sys::{self, panic::ErrorReport};
use pgrx::prelude::*;

use crate::owner::Owner;

/// One row, in which the OID of a JWT subject, 0, is NULL. The policies ask for it once per query, not once per row.
#[pg_extern(stable, parallel_restricted)]
fn caller() -> Result<
    TableIterator<
        'static,
        (
            name!(owner_kind, String),
            name!(user_id, String),
            name!(owner_oid, Option<pg_sys::Oid>),
        ),
    >,
    ErrorReport,
> {
    let owner = Owner::current()?;
    let row = (
        owner.kind().to_owned(),
        owner.user_id().to_owned(),
        Some(owner.oid()),
    );
    Ok(TableIterator::once(row))
}

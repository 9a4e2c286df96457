//! Statements that run with every UPDATE of somebody's, or with every upload: parsed and planned once in a process, as PL/pgSQL
//! does it.

use std::cell::RefCell;
use std::collections::HashMap;

use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, SpiClient};

use crate::error::Result;

thread_local! {
    /// By their text, and the size of the queue that they were planned for. Never given back: they live as long as the process.
    static KEPT: RefCell<HashMap<(&'static str, u32), &'static OwnedPreparedStatement>> = RefCell::default();
}

/// The plan of a statement on our own tables or the catalog, with parameters of these types. PostgreSQL itself makes it anew
/// when what it names has changed.
///
/// # Errors
/// If it cannot be parsed.
pub fn kept(
    client: &SpiClient<'_>,
    text: &'static str,
    types: &[PgBuiltInOids],
) -> Result<&'static OwnedPreparedStatement> {
    planned(client, text, 0, types)
}

/// As [`kept`], for a statement whose best plan depends on how large the queue is: a plan for each power of two. What waits may
/// grow to a million rows long before statistics say so, and a plan for an empty table would read them all.
///
/// # Errors
/// If it cannot be parsed.
pub fn kept_for_queue(
    client: &SpiClient<'_>,
    text: &'static str,
    types: &[PgBuiltInOids],
) -> Result<&'static OwnedPreparedStatement> {
    const SIZE: &str = "select pg_catalog.pg_relation_size('snowflake_bridge.uploads')";
    let size = client
        .select(kept(client, SIZE, &[])?, Some(1), &[])?
        .first()
        .get_one::<i64>()?;
    // A row takes some hundred bytes; 0 is for statements that do not depend on it.
    let class = 1 + size.unwrap_or(0).max(1).ilog2();
    planned(client, text, class, types)
}

fn planned(
    client: &SpiClient<'_>,
    text: &'static str,
    class: u32,
    types: &[PgBuiltInOids],
) -> Result<&'static OwnedPreparedStatement> {
    if let Some(statement) = KEPT.with_borrow(|kept| kept.get(&(text, class)).copied()) {
        return Ok(statement);
    }
    let types: Vec<PgOid> = types.iter().map(|kind| kind.oid()).collect();
    let statement: &'static _ = Box::leak(Box::new(client.prepare_mut(text, &types)?.keep()));
    KEPT.with_borrow_mut(|kept| kept.insert((text, class), statement));
    Ok(statement)
}

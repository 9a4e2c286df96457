//! Statements that run with every UPDATE of somebody's: parsed and planned once in a process, as PL/pgSQL does it.

use std::cell::RefCell;
use std::collections::HashMap;

use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, SpiClient};

use crate::error::Result;

thread_local! {
    /// By their text. Never given back: they live as long as the process.
    static KEPT: RefCell<HashMap<&'static str, &'static OwnedPreparedStatement>> = RefCell::default();
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
    if let Some(statement) = KEPT.with_borrow(|kept| kept.get(text).copied()) {
        return Ok(statement);
    }
    let types: Vec<PgOid> = types.iter().map(|kind| kind.oid()).collect();
    let statement: &'static _ = Box::leak(Box::new(client.prepare_mut(text, &types)?.keep()));
    KEPT.with_borrow_mut(|kept| kept.insert(text, statement));
    Ok(statement)
}

//! Columns of the table that take no NULL, where the result brings some.

use super::Upload;
use super::assignment::list;
use super::step::Step;
use super::strategy::{Match, Strategy};
use super::table::Existing;
use crate::error::{Error, ErrorKind, Result};
use crate::names::shown;
use crate::snowflake::sql;
use crate::types::Column;

/// The steps after which the table takes the result's NULLs: those that it has, and those that stand for columns that it
/// lacks. A key by which rows are matched stays as it is.
///
/// # Errors
/// `Configuration` when the result has a NULL for a primary key.
pub(super) fn steps(
    upload: &Upload,
    columns: &[Column],
    assigned: &[Option<usize>],
    existing: &[Existing],
) -> Result<Vec<Step>> {
    if !upload.evolve_schema || upload.manifest.rows == 0 {
        return Ok(Vec::new());
    }
    let keys = match &upload.strategy {
        Strategy::Upsert(Match::Keys(keys)) => keys.as_slice(),
        _ => &[],
    };
    let mut steps = Vec::new();
    for (column, index) in columns.iter().zip(assigned) {
        let Some(present) = index.and_then(|index| existing.get(index)) else {
            continue;
        };
        if present.is_nullable || !column.has_nulls || keys.contains(&column.name) {
            continue;
        }
        if present.is_primary_key {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!(
                    "column {} of table {} is a primary key and takes no NULL, and the result has a NULL for it",
                    shown(&present.name),
                    upload.target
                ),
            )
            .with_hint("Leave such rows out of the result, or drop the key in Snowflake."));
        }
        steps.push(step(upload, present, "has a NULL for it"));
    }
    for present in unfilled(assigned, existing) {
        // That one is refused when nothing else is left to do.
        if !present.is_primary_key {
            steps.push(step(upload, present, "has no such column"));
        }
    }
    Ok(steps)
}

fn step(upload: &Upload, column: &Existing, why: &str) -> Step {
    let table = &upload.target;
    let mut step = Step::new(sql::drop_not_null(table, &column.name));
    step.purpose = Some((
        format!(
            "column {} of table {table} is NOT NULL, the result {why}, and its NOT NULL cannot be dropped",
            shown(&column.name)
        ),
        "Drop it in Snowflake, let the role own the table, or fill the column in the result."
            .to_owned(),
    ));
    step
}

/// Refuses rows that a column would get no value from, where it takes no NULL.
///
/// # Errors
/// `Configuration` with the names of these columns.
pub(super) fn require_filled(
    upload: &Upload,
    assigned: &[Option<usize>],
    existing: &[Existing],
) -> Result<()> {
    let names: Vec<String> = unfilled(assigned, existing)
        .map(|column| column.name.clone())
        .collect();
    if names.is_empty() || upload.manifest.rows == 0 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Configuration,
        format!(
            "table {} has columns that take no NULL and have no default, and the result has none of these names: {}",
            upload.target,
            list(&names)
        ),
    )
    .with_hint("Drop their NOT NULL in Snowflake, give them a default, or add them to the result."))
}

/// The columns that neither the result nor Snowflake fills, and that take no NULL.
fn unfilled<'a>(
    assigned: &[Option<usize>],
    existing: &'a [Existing],
) -> impl Iterator<Item = &'a Existing> {
    existing
        .iter()
        .enumerate()
        .filter(|(index, column)| {
            !column.is_nullable && !column.has_default && !assigned.contains(&Some(*index))
        })
        .map(|(_, column)| column)
}

#[cfg(test)]
mod tests;

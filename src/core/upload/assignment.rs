//! Which column of a table takes which column of a result, by their names.

use std::collections::HashMap;

use super::Upload;
use super::table::Existing;
use crate::error::{Error, ErrorKind, Result};
use crate::names::shown;
use crate::types::Column;

/// Which column of the table each column of the upload goes into: the one of exactly its name, else the only one whose
/// name differs in case alone and that no other column of the upload is named like.
pub(super) fn assign(
    upload: &Upload,
    columns: &[Column],
    existing: &[Existing],
) -> Result<Vec<Option<usize>>> {
    let by_name: HashMap<&str, usize> = existing
        .iter()
        .enumerate()
        .map(|(index, column)| (column.name.as_str(), index))
        .collect();
    let mut assigned: Vec<Option<usize>> = columns
        .iter()
        .map(|column| by_name.get(column.name.as_str()).copied())
        .collect();
    if assigned.iter().all(Option::is_some) {
        return Ok(assigned);
    }
    let taken: Vec<usize> = assigned.iter().flatten().copied().collect();
    let mut by_folded: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, column) in existing.iter().enumerate() {
        if !taken.contains(&index) {
            by_folded
                .entry(column.name.to_lowercase())
                .or_default()
                .push(index);
        }
    }
    let mut by_case: HashMap<usize, &str> = HashMap::new();
    for (column, place) in columns.iter().zip(&mut assigned) {
        if place.is_some() {
            continue;
        }
        let ambiguous = |what: String| {
            Error::new(
                ErrorKind::Configuration,
                format!("table {}: {what}, which differ in case only", upload.target),
            )
            .with_hint("Rename one of them, so that one name is exactly the other's.")
        };
        match by_folded
            .get(&column.name.to_lowercase())
            .map(Vec::as_slice)
        {
            None | Some([]) => {}
            Some([only]) => {
                if let Some(other) = by_case.insert(*only, &column.name) {
                    return Err(ambiguous(format!(
                        "the columns {} and {} of the result both fit its column {}",
                        shown(other),
                        shown(&column.name),
                        existing
                            .get(*only)
                            .map_or_else(String::new, |existing| shown(&existing.name))
                    )));
                }
                *place = Some(*only);
            }
            Some(several) => {
                let names: Vec<String> = several
                    .iter()
                    .filter_map(|index| existing.get(*index))
                    .map(|column| column.name.clone())
                    .collect();
                return Err(ambiguous(format!(
                    "the column {} of the result could go into {}",
                    shown(&column.name),
                    list(&names)
                )));
            }
        }
    }
    Ok(assigned)
}

/// What a table that was loaded into calls a column of the stamp: exactly that, else the same in another case.
pub(super) fn name_of(column: &str, existing: &[Existing]) -> String {
    let exact = existing.iter().find(|existing| existing.name == column);
    let folded = column.to_lowercase();
    let found = exact.or_else(|| {
        existing
            .iter()
            .find(|existing| existing.name.to_lowercase() == folded)
    });
    found.map_or_else(|| column.to_owned(), |existing| existing.name.clone())
}

/// Names as a message shows them.
pub(super) fn list(names: &[String]) -> String {
    names
        .iter()
        .map(|name| shown(name))
        .collect::<Vec<_>>()
        .join(", ")
}

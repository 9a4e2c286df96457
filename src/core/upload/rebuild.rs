//! A column whose type no ALTER can change: rebuilt beside itself, and put in its place.
//!
//! ```text
//! N                       ADD COLUMN N…to
//! N          N…to         UPDATE N…to = N; RENAME N TO N…was           (from here on nobody writes to N)
//! N…was      N…to         UPDATE N…to = N…was where it changed meanwhile; RENAME N…to TO N
//! N          N…was        UPDATE N = N…was where something came late; RENAME N…was TO N…old
//! N          N…old        DROP N…old
//! N
//! ```
//!
//! What takes long, and what can fail for the data's sake, is done before the column leaves its place.
//! The names in the table are the whole state. Whoever looks at it, also after somebody died at any step or while others do
//! the same, knows the next step, and a step that somebody else has taken fails and does no harm. The helper columns
//! are named by the types they are for: scales only grow, so that no name comes back with another meaning.

use super::step::Step;
use super::table::Existing;
use crate::error::{Error, ErrorKind, Result};
use crate::names::{MAX_NAME_CHARACTERS, shown};
use crate::snowflake::sql::{self, TableName};

/// In front of the type that a helper column brings.
const TO: &str = "__snowflake_bridge_to_";
/// In front of the type that the column had.
const WAS: &str = "__snowflake_bridge_was_";
/// The same, once all its values are in the new column: nothing is taken from it any more, however long it cannot be dropped.
const OLD: &str = "__snowflake_bridge_old_";

/// What is to be done about a column.
pub(super) enum Rebuild {
    /// It is no rebuilt column, nor has it to become one.
    Nothing,
    /// These, in order, and then another look.
    Steps(Vec<Step>),
    /// It would have to be rebuilt, but cannot be.
    Impossible,
}

/// The next steps for the column `name`, given what there is in the table. `wanted` is the type that it should have
/// instead of its own, as far as this upload is concerned.
///
/// # Errors
/// If the columns are in a state that none of these steps leads to.
pub(super) fn next(
    table: &TableName,
    name: &str,
    existing: &[Existing],
    wanted: Option<&str>,
) -> Result<Rebuild> {
    let column = existing.iter().find(|column| column.name == name);
    let to = helper(existing, name, TO);
    let was = helper(existing, name, WAS);
    let mut steps = Vec::new();
    if let Some(old) = helper(existing, name, OLD) {
        let mut drop = Step::new(sql::drop_column(table, &old.name));
        drop.is_optional = true;
        steps.push(drop);
    }
    let next = match (column, to, was) {
        (Some(column), None, None) => match wanted {
            None => Vec::new(),
            Some(wanted) => {
                let (Some(to), Some(_)) = (
                    helper_name(name, TO, wanted),
                    helper_name(name, WAS, &column.column_type),
                ) else {
                    return Ok(Rebuild::Impossible);
                };
                if !column.can_be_rebuilt() {
                    return Ok(Rebuild::Impossible);
                }
                let mut add = Step::new(format!(
                    "ALTER TABLE {} ADD COLUMN {} {wanted}",
                    table.quoted(),
                    sql::quote_ident(&to)
                ));
                add.rebuilds = Some((name.to_owned(), clustered(table, column, wanted)));
                vec![add]
            }
        },
        // Begun by somebody who had looked before another one was through.
        (Some(column), Some(to), _) if column.column_type == to.column_type => {
            let mut drop = Step::new(sql::drop_column(table, &to.name));
            drop.is_optional = true;
            vec![drop]
        }
        (Some(column), Some(to), None) => match wanted {
            // Whoever began has died or goes on; the column still takes everything that this upload has.
            None => Vec::new(),
            Some(wanted) if to.column_type == wanted => {
                match helper_name(name, WAS, &column.column_type) {
                    Some(was) if column.can_be_rebuilt() => {
                        let mut copy = Step::update(sql::equal_column(table, name, &to.name));
                        copy.undo = Some((
                            vec![sql::drop_column(table, &to.name)],
                            does_not_fit(table, name, column, to),
                        ));
                        vec![copy, Step::new(sql::rename_column(table, name, &was))]
                    }
                    _ => return Ok(Rebuild::Impossible),
                }
            }
            // Begun for another type, and only a copy so far.
            Some(_) => vec![Step::new(sql::drop_column(table, &to.name))],
        },
        (None, Some(to), Some(was)) => {
            let mut copy = Step::update(sql::equal_column(table, &was.name, &to.name));
            copy.undo = Some((
                vec![
                    sql::rename_column(table, &was.name, name),
                    sql::drop_column(table, &to.name),
                ],
                does_not_fit(table, name, was, to),
            ));
            vec![copy, Step::new(sql::rename_column(table, &to.name, name))]
        }
        (Some(_), None, Some(was)) => {
            // A load that had begun before may have ended after the values were copied.
            let mut steps = vec![
                Step::update(sql::copy_column(table, &was.name, name)),
                Step::new(sql::rename_column(
                    table,
                    &was.name,
                    &was.name.replacen(WAS, OLD, 1),
                )),
            ];
            for step in &mut steps {
                step.is_optional = wanted.is_none();
            }
            steps
        }
        // Somebody took the column away who had looked at the table too early.
        (None, None, Some(was)) => vec![Step::new(sql::rename_column(table, &was.name, name))],
        (Some(_), Some(to), Some(was)) => return Err(contradiction(table, name, to, was)),
        (None, _, None) => Vec::new(),
    };
    steps.extend(next);
    Ok(if steps.is_empty() {
        Rebuild::Nothing
    } else {
        Rebuild::Steps(steps)
    })
}

/// Whether the table has a helper column.
pub(super) fn is_going_on(existing: &[Existing]) -> bool {
    existing
        .iter()
        .any(|column| [TO, WAS, OLD].iter().any(|sort| column.name.contains(sort)))
}

/// What a column is called that is being rebuilt and not there under its name: `name`, or the same in another case.
pub(super) fn name_while_rebuilt<'a>(existing: &'a [Existing], name: &'a str) -> &'a str {
    let names = || {
        existing
            .iter()
            .filter_map(|column| Some(column.name.rsplit_once(WAS)?.0))
    };
    if names().any(|of| of == name) {
        return name;
    }
    let folded = name.to_lowercase();
    names()
        .find(|of| of.to_lowercase() == folded)
        .unwrap_or(name)
}

/// The helper column of `name` of this sort.
fn helper<'a>(existing: &'a [Existing], name: &str, sort: &str) -> Option<&'a Existing> {
    existing.iter().find(|column| {
        column
            .name
            .rsplit_once(sort)
            .is_some_and(|(of, _)| of == name)
    })
}

/// `N__snowflake_bridge_to_38_10` for N and `NUMBER(38,10)`; `None` if that is too long.
fn helper_name(name: &str, sort: &str, column_type: &str) -> Option<String> {
    let digits = column_type
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .trim_end_matches(')')
        .replace(',', "_");
    let helper = format!("{name}{sort}{digits}");
    (helper.chars().count() <= MAX_NAME_CHARACTERS).then_some(helper)
}

fn does_not_fit(table: &TableName, name: &str, was: &Existing, to: &Existing) -> Error {
    Error::new(
        ErrorKind::Configuration,
        format!(
            "column {} of table {table} is {}, the result's is {}, and not all values in the table fit into that",
            shown(name),
            was.column_type,
            to.column_type
        ),
    )
    .with_hint("Load into another table (snowflake_table_name).")
}

fn clustered(table: &TableName, column: &Existing, wanted: &str) -> Error {
    Error::new(
        ErrorKind::Configuration,
        format!(
            "column {} of table {table} is {}, the result's is {wanted}, and the table is clustered by it: Snowflake would not drop the old column",
            shown(&column.name),
            column.column_type
        ),
    )
    .with_hint("Drop the clustering key in Snowflake (ALTER TABLE … DROP CLUSTERING KEY) and set it again afterwards, or load into another table (snowflake_table_name).")
}

fn contradiction(table: &TableName, name: &str, to: &Existing, was: &Existing) -> Error {
    Error::new(
        ErrorKind::Configuration,
        format!(
            "table {table} has the columns {}, {} and {}: its column was made anew while it was being rebuilt",
            shown(name),
            shown(&to.name),
            shown(&was.name)
        ),
    )
    .with_hint("Bring the values of the last one where they belong, and drop the two helper columns in Snowflake.")
}

#[cfg(test)]
mod tests;

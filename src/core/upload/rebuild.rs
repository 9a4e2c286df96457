//! A column whose type no ALTER can change: rebuilt beside itself, and put in its place.
//!
//! ```text
//! N                              ADD COLUMN N…to, N…set
//! N          N…to    N…set       UPDATE N…to = N; RENAME N TO N…was           (from here on nobody writes to N)
//! N…was      N…to    N…set       UPDATE N…to = N…was where it changed meanwhile; RENAME N…to TO N
//! N          N…was   N…set       UPDATE N = N…was where a row came late; RENAME N…was TO N…old
//! N          N…old   N…set       DROP N…old, N…set
//! N
//! ```
//!
//! Whatever copies a value marks its row in `N…set`. A row that came late, from a load that had begun before, is not marked
//! and has its value in `N…was`; a row that is marked and NULL has become NULL since, and stays so.
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
/// In front of the type that a column gets: true in the rows whose value has been copied.
const SET: &str = "__snowflake_bridge_set_";

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
    let set = helper(existing, name, SET);
    // What marks the rows of a copy goes with it, and in one statement: after it, so that one who comes too late fails.
    let drop = |column: &Existing| {
        let mut columns = vec![column.name.as_str()];
        columns.extend(set.map(|set| set.name.as_str()));
        sql::drop_columns(table, &columns)
    };
    let optional = |statement| Step {
        is_optional: true,
        ..Step::new(statement)
    };
    let mut steps = Vec::new();
    match (helper(existing, name, OLD), to, was, set) {
        (Some(old), None, None, _) => steps.push(optional(drop(old))),
        (Some(old), ..) => steps.push(optional(sql::drop_columns(table, &[&old.name]))),
        (None, None, None, Some(set)) => {
            steps.push(optional(sql::drop_columns(table, &[&set.name])));
        }
        (None, ..) => {}
    }
    let next = match (column, to, was) {
        (Some(column), None, None) => match wanted {
            None => Vec::new(),
            Some(wanted) => {
                let (Some(to), Some(_), Some(set)) = (
                    helper_name(name, TO, wanted),
                    helper_name(name, WAS, &column.column_type),
                    helper_name(name, SET, wanted),
                ) else {
                    return Ok(Rebuild::Impossible);
                };
                if !column.can_be_rebuilt() {
                    return Ok(Rebuild::Impossible);
                }
                let mut add = Step::new(format!(
                    "ALTER TABLE {} ADD COLUMN {} {wanted}, {} BOOLEAN",
                    table.quoted(),
                    sql::quote_ident(&to),
                    sql::quote_ident(&set)
                ));
                add.rebuilds = Some((name.to_owned(), clustered(table, column, wanted)));
                vec![add]
            }
        },
        // Begun by somebody who had looked before another one was through.
        (Some(column), Some(to), was) if column.column_type == to.column_type => {
            vec![optional(match was {
                // That one is not through yet, and needs its marks.
                Some(_) => sql::drop_columns(table, &[&to.name]),
                None => drop(to),
            })]
        }
        (Some(column), Some(to), None) => match (wanted, set) {
            // Whoever began has died or goes on; the column still takes everything that this upload has.
            (None, _) => Vec::new(),
            (Some(wanted), Some(set)) if to.column_type == wanted => {
                match helper_name(name, WAS, &column.column_type) {
                    Some(was) if column.can_be_rebuilt() => {
                        let mut copy =
                            Step::update(sql::equal_column(table, name, &to.name, &set.name));
                        copy.undo = Some((vec![drop(to)], does_not_fit(table, name, column, to)));
                        vec![copy, Step::new(sql::rename_column(table, name, &was))]
                    }
                    _ => return Ok(Rebuild::Impossible),
                }
            }
            // Begun for another type, or nobody knows for which rows, and only a copy so far.
            (Some(_), _) => vec![Step::new(drop(to))],
        },
        (None, Some(to), Some(was)) => {
            let back = sql::rename_column(table, &was.name, name);
            let Some(set) = set else {
                // Somebody took the marks away; the old column still has every value.
                return Ok(Rebuild::Steps(vec![Step::new(back)]));
            };
            let mut copy = Step::update(sql::equal_column(table, &was.name, &to.name, &set.name));
            copy.undo = Some((vec![back, drop(to)], does_not_fit(table, name, was, to)));
            vec![copy, Step::new(sql::rename_column(table, &to.name, name))]
        }
        (Some(_), None, Some(was)) => {
            // A load that had begun before may have ended after the values were copied.
            let copy =
                set.map(|set| Step::update(sql::copy_column(table, &was.name, name, &set.name)));
            let old = was.name.replacen(WAS, OLD, 1);
            let mut steps: Vec<Step> = copy.into_iter().collect();
            steps.push(Step::new(sql::rename_column(table, &was.name, &old)));
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
    existing.iter().any(|column| {
        [TO, WAS, OLD, SET]
            .iter()
            .any(|sort| column.name.contains(sort))
    })
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

/// The newest helper column of `name` of this sort.
fn helper<'a>(existing: &'a [Existing], name: &str, sort: &str) -> Option<&'a Existing> {
    existing.iter().rfind(|column| {
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
    .with_hint("Bring the values of the last one where they belong, and drop the helper columns in Snowflake.")
}

#[cfg(test)]
mod tests;

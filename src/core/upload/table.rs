//! The target table: created, looked at, and extended before anything is loaded.
//!
//! Others may do the same at the same time. So nothing is concluded from a statement of our own: the table is looked at,
//! what it lacks is done, and it is looked at again until it lacks nothing. A statement that fails because somebody was
//! faster is not missed on the second look; one that fails twice is an error.

use super::assignment::{assign, list};
use super::clustering::{clustering, is_clustered_by};
use super::nullability;
use super::rebuild::{self, Rebuild};
use super::step::Step;
use super::{OBJECT_MISSING, Upload, execute};
use crate::error::{Error, ErrorKind, Result};
use crate::evolve::{ExistingType, Fit, copy_expression_into};
use crate::failpoint;
use crate::names::shown;
use crate::snowflake::Warehouse;
use crate::snowflake::sql::{self, CopyColumn, TableName};
use crate::types::Column;

/// Why a column is left alone whose type would have to change.
const NOT_REBUILT: &str = "Load into another table (snowflake_table_name), or change the column in Snowflake: what has NOT NULL, a default, a key, \
     a policy, a comment or a very long name, and that by which the table is clustered, is not made anew.";

/// How often the table is looked at before an attempt gives up: a rebuilt column takes five looks when nobody interferes.
const MAX_LOOKS: usize = 24;

/// How often a table is made that is not there afterwards, since somebody has dropped it or since it cannot be seen.
const MAX_CREATIONS: usize = 3;

/// A table that takes every column of the upload.
#[derive(Debug)]
pub(super) struct Target {
    /// How each column is filled, in the order of the manifest, then those with one value for all rows.
    pub(super) columns: Vec<CopyColumn>,
    /// Columns that the upload fills and that take no NULL.
    pub(super) not_null: Vec<String>,
}

impl Target {
    /// What the table calls a column of the result or the stamp.
    pub(super) fn name_of<'a>(&'a self, field: &'a str) -> &'a str {
        self.columns
            .iter()
            .find(|column| column.field == field)
            .map_or(field, |column| column.name.as_str())
    }

    /// How the table's column for one of the upload is filled.
    pub(super) fn column_of(&self, field: &str) -> Result<&CopyColumn> {
        let column = self.columns.iter().find(|column| column.field == field);
        column.ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "a strategy names a column that the result does not have",
            )
        })
    }

    /// An error of Snowflake's about a NULL, with the columns that it may be about: it often names none itself.
    pub(super) fn explain(&self, error: Error) -> Error {
        /// "NULL result in a non-nullable column."
        const NULL_IN_NOT_NULL: &str = "100072";
        if error.code() != Some(NULL_IN_NOT_NULL) || self.not_null.is_empty() {
            return error;
        }
        let columns = list(&self.not_null);
        error.in_context(
            format_args!("the data has a NULL for a column that takes none ({columns})"),
            "Nothing was loaded.",
        )
    }
}

/// A column as DESCRIBE TABLE tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Existing {
    pub(super) name: String,
    pub(super) column_type: String,
    pub(super) is_nullable: bool,
    pub(super) is_primary_key: bool,
    /// Filled by Snowflake where a row brings nothing: a default, or an identity.
    pub(super) has_default: bool,
    /// It is a key, or has a policy or a comment: a column made anew in its place would not.
    pub(super) has_more: bool,
}

impl Existing {
    /// Whether a column of another type can take its place and all else be as it was.
    pub(super) fn can_be_rebuilt(&self) -> bool {
        self.is_nullable && !self.has_default && !self.has_more
    }
}

/// What a look at the table comes to.
enum Look {
    Ready(Target),
    Do(Vec<Step>),
}

/// Makes the table take every column of the upload, and says how COPY fills each. DDL commits whatever transaction is
/// open, so all of it comes before BEGIN.
pub(super) async fn prepare(warehouse: &mut dyn Warehouse, upload: &Upload) -> Result<Target> {
    let mut created = 0;
    let mut failed: Vec<String> = Vec::new();
    let mut wants_optional = true;
    for _ in 0..MAX_LOOKS {
        let steps = match describe(warehouse, &upload.target).await? {
            None if created == MAX_CREATIONS => return Err(unseen(&upload.target)),
            None => {
                let creation = creation(upload)?;
                // Whatever else has failed may be possible with the next one.
                failed.retain(|statement| *statement == creation.statement);
                vec![creation]
            }
            Some(existing) => match look(upload, &existing)? {
                Look::Ready(target) => return Ok(target),
                Look::Do(steps) => steps,
            },
        };
        let steps: Vec<Step> = steps
            .into_iter()
            .filter(|step| wants_optional || !step.is_optional)
            .collect();
        if steps.is_empty() {
            // Only what is optional is left to do; a look that ignores it is ready.
            let existing = describe(warehouse, &upload.target)
                .await?
                .unwrap_or_default();
            return ready(upload, &existing);
        }
        for mut step in steps {
            if let Some((column, refusal)) = step.rebuilds.take()
                && is_clustered_by(warehouse, &upload.target, &column).await?
            {
                return Err(refusal);
            }
            let Err(error) = step.execute(warehouse).await else {
                created += usize::from(step.statement.starts_with("CREATE"));
                failpoint::reach("table-changed")?;
                continue;
            };
            if error.kind().is_retryable() {
                return Err(error);
            }
            if error.kind() == ErrorKind::Data
                && let Some((undo, reason)) = step.undo
            {
                for statement in undo {
                    execute(warehouse, statement).await?;
                }
                return Err(reason);
            }
            if failed.contains(&step.statement) {
                if !step.is_optional {
                    return Err(match step.purpose {
                        Some((purpose, hint)) => error.in_context(purpose, hint),
                        None => error,
                    });
                }
                // Nor will a role that may not do one of them do the others.
                wants_optional = false;
                break;
            }
            // Somebody else may have been faster. What to do next, the table tells.
            failed.push(step.statement);
            break;
        }
    }
    Err(Error::new(
        ErrorKind::Transient,
        format!(
            "table {} is being changed by others all the time",
            upload.target
        ),
    ))
}

fn unseen(table: &TableName) -> Error {
    Error::new(
        ErrorKind::Configuration,
        format!("table {table} was created but cannot be seen"),
    )
    .with_hint(
        "Grant the role SELECT on future tables of the schema, or let the role own the table.",
    )
}

fn creation(upload: &Upload) -> Result<Step> {
    let columns: Vec<Column> = upload.columns().map(|(column, _)| column).collect();
    let cluster_by = clustering(upload)?;
    let mut step = Step::new(sql::create_table(
        &upload.target,
        &columns,
        &cluster_by,
        &upload.comment,
    ));
    step.purpose = Some((
        format!("cannot create table {}", upload.target),
        format!(
            "To create tables, a role needs CREATE TABLE on schema {}.{}; or name a table that exists.",
            sql::quote_ident(&upload.target.database),
            sql::quote_ident(&upload.target.schema)
        ),
    ));
    Ok(step)
}

/// What the table, as it is now, lacks.
fn look(upload: &Upload, existing: &[Existing]) -> Result<Look> {
    let columns: Vec<Column> = upload.columns().map(|(column, _)| column).collect();
    let names = assign(upload, &columns, existing)?;
    let is_rebuilding = rebuild::is_going_on(existing);
    let mut missing = Vec::new();
    let mut steps = Vec::new();
    for (column, assigned) in columns.iter().zip(&names) {
        let table = &upload.target;
        let present = assigned.and_then(|index| existing.get(index));
        let fit = present.map(|present| column.fit(&present.column_type));
        let name = match present {
            Some(present) => present.name.as_str(),
            None if is_rebuilding => rebuild::name_while_rebuilt(existing, &column.name),
            None => column.name.as_str(),
        };
        let wanted = match &fit {
            Some(Fit::Rebuild(wanted)) => Some(wanted.as_str()),
            _ => None,
        };
        if wanted.map_or(is_rebuilding, |_| upload.evolve_schema) {
            match rebuild::next(table, name, existing, wanted) {
                Ok(Rebuild::Steps(next)) if upload.is_alone => {
                    steps.extend(next);
                    continue;
                }
                Ok(Rebuild::Steps(next)) if next.iter().any(|step| !step.is_optional) => {
                    return Err(needs_table(table, name));
                }
                Ok(Rebuild::Steps(_)) => {}
                Ok(Rebuild::Nothing) => {}
                Ok(Rebuild::Impossible) => {
                    return Err(refused(table, column, present).with_hint(NOT_REBUILT));
                }
                Err(error) => return Err(error),
            }
        }
        match fit {
            None if upload.evolve_schema => missing.push(column.clone()),
            None => {
                return Err(not_evolving(
                    table,
                    &format!("it has no column {}", shown(&column.name)),
                ));
            }
            Some(Fit::Widen(wider)) if upload.evolve_schema => {
                let mut widen = Step::new(sql::widen_column(table, name, &wider));
                // It takes ownership of the table, and may not be needed: COPY refuses what is too long, and cuts nothing.
                widen.is_optional = true;
                steps.push(widen);
            }
            Some(Fit::AsIs | Fit::Widen(_)) => {}
            Some(Fit::Rebuild(wider)) => {
                let had = present.map_or("", |present| present.column_type.as_str());
                return Err(not_evolving(
                    table,
                    &format!("its column {} is {had}, and {wider} is needed", shown(name)),
                ));
            }
            Some(Fit::Refused) => return Err(refused(table, column, present)),
        }
    }
    if !missing.is_empty() {
        steps.push(Step::new(sql::add_columns(&upload.target, &missing)));
    }
    steps.extend(nullability::steps(upload, &columns, &names, existing)?);
    if steps.is_empty() {
        ready(upload, existing).map(Look::Ready)
    } else {
        Ok(Look::Do(steps))
    }
}

fn needs_table(table: &TableName, column: &str) -> Error {
    Error::new(
        ErrorKind::NeedsTable,
        format!(
            "column {} of table {table} is made anew for another type, for which the upload waits until nobody loads into the table",
            shown(column)
        ),
    )
}

fn refused(table: &TableName, column: &Column, present: Option<&Existing>) -> Error {
    let had = present.map_or("missing", |present| present.column_type.as_str());
    let name = present.map_or(column.name.as_str(), |present| present.name.as_str());
    Error::new(
        ErrorKind::Configuration,
        format!(
            "column \"{name}\" of table {table} is {had}, but the result's is {}",
            column.column_type.snowflake()
        ),
    )
    .with_hint("Load into another table (snowflake_table_name), or change the result's column.")
}

fn not_evolving(table: &TableName, lack: &str) -> Error {
    Error::new(
        ErrorKind::Configuration,
        format!("table {table} does not take the result: {lack}, and evolve_schema is false"),
    )
    .with_hint("Change the table in Snowflake, or leave evolve_schema out.")
}

/// How each column is filled in a table that has them all.
fn ready(upload: &Upload, existing: &[Existing]) -> Result<Target> {
    let (columns, constants): (Vec<Column>, Vec<Option<String>>) = upload.columns().unzip();
    let names = assign(upload, &columns, existing)?;
    let mut filled = Vec::with_capacity(columns.len());
    let mut not_null = Vec::new();
    for ((column, constant), assigned) in columns.iter().zip(&constants).zip(&names) {
        let Some(present) = assigned.and_then(|index| existing.get(index)) else {
            return Err(unseen(&upload.target));
        };
        if !present.is_nullable {
            not_null.push(present.name.clone());
        }
        let expression = match (constant, ExistingType::parse(&present.column_type)) {
            (Some(value), _) => format!("{}::VARCHAR", sql::quote_literal(value)),
            (None, Some(existing_type)) => copy_expression_into(existing_type, column),
            (None, None) => column.column_type.copy_expression(&column.name),
        };
        filled.push(CopyColumn {
            field: column.name.clone(),
            name: present.name.clone(),
            column_type: present.column_type.clone(),
            expression,
        });
    }
    nullability::require_filled(upload, &names, existing)?;
    Ok(Target {
        columns: filled,
        not_null,
    })
}

/// The columns of the table; `None` if there is no such table.
pub(super) async fn describe(
    warehouse: &mut dyn Warehouse,
    table: &TableName,
) -> Result<Option<Vec<Existing>>> {
    let described = match execute(warehouse, sql::describe_table(table)).await {
        Ok(described) => described,
        Err(error) if error.code() == Some(OBJECT_MISSING) => return Ok(None),
        Err(error) => return Err(error),
    };
    let is_set = |row, attribute| {
        described
            .value(row, attribute)
            .is_some_and(|value| !value.is_empty() && value != "N")
    };
    let columns = (0..described.rows.len())
        .filter_map(|row| {
            Some(Existing {
                name: described.value(row, "name")?.to_owned(),
                column_type: described.value(row, "type")?.to_owned(),
                is_nullable: described.value(row, "null?") != Some("N"),
                is_primary_key: is_set(row, "primary key"),
                has_default: described
                    .value(row, "default")
                    .is_some_and(|default| !default.is_empty()),
                has_more: ["primary key", "unique key", "policy name", "comment"]
                    .iter()
                    .any(|attribute| is_set(row, attribute)),
            })
        })
        .collect();
    Ok(Some(columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_that_is_not_taken_is_explained_by_the_columns_it_can_be_in() {
        let mut target = Target {
            columns: Vec::new(),
            not_null: vec!["A".to_owned(), "B".to_owned()],
        };
        let null = || Error::new(ErrorKind::Data, "a NULL").with_code("100072");
        let explained = target.explain(null());
        assert_eq!(explained.kind(), ErrorKind::Data);
        assert!(explained.message().contains("\"A\", \"B\""), "{explained}");
        let other = target.explain(Error::new(ErrorKind::Data, "a number").with_code("100038"));
        assert_eq!(other.message(), "a number");
        target.not_null.clear();
        assert_eq!(target.explain(null()).message(), "a NULL");
    }
}

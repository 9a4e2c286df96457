//! How new rows meet those that are in the table: what the user asked for, made definite for one result.

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::names::{
    ColumnCase, TIME_WINDOW_END, TIME_WINDOW_START, metadata_columns, result_column_name, shown,
};
use crate::spool::{Manifest, TimeWindow};
use crate::types::{Column, ColumnType};

/// The strategies by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StrategyName {
    /// New rows are added; those of earlier uploads of the same execution go.
    #[default]
    Append,
    /// New rows replace those that are about the same, and are added otherwise.
    Upsert,
    /// The result becomes the content of the table.
    Replace,
}

/// A strategy with all that it needs to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strategy {
    /// New rows are added.
    Append,
    /// New rows replace those that match.
    Upsert(Match),
    /// The result becomes the content of the table.
    Replace,
}

/// Which rows of the table new ones replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Row by row, where these columns of the result are the same. NULL is the same as NULL.
    Keys(Vec<String>),
    /// All rows of the same time window that earlier uploads of the same execution brought.
    Window(TimeWindow),
    /// All rows of the same user whose date is one of the result's.
    Dates(DateColumn),
    /// None: a result without rows and without columns to match by.
    Nothing,
}

/// The column that tells which day a row is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DateColumn {
    /// Its name.
    pub name: String,
    /// Whether it holds moments, of which the day counts (in UTC).
    pub is_timestamp: bool,
}

impl DateColumn {
    /// The result's date column: the one of type DATE; where there is none, the one that holds timestamps; where there
    /// is none either, the one with text whose name says that it is a date. Of several, the one named DATE or DAY.
    ///
    /// # Errors
    /// The names of the candidates where there are several.
    pub fn detect(columns: &[Column]) -> Result<Option<Self>, Vec<String>> {
        let result = result_columns(columns);
        let by_type = |types: &[ColumnType]| -> Vec<&Column> {
            result
                .iter()
                .copied()
                .filter(|column| types.contains(&column.column_type))
                .collect()
        };
        let mut candidates = by_type(&[ColumnType::Date]);
        let mut is_timestamp = false;
        if candidates.is_empty() {
            candidates = by_type(&[ColumnType::TimestampNtz, ColumnType::TimestampTz]);
            is_timestamp = !candidates.is_empty();
        }
        if candidates.is_empty() {
            candidates = by_type(&[ColumnType::Text]);
            candidates.retain(|column| says_date(&column.name));
        }
        let named = |name: &str| {
            candidates
                .iter()
                .find(|column| column.name.eq_ignore_ascii_case(name))
                .copied()
        };
        let chosen = match candidates.as_slice() {
            [] => return Ok(None),
            [only] => Some(*only),
            _ => named("DATE").or_else(|| named("DAY")),
        };
        match chosen {
            Some(column) => Ok(Some(Self {
                name: column.name.clone(),
                is_timestamp,
            })),
            None => Err(candidates
                .iter()
                .map(|column| column.name.clone())
                .collect()),
        }
    }
}

fn says_date(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    name == "DATE" || name == "DAY" || name.ends_with("_DATE") || name.ends_with("_DAY")
}

/// The columns without those of the stamp.
fn result_columns(columns: &[Column]) -> Vec<&Column> {
    let stamp = metadata_columns();
    columns
        .iter()
        .filter(|column| stamp.iter().all(|metadata| metadata.name != column.name))
        .collect()
}

impl Strategy {
    /// Makes the strategy `name` definite for a result. `key_columns` are the names that the user gave, if any.
    ///
    /// # Errors
    /// `Configuration` when a key is no column of the result, or when nothing tells what an upsert matches by.
    pub fn choose(
        name: StrategyName,
        key_columns: Option<&[String]>,
        case: ColumnCase,
        manifest: &Manifest,
    ) -> Result<Self> {
        match (name, key_columns) {
            (StrategyName::Append, _) => Ok(Self::Append),
            (StrategyName::Replace, _) => Ok(Self::Replace),
            (StrategyName::Upsert, Some(keys)) => {
                keys_of(keys, case, manifest).map(|keys| Self::Upsert(Match::Keys(keys)))
            }
            (StrategyName::Upsert, None) => default_match(manifest).map(Self::Upsert),
        }
    }

    /// Columns that the table needs besides those of the files, each with the one value that all rows have.
    pub(super) fn constants(&self) -> Vec<(Column, String)> {
        match self {
            Self::Upsert(Match::Window(window)) => vec![
                (
                    Column::new(TIME_WINDOW_START, ColumnType::Text),
                    window.start.clone(),
                ),
                (
                    Column::new(TIME_WINDOW_END, ColumnType::Text),
                    window.end.clone(),
                ),
            ],
            _ => Vec::new(),
        }
    }
}

fn keys_of(keys: &[String], case: ColumnCase, manifest: &Manifest) -> Result<Vec<String>> {
    let columns = result_columns(&manifest.columns);
    let mut folded: Vec<String> = Vec::with_capacity(keys.len());
    let mut unknown = Vec::new();
    for key in keys {
        let name = result_column_name(key, case)?;
        if folded.contains(&name) {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!("key_columns names {} twice", shown(key)),
            ));
        }
        match columns.iter().find(|column| column.name == name) {
            None => unknown.push(shown(key)),
            Some(column)
                if matches!(column.column_type, ColumnType::Variant | ColumnType::Array) =>
            {
                return Err(Error::new(
                    ErrorKind::Configuration,
                    format!(
                        "key_columns names {}, which is {}: rows cannot be matched by that",
                        shown(key),
                        column.column_type.snowflake()
                    ),
                )
                .with_hint("Name columns of numbers, dates, texts or the like, or give the column such a type in result_columns."));
            }
            Some(_) => {}
        }
        folded.push(name);
    }
    // Without rows there is nothing to match, and maybe no column either.
    if unknown.is_empty() || manifest.rows == 0 {
        return Ok(folded);
    }
    let known: Vec<String> = columns.iter().map(|column| shown(&column.name)).collect();
    Err(Error::new(
        ErrorKind::Configuration,
        format!("the result has no column {} that key_columns names", unknown.join(", ")),
    )
    .with_hint(format!(
        "The columns of the result are {}. A column that is NULL in every row exists only if result_columns declares its type.",
        known.join(", ")
    )))
}

fn default_match(manifest: &Manifest) -> Result<Match> {
    const HINT: &str = "Name the columns that identify a row with key_columns.";
    if let Some(window) = &manifest.window {
        for name in [TIME_WINDOW_START, TIME_WINDOW_END] {
            if manifest
                .columns
                .iter()
                .any(|column| column.name.eq_ignore_ascii_case(name))
            {
                return Err(Error::new(
                    ErrorKind::Configuration,
                    format!(
                        "the result has a column {name}, which an upsert by time window adds itself"
                    ),
                )
                .with_hint(format!("{HINT} Or rename the column in the result.")));
            }
        }
        return Ok(Match::Window(window.clone()));
    }
    match DateColumn::detect(&manifest.columns) {
        Ok(Some(column)) => Ok(Match::Dates(column)),
        _ if manifest.rows == 0 => Ok(Match::Nothing),
        Ok(None) => Err(Error::new(
            ErrorKind::Configuration,
            "nothing tells which rows the upsert replaces: there are no key_columns, the execution's parameters have \
             no time_window_start and time_window_end, and the result has no date column",
        )
        .with_hint(HINT)),
        Err(candidates) => Err(Error::new(
            ErrorKind::Configuration,
            format!(
                "the result has several date columns ({}), and nothing tells by which of them the upsert replaces rows",
                candidates.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", ")
            ),
        )
        .with_hint(format!("{HINT} Or name one of them \"date\"."))),
    }
}

#[cfg(test)]
mod tests;

//! Names of columns: the one place that turns a name of the result into a name in Snowflake.

use std::collections::HashMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::types::{Column, ColumnType};

/// Snowflake's longest identifier, in characters.
pub const MAX_NAME_CHARACTERS: usize = 255;

/// How many result columns one table gets at most. Snowflake states no limit, but its statement text is limited to 1 MB,
/// and COPY names each column twice; far fewer already point at data in the place of names.
pub const MAX_COLUMNS: usize = 10_000;

/// How much of an offending name a message repeats.
const SHOWN_CHARACTERS: usize = 60;

/// The execution that a row belongs to.
pub const EXECUTION_ID: &str = "EXECUTION_ID";
/// When the upload began.
pub const UPLOADED_AT: &str = "UPLOADED_AT";
/// The user that the execution belongs to.
pub const USER_ID: &str = "USER_ID";
/// The upload that brought the row: what a repeated load deletes by.
pub const UPLOAD_ID: &str = "UPLOAD_ID";
/// Where the time window begins that the rows are about; only in tables that are loaded by windows.
pub const TIME_WINDOW_START: &str = "TIME_WINDOW_START";
/// Where that window ends.
pub const TIME_WINDOW_END: &str = "TIME_WINDOW_END";
/// The row's place in the upload, from 1. In the files only: it orders rows, and no table gets it.
pub const ROW_ORDINAL: &str = "ROW_ORDINAL";

/// The columns that every row carries beside its result, in the order in which a new table has them.
#[must_use]
pub fn metadata_columns() -> [Column; 4] {
    [
        Column::new(EXECUTION_ID, ColumnType::Text),
        Column::new(UPLOADED_AT, ColumnType::TimestampTz),
        Column::new(USER_ID, ColumnType::Text),
        Column::new(UPLOAD_ID, ColumnType::Text),
    ]
}

/// What becomes of lower-case letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnCase {
    /// Folded to upper case, so that the name needs no quotes in Snowflake.
    #[default]
    Upper,
    /// Kept exactly.
    Preserve,
}

impl FromStr for ColumnCase {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "upper" => Ok(Self::Upper),
            "preserve" => Ok(Self::Preserve),
            _ => Err(Error::new(
                ErrorKind::Configuration,
                "column_case is neither upper nor preserve",
            )
            .with_hint(
                "Set column_case to upper, which folds names to upper case, or to preserve.",
            )),
        }
    }
}

/// The name in Snowflake of the result's column `source`.
///
/// # Errors
/// `Data` when the name is empty, longer than 255 characters or holds a NUL.
pub fn column_name(source: &str, case: ColumnCase) -> Result<String> {
    identifier(source, case).map_err(|problem| {
        Error::new(
            ErrorKind::Data,
            format!("the column name {} {problem}", shown(source)),
        )
        .with_hint("Rename the column in the result.")
    })
}

/// The name in Snowflake of a result's column `source`, out of the way of the metadata columns.
///
/// # Errors
/// As [`column_name`].
pub fn result_column_name(source: &str, case: ColumnCase) -> Result<String> {
    let name = column_name(source, case)?;
    if is_reserved(&name) {
        column_name(&format!("RESULT_{name}"), ColumnCase::Preserve)
    } else {
        Ok(name)
    }
}

/// The name in Snowflake of a table, schema or database that the user calls `source`.
///
/// # Errors
/// `Configuration` when the name is empty, longer than 255 characters or holds a NUL.
pub fn object_name(source: &str, case: ColumnCase) -> Result<String> {
    identifier(source, case).map_err(|problem| {
        Error::new(
            ErrorKind::Configuration,
            format!("the name {} {problem}", shown(source)),
        )
        .with_hint("Choose another name for the table, schema or database.")
    })
}

/// A name in upper case, as Snowflake has those that are not quoted.
pub fn upper_name(source: &str) -> String {
    source.to_uppercase()
}

/// Folds a name, or says what is wrong with it.
fn identifier(source: &str, case: ColumnCase) -> Result<String, String> {
    let name = match case {
        ColumnCase::Upper => upper_name(source),
        ColumnCase::Preserve => source.to_owned(),
    };
    if name.is_empty() {
        Err("is empty".to_owned())
    } else if name.contains('\0') {
        Err("holds a NUL character".to_owned())
    } else if name.chars().count() > MAX_NAME_CHARACTERS {
        Err(format!("is longer than {MAX_NAME_CHARACTERS} characters"))
    } else {
        Ok(name)
    }
}

/// The names in Snowflake of all columns of a result: folded, moved out of the way of the metadata columns, and distinct.
///
/// # Errors
/// `Data` when a name cannot be held, when two names become one, or when there are too many.
pub fn column_names<'a>(
    sources: impl IntoIterator<Item = &'a str>,
    case: ColumnCase,
) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut taken: HashMap<String, &str> = HashMap::new();
    for source in sources {
        if names.len() == MAX_COLUMNS {
            return Err(too_many_columns());
        }
        let name = result_column_name(source, case)?;
        if let Some(other) = taken.insert(name.clone(), source) {
            return Err(Error::new(
                ErrorKind::Data,
                format!(
                    "the columns {} and {} would both be named {}",
                    shown(other),
                    shown(source),
                    shown(&name)
                ),
            )
            .with_hint("Rename one of them, or pass column_case => 'preserve' to keep upper and lower case apart."));
        }
        names.push(name);
    }
    Ok(names)
}

/// The error for a result with more columns than [`MAX_COLUMNS`].
pub(crate) fn too_many_columns() -> Error {
    Error::new(ErrorKind::Data, format!("the result has more than {MAX_COLUMNS} columns"))
        .with_hint("Keys of a row become columns: put values that vary from row to row under one key, as an object.")
}

/// A name as a message shows it: quoted, without control characters, and cut where it is long.
#[must_use]
pub fn shown(name: &str) -> String {
    let mut text = String::from("\"");
    let mut characters = name.chars();
    for character in characters.by_ref().take(SHOWN_CHARACTERS) {
        text.push(if character.is_control() {
            '?'
        } else {
            character
        });
    }
    text.push_str(if characters.next().is_some() {
        "…\""
    } else {
        "\""
    });
    text
}

fn is_reserved(name: &str) -> bool {
    [EXECUTION_ID, UPLOADED_AT, USER_ID, UPLOAD_ID, ROW_ORDINAL].contains(&name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_fold_to_upper_case_unless_told_otherwise() {
        for (source, upper) in [
            ("id", "ID"),
            ("campaignName", "CAMPAIGNNAME"),
            ("größe", "GRÖSSE"),
            ("käse €", "KÄSE €"),
            ("日付", "日付"),
            ("a\"b", "A\"B"),
            (" ", " "),
        ] {
            assert_eq!(column_name(source, ColumnCase::Upper).unwrap(), upper);
            assert_eq!(column_name(source, ColumnCase::Preserve).unwrap(), source);
        }
    }

    #[test]
    fn names_that_snowflake_cannot_hold_are_refused() {
        let longest = "é".repeat(255);
        assert_eq!(
            column_name(&longest, ColumnCase::Upper)
                .unwrap()
                .chars()
                .count(),
            255
        );
        // Folding can lengthen a name: 128 ß become 256 S.
        for (source, problem) in [
            (String::new(), "is empty"),
            ("é".repeat(256), "is longer than 255 characters"),
            ("ß".repeat(128), "is longer than 255 characters"),
            ("a\0b".to_owned(), "holds a NUL character"),
        ] {
            let error = column_name(&source, ColumnCase::Upper).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(error.message().ends_with(problem), "{error}");
            assert!(error.message().chars().count() < 150);
            assert!(!error.message().contains('\0'));
        }
    }

    #[test]
    fn result_columns_make_way_for_metadata() {
        let names = column_names(
            ["user_id", "USER", "upload_id", "row_ordinal"],
            ColumnCase::Upper,
        )
        .unwrap();
        assert_eq!(
            names,
            [
                "RESULT_USER_ID",
                "USER",
                "RESULT_UPLOAD_ID",
                "RESULT_ROW_ORDINAL"
            ]
        );
        // The exact name differs from the metadata's, and both can stand in one table.
        assert_eq!(
            column_names(["user_id"], ColumnCase::Preserve).unwrap(),
            ["user_id"]
        );
        assert_eq!(
            column_names(["USER_ID"], ColumnCase::Preserve).unwrap(),
            ["RESULT_USER_ID"]
        );
    }

    #[test]
    fn two_names_that_become_one_are_refused() {
        for pair in [
            ["a", "A"],
            ["straße", "STRASSE"],
            ["user_id", "result_user_id"],
        ] {
            let error = column_names(pair, ColumnCase::Upper).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(error.hint().unwrap().contains("column_case => 'preserve'"));
            assert!(
                error.message().contains(&shown(pair[0]))
                    && error.message().contains(&shown(pair[1]))
            );
            assert!(column_names(pair, ColumnCase::Preserve).is_ok());
        }
    }

    #[test]
    fn columns_are_counted() {
        let sources: Vec<String> = (0..=MAX_COLUMNS).map(|i| format!("c{i}")).collect();
        let names =
            |n: usize| column_names(sources[..n].iter().map(String::as_str), ColumnCase::Upper);
        assert_eq!(names(MAX_COLUMNS).unwrap().len(), MAX_COLUMNS);
        assert!(
            names(MAX_COLUMNS + 1)
                .unwrap_err()
                .message()
                .contains("more than 10000 columns")
        );
    }

    #[test]
    fn column_case_is_read_from_its_two_words() {
        assert_eq!("upper".parse::<ColumnCase>().unwrap(), ColumnCase::Upper);
        assert_eq!(
            "preserve".parse::<ColumnCase>().unwrap(),
            ColumnCase::Preserve
        );
        assert_eq!(
            "Upper".parse::<ColumnCase>().unwrap_err().kind(),
            ErrorKind::Configuration
        );
    }

    proptest! {
        /// Against folding by hand: names are refused, or all distinct, out of the metadata's way and as they fold.
        #[test]
        fn folding_agrees_with_folding_by_hand(
            sources in prop::collection::vec("[aAbBßſıİ\"._ é]{0,3}|user_id|(?i)upload_id|result_user_id|[ßa]{126,130}|\\PC{1,4}", 0..6),
        ) {
            let by_hand: Vec<String> = sources
                .iter()
                .map(|source| source.chars().flat_map(char::to_uppercase).collect::<String>())
                .map(|name| match name.as_str() {
                    "USER_ID" | "UPLOAD_ID" => format!("RESULT_{name}"),
                    _ => name,
                })
                .collect();
            let distinct: HashSet<&String> = by_hand.iter().collect();
            let held = by_hand.iter().all(|name| (1..=255).contains(&name.chars().count()) && !name.contains('\0'));
            let names = column_names(sources.iter().map(String::as_str), ColumnCase::Upper);
            prop_assert_eq!(names.is_ok(), held && distinct.len() == by_hand.len());
            if let Ok(names) = names {
                prop_assert_eq!(&names, &by_hand);
                // What is in the table folds to itself.
                for name in &names {
                    prop_assert_eq!(&column_name(name, ColumnCase::Upper).unwrap(), name);
                }
            }
            if let Ok(names) = column_names(sources.iter().map(String::as_str), ColumnCase::Preserve) {
                for (name, source) in names.iter().zip(&sources) {
                    prop_assert_eq!(name.strip_prefix("RESULT_").filter(|_| name != source).unwrap_or(name), source);
                }
            }
        }
    }
}

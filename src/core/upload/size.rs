//! Whether Snowflake takes the statements of an upload, each of which names all columns: known before anything is sent.

use super::{MAX_FILES_PER_COPY, Match, Strategy, Upload};
use crate::error::{Error, ErrorKind, Result};
use crate::snowflake::sql::{self, CopyColumn};
use crate::types::Column;

/// The longest text of a statement in bytes; Snowflake says "1 MB".
const MAX_STATEMENT: usize = 1_000_000;

/// Refuses an upload whose statements would be too long for a table that has its columns as they would be created.
///
/// # Errors
/// `Data`, with the length.
pub(super) fn check(upload: &Upload) -> Result<()> {
    let columns: Vec<Column> = upload.columns().map(|(column, _)| column).collect();
    let filled: Vec<CopyColumn> = columns
        .iter()
        .map(|column| CopyColumn {
            field: column.name.clone(),
            name: column.name.clone(),
            column_type: column.column_type.snowflake(),
            expression: column.column_type.copy_expression(&column.name),
        })
        .collect();
    let files = upload.manifest.files.iter().take(MAX_FILES_PER_COPY);
    let files: Vec<&str> = files.map(|file| file.name.as_str()).collect();
    let (target, directory) = (&upload.target, &upload.stage_directory);
    let mut longest = sql::create_table(target, &columns, &[], &upload.comment)
        .len()
        .max(sql::copy_into(target, &filled, directory, &files, true).len());
    if let Strategy::Upsert(Match::Keys(keys)) = &upload.strategy {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        longest = longest.max(sql::merge(target, target, &filled, &keys).len());
    }
    if longest <= MAX_STATEMENT {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Data,
        format!(
            "the statements for the result's {} columns have up to {longest} bytes, and Snowflake takes {MAX_STATEMENT}",
            columns.len()
        ),
    )
    .with_hint("Give the columns shorter names, or load fewer of them into a table."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::MAX_COLUMNS;
    use crate::types::ColumnType;
    use crate::upload::tests::upload;

    #[test]
    fn as_many_columns_as_there_may_be_if_their_names_are_short() {
        for (width, is_taken) in [(5, true), (60, false)] {
            let mut wide = upload(1);
            wide.manifest.columns = (0..MAX_COLUMNS)
                .map(|number| Column::new(format!("{number:0width$}"), ColumnType::Text))
                .collect();
            for strategy in [
                Strategy::Append,
                Strategy::Upsert(Match::Keys(vec!["00000".to_owned()])),
            ] {
                wide.strategy = strategy;
                let checked = check(&wide);
                assert_eq!(checked.is_ok(), is_taken, "{width}: {checked:?}");
            }
        }
    }
}

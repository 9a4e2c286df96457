//! Counts: a load is committed only if Snowflake's own numbers say that it is complete.

use crate::error::{Error, ErrorKind, Result};
use crate::snowflake::QueryResult;
use crate::snowflake::sql::TableName;
use crate::spool::SpoolFile;

/// Every file must be reported LOADED, with all the rows that were written to it. Snowflake names a file by its path in the
/// stage.
pub(super) fn verify_copy(copied: &QueryResult, files: &[SpoolFile]) -> Result<()> {
    let mut loaded = 0;
    let mut loaded_rows: u64 = 0;
    let mut is_each_whole = copied.rows.len() == files.len();
    for row in 0..copied.rows.len() {
        let count = copied.value(row, "rows_loaded").unwrap_or("0");
        let count: u64 = count.parse().map_err(|_| {
            Error::new(
                ErrorKind::Internal,
                "Snowflake reported a row count that is no number",
            )
        })?;
        let is_loaded = copied
            .value(row, "status")
            .is_some_and(|status| status.eq_ignore_ascii_case("LOADED"));
        let path = copied.value(row, "file").unwrap_or_default();
        let file = files.iter().find(|file| path.ends_with(&file.name));
        is_each_whole &= is_loaded && file.is_some_and(|file| file.rows == count);
        loaded += usize::from(is_loaded);
        loaded_rows += count;
    }
    if is_each_whole || cfg!(feature = "mutant_no_verify") {
        return Ok(());
    }
    let rows: u64 = files.iter().map(|file| file.rows).sum();
    let files = files.len();
    Err(Error::new(
        ErrorKind::Transient,
        format!("COPY loaded {loaded_rows} rows of {loaded} files, but {rows} rows of {files} files were staged, or others by file; nothing was committed"),
    )
    .with_query_id(copied.query_id.clone()))
}

/// The number that a SELECT COUNT answers.
pub(super) fn counted(answer: &QueryResult) -> Result<u64> {
    answer
        .first_value()
        .and_then(|count| count.parse().ok())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "Snowflake answered a count with something else",
            )
            .with_query_id(answer.query_id.clone())
        })
}

/// The table must hold `wanted` of `what`.
pub(super) fn verify_count(
    answer: &QueryResult,
    wanted: u64,
    table: &TableName,
    what: &str,
) -> Result<()> {
    let count = counted(answer)?;
    if count == wanted || cfg!(feature = "mutant_no_verify") {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Transient,
        format!("table {table} holds {count} {what} instead of {wanted}; nothing was committed"),
    )
    .with_query_id(answer.query_id.clone()))
}

//! The result of a statement, its inline rows and those that lie in cloud storage.

use super::http::Http;
use super::wire::QueryData;
use super::{chunks, text};
use crate::{Error, ErrorKind, Result};

/// The result of a statement: text or NULL in every cell, as Snowflake's JSON format writes its types.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryResult {
    /// The id under which Snowflake's query history knows the statement.
    pub query_id: String,
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<Option<String>>>,
}

impl QueryResult {
    /// The value of a row in the column of this name, whatever its case; `None` also where there is no such thing.
    #[must_use]
    pub fn value(&self, row: usize, column: &str) -> Option<&str> {
        let index = self
            .columns
            .iter()
            .position(|name| name.eq_ignore_ascii_case(column))?;
        self.rows.get(row)?.get(index)?.as_deref()
    }

    /// The value in the first row and column.
    #[must_use]
    pub fn first_value(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }

    /// The rows that an INSERT, UPDATE, DELETE or MERGE changed; `None` for other statements.
    #[must_use]
    pub fn rows_changed(&self) -> Option<u64> {
        let counts: Vec<&str> = self
            .columns
            .iter()
            .filter(|name| name.starts_with("number of rows "))
            .filter_map(|name| self.value(0, name))
            .collect();
        if counts.is_empty() {
            return None;
        }
        counts
            .iter()
            .try_fold(0_u64, |sum, count| sum.checked_add(count.parse().ok()?))
    }
}

/// Snowflake makes parts of up to 16 MB: all that a result may hold fits into far fewer. Each is a request, and may be empty.
const MAX_PARTS: usize = 1000;

/// # Errors
/// `Internal` if the result is not in JSON or too large.
pub(crate) async fn collect(http: &Http, data: QueryData) -> Result<QueryResult> {
    if data
        .query_result_format
        .as_deref()
        .is_some_and(|format| !format.eq_ignore_ascii_case("json"))
    {
        return Err(Error::new(
            ErrorKind::Internal,
            "Snowflake sent a result in another format than JSON",
        ));
    }
    let columns: Vec<String> = data
        .rowtype
        .unwrap_or_default()
        .into_iter()
        .map(|column| column.name)
        .collect();
    let announced = data.total.as_deref().is_some_and(|total| total != "0");
    if data.rowset.is_none() && data.chunks.is_none() && announced {
        return Err(Error::new(
            ErrorKind::Internal,
            "Snowflake's answer announces rows and holds none",
        ));
    }
    let chunks = data.chunks.unwrap_or_default();
    if chunks.len() > MAX_PARTS {
        return Err(Error::new(
            ErrorKind::Internal,
            format!("Snowflake sent a result in more than {MAX_PARTS} parts"),
        ));
    }
    let mut rows = data.rowset.unwrap_or_default();
    rows.check()?;
    for chunk in chunks {
        let (headers, key) = (data.chunk_headers.as_ref(), data.qrmk.as_ref());
        rows.append(chunks::fetch(http, &chunk, headers, key).await?);
        rows.check()?;
    }
    check_widths(columns.len(), &rows.rows)?;
    Ok(QueryResult {
        query_id: text::token(&data.query_id.unwrap_or_default()),
        columns,
        rows: rows.rows,
    })
}

/// A value that is missing must not pass for NULL.
fn check_widths(columns: usize, rows: &[Vec<Option<String>>]) -> Result<()> {
    if rows.iter().all(|row| row.len() == columns) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Internal,
        "Snowflake sent a row that does not have one value for each column",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::wire::Chunk;
    use super::*;

    #[test]
    fn values_are_found_by_name() {
        let result = QueryResult {
            query_id: "q".into(),
            columns: vec!["file".into(), "ROWS_LOADED".into()],
            rows: vec![vec![Some("a".into()), None], vec![Some("b".into())]],
        };
        assert_eq!(result.first_value(), Some("a"));
        assert_eq!(QueryResult::default().first_value(), None);
        assert_eq!(result.value(0, "FILE"), Some("a"));
        assert_eq!(result.value(0, "rows_loaded"), None);
        assert_eq!(result.value(1, "rows_loaded"), None);
        assert_eq!(result.value(2, "file"), None);
        assert_eq!(result.value(0, "other"), None);
        assert_eq!(result.rows_changed(), None);
    }

    #[tokio::test]
    async fn parts_have_a_number() {
        let http = Http::new(&crate::config::Network::default()).unwrap();
        let message = async |count: usize| {
            let part = || Chunk {
                url: "https://elsewhere.example/".into(),
            };
            let data = QueryData {
                chunks: Some(std::iter::repeat_with(part).take(count).collect()),
                ..QueryData::default()
            };
            collect(&http, data).await.unwrap_err().to_string()
        };
        assert!(message(MAX_PARTS + 1).await.contains("1000 parts"));
        // The first of which lies where none may be.
        assert!(!message(MAX_PARTS).await.contains("parts"));
    }

    #[test]
    fn every_row_has_every_column() {
        let rows = |widths: &[usize]| -> Vec<Vec<Option<String>>> {
            widths.iter().map(|width| vec![None; *width]).collect()
        };
        assert!(check_widths(2, &rows(&[2, 2])).is_ok());
        assert!(check_widths(2, &rows(&[])).is_ok());
        for (columns, widths) in [(2, &[2, 1][..]), (2, &[3]), (0, &[1]), (1, &[0])] {
            let error = check_widths(columns, &rows(widths)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal);
        }
    }

    #[test]
    fn changes_are_summed() {
        let result = QueryResult {
            query_id: String::new(),
            columns: vec![
                "number of rows inserted".into(),
                "number of rows updated".into(),
            ],
            rows: vec![vec![Some("2".into()), Some("3".into())]],
        };
        assert_eq!(result.rows_changed(), Some(5));
        for odd in ["-1", "x", "18446744073709551615"] {
            let rows = vec![vec![Some("2".into()), Some(odd.into())]];
            let result = QueryResult {
                rows,
                ..result.clone()
            };
            assert_eq!(result.rows_changed(), None, "{odd}");
        }
    }
}

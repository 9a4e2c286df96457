//! The statement that removes what was loaded long ago.

use chrono::{DateTime, Utc};

use super::{TableName, quote_ident, quote_literal};

/// Deletes the rows that uploads brought before a moment, told by the columns for the upload's id and its time. Rows that came
/// otherwise have no upload, and stay.
#[must_use]
pub fn delete_uploaded_before(
    table: &TableName,
    upload_id: &str,
    uploaded_at: &str,
    moment: DateTime<Utc>,
) -> String {
    let moment = moment.format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string();
    format!(
        "DELETE FROM {} WHERE {} IS NOT NULL AND {} < {}::TIMESTAMP_TZ",
        table.quoted(),
        quote_ident(upload_id),
        quote_ident(uploaded_at),
        quote_literal(&moment)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_of_uploads_and_only_old_ones() {
        let table = TableName {
            database: "DB".into(),
            schema: "S".into(),
            table: "a\"b".into(),
        };
        assert_eq!(
            delete_uploaded_before(
                &table,
                "UPLOAD_ID",
                "Uploaded_At",
                DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap()
            ),
            "DELETE FROM \"DB\".\"S\".\"a\"\"b\" WHERE \"UPLOAD_ID\" IS NOT NULL AND \"Uploaded_At\" < \
             '2023-11-14T22:13:20.000001+00:00'::TIMESTAMP_TZ"
        );
    }
}

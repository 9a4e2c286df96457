//! The statement that removes what was loaded long ago.

use chrono::{DateTime, Utc};

use super::{TableName, quote_ident, quote_literal};
use crate::names::{UPLOAD_ID, UPLOADED_AT};

/// Deletes the rows that uploads brought before a moment. Rows that came otherwise have no upload, and stay.
#[must_use]
pub fn delete_uploaded_before(table: &TableName, moment: DateTime<Utc>) -> String {
    let moment = moment.format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string();
    format!(
        "DELETE FROM {} WHERE {} IS NOT NULL AND {} < {}::TIMESTAMP_TZ",
        table.quoted(),
        quote_ident(UPLOAD_ID),
        quote_ident(UPLOADED_AT),
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
                DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap()
            ),
            "DELETE FROM \"DB\".\"S\".\"a\"\"b\" WHERE \"UPLOAD_ID\" IS NOT NULL AND \"UPLOADED_AT\" < \
             '2023-11-14T22:13:20.000001+00:00'::TIMESTAMP_TZ"
        );
    }
}

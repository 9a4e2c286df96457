//! By what a table is clustered that an upload creates.

use super::{ClusterBy, DateColumn, Upload};
use crate::error::{Error, ErrorKind, Result};
use crate::names::{metadata_columns, result_column_name, shown};
use crate::snowflake::sql;
use crate::types::ColumnType;

/// The expressions by which a new table is clustered.
pub(super) fn clustering(upload: &Upload) -> Result<Vec<String>> {
    let manifest = &upload.manifest;
    match &upload.cluster_by {
        ClusterBy::Nothing => Ok(Vec::new()),
        // Snowflake clusters text by its first few characters only, which are the same in all dates of a decade.
        ClusterBy::Auto => Ok(match DateColumn::detect(&manifest.columns) {
            Ok(Some(date)) if date.is_timestamp => {
                vec![format!("TO_DATE({})", sql::quote_ident(&date.name))]
            }
            Ok(Some(date))
                if manifest
                    .columns
                    .iter()
                    .any(|column| column.name == date.name && column.column_type == ColumnType::Date) =>
            {
                vec![sql::quote_ident(&date.name)]
            }
            _ => Vec::new(),
        }),
        ClusterBy::Columns(names, case) => names
            .iter()
            .map(|source| {
                let name = result_column_name(source, *case)?;
                let of_result = manifest.columns.iter().find(|column| column.name == name);
                let stamp = metadata_columns();
                let of_stamp = || stamp.iter().find(|column| column.name.eq_ignore_ascii_case(source));
                let Some(column) = of_result.or_else(of_stamp) else {
                    return Err(Error::new(
                        ErrorKind::Configuration,
                        format!("the result has no column {} that cluster_by names", shown(source)),
                    )
                    .with_hint("A column that is NULL in every row exists only if result_columns declares its type."));
                };
                if matches!(
                    column.column_type,
                    ColumnType::Variant | ColumnType::Array | ColumnType::Binary
                ) {
                    return Err(Error::new(
                        ErrorKind::Configuration,
                        format!(
                            "cluster_by names {}, which is {}: a table cannot be clustered by that",
                            shown(source),
                            column.column_type.snowflake()
                        ),
                    )
                    .with_hint("Name columns of numbers, dates or short texts."));
                }
                Ok(sql::quote_ident(&column.name))
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ColumnCase;
    use crate::types::Column;
    use crate::upload::tests::upload;

    fn clustered(columns: &[(&str, ColumnType)], cluster_by: ClusterBy) -> Result<Vec<String>> {
        let mut upload = upload(1);
        upload.manifest.columns = columns
            .iter()
            .map(|(name, column_type)| Column::new(*name, *column_type))
            .chain(metadata_columns())
            .collect();
        upload.cluster_by = cluster_by;
        clustering(&upload)
    }

    fn by(names: &[&str]) -> ClusterBy {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        ClusterBy::Columns(names, ColumnCase::Upper)
    }

    #[test]
    fn auto_is_the_day_of_the_date_column_if_there_is_one() {
        use ColumnType::{Date, Text, TimestampTz};
        for (columns, wanted) in [
            (&[("D", Date)][..], vec!["\"D\""]),
            (&[("AT", TimestampTz)], vec!["TO_DATE(\"AT\")"]),
            (&[("REPORT_DATE", Text)], vec![]),
            (&[("A", Date), ("B", Date)], vec![]),
            (&[("V", Text)], vec![]),
        ] {
            assert_eq!(
                clustered(columns, ClusterBy::Auto).unwrap(),
                wanted,
                "{columns:?}"
            );
        }
        assert!(
            clustered(&[("D", Date)], ClusterBy::Nothing)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn named_columns_are_those_of_the_result_or_the_stamp() {
        let columns = &[
            ("ID", ColumnType::Text),
            ("RESULT_USER_ID", ColumnType::Text),
        ];
        assert_eq!(
            clustered(columns, by(&["id", "user_id", "uploaded_at"])).unwrap(),
            ["\"ID\"", "\"RESULT_USER_ID\"", "\"UPLOADED_AT\""]
        );
        let error = clustered(columns, by(&["id", "colour"])).unwrap_err();
        assert!(error.message().contains("\"colour\""), "{error}");
    }

    #[test]
    fn what_cannot_be_a_clustering_key_is_refused() {
        for column_type in [ColumnType::Variant, ColumnType::Array, ColumnType::Binary] {
            let error = clustered(&[("J", column_type)], by(&["j"])).unwrap_err();
            assert!(
                error.message().contains(&column_type.snowflake()),
                "{error}"
            );
        }
    }
}

//! By what a table is clustered: one that an upload creates, and one that is there.

use super::{ClusterBy, DateColumn, Upload, execute};
use crate::error::{Error, ErrorKind, Result};
use crate::names::{metadata_columns, result_column_name, shown};
use crate::snowflake::Warehouse;
use crate::snowflake::sql::{self, TableName};
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

/// Whether a column is in the table's clustering key, which DESCRIBE TABLE does not tell.
pub(super) async fn is_clustered_by(
    warehouse: &mut dyn Warehouse,
    table: &TableName,
    column: &str,
) -> Result<bool> {
    let found = execute(warehouse, sql::show_table(table)).await?;
    Ok((0..found.rows.len())
        .filter(|row| found.value(*row, "name") == Some(&table.table))
        .filter_map(|row| found.value(row, "cluster_by"))
        .any(|key| names_column(key, column)))
}

/// Whether a clustering key, as in `LINEAR(TO_DATE(AT), "n")`, names the column, quoted or not.
fn names_column(key: &str, column: &str) -> bool {
    key.contains(&sql::quote_ident(column))
        || key
            .split(|c: char| !c.is_alphanumeric() && c != '_' && c != '$')
            .any(|word| word == column)
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
    fn a_clustering_key_names_whole_columns() {
        for (key, column, expected) in [
            ("", "N", false),
            ("LINEAR(N)", "N", true),
            ("LINEAR(TO_DATE(AT), N)", "AT", true),
            ("LINEAR(N_OLD, \"a b\")", "N", false),
            ("LINEAR(N_OLD, \"a b\")", "a b", true),
            ("(\"N\")", "N", true),
        ] {
            assert_eq!(names_column(key, column), expected, "{key} {column}");
        }
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

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

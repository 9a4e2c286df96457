//! The target table: created, looked at, and extended before anything is loaded.

use super::{Upload, execute};
use crate::error::{Error, ErrorKind, Result};
use crate::evolve::{ExistingType, Fit, copy_expression_into};
use crate::snowflake::Warehouse;
use crate::snowflake::sql::{self, CopyColumn, TableName};

/// Makes the table take every column of the upload, and says how COPY fills each. DDL commits whatever transaction is
/// open, so all of it comes before BEGIN.
pub(super) async fn prepare(
    warehouse: &mut dyn Warehouse,
    upload: &Upload,
) -> Result<Vec<CopyColumn>> {
    let columns = &upload.manifest.columns;
    if describe(warehouse, &upload.target).await?.is_none() {
        let create = sql::create_table(&upload.target, columns, &upload.comment);
        execute(warehouse, create).await.map_err(|error| {
            error.in_context(
                format_args!("cannot create table {}", upload.target),
                format_args!(
                    "To create tables, a role needs CREATE TABLE on schema {}.{}; or name a table that exists.",
                    sql::quote_ident(&upload.target.database),
                    sql::quote_ident(&upload.target.schema)
                ),
            )
        })?;
    }
    // Looked at again even when just created: somebody else may have been faster, with other columns.
    let Some(existing) = describe(warehouse, &upload.target).await? else {
        return Err(Error::new(
            ErrorKind::Configuration,
            format!("table {} was created but cannot be seen", upload.target),
        )
        .with_hint(
            "Grant the role SELECT on future tables of the schema, or let the role own the table.",
        ));
    };
    let mut missing = Vec::new();
    let mut copied = Vec::with_capacity(columns.len());
    for column in columns {
        let mut expression = column.column_type.copy_expression(&column.name);
        match existing.iter().find(|(name, _)| *name == column.name) {
            None => missing.push(column.clone()),
            Some((_, existing_type)) => match column.column_type.fit(existing_type) {
                Fit::AsIs => {
                    if let Some(existing_type) = ExistingType::parse(existing_type) {
                        expression =
                            copy_expression_into(existing_type, column.column_type, &column.name);
                    }
                }
                Fit::Widen(wider) => {
                    execute(
                        warehouse,
                        sql::widen_column(&upload.target, &column.name, &wider),
                    )
                    .await?;
                }
                Fit::Refused => {
                    return Err(Error::new(
                        ErrorKind::Configuration,
                        format!(
                            "column \"{}\" of table {} is {existing_type}, but the result's is {}",
                            column.name,
                            upload.target,
                            column.column_type.snowflake()
                        ),
                    )
                    .with_hint("Load into another table (snowflake_table_name), or change the result's column."));
                }
            },
        }
        copied.push(CopyColumn {
            name: column.name.clone(),
            expression,
        });
    }
    if !missing.is_empty() {
        execute(warehouse, sql::add_columns(&upload.target, &missing)).await?;
    }
    Ok(copied)
}

/// Name and type of each column; `None` if there is no such table.
async fn describe(
    warehouse: &mut dyn Warehouse,
    table: &TableName,
) -> Result<Option<Vec<(String, String)>>> {
    /// "Object does not exist or not authorized."
    const MISSING: &str = "002003";
    let described = match execute(warehouse, sql::describe_table(table)).await {
        Ok(described) => described,
        Err(error) if error.code() == Some(MISSING) => return Ok(None),
        Err(error) => return Err(error),
    };
    let columns = (0..described.rows.len())
        .filter_map(|row| {
            let name = described.value(row, "name")?;
            let column_type = described.value(row, "type")?;
            Some((name.to_owned(), column_type.to_owned()))
        })
        .collect();
    Ok(Some(columns))
}

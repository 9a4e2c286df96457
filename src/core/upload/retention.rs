//! Rows that were loaded long ago, and how they go.

use chrono::{DateTime, Utc};

use super::{assignment, execute, table};
use crate::error::{Error, ErrorKind, Result};
use crate::names::{UPLOAD_ID, UPLOADED_AT};
use crate::snowflake::Warehouse;
use crate::snowflake::sql::{self, TableName};

/// Deletes from a table the rows that uploads brought before a moment; how many. Rows that came otherwise stay.
///
/// # Errors
/// `Configuration` if there is no such table; what Snowflake says.
pub async fn delete_uploaded_before(
    warehouse: &mut dyn Warehouse,
    table: &TableName,
    moment: DateTime<Utc>,
) -> Result<u64> {
    let Some(columns) = table::describe(warehouse, table).await? else {
        return Err(Error::new(
            ErrorKind::Configuration,
            format!("table {table} does not exist, or the role may not see it"),
        ));
    };
    let statement = sql::delete_uploaded_before(
        table,
        &assignment::name_of(UPLOAD_ID, &columns),
        &assignment::name_of(UPLOADED_AT, &columns),
        moment,
    );
    let deleted = execute(warehouse, statement).await?;
    execute(warehouse, sql::commit()).await?;
    Ok(deleted.rows_changed().unwrap_or_default())
}

//! The function that removes rows from Snowflake which are no longer wanted there.

use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::configs;
use crate::owner::Owner;
use crate::retention::{self, Target};
use crate::sandbox::as_extension_owner;

#[pg_extern(volatile, parallel_unsafe)]
fn delete_uploaded(
    older_than: Interval,
    table_name: &str,
    schema_name: default!(Option<&str>, "NULL"),
    database: default!(Option<&str>, "NULL"),
    config: default!(Option<&str>, "'default'"),
    user_id: default!(Option<&str>, "NULL"),
) -> Result<i64, ErrorReport> {
    let owner = Owner::acting_for(user_id)?;
    let settings = as_extension_owner(|| configs::require(&owner, config)?.open())?;
    let target = Target {
        table: table_name.to_owned(),
        schema: schema_name.map(str::to_owned),
        database: database.map(str::to_owned),
    };
    Ok(retention::delete(settings, target, older_than)?)
}

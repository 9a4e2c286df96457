//! `create_execution`: a new execution from the JSON that report builders send.

use pgrx::JsonB;
use pgrx::default;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::quote_identifier;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::options::TargetOptions;
use crate::owner::Owner;
use crate::watches::column_type;
use crate::{sandbox, tx};

/// The request. Unknown keys are an error, since one that is misspelt would be lost in silence.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    name: Option<String>,
    template_id: Option<String>,
    instance_id: Option<String>,
    parameters: Option<Value>,
    execution_type: Option<String>,
    #[serde(default)]
    snowflake_enabled: bool,
    snowflake_table_name: Option<String>,
    snowflake_schema_name: Option<String>,
    snowflake_options: Option<Value>,
    user_id: Option<String>,
}

#[pg_extern(volatile, parallel_unsafe)]
fn create_execution(
    request: JsonB,
    relation: default!(Option<&str>, "null"),
) -> Result<String, ErrorReport> {
    Ok(create(request.0, relation)?)
}

/// Inserts as the caller, with the caller's rights and policies.
fn create(request: Value, relation: Option<&str>) -> Result<String> {
    tx::require_primary("create_execution")?;
    sandbox::require_unrestricted()?;
    let request: Request = serde_json::from_value(request).map_err(|error| {
        Error::invalid(format!("malformed request: {error}")).hint(
            "Known keys are name, template_id, instance_id, parameters, execution_type, snowflake_enabled, \
             snowflake_table_name, snowflake_schema_name, snowflake_options and user_id.",
        )
    })?;
    TargetOptions::parse(request.snowflake_options.as_ref().unwrap_or(&Value::Null))?;
    let user = Owner::acting_for(request.user_id.as_deref())?;
    let watch = super::upload::resolve_watch(relation)?;
    let table = watch.existing_name()?;

    let execution_id = Uuid::new_v4().to_string();
    let text = |value: Option<String>| value.map(Value::String);
    let mut row: Vec<(&str, Value)> = vec![
        (
            watch.columns.execution_id.as_str(),
            Value::String(execution_id.clone()),
        ),
        (
            watch.columns.status.as_str(),
            Value::String("pending".to_owned()),
        ),
        ("snowflake_enabled", Value::Bool(request.snowflake_enabled)),
    ];
    if let Some(column) = &watch.columns.user_id {
        row.push((column, Value::String(user.user_id().to_owned())));
    }
    let given = [
        ("name", text(request.name)),
        ("template_id", text(request.template_id)),
        ("instance_id", text(request.instance_id)),
        ("parameters", request.parameters),
        ("execution_type", text(request.execution_type)),
        ("snowflake_table_name", text(request.snowflake_table_name)),
        ("snowflake_schema_name", text(request.snowflake_schema_name)),
        ("snowflake_options", request.snowflake_options),
    ];
    for (column, value) in given {
        if let Some(value) = value {
            column_type(watch.relation, column).map_err(|_| {
                Error::user(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                    format!("table {table} has no column \"{column}\" for the request's key of that name"),
                )
            })?;
            row.push((column, value));
        }
    }
    let columns: Vec<String> = row
        .iter()
        .map(|(column, _)| quote_identifier(column))
        .collect();
    let columns = columns.join(", ");
    let document = Value::Object(
        row.into_iter()
            .map(|(column, value)| (column.to_owned(), value))
            .collect(),
    );
    // Every value is converted to its column's own type, whatever that is.
    Ok(Spi::get_one_with_args::<String>(
        &format!(
            "insert into {table} ({columns}) \
             select {columns} from pg_catalog.jsonb_populate_record(null::{table}, $1) returning {}::pg_catalog.text",
            quote_identifier(&watch.columns.execution_id)
        ),
        &[JsonB(document).into()],
    )?
    .unwrap_or(execution_id))
}

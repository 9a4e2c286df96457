//! The columns of a watched table: those of the application's, and those through which it and the worker talk.

use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use super::watch::find;
use crate::bound::base_type;
use crate::error::{Error, Result};
use crate::owner::current_role;
use crate::watches::{Columns, ResultSource, column_type, others_with_trigger, tree};
use crate::{sandbox, tx};

/// The columns through which application and worker talk: name and type.
const OUR_COLUMNS: [(&str, &str); 9] = [
    (
        "snowflake_enabled",
        "pg_catalog.bool not null default false",
    ),
    ("snowflake_table_name", "pg_catalog.text"),
    ("snowflake_schema_name", "pg_catalog.text"),
    ("snowflake_status", "pg_catalog.text"),
    ("snowflake_error_message", "pg_catalog.text"),
    ("snowflake_uploaded_at", "pg_catalog.timestamptz"),
    ("snowflake_row_count", "pg_catalog.int8"),
    ("snowflake_attempt_count", "pg_catalog.int4"),
    ("snowflake_options", "pg_catalog.jsonb"),
];

/// Makes the table that [`crate::watches::Watch`] has by default, on which nobody else may make triggers.
///
/// # Errors
/// If the caller may not make it.
pub fn create_standard_table(
    relation: &str,
    columns: &Columns,
    result: Option<(&str, Option<&str>)>,
) -> Result<pg_sys::Oid> {
    let name = Spi::get_one_with_args::<String>(
        "select pg_catalog.string_agg(pg_catalog.quote_ident(part), '.' order by place) \
         from pg_catalog.unnest(pg_catalog.parse_ident($1)) with ordinality as parts (part, place)",
        &[relation.into()],
    )?
    .unwrap_or_default();
    let quoted = |name: &str| quote_identifier(name);
    let result = match result {
        Some((rows, columns)) => format!(
            "{} pg_catalog.jsonb, {} pg_catalog.jsonb, ",
            quoted(columns.unwrap_or("result_columns")),
            quoted(rows)
        ),
        None => String::new(),
    };
    Spi::run(&format!(
        "create table {name} ( \
             {execution_id} pg_catalog.text primary key, {user_id} pg_catalog.text, name pg_catalog.text, template_id pg_catalog.text, \
             instance_id pg_catalog.text, execution_type pg_catalog.text, parameters pg_catalog.jsonb, \
             {status} pg_catalog.text not null default 'pending', {result}result_total_rows pg_catalog.int8, error_message pg_catalog.text, \
             created_at pg_catalog.timestamptz not null default pg_catalog.now(), started_at pg_catalog.timestamptz, \
             completed_at pg_catalog.timestamptz)",
        execution_id = quoted(&columns.execution_id),
        user_id = quoted(columns.user_id.as_deref().unwrap_or("user_id")),
        status = quoted(&columns.status),
    ))?;
    let oid = find(relation)?.ok_or_else(|| {
        Error::missing(format!(
            "relation \"{relation}\" was created but cannot be seen"
        ))
    })?;
    // Default privileges may give it to others.
    let others = tx::with_latest_snapshot(|| {
        sandbox::as_caller(|| others_with_trigger(&tree(oid)?, current_role()))
    })?;
    if let Some((name, roles)) = others {
        Spi::run(&format!("revoke trigger on {name} from {roles}"))?;
    }
    Ok(oid)
}

/// Adds those of [`OUR_COLUMNS`] that are missing.
///
/// # Errors
/// If the caller may not.
pub fn add_columns(oid: pg_sys::Oid, name: &str) -> Result<()> {
    let missing: Vec<String> = OUR_COLUMNS
        .iter()
        .filter(|(column, _)| column_type(oid, column).is_err())
        .map(|(column, definition)| format!("add column {} {definition}", quote_identifier(column)))
        .collect();
    if !missing.is_empty() {
        Spi::run(&format!("alter table {name} {}", missing.join(", ")))?;
    }
    Ok(())
}

/// Checks that the columns which a watch names are there, and can serve it.
///
/// # Errors
/// `42703`, `42804` or `42P16`, with what to do.
pub fn check_columns(
    oid: pg_sys::Oid,
    name: &str,
    columns: &Columns,
    result: &ResultSource,
) -> Result<()> {
    let named = [
        Some(columns.execution_id.as_str()),
        Some(columns.status.as_str()),
        columns.user_id.as_deref(),
    ];
    for column in named.into_iter().flatten().chain(result.watched_columns()) {
        column_type(oid, column).map_err(|_| {
            Error::user(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("table {name} has no column \"{column}\""),
            )
            .hint("Name the table's own columns in the arguments of snowflake_bridge.watch.")
        })?;
    }
    for column in [Some(&columns.execution_id), columns.user_id.as_ref()]
        .into_iter()
        .flatten()
    {
        let found = column_type(oid, column)?;
        if is_written_as_the_session_says(found) {
            return Err(Error::user(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!(
                    "column \"{column}\" of table {name} is {}, which each session writes in its own way",
                    type_name(found)?
                ),
            )
            .hint("An execution and its user are known by their text: use text, uuid or bigint."));
        }
    }
    for column in result.watched_columns() {
        let found = column_type(oid, column)?;
        if !matches!(found, pg_sys::JSONBOID | pg_sys::JSONOID) {
            let found = type_name(found)?;
            return Err(Error::user(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!(
                    "column \"{column}\" of table {name} is {found}, but must be jsonb or json"
                ),
            ));
        }
    }
    let has_key = Spi::get_one_with_args::<bool>(
        "select exists (select from pg_catalog.pg_index i \
             join pg_catalog.pg_attribute a on a.attrelid operator(pg_catalog.=) i.indrelid \
                 and a.attnum operator(pg_catalog.=) i.indkey[0] \
             where i.indrelid operator(pg_catalog.=) $1 and i.indisunique and i.indisvalid and i.indpred is null \
                 and i.indnkeyatts operator(pg_catalog.=) 1 and a.attname operator(pg_catalog.=) $2::pg_catalog.name)",
        &[oid.into(), columns.execution_id.as_str().into()],
    )?;
    if has_key != Some(true) {
        return Err(Error::user(
            PgSqlErrorCode::ERRCODE_INVALID_TABLE_DEFINITION,
            format!(
                "column \"{}\" of table {name} has no unique index",
                columns.execution_id
            ),
        )
        .hint(format!(
            "An execution is found again by it: create unique index on {name} ({});",
            quote_identifier(&columns.execution_id)
        )));
    }
    Ok(())
}

/// Whether the text of such a value depends on settings, as DateStyle, IntervalStyle, TimeZone, extra_float_digits, bytea_output and lc_monetary.
fn is_written_as_the_session_says(kind: pg_sys::Oid) -> bool {
    matches!(
        base_type(kind),
        pg_sys::DATEOID
            | pg_sys::TIMESTAMPOID
            | pg_sys::TIMESTAMPTZOID
            | pg_sys::INTERVALOID
            | pg_sys::FLOAT4OID
            | pg_sys::FLOAT8OID
            | pg_sys::BYTEAOID
            | pg_sys::MONEYOID
    )
}

fn type_name(kind: pg_sys::Oid) -> Result<String> {
    let name = tx::read::<String>("select pg_catalog.format_type($1, null)", &[kind.into()])?;
    Ok(name.unwrap_or_default())
}

//! `watch` and `unwatch`: what makes a relation one whose finished rows are uploaded.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};
use pgrx::{default, pg_sys};

use crate::error::{Error, Result};
use crate::owner::{Owner, current_role, has_rights_of, is_superuser, role_name};
use crate::watches::{Columns, ResultSource, Watch, column_type, qualified_name, trigger_names};
use crate::worker::registry::{self, Wake};
use crate::{sandbox, source, tx, uploads};

/// The columns through which application and worker talk: name and type.
const OUR_COLUMNS: [(&str, &str); 9] = [
    ("snowflake_enabled", "boolean not null default false"),
    ("snowflake_table_name", "text"),
    ("snowflake_schema_name", "text"),
    ("snowflake_status", "text"),
    ("snowflake_error_message", "text"),
    ("snowflake_uploaded_at", "timestamptz"),
    ("snowflake_row_count", "bigint"),
    ("snowflake_attempt_count", "integer"),
    ("snowflake_options", "jsonb"),
];

#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::too_many_arguments)] // They are named in SQL.
fn watch(
    relation: &str,
    create_if_missing: default!(bool, false),
    act_for_users: default!(bool, false),
    execution_id_column: default!(&str, "'execution_id'"),
    status_column: default!(&str, "'status'"),
    user_id_column: default!(Option<&str>, "'user_id'"),
    result_rows_column: default!(&str, "'result_rows'"),
    result_columns_column: default!(Option<&str>, "'result_columns'"),
    finished: default!(Vec<String>, "'{completed}'"),
    result_function: default!(Option<&str>, "null"),
    result_relation: default!(Option<&str>, "null"),
) -> Result<i64, ErrorReport> {
    let columns = Columns {
        execution_id: execution_id_column.to_owned(),
        status: status_column.to_owned(),
        user_id: user_id_column.map(str::to_owned),
    };
    let result = match (result_function, result_relation) {
        (None, None) => Wanted::Columns {
            rows: result_rows_column.to_owned(),
            columns: result_columns_column.map(str::to_owned),
        },
        (Some(function), None) => Wanted::Function(function),
        (None, Some(relation)) => Wanted::Relation(relation),
        (Some(_), Some(_)) => {
            return Err(Error::invalid(
                "the results are either what result_function gives or what result_relation holds",
            )
            .into());
        }
    };
    Ok(start(
        relation,
        create_if_missing,
        act_for_users,
        columns,
        &result,
        finished,
    )?)
}

#[pg_extern(volatile, parallel_unsafe)]
fn unwatch(relation: &str) -> Result<bool, ErrorReport> {
    Ok(stop(relation)?)
}

/// Where the caller says that results are, in the caller's words.
enum Wanted<'a> {
    Columns {
        rows: String,
        columns: Option<String>,
    },
    Function(&'a str),
    Relation(&'a str),
}

impl Wanted<'_> {
    fn resolve(&self) -> Result<ResultSource> {
        match self {
            Self::Columns { rows, columns } => Ok(ResultSource::Columns {
                rows: rows.clone(),
                columns: columns.clone(),
            }),
            Self::Function(name) => ResultSource::function(name),
            Self::Relation(name) => Ok(ResultSource::Relation(existing(name)?)),
        }
    }
}

fn start(
    relation: &str,
    create: bool,
    act_for_users: bool,
    columns: Columns,
    result: &Wanted<'_>,
    finished: Vec<String>,
) -> Result<i64> {
    tx::require_primary("watch")?;
    sandbox::require_unrestricted()?;
    if finished.is_empty() {
        return Err(Error::invalid("finished must name at least one status"));
    }
    let caller = current_role();
    if act_for_users && !is_superuser(caller) {
        return Err(
            Error::denied("only superusers may watch with act_for_users")
                .hint("It lets the relation's rows choose whose Snowflake configuration is used."),
        );
    }
    let oid = match find(relation)? {
        Some(oid) => oid,
        None if create => create_standard_table(relation, &columns, result)?,
        None => {
            return Err(undefined(relation).hint("Pass create_if_missing => true to have it made."));
        }
    };
    let name = qualified_name(oid)?.ok_or_else(|| Error::missing("the relation was dropped"))?;
    let owner = check_relation(oid, &name, caller)?;
    add_columns(oid, &name)?;
    let result = result.resolve()?;
    check_columns(oid, &name, &columns, &result)?;
    let mut watch = Watch {
        id: 0,
        relation: oid,
        owner,
        act_for_users,
        is_active: true,
        finished,
        columns,
        result,
    };
    check_result(&watch)?;
    watch.id = save(&watch)?;
    create_triggers(&name, &watch)?;
    registry::wake_at_commit(Wake::NewWorker);
    Ok(watch.id)
}

/// Parses what will give the rows as the worker will, and as whom, so that a mistake shows now and not in every upload.
fn check_result(watch: &Watch) -> Result<()> {
    let query = sandbox::as_extension_owner(|| watch.result_query())?;
    query.map_or(Ok(()), |query| {
        sandbox::as_table_owner(watch.owner.oid(), || source::check_query(&query))
    })
}

fn save(watch: &Watch) -> Result<i64> {
    let (rows, result_columns, function, relation) = match &watch.result {
        ResultSource::Columns { rows, columns } => {
            (Some(rows.as_str()), columns.as_deref(), None, None)
        }
        ResultSource::Function(function) => (None, None, Some(function.as_str()), None),
        ResultSource::Relation(relation) => (None, None, None, Some(*relation)),
    };
    sandbox::as_extension_owner(|| {
        Ok(Spi::get_one_with_args::<i64>(
            "insert into snowflake_bridge.watches as w (relation, user_id, owner_oid, act_for_users, finished, execution_id_column, \
                 status_column, user_id_column, result_rows_column, result_columns_column, result_function, result_relation, \
                 installation_id) \
             select $1::pg_catalog.regclass, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::pg_catalog.regclass, i.id \
             from snowflake_bridge.installation i \
             on conflict (relation) do update set is_active = true, user_id = excluded.user_id, owner_oid = excluded.owner_oid, \
                 act_for_users = excluded.act_for_users, finished = excluded.finished, \
                 execution_id_column = excluded.execution_id_column, status_column = excluded.status_column, \
                 user_id_column = excluded.user_id_column, result_rows_column = excluded.result_rows_column, \
                 result_columns_column = excluded.result_columns_column, \
                 result_function = excluded.result_function, result_relation = excluded.result_relation \
             returning w.id",
            &[
                watch.relation.into(),
                watch.owner.user_id().into(),
                watch.owner.oid_argument(),
                watch.act_for_users.into(),
                watch.finished.clone().into(),
                watch.columns.execution_id.as_str().into(),
                watch.columns.status.as_str().into(),
                watch.columns.user_id.as_deref().into(),
                rows.into(),
                result_columns.into(),
                function.into(),
                relation.into(),
            ],
        )?
        .unwrap_or_default())
    })
}

fn stop(relation: &str) -> Result<bool> {
    tx::require_primary("unwatch")?;
    sandbox::require_unrestricted()?;
    let oid = existing(relation)?;
    let name = qualified_name(oid)?.ok_or_else(|| Error::missing("the relation was dropped"))?;
    check_relation(oid, &name, current_role())?;
    let Some(watch) = sandbox::as_extension_owner(|| Watch::of_relation(oid))? else {
        return Ok(false);
    };
    for trigger in trigger_names() {
        Spi::run(&format!("drop trigger if exists {trigger} on {name}"))?;
    }
    sandbox::as_extension_owner(|| {
        uploads::cancel_of_watch(watch.id)?;
        Ok(Spi::run_with_args(
            "update snowflake_bridge.watches set is_active = false where id = $1",
            &[watch.id.into()],
        )?)
    })?;
    Ok(true)
}

/// Resolves a name as the caller would in any statement.
pub fn find(relation: &str) -> Result<Option<pg_sys::Oid>> {
    Ok(Spi::get_one_with_args::<pg_sys::Oid>(
        "select pg_catalog.to_regclass($1)::pg_catalog.oid",
        &[relation.into()],
    )?)
}

/// Resolves a name that has to be there.
///
/// # Errors
/// `42P01` if it is not.
pub fn existing(relation: &str) -> Result<pg_sys::Oid> {
    find(relation)?.ok_or_else(|| undefined(relation))
}

fn undefined(relation: &str) -> Error {
    Error::user(
        PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
        format!("relation \"{relation}\" does not exist"),
    )
}

/// Only an ordinary or partitioned table, and only by its owner. Returns that owner.
fn check_relation(oid: pg_sys::Oid, name: &str, caller: pg_sys::Oid) -> Result<Owner> {
    let (kind, owner) = Spi::get_two_with_args::<String, pg_sys::Oid>(
        "select c.relkind::pg_catalog.text, c.relowner from pg_catalog.pg_class c where c.oid operator(pg_catalog.=) $1",
        &[oid.into()],
    )?;
    let owner = owner.ok_or_else(|| Error::missing("the relation was dropped"))?;
    if !matches!(kind.as_deref(), Some("r" | "p")) {
        return Err(Error::user(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("{name} is not a table"),
        )
        .hint("Watch the table in which executions finish."));
    }
    if !has_rights_of(caller, owner) {
        return Err(Error::denied(format!("must be owner of table {name}")));
    }
    Ok(Owner::Role {
        name: role_name(owner)?,
        oid: owner,
    })
}

fn create_standard_table(
    relation: &str,
    columns: &Columns,
    result: &Wanted<'_>,
) -> Result<pg_sys::Oid> {
    let name = Spi::get_one_with_args::<String>(
        "select pg_catalog.string_agg(pg_catalog.quote_ident(part), '.' order by place) \
         from pg_catalog.unnest(pg_catalog.parse_ident($1)) with ordinality as parts (part, place)",
        &[relation.into()],
    )?
    .unwrap_or_default();
    let quoted = |name: &str| quote_identifier(name);
    let result = match result {
        Wanted::Columns { rows, columns } => format!(
            "{} jsonb, {} jsonb, ",
            quoted(columns.as_deref().unwrap_or("result_columns")),
            quoted(rows)
        ),
        Wanted::Function(_) | Wanted::Relation(_) => String::new(),
    };
    Spi::run(&format!(
        "create table {name} ( \
             {execution_id} text primary key, {user_id} text, name text, template_id text, instance_id text, \
             execution_type text, parameters jsonb, {status} text not null default 'pending', {result}result_total_rows bigint, error_message text, \
             created_at timestamptz not null default pg_catalog.now(), started_at timestamptz, completed_at timestamptz)",
        execution_id = quoted(&columns.execution_id),
        user_id = quoted(columns.user_id.as_deref().unwrap_or("user_id")),
        status = quoted(&columns.status),
    ))?;
    find(relation)?.ok_or_else(|| {
        Error::missing(format!(
            "relation \"{relation}\" was created but cannot be seen"
        ))
    })
}

fn add_columns(oid: pg_sys::Oid, name: &str) -> Result<()> {
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

fn check_columns(
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
    for column in result.watched_columns() {
        let found = column_type(oid, column)?;
        if found != "jsonb" && found != "json" {
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

fn create_triggers(name: &str, watch: &Watch) -> Result<()> {
    let (id, status) = (watch.id, quote_identifier(&watch.columns.status));
    let mut of = vec![status.clone(), "snowflake_enabled".to_owned()];
    of.extend(watch.result.watched_columns().map(quote_identifier));
    let of = of.join(", ");
    let is_finished: Vec<String> = watch
        .finished
        .iter()
        .map(|finished| {
            let finished = quote_literal(finished);
            format!("new.{status}::pg_catalog.text operator(pg_catalog.=) {finished}")
        })
        .collect();
    // Evaluated for every row that such a statement touches, so it is plain SQL and cheap.
    let when = format!("new.snowflake_enabled and ({})", is_finished.join(" or "));
    let row = |function| {
        format!("row when ({when}) execute function snowflake_bridge.{function}('{id}')")
    };
    let statement = "statement execute function snowflake_bridge.gather()".to_owned();
    let triggers = trigger_names().into_iter().zip([
        ("before", row("mark_pending")),
        ("after", row("enqueue")),
        ("before", statement.clone()),
        ("after", statement),
    ]);
    for (trigger, (moment, action)) in triggers {
        Spi::run(&format!(
            "create or replace trigger {trigger} {moment} insert or update of {of} on {name} for each {action}"
        ))?;
    }
    Ok(())
}

//! `watch` and `unwatch`: what makes a relation one whose finished rows are uploaded.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};
use pgrx::{default, pg_sys};

use super::columns::{add_columns, check_columns, create_standard_table};
use crate::error::{Error, Result};
use crate::owner::{Owner, current_role, has_rights_of, is_superuser, role_name};
use crate::watches::{
    Access, Columns, ResultSource, Watch, column_type, qualified_name, trigger_names,
};
use crate::worker::registry::{self, Wake};
use crate::{guards, sandbox, source, tx, uploads};

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
    /// The columns for the rows, and for their names and types, where these are in the execution's row.
    fn columns(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Columns { rows, columns } => Some((rows, columns.as_deref())),
            Self::Function(_) | Self::Relation(_) => None,
        }
    }

    fn resolve(&self) -> Result<ResultSource> {
        match self {
            Self::Columns { rows, columns } => Ok(ResultSource::Columns {
                rows: rows.clone(),
                columns: columns.clone(),
            }),
            Self::Function(name) => ResultSource::function(name),
            Self::Relation(name) => {
                let oid = existing(name)?;
                refuse_temporary(oid, name)?;
                Ok(ResultSource::Relation(oid))
            }
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
    if guards::ON && act_for_users && !is_superuser(caller) {
        return Err(
            Error::denied("only superusers may watch with act_for_users")
                .hint("It lets the relation's rows choose whose Snowflake configuration is used."),
        );
    }
    if act_for_users && columns.user_id.is_none() {
        return Err(
            Error::invalid("act_for_users needs a column that names each row's user")
                .hint("Pass its name as user_id_column."),
        );
    }
    let oid = match find(relation)? {
        Some(oid) => oid,
        None if create => create_standard_table(relation, &columns, result.columns())?,
        None => {
            return Err(undefined(relation).hint("Pass create_if_missing => true to have it made."));
        }
    };
    let name = qualified_name(oid)?.ok_or_else(|| Error::missing("the relation was dropped"))?;
    let owner = check_relation(oid, &name, caller)?;
    refuse_temporary(oid, relation)?;
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
    check_triggers(&watch)?;
    registry::wake_at_commit(Wake::NewWorker);
    Ok(watch.id)
}

/// Parses what will give the rows as the worker will, and as whom, so that a mistake shows now and not in every upload.
fn check_result(watch: &Watch) -> Result<()> {
    let held = watch.hold_existing(Access::Read)?;
    let Some(query) = held.result_query()? else {
        return Ok(());
    };
    sandbox::as_table_owner(watch.owner.oid(), || {
        query
            .statement
            .run(|text| source::check_query(text, query.id.0))
    })
}

/// The statements so far went by the relation's name, which may have come to mean something else, and code of others may have
/// been attached to it: if so, they are undone.
fn check_triggers(watch: &Watch) -> Result<()> {
    watch.hold_existing(Access::Write)?;
    let names = trigger_names().map(str::to_owned).to_vec();
    let are_there = tx::read::<bool>(
        "select pg_catalog.count(*) operator(pg_catalog.=) pg_catalog.cardinality($2) from pg_catalog.pg_trigger t \
         where t.tgrelid operator(pg_catalog.=) $1 and t.tgname operator(pg_catalog.=) any ($2::pg_catalog.name[])",
        &[watch.relation.into(), names.into()],
    )?;
    if are_there == Some(true) {
        return Ok(());
    }
    Err(Error::missing(
        "the relation was renamed while snowflake_bridge.watch was at it",
    ))
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

/// What only its own session can read: a temporary table, or a view of one.
fn refuse_temporary(oid: pg_sys::Oid, name: &str) -> Result<()> {
    let is_temporary = tx::read::<bool>(
        "select c.relpersistence operator(pg_catalog.=) 't' from pg_catalog.pg_class c where c.oid operator(pg_catalog.=) $1",
        &[oid.into()],
    )?;
    if is_temporary != Some(true) {
        return Ok(());
    }
    Err(Error::user(
        PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
        format!("relation \"{name}\" is temporary, and cannot be read by the worker"),
    )
    .hint("Take a permanent table, which may be UNLOGGED. snowflake_bridge.upload_query loads what a temporary one holds."))
}

/// When the triggers look at a row, before it is written and after: plain SQL, since it is evaluated for every row that a statement
/// touches. Each statement parses both anew, so the first asks no more than whether the row is enabled where the status is a text, which
/// the trigger itself compares for less. The second is whole: PostgreSQL keeps until the statement ends for which rows it is called.
fn conditions(watch: &Watch) -> Result<[String; 2]> {
    let (enabled, status) = ("new.snowflake_enabled", &watch.columns.status);
    let is_text = matches!(
        column_type(watch.relation, status)?,
        pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID
    );
    let status = quote_identifier(status);
    let is_finished: Vec<String> = watch
        .finished
        .iter()
        .map(|finished| {
            let finished = quote_literal(finished);
            format!("new.{status}::pg_catalog.text operator(pg_catalog.=) {finished}")
        })
        .collect();
    let whole = format!("{enabled} and ({})", is_finished.join(" or "));
    let before = if is_text { enabled } else { &whole };
    Ok([before.to_owned(), whole])
}

fn create_triggers(name: &str, watch: &Watch) -> Result<()> {
    let (id, status) = (watch.id, quote_identifier(&watch.columns.status));
    let mut of = vec![status.clone(), "snowflake_enabled".to_owned()];
    of.extend(watch.result.watched_columns().map(quote_identifier));
    let of = of.join(", ");
    let [before, after] = conditions(watch)?;
    let row = |when: &str, function| {
        format!("row when ({when}) execute function snowflake_bridge.{function}('{id}')")
    };
    let statement = "statement execute function snowflake_bridge.gather()".to_owned();
    let triggers = trigger_names().into_iter().zip([
        ("before", row(&before, "mark_pending")),
        ("after", row(&after, "enqueue")),
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

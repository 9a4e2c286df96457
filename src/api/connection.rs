//! Functions that speak to Snowflake while the caller waits: does a connection work, and which tables are there.

use bridge_core::ErrorKind;
use pgrx::datum::{Interval, JsonB, TimestampWithTimeZone};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::configs::{self, Given};
use crate::error::{Error, Result};
use crate::owner::Owner;
use crate::probe::{self, Answer};
use crate::sandbox::{self, as_extension_owner};
use crate::tables::{self, Table};
use crate::uploads::unpack_sqlstate;
use crate::worker::registry::{self, Wake};
use crate::{net, secrets, tx};

#[pg_extern(volatile, parallel_unsafe)]
fn test_connection(
    name: default!(Option<&str>, "'default'"),
    user_id: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(success, bool),
            name!(message, String),
            name!(version, Option<String>),
            name!(account, Option<String>),
            name!(username, Option<String>),
            name!(role, Option<String>),
            name!(warehouse, Option<String>),
            name!(database, Option<String>),
            name!(schema, Option<String>),
            name!(latency, Option<Interval>),
            name!(error_code, Option<String>),
            name!(hint, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let owner = Owner::acting_for(user_id)?;
    Ok(TableIterator::once(test_saved(&owner, name)?))
}

#[pg_extern(name = "test_connection", volatile, strict, parallel_unsafe)]
fn test_settings(
    settings: JsonB,
) -> Result<
    TableIterator<
        'static,
        (
            name!(success, bool),
            name!(message, String),
            name!(version, Option<String>),
            name!(account, Option<String>),
            name!(username, Option<String>),
            name!(role, Option<String>),
            name!(warehouse, Option<String>),
            name!(database, Option<String>),
            name!(schema, Option<String>),
            name!(latency, Option<Interval>),
            name!(error_code, Option<String>),
            name!(hint, Option<String>),
        ),
    >,
    ErrorReport,
> {
    secrets::hide_statement(c"snowflake_bridge: test_connection");
    sandbox::require_unrestricted()?;
    Ok(TableIterator::once(test_unsaved(Given::from_json(
        settings.0,
    )?)?))
}

#[pg_extern(volatile, parallel_unsafe)]
fn list_tables(
    database: default!(Option<String>, "NULL"),
    schema: default!(Option<String>, "NULL"),
    config: default!(Option<&str>, "'default'"),
    user_id: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(name, String),
            name!(type, String),
            name!(row_count, Option<i64>),
            name!(size_bytes, Option<i64>),
            name!(created, Option<TimestampWithTimeZone>),
            name!(last_altered, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    let owner = Owner::acting_for(user_id)?;
    let settings = as_extension_owner(|| configs::require(&owner, config)?.open())?;
    let found = tables::list(settings, database, schema)?;
    Ok(TableIterator::new(found.into_iter().map(
        |Table {
             name,
             kind,
             rows,
             bytes,
             created,
             last_altered,
         }| (name, kind, rows, bytes, created, last_altered),
    )))
}

/// The row that both forms of `test_connection` answer with.
type Row = (
    bool,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<Interval>,
    Option<String>,
    Option<String>,
);

/// Tests a saved configuration and notes the outcome in its row, where this transaction may write.
fn test_saved(owner: &Owner, name: Option<&str>) -> Result<Row> {
    if name.is_some_and(|name| name.trim_start().starts_with('{')) {
        return Err(Error::invalid("the name of a configuration is expected here, not settings")
            .hint("Cast the settings: test_connection('{…}'::jsonb), or name them: test_connection(settings => '{…}')."));
    }
    let stored = as_extension_owner(|| configs::require(owner, name))?;
    let outcome = as_extension_owner(|| stored.open()).and_then(probe::examine);
    if tx::read(
        "select not pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool",
        &[],
    )? == Some(true)
    {
        as_extension_owner(|| match &outcome {
            Ok(_) => configs::mark_tested(stored.id, stored.version),
            Err(Error::Core(error)) if error.kind() == ErrorKind::Credentials => {
                configs::mark_refused(stored.id, stored.version, &error.to_string())
            }
            Err(error) => configs::mark_failed(stored.id, stored.version, &error.to_string()),
        })?;
        registry::wake_at_commit(Wake::Worker);
    }
    row(outcome)
}

fn test_unsaved(given: Given) -> Result<Row> {
    let draft = given.complete()?;
    let hosts = net::limits()?.allowed_hosts;
    row(draft
        .settings(&hosts)
        .and_then(probe::examine)
        .map_err(|error| draft.with_cure(error)))
}

/// A connection that does not work is an answer; anything else that goes wrong is an error.
fn row(outcome: Result<Answer>) -> Result<Row> {
    match outcome {
        Ok(answer) => {
            let advice = answer.advice();
            let latency = i64::try_from(answer.latency.as_micros())
                .map(Interval::from_micros)
                .ok();
            Ok((
                true,
                "connected".to_owned(),
                answer.version,
                answer.account,
                answer.username,
                answer.role,
                answer.warehouse,
                answer.database,
                answer.schema,
                latency,
                None,
                advice,
            ))
        }
        Err(Error::Core(error)) => {
            let hint = error.hint().map(str::to_owned);
            let code = error.code().map(str::to_owned);
            let error = Error::Core(error);
            let code = code.unwrap_or_else(|| unpack_sqlstate(error.sqlstate_and_hint().0));
            Ok((
                false,
                error.to_string(),
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                Some(code),
                hint,
            ))
        }
        Err(error) => Err(error),
    }
}

//! Rows in Snowflake that were loaded long ago, and how they go.

use bridge_core::config::ConnectionSettings;
use bridge_core::names::{self, ColumnCase};
use bridge_core::snowflake::SessionInfo;
use bridge_core::snowflake::sql::TableName;
use bridge_core::upload;
use bridge_core::{Error as CoreError, ErrorKind};
use chrono::{DateTime, Utc};
use pgrx::datum::Interval;
use pgrx::prelude::*;

use crate::error::{Error, Result};
use crate::sandbox::as_extension_owner;
use crate::{guc, probe};

/// A table as the caller names it: without schema or database, those of the session.
pub struct Target {
    pub table: String,
    pub schema: Option<String>,
    pub database: Option<String>,
}

/// Deletes the rows that uploads brought more than `older_than` ago, and waits until Snowflake has done so; the number of
/// rows.
///
/// # Errors
/// `22023` for an interval that is not positive, or a name that Snowflake cannot hold; what Snowflake says.
pub fn delete(settings: ConnectionSettings, target: Target, older_than: Interval) -> Result<i64> {
    let moment = before(older_than)?;
    let rows = probe::within_session(settings, guc::statement_timeout(), move |session| {
        Box::pin(async move {
            let table = target.resolve(session.info())?;
            upload::delete_uploaded_before(session, &table, moment).await
        })
    })?;
    Ok(i64::try_from(rows).unwrap_or(i64::MAX))
}

/// The moment that lies so far back, by PostgreSQL's calendar: a month is a month.
fn before(older_than: Interval) -> Result<DateTime<Utc>> {
    // Raised rights pin search_path, and with it what the operators mean.
    let (micros, is_past) = as_extension_owner(|| {
        Ok(Spi::get_two_with_args::<i64, bool>(
            "select (extract(epoch from now() - $1) * 1000000)::bigint, $1 > '0'::interval",
            &[older_than.into()],
        )?)
    })?;
    let moment = micros.and_then(DateTime::from_timestamp_micros);
    match (moment, is_past) {
        (Some(moment), Some(true)) => Ok(moment),
        _ => Err(
            Error::invalid("older_than must be a positive interval").hint(
                "Write it as in delete_uploaded(older_than => '90 days', table_name => 'REPORT').",
            ),
        ),
    }
}

impl Target {
    fn resolve(&self, session: &SessionInfo) -> bridge_core::Result<TableName> {
        let part = |what: &str, given: Option<&str>, current: Option<&String>| match (
            given.filter(|name| !name.is_empty()),
            current,
        ) {
            (Some(name), _) => names::object_name(name, ColumnCase::Upper),
            (None, Some(current)) => Ok(current.clone()),
            (None, None) => Err(CoreError::new(
                ErrorKind::Configuration,
                format!("no {what} given, and the connection has none"),
            )
            .with_hint(format!("Name the {what}, or set one in the configuration."))),
        };
        Ok(TableName {
            database: part(
                "database",
                self.database.as_deref(),
                session.database.as_ref(),
            )?,
            schema: part("schema", self.schema.as_deref(), session.schema.as_ref())?,
            table: part("table", Some(&self.table), None)?,
        })
    }
}

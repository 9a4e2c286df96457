//! The tables of a Snowflake database or schema, as `SHOW TABLES` tells them: it wakes no warehouse and costs nothing.

use bridge_core::config::ConnectionSettings;
use bridge_core::names::{self, ColumnCase};
use bridge_core::snowflake::{QueryResult, SessionInfo, Statement, Warehouse, sql};
use bridge_core::{Error as CoreError, ErrorKind};
use pgrx::datum::{TimestampWithTimeZone, to_timestamp};
use pgrx::prelude::*;

use crate::error::Result;
use crate::probe;

/// `SHOW` never answers with more; https://docs.snowflake.com/en/sql-reference/sql/show-tables
const SHOW_LIMIT: usize = 10_000;

pub struct Table {
    pub name: String,
    pub kind: String,
    pub rows: Option<i64>,
    pub bytes: Option<i64>,
    pub created: Option<TimestampWithTimeZone>,
    /// `SHOW TABLES` of today's Snowflake does not tell.
    pub last_altered: Option<TimestampWithTimeZone>,
}

/// The tables of a schema, of all schemas of a database, or, if neither is named, of where the session finds itself.
/// Names are folded to upper case, as Snowflake does, unless they could not be meant so.
///
/// # Errors
/// What keeps the connection from working, or a name that does not exist there.
pub fn list(
    settings: ConnectionSettings,
    database: Option<String>,
    schema: Option<String>,
) -> Result<Vec<Table>> {
    let result = probe::within_session(settings, probe::LONGEST, move |session| {
        Box::pin(async move {
            let (database, schema) = scope(session.info(), database.as_deref(), schema.as_deref())?;
            let show = sql::show_tables(database.as_deref(), schema.as_deref())?;
            session.execute(&Statement::new(show)).await
        })
    })?;
    if result.rows.len() >= SHOW_LIMIT {
        warning!("Snowflake lists at most {SHOW_LIMIT} tables; name a schema to see the rest");
    }
    (0..result.rows.len())
        .map(|row| Table::from_row(&result, row))
        .collect()
}

/// Database and schema to list, as Snowflake stores their names.
fn scope(
    session: &SessionInfo,
    database: Option<&str>,
    schema: Option<&str>,
) -> bridge_core::Result<(Option<String>, Option<String>)> {
    let folded = |name: Option<&str>| {
        name.filter(|name| !name.is_empty())
            .map(|name| names::object_name(name, ColumnCase::Upper))
            .transpose()
    };
    Ok(match (folded(database)?, folded(schema)?) {
        (None, None) => (session.database.clone(), session.schema.clone()),
        (None, schema) => (session.database.clone(), schema),
        named => named,
    })
}

impl Table {
    fn from_row(result: &QueryResult, row: usize) -> Result<Self> {
        let text = |column| result.value(row, column).map(str::to_owned);
        let number = |column| {
            result
                .value(row, column)
                .and_then(|value| value.parse().ok())
        };
        // Seconds since 1970, with decimals.
        let time = |column| {
            let seconds = result
                .value(row, column)
                .and_then(|value| value.parse().ok());
            seconds.map(to_timestamp)
        };
        let strange = || {
            CoreError::new(
                ErrorKind::Internal,
                "Snowflake's answer to SHOW TABLES names no table",
            )
        };
        Ok(Self {
            name: text("name").ok_or_else(strange)?,
            kind: text("kind").unwrap_or_else(|| "TABLE".to_owned()),
            rows: number("rows"),
            bytes: number("bytes"),
            created: time("created_on"),
            last_altered: time("last_altered"),
        })
    }
}

//! Target options, the same everywhere: keys of `snowflake_options`, checked once, before anything is read.

use bridge_core::json::{Numeric, PlanOptions};
use bridge_core::names::{self, ColumnCase};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::source::OutOfRange;

/// Where an upload goes, as the user asked. Unknown keys are an error, since an option that does nothing is a trap.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetOptions {
    pub table_name: Option<String>,
    pub schema_name: Option<String>,
    pub database: Option<String>,
    pub config: Option<String>,
    pub column_case: Option<ColumnCase>,
    pub numeric: Option<Numeric>,
    pub on_out_of_range: Option<OutOfRange>,
    #[expect(
        dead_code,
        reason = "there is one strategy so far; parsing refuses the others by name"
    )]
    pub strategy: Option<Strategy>,
}

/// How new rows meet those that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    Append,
}

impl TargetOptions {
    /// # Errors
    /// `22023` with the reason, for an unknown key or a value of the wrong type.
    pub fn parse(options: &serde_json::Value) -> Result<Self> {
        if options.is_null() {
            return Ok(Self::default());
        }
        serde_json::from_value(options.clone()).map_err(|error| {
            Error::invalid(format!("snowflake_options: {error}")).hint(
                "Known options are table_name, schema_name, database, config, column_case ('upper', 'preserve'), numeric ('number', 'varchar'), on_out_of_range ('error', 'null', 'text') and strategy ('append').",
            )
        })
    }

    /// How the result's columns are named and typed.
    pub fn plan(&self) -> PlanOptions {
        PlanOptions {
            column_case: self.column_case.unwrap_or(ColumnCase::Upper),
            numeric: self.numeric.unwrap_or(Numeric::Number),
        }
    }

    /// The configuration to use.
    pub fn config_name(&self) -> &str {
        self.config.as_deref().unwrap_or("default")
    }

    /// The names of the table, its schema and its database, as Snowflake stores them; an absent schema or database
    /// is that of the session.
    ///
    /// # Errors
    /// For a name that Snowflake cannot hold.
    pub fn target(&self, default_table: &str) -> Result<(String, Option<String>, Option<String>)> {
        let case = ColumnCase::Upper;
        let table = self
            .table_name
            .as_deref()
            .filter(|name| !name.is_empty())
            .unwrap_or(default_table);
        let optional = |name: &Option<String>| -> Result<Option<String>> {
            Ok(name
                .as_deref()
                .filter(|name| !name.is_empty())
                .map(|name| names::object_name(name, case))
                .transpose()?)
        };
        Ok((
            names::object_name(table, case)?,
            optional(&self.schema_name)?,
            optional(&self.database)?,
        ))
    }
}

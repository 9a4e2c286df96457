//! Target options, the same everywhere: keys of `snowflake_options`, checked once, before anything is read.

use bridge_core::json::{Numeric, OutOfRange, PlanOptions};
use bridge_core::names::{self, ColumnCase};
use bridge_core::spool::Manifest;
use bridge_core::types::ColumnType;
use bridge_core::upload::{ClusterBy, Match, Strategy, StrategyName};
use serde::Deserialize;

use crate::error::{Error, Result};

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
    pub strategy: Option<StrategyName>,
    pub key_columns: Option<Vec<String>>,
    pub cluster_by: Option<ClusterByOption>,
    pub evolve_schema: Option<bool>,
}

/// By what a new table is clustered: a word, or columns.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "cluster_by is neither \"auto\" nor an array of column names"
)]
pub enum ClusterByOption {
    Word(ClusterByWord),
    Columns(Vec<String>),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterByWord {
    Auto,
}

const KNOWN: &str = "Known options are table_name, schema_name, database, config, column_case ('upper', 'preserve'), \
    numeric ('number', 'varchar'), on_out_of_range ('error', 'null', 'text'), strategy ('append', 'upsert', 'replace'), key_columns, cluster_by ('auto' or columns) \
    and evolve_schema.";

impl TargetOptions {
    /// # Errors
    /// `22023` with the reason, for an unknown key, a value of the wrong type, or options that contradict each other.
    pub fn parse(options: &serde_json::Value) -> Result<Self> {
        if options.is_null() {
            return Ok(Self::default());
        }
        let options: Self = serde_json::from_value(options.clone())
            .map_err(|error| Error::invalid(format!("snowflake_options: {error}")).hint(KNOWN))?;
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<()> {
        let strategy = self.strategy.unwrap_or_default();
        if self.key_columns.is_some() && strategy != StrategyName::Upsert {
            return Err(Error::invalid(format!(
                "snowflake_options: key_columns contradicts the strategy {}",
                match strategy {
                    StrategyName::Replace => "replace",
                    _ => "append",
                }
            ))
            .hint(
                "Only an upsert matches rows: set strategy to 'upsert', or leave key_columns out.",
            ));
        }
        let cluster_by = match &self.cluster_by {
            Some(ClusterByOption::Columns(columns)) => Some(columns),
            _ => None,
        };
        for (option, columns) in [
            ("key_columns", self.key_columns.as_ref()),
            ("cluster_by", cluster_by),
        ] {
            if columns
                .is_some_and(|columns| columns.is_empty() || columns.iter().any(String::is_empty))
            {
                return Err(Error::invalid(format!(
                    "snowflake_options: {option} is or names nothing"
                ))
                .hint("Name at least one column, or leave the option out."));
            }
        }
        Ok(())
    }

    /// How the rows of this result meet those that are in the table.
    ///
    /// # Errors
    /// If the keys are no columns of the result, nothing tells what an upsert matches by, or it is a date that is text by
    /// `on_out_of_range`.
    pub fn strategy(&self, manifest: &Manifest) -> Result<Strategy> {
        let strategy = Strategy::choose(
            self.strategy.unwrap_or_default(),
            self.key_columns.as_deref(),
            self.plan().column_case,
            manifest,
        )?;
        // Its dates and timestamps are text, so that another column may be taken for the date, or whole moments for days.
        if self.on_out_of_range == Some(OutOfRange::Text)
            && let Strategy::Upsert(Match::Dates(date)) = &strategy
            && manifest
                .columns
                .iter()
                .any(|column| column.name == date.name && column.column_type == ColumnType::Text)
        {
            return Err(Error::invalid(format!(
                "an upsert by the days of the column \"{}\" is not possible where on_out_of_range makes dates text",
                date.name
            ))
            .hint("Name the columns that identify a row with key_columns, or set on_out_of_range to error or null."));
        }
        Ok(strategy)
    }

    /// By what the table is clustered if it is created.
    pub fn cluster_by(&self) -> ClusterBy {
        match &self.cluster_by {
            None => ClusterBy::Nothing,
            Some(ClusterByOption::Word(ClusterByWord::Auto)) => ClusterBy::Auto,
            Some(ClusterByOption::Columns(columns)) => {
                ClusterBy::Columns(columns.clone(), self.plan().column_case)
            }
        }
    }

    /// Whether the table is changed where it does not take the result.
    pub fn evolve_schema(&self) -> bool {
        self.evolve_schema.unwrap_or(true)
    }

    /// How the result's columns are named and typed.
    pub fn plan(&self) -> PlanOptions {
        PlanOptions {
            column_case: self.column_case.unwrap_or(ColumnCase::Upper),
            numeric: self.numeric.unwrap_or(Numeric::Number),
            on_out_of_range: self.on_out_of_range.unwrap_or_default(),
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

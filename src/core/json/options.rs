//! The user's choices about the columns of a result.

use std::str::FromStr;

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::names::ColumnCase;

/// What becomes of numbers whose digits nobody declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numeric {
    /// They become NUMBER(38, s); what fits into none exactly is refused.
    #[default]
    Number,
    /// The column becomes VARCHAR, each number in its own digits, whatever numbers come: a table that was made for
    /// integers would not take the first decimal as text. One that has a NUMBER is filled with numbers if they fit.
    Varchar,
}

impl FromStr for Numeric {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "number" => Ok(Self::Number),
            "varchar" => Ok(Self::Varchar),
            _ => Err(Error::new(
                ErrorKind::Configuration,
                "numeric is neither number nor varchar",
            )
            .with_hint("Set numeric to number, or to varchar to load numbers as text.")),
        }
    }
}

/// What becomes of a value that Snowflake cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutOfRange {
    /// The upload is refused.
    #[default]
    Error,
    /// NULL in its place, counted.
    Null,
    /// Columns of a type that has such values are text from the start.
    Text,
}

/// The user's choices about columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanOptions {
    /// What becomes of lower-case letters in names.
    pub column_case: ColumnCase,
    /// What becomes of decimal numbers.
    pub numeric: Numeric,
    /// What becomes of values that Snowflake cannot hold.
    pub on_out_of_range: OutOfRange,
}

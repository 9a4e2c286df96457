//! Results that come as JSON: an array of rows, each an object or an array, turned into typed columns.
//!
//! A result is walked twice, as a stream of tokens and never as a tree: [`Inference`] looks at every row and makes the
//! [`Plan`], [`Rows`] then hands the values over as the plan says. Neither recurses, and neither holds more than one
//! value in memory, so that depth and length of the input are nobody's danger.

mod declared;
mod document;
mod inference;
mod key_index;
mod options;
mod reading;
mod rows;
mod text;
mod walker;
mod writer;

pub use declared::{Declared, parse_result_columns};
pub use document::{Document, TOO_LONG_HINT};
pub use inference::{Inference, Plan, PlannedColumn, SourceKey, too_many_digits};
pub use options::{Numeric, OutOfRange, PlanOptions};
pub use rows::Rows;
pub use text::parse_text;

use crate::error::Result;

/// A piece of a JSON document, in the order in which it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, in its own digits.
    Number(&'a str),
    /// A string, unescaped.
    String(&'a str),
    /// The key of the value that follows, unescaped.
    Key(&'a str),
    /// `[`
    BeginArray,
    /// `]`
    EndArray,
    /// `{`
    BeginObject,
    /// `}`
    EndObject,
}

impl Token<'_> {
    /// What begins here, for messages, which never show a value.
    fn describe(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Key(_) => "a key",
            Self::BeginArray | Self::EndArray => "an array",
            Self::BeginObject | Self::EndObject => "an object",
        }
    }
}

/// Takes the tokens of one document.
pub trait TokenSink {
    /// Takes the next token.
    ///
    /// # Errors
    /// Whatever makes the document useless to the sink; it is then not given further tokens.
    fn token(&mut self, token: Token<'_>) -> Result<()>;
}

#[cfg(test)]
mod tests;

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
mod parts;
mod reading;
mod rows;
mod seen;
mod stored;
mod text;
mod walker;
mod writer;

pub use declared::{Declared, parse_result_columns};
pub use document::{Document, TOO_LONG_HINT};
pub use inference::{Inference, Plan, PlannedColumn, SourceKey, too_many_digits};
pub use options::{Numeric, OutOfRange, PlanOptions};
pub use parts::infer_together;
pub use rows::Rows;
pub use stored::{Reader, Stored};
pub use text::parse_text;

use crate::decimal;
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

/// Any number, for who only wants to know that one stands there.
const A_NUMBER: Token<'static> = Token::Number("");

/// Takes the tokens of one document.
pub trait TokenSink {
    /// Takes the next token.
    ///
    /// # Errors
    /// Whatever makes the document useless to the sink; it is then not given further tokens.
    fn token(&mut self, token: Token<'_>) -> Result<()>;

    /// Takes the next token, which is a number in its stored form: the same as [`Token::Number`] with its text.
    ///
    /// # Errors
    /// As [`token`](Self::token).
    fn number(&mut self, number: &decimal::Stored<'_>) -> Result<()> {
        number.with_text(|text| self.token(Token::Number(text)))
    }
}

#[cfg(test)]
mod tests;

//! The outer form of a result, an array of rows: where a token stands, and whether it may stand there.

use super::Token;
use crate::error::{Error, ErrorKind, Result};

/// What a token is to the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Part of the frame around rows and values.
    Frame,
    /// The key of the next value of the row.
    Key,
    /// A whole value of the row.
    Scalar,
    /// The first token of an object or array that is a value of the row.
    NestedBegin,
    /// A token inside of it.
    Nested,
    /// Its last token.
    NestedEnd,
    /// The row is complete.
    RowEnd,
}

/// How rows are written. All rows of one result are written the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowShape {
    Object,
    Array,
}

/// Follows the tokens of a result.
#[derive(Debug, Default)]
pub(super) struct Walker {
    /// Open brackets: one is the result's, two a row's, more a value's.
    depth: usize,
    ended: bool,
    rows: u64,
    values: usize,
    shape: Option<RowShape>,
}

impl Walker {
    /// The row that the last token stood in, from 1; rows in all at the end.
    pub(super) fn row(&self) -> u64 {
        self.rows
    }

    /// Values of the current row so far, the current one included.
    pub(super) fn values(&self) -> usize {
        self.values
    }

    /// How rows are written, once there was one.
    pub(super) fn shape(&self) -> Option<RowShape> {
        self.shape
    }

    /// Places the next token.
    pub(super) fn step(&mut self, token: Token<'_>) -> Result<Step> {
        match self.depth {
            0 => self.outside(token),
            1 => self.between_rows(token),
            2 => self.in_row(token),
            _ => {
                match token {
                    Token::BeginArray | Token::BeginObject => self.depth += 1,
                    Token::EndArray | Token::EndObject => self.depth -= 1,
                    _ => {}
                }
                Ok(if self.depth == 2 {
                    Step::NestedEnd
                } else {
                    Step::Nested
                })
            }
        }
    }

    /// Adds the rows of another result to those of this one; nothing if they do not go together, or if either has not ended.
    /// Only rows that are objects do: of arrays, the first one says what the others have to have.
    pub(super) fn add(&mut self, other: &Self) -> Option<()> {
        let is_whole =
            |walker: &Self| walker.ended && matches!(walker.shape, Some(RowShape::Object) | None);
        if !is_whole(self) || !is_whole(other) {
            return None;
        }
        self.rows += other.rows;
        self.shape = self.shape.or(other.shape);
        Some(())
    }

    /// Says that no more tokens come.
    pub(super) fn finish(&self) -> Result<()> {
        if self.depth == 0 {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Internal,
            "the result ends before its last row does",
        ))
    }

    fn outside(&mut self, token: Token<'_>) -> Result<Step> {
        if self.ended {
            return Err(Error::new(
                ErrorKind::Internal,
                "the result goes on after its last row",
            ));
        }
        match token {
            Token::BeginArray => self.depth = 1,
            // No result, which is a result without rows.
            Token::Null => self.ended = true,
            other => {
                return Err(Error::new(
                    ErrorKind::Data,
                    format!(
                        "malformed result: expected an array of rows, found {}",
                        other.describe()
                    ),
                )
                .with_hint("Store the result as a JSON array in which each element is a row."));
            }
        }
        Ok(Step::Frame)
    }

    fn between_rows(&mut self, token: Token<'_>) -> Result<Step> {
        let shape = match token {
            Token::EndArray => {
                self.depth = 0;
                self.ended = true;
                return Ok(Step::Frame);
            }
            Token::BeginObject => RowShape::Object,
            Token::BeginArray => RowShape::Array,
            other => {
                return Err(Error::new(
                    ErrorKind::Data,
                    format!(
                        "malformed result: row {} is {}, where an object or an array was expected",
                        self.rows + 1,
                        other.describe()
                    ),
                ));
            }
        };
        self.rows += 1;
        self.values = 0;
        self.depth = 2;
        if *self.shape.get_or_insert(shape) != shape {
            return Err(Error::new(
                ErrorKind::Data,
                format!(
                    "malformed result: row {} is {}, unlike the rows before it",
                    self.rows,
                    token.describe()
                ),
            )
            .with_hint("Write all rows as objects, or all as arrays."));
        }
        Ok(Step::Frame)
    }

    fn in_row(&mut self, token: Token<'_>) -> Result<Step> {
        match token {
            Token::Key(_) => return Ok(Step::Key),
            Token::EndArray | Token::EndObject => {
                self.depth = 1;
                return Ok(Step::RowEnd);
            }
            _ => self.values += 1,
        }
        match token {
            Token::BeginArray | Token::BeginObject => {
                self.depth = 3;
                Ok(Step::NestedBegin)
            }
            _ => Ok(Step::Scalar),
        }
    }
}

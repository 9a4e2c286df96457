//! The second walk over a result: its values, read as the plan says, go to where rows go.

use super::document::OpenKeys;
use super::inference::{Plan, PlannedColumn, SourceKey};
use super::key_index::KeyIndex;
use super::reading::{DISTINCT_KEYS, Expected, NUMBER_IN_VARIANT, Scratch};
use super::walker::{RowShape, Step, Walker};
use super::writer::number_in_variant;
use super::{Token, TokenSink};
use crate::batch::RowSink;
use crate::error::{Error, ErrorKind, Result};
use crate::names::shown;
use crate::types::{ColumnType, MAX_TEXT_BYTES};

/// Reads the rows of a result into `sink`. The result must be the one that the plan was made from.
pub struct Rows<'a, S: RowSink> {
    plan: &'a Plan,
    sink: &'a mut S,
    walker: Walker,
    index: KeyIndex,
    /// The column of each position of rows that are arrays.
    positions: Vec<Option<usize>>,
    current: Option<usize>,
    scratch: Scratch,
    /// Of the value that is being written.
    keys: OpenKeys,
}

impl<'a, S: RowSink> Rows<'a, S> {
    /// Begins the walk. `sink` must have the columns of the plan, in their order.
    pub fn new(plan: &'a Plan, sink: &'a mut S) -> Self {
        let mut positions = Vec::new();
        for (column, planned) in plan.columns.iter().enumerate() {
            if let SourceKey::Position(position) = planned.source {
                positions.resize(position, None);
                positions.push(Some(column));
            }
        }
        Self {
            plan,
            sink,
            walker: Walker::default(),
            index: KeyIndex::new(
                plan.columns
                    .iter()
                    .map(|planned| planned.source_name.as_str()),
            ),
            positions,
            current: None,
            scratch: Scratch::default(),
            keys: OpenKeys::default(),
        }
    }

    /// Rows complete so far, or begun.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.walker.row()
    }

    /// Ends the walk.
    ///
    /// # Errors
    /// `Internal` when the result had other rows than the plan.
    pub fn finish(self) -> Result<()> {
        self.walker.finish()?;
        if self.walker.row() == self.plan.rows {
            Ok(())
        } else {
            Err(changed())
        }
    }

    fn scalar(&mut self, token: Token<'_>) -> Result<()> {
        let Some((column, planned)) = self.current_column() else {
            // A column of NULLs only was not planned.
            return if token == Token::Null {
                Ok(())
            } else {
                Err(changed())
            };
        };
        match self.scratch.scalar(planned.reading, token) {
            Ok(value) => self.sink.append(column, value),
            Err(expected) => Err(misfit(planned, self.walker.row(), expected)),
        }
    }

    /// Takes one token of an object or array; the last one completes the value.
    fn nested(&mut self, token: Token<'_>, step: Step) -> Result<()> {
        let Some((column, planned)) = self.current_column() else {
            return Err(changed());
        };
        let json = &mut self.scratch.json;
        if step == Step::NestedBegin {
            json.clear();
            self.keys.clear();
        }
        let refused = |expected| Err(misfit(planned, self.walker.row(), expected));
        if planned.column.column_type == ColumnType::Text {
            json.token(token);
        } else if self.keys.is_repeated(token) {
            return refused(DISTINCT_KEYS);
        } else if let Token::Number(number) = token {
            let Some(number) = number_in_variant(number) else {
                return refused(NUMBER_IN_VARIANT);
            };
            json.token(Token::Number(&number));
        } else {
            json.token(token);
        }
        // Looked at on the way, so that memory is bounded by the limit and not by the value.
        if json.as_str().len() > MAX_TEXT_BYTES {
            return refused("within the 128 MB that Snowflake holds");
        }
        if step == Step::NestedEnd {
            return match self.scratch.nested(planned.reading) {
                Ok(value) => self.sink.append(column, value),
                Err(expected) => Err(misfit(planned, self.walker.row(), expected)),
            };
        }
        Ok(())
    }

    fn current_column(&self) -> Option<(usize, &'a PlannedColumn)> {
        let column = self.current?;
        Some((column, self.plan.columns.get(column)?))
    }
}

impl<S: RowSink> TokenSink for Rows<'_, S> {
    fn token(&mut self, token: Token<'_>) -> Result<()> {
        let step = self.walker.step(token)?;
        if matches!(step, Step::Scalar | Step::NestedBegin)
            && self.walker.shape() == Some(RowShape::Array)
        {
            self.current = self
                .positions
                .get(self.walker.values() - 1)
                .copied()
                .flatten();
        }
        match step {
            Step::Frame => Ok(()),
            Step::Key => {
                if let Token::Key(key) = token {
                    self.current = self.index.find(key);
                }
                Ok(())
            }
            Step::Scalar => self.scalar(token),
            Step::NestedBegin | Step::Nested | Step::NestedEnd => self.nested(token, step),
            Step::RowEnd => {
                self.index.restart();
                // Before the row is written, which takes memory of its own.
                self.scratch.forget_large();
                self.sink.end_row()
            }
        }
    }
}

fn misfit(planned: &PlannedColumn, row: u64, expected: Expected) -> Error {
    Error::new(
        ErrorKind::Data,
        format!(
            "column {}, row {row}: the value is not {expected}",
            shown(&planned.source_name)
        ),
    )
    .with_hint("Correct the value, or give the column another type in the result columns.")
}

fn changed() -> Error {
    Error::new(
        ErrorKind::Internal,
        "the result changed between the two walks over it",
    )
}

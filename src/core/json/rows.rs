//! The second walk over a result: its values, read as the plan says, go to where rows go.

use super::document::OpenKeys;
use super::inference::{Plan, PlannedColumn, SourceKey};
use super::key_index::KeyIndex;
use super::options::OutOfRange;
use super::reading::{DISTINCT_KEYS, Expected, NUMBER_IN_VARIANT, Reading, Scratch};
use super::walker::{RowShape, Step, Walker};
use super::writer::number_in_variant;
use super::{A_NUMBER, Token, TokenSink};
use crate::batch::{RowSink, Value};
use crate::decimal;
use crate::error::{Error, ErrorKind, Result};
use crate::names::shown;
use crate::types::{ColumnType, MAX_BINARY_BYTES, MAX_TEXT_BYTES};

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
    /// Whether that value is NULL instead.
    is_left_out: bool,
    /// For each column, the values that Snowflake could not hold as what they are.
    affected: Vec<u64>,
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
            is_left_out: false,
            affected: vec![0; plan.columns.len()],
        }
    }

    /// Rows complete so far, or begun.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.walker.row()
    }

    /// Ends the walk, and tells how many values of which column Snowflake could not hold as what they are.
    ///
    /// # Errors
    /// `Internal` when the result had other rows than the plan.
    pub fn finish(self) -> Result<Vec<(String, u64)>> {
        self.walker.finish()?;
        if self.walker.row() != self.plan.rows {
            return Err(changed());
        }
        Ok(self
            .plan
            .columns
            .iter()
            .zip(self.affected)
            .filter(|(_, affected)| *affected > 0)
            .map(|(planned, affected)| (planned.column.name.clone(), affected))
            .collect())
    }

    fn is_lenient(&self) -> bool {
        self.plan.on_out_of_range == OutOfRange::Null
    }

    fn count(&mut self, column: usize) {
        if let Some(affected) = self.affected.get_mut(column) {
            *affected += 1;
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
        let reading = planned.reading;
        let is_lenient = self.is_lenient();
        match self.scratch.scalar(reading, token) {
            Ok(value) if is_lenient && is_too_long(&value) => {}
            Ok(value) => {
                self.sink.append(column, value)?;
                if !(reading.takes_odd_values() && reading.is_out_of_range(token)) {
                    return Ok(());
                }
            }
            Err(expected) => {
                let is_out_of_range = reading.is_out_of_range(token);
                if !(is_lenient && is_out_of_range) {
                    let row = self.walker.row();
                    return Err(misfit(planned, row, expected, is_out_of_range));
                }
            }
        }
        self.count(column);
        Ok(())
    }

    /// Takes one token of an object or array; the last one completes the value.
    fn nested(&mut self, token: Token<'_>, step: Step) -> Result<()> {
        let Some((column, planned)) = self.current_column() else {
            return Err(changed());
        };
        if step == Step::NestedBegin {
            self.scratch.json.clear();
            self.keys.clear();
            self.is_left_out = false;
        }
        if self.is_left_out {
            return Ok(());
        }
        if let Some(expected) = self.write(planned, token) {
            // Another kind of value than the column's is wrong whatever it holds.
            let is_of_the_kind = match planned.reading {
                Reading::Plain(ColumnType::Variant | ColumnType::Text) => true,
                Reading::Plain(ColumnType::Array) => self.scratch.json.as_str().starts_with('['),
                _ => false,
            };
            if self.is_lenient() && is_of_the_kind {
                self.is_left_out = true;
                self.count(column);
                return Ok(());
            }
            return Err(misfit(planned, self.walker.row(), expected, is_of_the_kind));
        }
        if step == Step::NestedEnd {
            return match self.scratch.nested(planned.reading) {
                Ok(value) => self.sink.append(column, value),
                Err(expected) => Err(misfit(planned, self.walker.row(), expected, false)),
            };
        }
        Ok(())
    }

    /// Writes one token of an object or array, or says what the value is not.
    fn write(&mut self, planned: &PlannedColumn, token: Token<'_>) -> Option<Expected> {
        let json = &mut self.scratch.json;
        if planned.column.column_type == ColumnType::Text {
            json.token(token);
        } else if self.keys.is_repeated(token) {
            return Some(DISTINCT_KEYS);
        } else if let Token::Number(number) = token {
            let Some(number) = number_in_variant(number) else {
                return Some(NUMBER_IN_VARIANT);
            };
            json.token(Token::Number(&number));
        } else {
            json.token(token);
        }
        // Looked at on the way, so that memory is bounded by the limit and not by the value.
        (json.as_str().len() > MAX_TEXT_BYTES).then_some("within the 128 MB that Snowflake holds")
    }

    fn current_column(&self) -> Option<(usize, &'a PlannedColumn)> {
        let column = self.current?;
        Some((column, self.plan.columns.get(column)?))
    }
}

impl<S: RowSink> TokenSink for Rows<'_, S> {
    fn token(&mut self, token: Token<'_>) -> Result<()> {
        let step = self.walker.step(token)?;
        self.take(step, token)
    }

    fn number(&mut self, number: &decimal::Stored<'_>) -> Result<()> {
        let step = self.walker.step(A_NUMBER)?;
        if step == Step::Scalar
            && self.walker.shape() == Some(RowShape::Object)
            && let Some((column, planned)) = self.current_column()
            && let Some(value) = planned.number(number)
        {
            return self.sink.append(column, value);
        }
        number.with_text(|text| self.take(step, Token::Number(text)))
    }
}

impl<S: RowSink> Rows<'_, S> {
    /// Takes a token that has its place.
    fn take(&mut self, step: Step, token: Token<'_>) -> Result<()> {
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

fn is_too_long(value: &Value<'_>) -> bool {
    match value {
        Value::Text(text) | Value::Json(text) => text.len() > MAX_TEXT_BYTES,
        Value::Bytes(bytes) => bytes.len() > MAX_BINARY_BYTES,
        _ => false,
    }
}

fn misfit(planned: &PlannedColumn, row: u64, expected: Expected, is_out_of_range: bool) -> Error {
    Error::new(
        ErrorKind::Data,
        format!(
            "column {}, row {row}: the value is not {expected}",
            shown(&planned.source_name)
        ),
    )
    .with_hint(if is_out_of_range {
        "Correct the value, give the column another type in the result columns, or set on_out_of_range in snowflake_options: null \
         loads such values as NULL, text loads columns of dates, times and numeric as text."
    } else {
        "Correct the value, or give the column another type in the result columns."
    })
}

fn changed() -> Error {
    Error::new(
        ErrorKind::Internal,
        "the result changed between the two walks over it",
    )
}

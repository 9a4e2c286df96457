//! The first walk over a result: which columns it has, and the narrowest type that holds every value of each exactly.

use super::declared::Declared;
use super::key_index::KeyIndex;
use super::options::{Numeric, OutOfRange, PlanOptions};
use super::reading::Reading;
use super::seen::Seen;
use super::walker::{RowShape, Step, Walker};
use super::{A_NUMBER, Token, TokenSink};
use crate::batch::Value;
use crate::decimal;
use crate::error::{Error, ErrorKind, Result};
use crate::names::{
    ColumnCase, MAX_COLUMNS, MAX_NAME_CHARACTERS, column_name, column_names, shown,
    too_many_columns,
};
use crate::types::{Column, ColumnType, MAX_PRECISION, MAX_SCALE};

/// Where in a row the value of a column is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKey {
    /// Under that key of an object.
    Key(String),
    /// At that position of an array, from 0.
    Position(usize),
}

/// A column of the result that the table gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedColumn {
    /// Where its values are.
    pub source: SourceKey,
    /// What the user calls it.
    pub source_name: String,
    /// What it is in Snowflake.
    pub column: Column,
    pub(super) reading: Reading,
}

impl PlannedColumn {
    /// A number as a value of the column; nothing says no more than that it is to be read by its text.
    pub(super) fn number(&self, number: &decimal::Stored<'_>) -> Option<Value<'static>> {
        let (Reading::Plain(_), ColumnType::Number { precision, scale }) =
            (self.reading, self.column.type_in_file())
        else {
            return None;
        };
        let unscaled = number.unscaled(scale)?;
        decimal::has_digits(unscaled, precision).then_some(Value::Decimal { unscaled, scale })
    }
}

/// How to read a result: what [`Inference`] found out and [`Rows`](super::Rows) goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The columns of the result, without those of the stamp.
    pub columns: Vec<PlannedColumn>,
    /// How many rows there are.
    pub rows: u64,
    pub(super) on_out_of_range: OutOfRange,
}

impl Plan {
    /// The columns as [`SpoolWriter::create`](crate::spool::SpoolWriter::create) wants them.
    #[must_use]
    pub fn result_columns(&self) -> Vec<Column> {
        self.columns
            .iter()
            .map(|planned| planned.column.clone())
            .collect()
    }
}

/// Looks at every value of a result.
pub struct Inference {
    walker: Walker,
    index: KeyIndex,
    columns: Vec<Seen>,
    /// How many of the columns were declared; they are the first.
    declared: usize,
    current: usize,
    options: PlanOptions,
    /// Numbers that no NUMBER holds will be NULL.
    is_lenient: bool,
}

impl Inference {
    /// Begins with what the application declared, if anything.
    #[must_use]
    pub fn new(declared: Option<&[Declared]>, options: PlanOptions) -> Self {
        let declared = declared.unwrap_or_default();
        Self {
            walker: Walker::default(),
            index: KeyIndex::new(declared.iter().map(|column| column.name.as_str())),
            columns: declared
                .iter()
                .map(|column| Seen::new(&column.name, column.declared_type))
                .collect(),
            declared: declared.len(),
            current: 0,
            options,
            is_lenient: options.on_out_of_range == OutOfRange::Null
                && options.numeric != Numeric::Varchar,
        }
    }

    /// Makes the plan. Columns come in the order of their declaration, then in the order of their first value.
    ///
    /// # Errors
    /// `Data` when a column's numbers have more digits than Snowflake holds, or names cannot stand beside each other;
    /// `Internal` when the tokens were not those of a whole document.
    pub fn finish(self) -> Result<Plan> {
        self.walker.finish()?;
        let mut kept = Vec::new();
        for (position, seen) in self.columns.iter().enumerate() {
            if let Some(reading) = seen.decide(self.options)? {
                kept.push((position, seen, reading));
            }
        }
        let names = column_names(
            kept.iter().map(|(_, seen, _)| seen.name.as_str()),
            self.options.column_case,
        )?;
        let by_position = self.walker.shape() == Some(RowShape::Array);
        let columns = kept
            .into_iter()
            .zip(names)
            .map(|((position, seen, reading), name)| PlannedColumn {
                source: if by_position {
                    SourceKey::Position(position)
                } else {
                    SourceKey::Key(seen.name.clone())
                },
                source_name: seen.name.clone(),
                column: Column {
                    narrowest: seen.narrowest(reading),
                    ..Column::new(name, reading.column_type())
                },
                reading,
            });
        Ok(Plan {
            columns: columns.collect(),
            rows: self.walker.row(),
            on_out_of_range: self.options.on_out_of_range,
        })
    }

    /// The column of a key, a new one if need be.
    fn column_of_key(&mut self, key: &str) -> Result<usize> {
        if let Some(column) = self.index.find(key) {
            return Ok(column);
        }
        // Refused here already, so that absurd names do not pile up in memory; a character has at most four bytes.
        if key.len() > 4 * MAX_NAME_CHARACTERS {
            column_name(key, ColumnCase::Preserve)?;
        }
        self.add_column(Seen::new(key, None))?;
        Ok(self.index.insert(key))
    }

    /// The column of the current value of a row that is an array.
    fn column_of_position(&mut self) -> Result<usize> {
        let position = self.walker.values() - 1;
        if position >= self.columns.len() {
            if self.declared > 0 || self.walker.row() > 1 {
                return Err(self.wrong_length());
            }
            self.add_column(Seen::new(&format!("COLUMN_{}", self.walker.values()), None))?;
        }
        Ok(position)
    }

    fn add_column(&mut self, seen: Seen) -> Result<()> {
        if self.columns.len() == MAX_COLUMNS {
            return Err(too_many_columns());
        }
        self.columns.push(seen);
        Ok(())
    }

    fn wrong_length(&self) -> Error {
        let columns = self.columns.len();
        let row = self.walker.row();
        let problem = if self.walker.values() > columns {
            "more"
        } else {
            "fewer"
        };
        let error = Error::new(
            ErrorKind::Data,
            format!("malformed result: row {row} has {problem} values than the {columns} columns"),
        );
        if self.declared > 0 {
            error.with_hint(
                "Give each row one value, or null, for each entry of the result columns.",
            )
        } else {
            error.with_hint(
                "Give all rows the same number of values, with null where there is none.",
            )
        }
    }

    /// The column of the value that begins.
    fn seen(&mut self) -> Result<&mut Seen> {
        if self.walker.shape() == Some(RowShape::Array) {
            self.current = self.column_of_position()?;
        }
        let row = self.walker.row();
        let Some(seen) = self.columns.get_mut(self.current) else {
            return Err(Error::new(
                ErrorKind::Internal,
                "a value of an object came without its key",
            ));
        };
        if seen.last_row == row {
            return Err(Error::new(
                ErrorKind::Data,
                format!("row {row} has the key {} twice", shown(&seen.name)),
            ));
        }
        seen.last_row = row;
        Ok(seen)
    }

    /// Adds what another one has seen of the rows that follow, each of them having begun with what was declared. Nothing if
    /// only one walk over all rows says what is to be said of them.
    pub(super) fn add(&mut self, other: Self) -> Option<()> {
        self.walker.add(&other.walker)?;
        for seen in other.columns {
            let column = self.column_of_key(&seen.name).ok()?;
            self.columns.get_mut(column)?.add(&seen);
        }
        Some(())
    }
}

impl TokenSink for Inference {
    fn token(&mut self, token: Token<'_>) -> Result<()> {
        match self.walker.step(token)? {
            Step::Key => {
                if let Token::Key(key) = token {
                    self.current = self.column_of_key(key)?;
                }
            }
            Step::Scalar | Step::NestedBegin => {
                let is_lenient = self.is_lenient;
                self.seen()?.see(token, is_lenient);
            }
            Step::RowEnd => {
                self.index.restart();
                if token == Token::EndArray && self.walker.values() < self.columns.len() {
                    return Err(self.wrong_length());
                }
            }
            Step::Frame | Step::Nested | Step::NestedEnd => {}
        }
        Ok(())
    }

    fn number(&mut self, number: &decimal::Stored<'_>) -> Result<()> {
        if self.walker.step(A_NUMBER)? == Step::Scalar {
            let is_lenient = self.is_lenient;
            let seen = self.seen()?;
            seen.numbers = true;
            seen.measure(Some(number.decimal()), is_lenient);
        }
        Ok(())
    }
}

/// The error for a column whose numbers fit no NUMBER.
#[must_use]
pub fn too_many_digits(column: &str, integer_digits: i64, scale: i64) -> Error {
    Error::new(
        ErrorKind::Data,
        format!(
            "the numbers in column {} need more than Snowflake's {MAX_PRECISION} digits, {MAX_SCALE} of them after the point: {integer_digits} before the point and {scale} after it",
            shown(column)
        ),
    )
    .with_hint("Pass numeric => 'varchar' to load such columns as text, or declare the column as text or double precision.")
}

//! The first walk over a result: which columns it has, and the narrowest type that holds every value of each exactly.

use super::declared::Declared;
use super::key_index::KeyIndex;
use super::options::{Numeric, OutOfRange, PlanOptions};
use super::reading::Reading;
use super::walker::{RowShape, Step, Walker};
use super::{Token, TokenSink};
use crate::decimal::Decimal;
use crate::error::{Error, ErrorKind, Result};
use crate::names::{
    ColumnCase, MAX_COLUMNS, MAX_NAME_CHARACTERS, column_name, column_names, shown,
    too_many_columns,
};
use crate::types::{Column, ColumnType, MAX_PRECISION, MAX_SCALE, SourceType, USUAL_SCALE};

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

    fn see(&mut self, token: Token<'_>) -> Result<()> {
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
        seen.see(token, self.is_lenient);
        Ok(())
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
            Step::Scalar | Step::NestedBegin => self.see(token)?,
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
}

/// What was seen of a column.
#[derive(Debug)]
struct Seen {
    name: String,
    declared_type: Option<SourceType>,
    last_row: u64,
    booleans: bool,
    numbers: bool,
    strings: bool,
    nested: bool,
    /// The most digits before and after the point, over all numbers.
    integer_digits: i64,
    scale: i64,
    /// Whether something was no number that could be measured.
    is_immeasurable: bool,
}

impl Seen {
    fn new(name: &str, declared_type: Option<SourceType>) -> Self {
        Self {
            name: name.to_owned(),
            declared_type,
            last_row: 0,
            booleans: false,
            numbers: false,
            strings: false,
            nested: false,
            integer_digits: 0,
            scale: 0,
            is_immeasurable: false,
        }
    }

    /// `is_lenient`: numbers that no NUMBER holds will be NULL.
    fn see(&mut self, token: Token<'_>, is_lenient: bool) {
        match token {
            Token::Bool(_) => self.booleans = true,
            Token::Number(text) => {
                self.numbers = true;
                self.measure(text, is_lenient);
            }
            Token::String(text) => {
                self.strings = true;
                if self.declared_type == Some(SourceType::Numeric) {
                    self.measure(text, is_lenient);
                }
            }
            Token::BeginArray | Token::BeginObject => self.nested = true,
            _ => {}
        }
    }

    fn measure(&mut self, number: &str, is_lenient: bool) {
        match Decimal::parse(number) {
            Some(number) if is_lenient && !number.fits_number() => {}
            Some(number) => {
                self.integer_digits = self.integer_digits.max(number.integer_digits());
                self.scale = self.scale.max(number.scale());
            }
            None => self.is_immeasurable = true,
        }
    }

    /// How to read the column; nothing for one that is not created because nobody knows what it holds.
    fn decide(&self, options: PlanOptions) -> Result<Option<Reading>> {
        let is_text = options.on_out_of_range == OutOfRange::Text;
        let as_varchar = options.numeric == Numeric::Varchar;
        let reading = match self.declared_type {
            Some(SourceType::Numeric) if as_varchar => Reading::NumberText,
            Some(SourceType::Numeric) if is_text => Reading::NumericText,
            Some(SourceType::Numeric) => Reading::Plain(
                ColumnType::number_for(self.integer_digits, self.scale, USUAL_SCALE)
                    .ok_or_else(|| self.too_many_digits())?,
            ),
            Some(SourceType::Real) => Reading::Real,
            Some(SourceType::Uuid) => Reading::Uuid,
            Some(declared) => match declared.column_type() {
                Some(
                    moment @ (ColumnType::Date
                    | ColumnType::Time
                    | ColumnType::TimestampNtz
                    | ColumnType::TimestampTz),
                ) if is_text => Reading::MomentText(moment),
                Some(column_type) => Reading::Plain(column_type),
                // Money is a string here, with the sign of its currency, and only the locale that wrote it could read it.
                None => Reading::Plain(ColumnType::Text),
            },
            None => match (self.booleans, self.numbers, self.strings, self.nested) {
                (false, false, false, false) => return Ok(None),
                (true, false, false, false) => Reading::Plain(ColumnType::Boolean),
                (false, false, true, false) => Reading::Plain(ColumnType::Text),
                (false, true, false, false) if as_varchar => Reading::NumberText,
                (false, true, false, false) => Reading::Plain(
                    ColumnType::number_of_data(self.integer_digits, self.scale)
                        .ok_or_else(|| self.too_many_digits())?,
                ),
                _ => Reading::Plain(ColumnType::Variant),
            },
        };
        Ok(Some(reading))
    }

    /// The narrowest NUMBER for the column's numbers, if it is one of numbers whose digits nobody declared.
    fn narrowest(&self, reading: Reading) -> Option<ColumnType> {
        let is_counted = match (reading, self.declared_type) {
            (Reading::NumberText | Reading::NumericText, _) => !self.is_immeasurable,
            (_, None | Some(SourceType::Numeric)) => {
                matches!(reading.column_type(), ColumnType::Number { .. })
            }
            _ => false,
        };
        ColumnType::narrowest_number(self.integer_digits, self.scale).filter(|_| is_counted)
    }

    fn too_many_digits(&self) -> Error {
        too_many_digits(&self.name, self.integer_digits, self.scale)
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

impl Reading {
    fn column_type(self) -> ColumnType {
        match self {
            Self::Plain(column_type) => column_type,
            Self::Real => ColumnType::Float,
            Self::NumberText | Self::NumericText | Self::MomentText(_) | Self::Uuid => {
                ColumnType::Text
            }
        }
    }
}

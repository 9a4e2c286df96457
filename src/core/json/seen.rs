//! What the values of a column have in common, from which its type follows.

use super::Token;
use super::inference::too_many_digits;
use super::options::{Numeric, OutOfRange, PlanOptions};
use super::reading::Reading;
use crate::decimal::Decimal;
use crate::error::{Error, Result};
use crate::types::{ColumnType, SourceType, USUAL_SCALE};

/// What was seen of a column.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) name: String,
    declared_type: Option<SourceType>,
    pub(super) last_row: u64,
    booleans: bool,
    pub(super) numbers: bool,
    strings: bool,
    nested: bool,
    /// The most digits before and after the point, over all numbers.
    integer_digits: i64,
    scale: i64,
    /// Whether something was no number that could be measured.
    is_immeasurable: bool,
}

impl Seen {
    pub(super) fn new(name: &str, declared_type: Option<SourceType>) -> Self {
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
    pub(super) fn see(&mut self, token: Token<'_>, is_lenient: bool) {
        match token {
            Token::Bool(_) => self.booleans = true,
            Token::Number(text) => {
                self.numbers = true;
                self.measure(Decimal::parse(text), is_lenient);
            }
            Token::String(text) => {
                self.strings = true;
                if self.declared_type == Some(SourceType::Numeric) {
                    self.measure(Decimal::parse(text), is_lenient);
                }
            }
            Token::BeginArray | Token::BeginObject => self.nested = true,
            _ => {}
        }
    }

    pub(super) fn measure(&mut self, number: Option<Decimal>, is_lenient: bool) {
        match number {
            Some(number) if is_lenient && !number.fits_number() => {}
            Some(number) => {
                self.integer_digits = self.integer_digits.max(number.integer_digits());
                self.scale = self.scale.max(number.scale());
            }
            None => self.is_immeasurable = true,
        }
    }

    /// Adds what was seen of the column in other rows.
    pub(super) fn add(&mut self, other: &Self) {
        self.booleans |= other.booleans;
        self.numbers |= other.numbers;
        self.strings |= other.strings;
        self.nested |= other.nested;
        self.integer_digits = self.integer_digits.max(other.integer_digits);
        self.scale = self.scale.max(other.scale);
        self.is_immeasurable |= other.is_immeasurable;
    }

    /// How to read the column; nothing for one that is not created because nobody knows what it holds.
    pub(super) fn decide(&self, options: PlanOptions) -> Result<Option<Reading>> {
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
    pub(super) fn narrowest(&self, reading: Reading) -> Option<ColumnType> {
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

impl Reading {
    pub(super) fn column_type(self) -> ColumnType {
        match self {
            Self::Plain(column_type) => column_type,
            Self::Real => ColumnType::Float,
            Self::NumberText | Self::NumericText | Self::MomentText(_) | Self::Uuid => {
                ColumnType::Text
            }
        }
    }
}

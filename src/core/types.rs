//! The one table of types: how a value's type is called in Arrow, in a Snowflake table, and in COPY's SELECT.

mod source;

use arrow::datatypes::{DataType, TimeUnit};
use serde::{Deserialize, Serialize};

pub use self::source::{MONEY_PRECISION, SourceType};
use crate::error::{Error, ErrorKind, Result};

/// Snowflake's widest NUMBER, and as it happens the widest decimal that 128 bits hold.
pub const MAX_PRECISION: u8 = 38;

/// The most digits after the point: one fewer than there are in all.
pub const MAX_SCALE: u8 = 37;

/// Numbers of so many digits fit into 64 bits, in memory and in the file.
pub(crate) const MAX_DECIMAL64_PRECISION: u8 = 18;

/// The scale that decimals of unknown digits get where they leave room. A NUMBER's scale cannot be changed later, so that a
/// column made for today's two digits would not take tomorrow's four.
pub const USUAL_SCALE: i64 = 10;

/// The longest VARCHAR in bytes. A VARCHAR declared without a length gets an eighth of this, so it is always declared.
pub const MAX_TEXT_BYTES: usize = 134_217_728;

/// The longest BINARY in bytes, declared always for the same reason.
pub const MAX_BINARY_BYTES: usize = 67_108_864;

/// The type of a column on its way to Snowflake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// `BOOLEAN`
    Boolean,
    /// `NUMBER(precision, scale)`, 1 ≤ precision ≤ 38, scale ≤ precision and ≤ 37.
    Number {
        /// Decimal digits in all.
        precision: u8,
        /// Decimal digits after the point.
        scale: u8,
    },
    /// `FLOAT`, which is IEEE double, NaN and infinities included.
    Float,
    /// `VARCHAR`
    Text,
    /// `BINARY`
    Binary,
    /// `DATE`
    Date,
    /// `TIME(6)`
    Time,
    /// `TIMESTAMP_NTZ(6)`
    TimestampNtz,
    /// `TIMESTAMP_TZ(6)`, always at offset zero.
    TimestampTz,
    /// `VARIANT`, travelling as JSON text.
    Variant,
    /// `ARRAY`, travelling as JSON text.
    Array,
}

impl ColumnType {
    /// A `NUMBER` that Snowflake accepts.
    ///
    /// # Errors
    /// `Data` unless 1 ≤ precision ≤ 38, scale ≤ precision and scale ≤ 37.
    pub fn number(precision: u8, scale: u8) -> Result<Self> {
        if precision == 0 || precision > MAX_PRECISION || scale > precision.min(MAX_SCALE) {
            return Err(Error::new(
                ErrorKind::Data,
                format!("Snowflake has no NUMBER({precision},{scale})"),
            )
            .with_hint(format!(
                "A NUMBER has 1 to {MAX_PRECISION} digits, of which at most {MAX_SCALE} stand after the point. Declare the column as text to keep more."
            )));
        }
        Ok(Self::Number { precision, scale })
    }

    /// The NUMBER of 38 digits that holds every number of so many digits before and after the point, with the scale
    /// `usual` where the digits leave room for it; nothing if there is none.
    #[must_use]
    pub fn number_for(integer_digits: i64, scale: i64, usual: i64) -> Option<Self> {
        let room = i64::from(MAX_PRECISION) - integer_digits;
        let scale = u8::try_from(scale.max(usual.min(room))).ok()?;
        if i64::from(scale) > room {
            return None;
        }
        Self::number(MAX_PRECISION, scale).ok()
    }

    /// The NUMBER that a new column gets for data of so many digits before and after the point; nothing if there is none.
    #[must_use]
    pub fn number_of_data(integer_digits: i64, scale: i64) -> Option<Self> {
        let usual = if scale > 0 { USUAL_SCALE } else { 0 };
        Self::number_for(integer_digits, scale, usual)
    }

    /// The narrowest NUMBER that holds every number of so many digits before and after the point; nothing if there is none.
    #[must_use]
    pub fn narrowest_number(integer_digits: i64, scale: i64) -> Option<Self> {
        let scale = u8::try_from(scale).ok()?;
        let precision = u8::try_from(integer_digits).ok()?.checked_add(scale)?;
        Self::number(precision.max(1), scale).ok()
    }

    /// The Arrow type of the column in memory and, by way of its logical type, in the Parquet file.
    #[must_use]
    pub fn arrow(self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            // The cast cannot wrap: a scale is at most 38.
            Self::Number { precision, scale } => DataType::Decimal128(precision, scale as i8),
            Self::Float => DataType::Float64,
            Self::Text | Self::Variant | Self::Array => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::TimestampNtz => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    /// The type as CREATE TABLE and ALTER TABLE spell it.
    #[must_use]
    pub fn snowflake(self) -> String {
        match self {
            Self::Boolean => "BOOLEAN".into(),
            Self::Number { precision, scale } => format!("NUMBER({precision},{scale})"),
            Self::Float => "FLOAT".into(),
            Self::Text => format!("VARCHAR({MAX_TEXT_BYTES})"),
            Self::Binary => format!("BINARY({MAX_BINARY_BYTES})"),
            Self::Date => "DATE".into(),
            Self::Time => "TIME(6)".into(),
            Self::TimestampNtz => "TIMESTAMP_NTZ(6)".into(),
            Self::TimestampTz => "TIMESTAMP_TZ(6)".into(),
            Self::Variant => "VARIANT".into(),
            Self::Array => "ARRAY".into(),
        }
    }

    /// What COPY's SELECT says to read the Parquet field `field` as a value of this type.
    ///
    /// The cast is always written: without it the expression is a VARIANT, which COPY refuses for some targets.
    #[must_use]
    pub fn copy_expression(self, field: &str) -> String {
        let path = format!("$1:\"{}\"", field.replace('"', "\"\""));
        match self {
            Self::Variant => format!("PARSE_JSON({path})"),
            Self::Array => format!("PARSE_JSON({path})::ARRAY"),
            _ => format!("{path}::{}", self.snowflake()),
        }
    }
}

/// A column of a result: its name in Snowflake, exactly as it will be quoted, and its type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The name in Snowflake and in the Parquet file.
    pub name: String,
    /// The type.
    // Not flattened: serde buffers a flattened value, and a buffered number does not survive the `arbitrary_precision` of
    // serde_json, which this crate needs for the digits of JSON.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// The narrowest NUMBER that holds all numbers of the column, where these were counted and not declared. What a new
    /// column gets is wider, for the numbers of tomorrow; what a table has may be as narrow as this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub narrowest: Option<ColumnType>,
    /// A row of the result has a NULL in it. Told once all rows are read; one that was written down before this was is not told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_nulls: bool,
    /// Its numbers are integers of 64 bits, and travel as such.
    #[serde(skip)]
    pub is_int64: bool,
}

impl Column {
    /// A column of that name and type.
    pub fn new(name: impl Into<String>, column_type: ColumnType) -> Self {
        Self {
            name: name.into(),
            column_type,
            narrowest: None,
            has_nulls: false,
            is_int64: false,
        }
    }

    /// Makes it the column of its own values and of those of `other`, which has its name and type.
    pub fn add(&mut self, other: &Self) {
        self.has_nulls |= other.has_nulls;
        self.is_int64 &= other.is_int64;
        self.narrowest = match (self.narrowest, other.narrowest) {
            (
                Some(ColumnType::Number { precision, scale }),
                Some(ColumnType::Number {
                    precision: other_precision,
                    scale: other_scale,
                }),
            ) => {
                let integer_digits = (precision - scale).max(other_precision - other_scale);
                ColumnType::narrowest_number(integer_digits.into(), scale.max(other_scale).into())
            }
            _ => None,
        };
    }

    /// The type of the column's values in the file. Where all of them were counted and are short, it is the narrowest that holds
    /// them; COPY makes of them what the table has.
    #[must_use]
    pub fn type_in_file(&self) -> ColumnType {
        match (self.column_type, self.narrowest) {
            (ColumnType::Number { .. }, Some(narrowest @ ColumnType::Number { precision, .. }))
                if precision <= MAX_DECIMAL64_PRECISION =>
            {
                narrowest
            }
            (column_type, _) => column_type,
        }
    }

    /// The Arrow type of the column's values in memory. In the file it becomes that of [`ColumnType::arrow`], unless they are
    /// integers of 64 bits or [short](Self::type_in_file).
    #[must_use]
    pub fn arrow(&self) -> DataType {
        match self.type_in_file() {
            ColumnType::Number { scale: 0, .. } if self.is_int64 => DataType::Int64,
            // The cast cannot wrap, as above.
            ColumnType::Number { precision, scale } if precision <= MAX_DECIMAL64_PRECISION => {
                DataType::Decimal64(precision, scale as i8)
            }
            other => other.arrow(),
        }
    }
}

#[cfg(test)]
mod tests;

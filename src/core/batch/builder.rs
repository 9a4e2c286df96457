//! The Arrow builder of one column, which takes only what the column holds exactly.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal64Builder,
    Decimal128Builder, Float64Builder, Int64Builder, StringBuilder, Time64MicrosecondBuilder,
    TimestampMicrosecondBuilder,
};

use super::Value;
use crate::calendar::{MICROS_PER_DAY, day_in_range, timestamp_in_range};
use crate::decimal::rescale;
use crate::types::{Column, ColumnType, MAX_BINARY_BYTES, MAX_DECIMAL64_PRECISION, MAX_TEXT_BYTES};

/// What a NULL or a fixed-size value is counted as, its place in the validity bitmap included.
const FIXED_VALUE_BYTES: usize = 9;

/// The same for a NUMBER.
const NUMBER_BYTES: usize = 17;

/// Why a column does not take a value.
pub(super) enum Misfit {
    Kind,
    Number,
    Range,
    Length { bytes: usize, limit: usize },
}

/// The Arrow builder of one column.
pub(super) enum Builder {
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    /// A NUMBER of few digits.
    Short {
        builder: Decimal64Builder,
        precision: u8,
        scale: u8,
        /// 10^precision, which all numbers are below.
        bound: u64,
    },
    Number {
        builder: Decimal128Builder,
        precision: u8,
        scale: u8,
    },
    Float(Float64Builder),
    Text(StringBuilder),
    Json(StringBuilder),
    Binary(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    TimestampTz(TimestampMicrosecondBuilder),
}

/// One expression for whichever builder a column has.
macro_rules! for_each_builder {
    ($self:expr, $builder:ident => $body:expr) => {
        match $self {
            Builder::Boolean($builder) => $body,
            Builder::Integer($builder) => $body,
            Builder::Short {
                builder: $builder, ..
            } => $body,
            Builder::Number {
                builder: $builder, ..
            } => $body,
            Builder::Float($builder) => $body,
            Builder::Text($builder) | Builder::Json($builder) => $body,
            Builder::Binary($builder) => $body,
            Builder::Date($builder) => $body,
            Builder::Time($builder) => $body,
            Builder::Timestamp($builder) | Builder::TimestampTz($builder) => $body,
        }
    };
}

impl Builder {
    pub(super) fn new(column: &Column) -> Self {
        let column_type = column.type_in_file();
        match column_type {
            ColumnType::Boolean => Self::Boolean(BooleanBuilder::new()),
            ColumnType::Number { scale: 0, .. } if column.is_int64 => {
                Self::Integer(Int64Builder::new())
            }
            ColumnType::Number { precision, scale } if precision <= MAX_DECIMAL64_PRECISION => {
                Self::Short {
                    builder: Decimal64Builder::new().with_data_type(column.arrow()),
                    precision,
                    scale,
                    bound: 10_u64.pow(precision.into()),
                }
            }
            ColumnType::Number { precision, scale } => Self::Number {
                builder: Decimal128Builder::new().with_data_type(column.arrow()),
                precision,
                scale,
            },
            ColumnType::Float => Self::Float(Float64Builder::new()),
            ColumnType::Text => Self::Text(StringBuilder::new()),
            ColumnType::Variant | ColumnType::Array => Self::Json(StringBuilder::new()),
            ColumnType::Binary => Self::Binary(BinaryBuilder::new()),
            ColumnType::Date => Self::Date(Date32Builder::new()),
            ColumnType::Time => Self::Time(Time64MicrosecondBuilder::new()),
            ColumnType::TimestampNtz => Self::Timestamp(TimestampMicrosecondBuilder::new()),
            ColumnType::TimestampTz => {
                Self::TimestampTz(TimestampMicrosecondBuilder::new().with_data_type(column.arrow()))
            }
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        for_each_builder!(self, builder => builder.len())
    }

    pub(super) fn append_null(&mut self) {
        for_each_builder!(self, builder => builder.append_null());
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        for_each_builder!(self, builder => Arc::new(builder.finish()))
    }

    /// What a value without a length of its own is counted as.
    #[inline]
    pub(super) fn fixed_bytes(&self) -> usize {
        match self {
            Self::Number { .. } => NUMBER_BYTES,
            _ => FIXED_VALUE_BYTES,
        }
    }

    /// Takes the value; the answer is about how many bytes it takes.
    #[inline]
    pub(super) fn append(&mut self, value: Value<'_>) -> Result<usize, Misfit> {
        let fixed_bytes = self.fixed_bytes();
        match (self, value) {
            (builder, Value::Null) => builder.append_null(),
            (Self::Boolean(builder), Value::Bool(value)) => builder.append_value(value),
            (Self::Integer(builder), Value::Int(value)) => builder.append_value(value),
            (
                Self::Short {
                    builder,
                    scale: 0,
                    bound,
                    ..
                },
                Value::Int(value),
            ) if value.unsigned_abs() < *bound => builder.append_value(value),
            (
                Self::Short {
                    builder,
                    precision,
                    scale,
                    bound,
                },
                Value::Int(_) | Value::Decimal { .. },
            ) => {
                let (unscaled, from) = match value {
                    Value::Decimal { unscaled, scale } => (unscaled, scale),
                    Value::Int(value) => (value.into(), 0),
                    _ => return Err(Misfit::Kind),
                };
                let fits = |number: &i64| number.unsigned_abs() < *bound;
                let number = match i64::try_from(unscaled) {
                    Ok(number) if from == *scale => Some(number).filter(fits),
                    _ => rescale(unscaled, from, *scale, *precision)
                        .and_then(|number| i64::try_from(number).ok()),
                };
                builder.append_value(number.ok_or(Misfit::Number)?);
            }
            (
                Self::Number {
                    builder,
                    precision,
                    scale,
                },
                Value::Int(value),
            ) => {
                builder.append_value(
                    rescale(value.into(), 0, *scale, *precision).ok_or(Misfit::Number)?,
                );
            }
            (
                Self::Number {
                    builder,
                    precision,
                    scale,
                },
                Value::Decimal {
                    unscaled,
                    scale: from,
                },
            ) => {
                builder.append_value(
                    rescale(unscaled, from, *scale, *precision).ok_or(Misfit::Number)?,
                );
            }
            (Self::Float(builder), Value::Float(value)) => builder.append_value(value),
            (Self::Text(builder), Value::Text(text)) | (Self::Json(builder), Value::Json(text)) => {
                let bytes = within(text.len(), MAX_TEXT_BYTES)?;
                builder.append_value(text);
                return Ok(bytes);
            }
            (Self::Binary(builder), Value::Bytes(value)) => {
                let bytes = within(value.len(), MAX_BINARY_BYTES)?;
                builder.append_value(value);
                return Ok(bytes);
            }
            (Self::Date(builder), Value::Date(days)) => {
                builder.append_value(in_range(days, day_in_range(days))?)
            }
            (Self::Time(builder), Value::Time(micros)) => {
                builder.append_value(in_range(micros, (0..MICROS_PER_DAY).contains(&micros))?);
            }
            (Self::Timestamp(builder), Value::Timestamp(micros))
            | (Self::TimestampTz(builder), Value::TimestampTz(micros)) => {
                builder.append_value(in_range(micros, timestamp_in_range(micros))?);
            }
            _ => return Err(Misfit::Kind),
        }
        Ok(fixed_bytes)
    }
}

/// What the value takes, its offset included, unless it is longer than Snowflake allows.
fn within(bytes: usize, limit: usize) -> Result<usize, Misfit> {
    if bytes > limit {
        Err(Misfit::Length { bytes, limit })
    } else {
        Ok(bytes + FIXED_VALUE_BYTES)
    }
}

fn in_range<T>(value: T, fits: bool) -> Result<T, Misfit> {
    if fits { Ok(value) } else { Err(Misfit::Range) }
}

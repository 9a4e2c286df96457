//! Values collected into Arrow record batches, row by row.

use std::fmt::Display;
use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder,
    Float64Builder, RecordBatch, RecordBatchOptions, StringBuilder, Time64MicrosecondBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::calendar::{MICROS_PER_DAY, day_in_range, timestamp_in_range};
use crate::decimal::rescale;
use crate::error::{Error, ErrorKind, Result};
use crate::names::shown;
use crate::types::{Column, ColumnType, MAX_BINARY_BYTES, MAX_TEXT_BYTES};

/// One value on its way into a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// SQL NULL, for every column.
    Null,
    /// For BOOLEAN.
    Bool(bool),
    /// For NUMBER.
    Int(i64),
    /// `unscaled` × 10^-`scale`, for NUMBER.
    Decimal {
        /// All digits.
        unscaled: i128,
        /// How many of them stand after the point.
        scale: u8,
    },
    /// For FLOAT.
    Float(f64),
    /// For VARCHAR.
    Text(&'a str),
    /// For BINARY.
    Bytes(&'a [u8]),
    /// Days since 1970-01-01, for DATE.
    Date(i32),
    /// Microseconds since midnight, for TIME.
    Time(i64),
    /// Microseconds since 1970-01-01 on a clock without a zone, for TIMESTAMP_NTZ.
    Timestamp(i64),
    /// Microseconds since 1970-01-01 in UTC, for TIMESTAMP_TZ.
    TimestampTz(i64),
    /// JSON text, for VARIANT and ARRAY.
    Json(&'a str),
}

/// Where rows go, value by value.
pub trait RowSink {
    /// Sets the value of one column of the current row. A column that gets none is NULL.
    ///
    /// # Errors
    /// `Data` when the column cannot hold the value, `Internal` when it is the wrong kind or the column's second one;
    /// whatever else the sink does with the row.
    fn append(&mut self, column: usize, value: Value<'_>) -> Result<()>;

    /// Ends the current row.
    ///
    /// # Errors
    /// Whatever the sink does with the row.
    fn end_row(&mut self) -> Result<()>;
}

/// Builds record batches of fixed columns. A value that its column cannot hold exactly is refused.
pub struct BatchBuilder {
    columns: Vec<Column>,
    builders: Vec<Builder>,
    schema: SchemaRef,
    /// Rows ended since the last batch, and in all.
    rows: usize,
    total_rows: u64,
    bytes: usize,
}

/// What a NULL or a fixed-size value is counted as, its place in the validity bitmap included.
const FIXED_VALUE_BYTES: usize = 9;

/// The same for a NUMBER.
const NUMBER_BYTES: usize = 17;

impl BatchBuilder {
    /// An empty builder for those columns.
    #[must_use]
    pub fn new(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            builders: columns
                .iter()
                .map(|column| Builder::new(column.column_type))
                .collect(),
            schema: Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>())),
            rows: 0,
            total_rows: 0,
            bytes: 0,
        }
    }

    /// Rows ended since the last batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// About how much memory the next batch takes.
    #[must_use]
    pub fn approximate_bytes(&self) -> usize {
        self.bytes
    }

    /// The rows ended since the last batch. Values of a row that is not ended yet must not be pending.
    ///
    /// # Errors
    /// `Internal` when the columns are not of one length.
    pub fn finish_batch(&mut self) -> Result<RecordBatch> {
        let arrays = self.builders.iter_mut().map(Builder::finish).collect();
        // Stated, since a result may have no column at all.
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        self.bytes = 0;
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options).map_err(|error| {
            Error::new(ErrorKind::Internal, "a batch of rows is not rectangular").with_source(error)
        })
    }

    fn fault(&self, column: usize, kind: ErrorKind, problem: impl Display) -> Error {
        let name = self
            .columns
            .get(column)
            .map_or("", |column| column.name.as_str());
        Error::new(
            kind,
            format!(
                "column {}, row {}: {problem}",
                shown(name),
                self.total_rows + 1
            ),
        )
    }
}

impl RowSink for BatchBuilder {
    fn append(&mut self, column: usize, value: Value<'_>) -> Result<()> {
        let Some(builder) = self.builders.get_mut(column) else {
            return Err(self.fault(column, ErrorKind::Internal, "there is no such column"));
        };
        if builder.len() != self.rows {
            return Err(self.fault(column, ErrorKind::Internal, "has a value already"));
        }
        match builder.append(value) {
            Ok(bytes) => {
                self.bytes += bytes;
                Ok(())
            }
            Err(misfit) => Err(self.misfit(column, &misfit)),
        }
    }

    fn end_row(&mut self) -> Result<()> {
        for builder in &mut self.builders {
            if builder.len() == self.rows {
                builder.append_null();
                self.bytes += builder.fixed_bytes();
            }
        }
        self.rows += 1;
        self.total_rows += 1;
        Ok(())
    }
}

impl BatchBuilder {
    fn misfit(&self, column: usize, misfit: &Misfit) -> Error {
        let expected = self
            .columns
            .get(column)
            .map_or_else(String::new, |column| column.column_type.snowflake());
        match misfit {
            Misfit::Kind => self.fault(
                column,
                ErrorKind::Internal,
                format!("not a value for {expected}"),
            ),
            Misfit::Number => self
                .fault(
                    column,
                    ErrorKind::Data,
                    format!("the number does not fit {expected} exactly"),
                )
                .with_hint("Give the column a wider type, or load it as text."),
            Misfit::Range => self
                .fault(
                    column,
                    ErrorKind::Data,
                    format!("the value is outside of what {expected} holds"),
                )
                .with_hint("Snowflake holds the years 1 to 9999 and times of day before 24:00."),
            Misfit::Length { bytes, limit } => self.fault(
                column,
                ErrorKind::Data,
                format!("the value takes {bytes} bytes, and Snowflake holds at most {limit}"),
            ),
        }
    }
}

/// The Arrow field of a column. All are nullable: whether NULLs are welcome is the target table's affair.
pub(crate) fn field(column: &Column) -> Field {
    Field::new(&column.name, column.column_type.arrow(), true)
}

/// Why a column does not take a value.
enum Misfit {
    Kind,
    Number,
    Range,
    Length { bytes: usize, limit: usize },
}

/// The Arrow builder of one column.
enum Builder {
    Boolean(BooleanBuilder),
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
    fn new(column_type: ColumnType) -> Self {
        match column_type {
            ColumnType::Boolean => Self::Boolean(BooleanBuilder::new()),
            ColumnType::Number { precision, scale } => Self::Number {
                builder: Decimal128Builder::new().with_data_type(column_type.arrow()),
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
            ColumnType::TimestampTz => Self::TimestampTz(
                TimestampMicrosecondBuilder::new().with_data_type(column_type.arrow()),
            ),
        }
    }

    fn len(&self) -> usize {
        for_each_builder!(self, builder => builder.len())
    }

    fn append_null(&mut self) {
        for_each_builder!(self, builder => builder.append_null());
    }

    fn finish(&mut self) -> ArrayRef {
        for_each_builder!(self, builder => Arc::new(builder.finish()))
    }

    /// What a value without a length of its own is counted as.
    fn fixed_bytes(&self) -> usize {
        match self {
            Self::Number { .. } => NUMBER_BYTES,
            _ => FIXED_VALUE_BYTES,
        }
    }

    /// Takes the value; the answer is about how many bytes it takes.
    fn append(&mut self, value: Value<'_>) -> Result<usize, Misfit> {
        let fixed_bytes = self.fixed_bytes();
        match (self, value) {
            (builder, Value::Null) => builder.append_null(),
            (Self::Boolean(builder), Value::Bool(value)) => builder.append_value(value),
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

#[cfg(test)]
mod tests;

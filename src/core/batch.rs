//! Values collected into Arrow record batches, row by row.

mod builder;

use std::fmt::Display;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};

use self::builder::{Builder, Misfit};
use crate::error::{Error, ErrorKind, Result};
use crate::names::shown;
use crate::types::Column;

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
    /// Values that the current row has.
    values: usize,
    bytes: usize,
}

impl BatchBuilder {
    /// An empty builder for those columns.
    #[must_use]
    pub fn new(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            builders: columns.iter().map(Builder::new).collect(),
            schema: Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>())),
            rows: 0,
            total_rows: 0,
            values: 0,
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

impl BatchBuilder {
    /// As [`RowSink::append`]. The answer is about how many bytes the value takes.
    ///
    /// # Errors
    /// As [`RowSink::append`].
    #[inline]
    pub(crate) fn add(&mut self, column: usize, value: Value<'_>) -> Result<usize> {
        let Some(builder) = self.builders.get_mut(column) else {
            return Err(self.fault(column, ErrorKind::Internal, "there is no such column"));
        };
        if builder.len() != self.rows {
            return Err(self.fault(column, ErrorKind::Internal, "has a value already"));
        }
        match builder.append(value) {
            Ok(bytes) => {
                self.values += 1;
                self.bytes += bytes;
                Ok(bytes)
            }
            Err(misfit) => Err(self.misfit(column, &misfit)),
        }
    }
}

impl RowSink for BatchBuilder {
    #[inline]
    fn append(&mut self, column: usize, value: Value<'_>) -> Result<()> {
        self.add(column, value).map(drop)
    }

    fn end_row(&mut self) -> Result<()> {
        if self.values < self.builders.len() {
            for builder in &mut self.builders {
                if builder.len() == self.rows {
                    builder.append_null();
                    self.bytes += builder.fixed_bytes();
                }
            }
        }
        self.values = 0;
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
            Misfit::Length { bytes, limit } => self
                .fault(
                    column,
                    ErrorKind::Data,
                    format!("the value takes {bytes} bytes, and Snowflake holds at most {limit}"),
                )
                .with_hint("Leave the value out, or set on_out_of_range to null."),
        }
    }
}

/// The Arrow field of a column. All are nullable: whether NULLs are welcome is the target table's affair.
pub(crate) fn field(column: &Column) -> Field {
    Field::new(&column.name, column.arrow(), true)
}

#[cfg(test)]
mod tests;

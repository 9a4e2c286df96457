//! Rows of a query on their way into columns: which Snowflake column each type of the result gets, and its values row by
//! row. What Snowflake cannot hold is refused, or counted.
#![allow(unsafe_code)]

mod catalog;
mod column;
mod digits;
mod elements;
mod kind;
mod memory;
mod nested;
pub(super) mod numeric;
mod row_type;
mod scalar;
mod settings;
pub(super) mod text;

use bridge_core::batch::{RowSink, Value};
use bridge_core::decimal::Decimal;
use bridge_core::json::{Numeric, OutOfRange, PlanOptions, too_many_digits};
use bridge_core::names::{column_names, shown};
use bridge_core::spool::Manifest;
use bridge_core::types::{Column, ColumnType, USUAL_SCALE};
use bridge_core::{Error as CoreError, ErrorKind};
use pgrx::pg_sys;

use crate::error::{Error, Result};
use column::Form;
use memory::ValueMemory;
use nested::Types;
pub(super) use scalar::bytes as varlena_bytes;
pub use settings::Pinned;

/// Why a value does not reach its column.
pub(super) enum Unread {
    /// Snowflake cannot hold it: what is wrong with it, and what the user can do.
    OutOfRange { problem: String, hint: String },
    /// Nothing that an option could excuse.
    Fault(Error),
}

impl Unread {
    fn out_of_range(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::OutOfRange {
            problem: problem.into(),
            hint: hint.into(),
        }
    }
}

impl From<CoreError> for Unread {
    fn from(error: CoreError) -> Self {
        match (error.kind(), error.hint()) {
            (ErrorKind::Data, Some(hint)) => Self::out_of_range(error.message(), hint),
            (ErrorKind::Data, None) => {
                Self::out_of_range(error.message(), "Cast the value to text in the query.")
            }
            _ => Self::Fault(error.into()),
        }
    }
}

impl From<Error> for Unread {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(error) => error.into(),
            error => Self::Fault(error),
        }
    }
}

/// A column of the result.
struct Reader {
    name: String,
    column_type: ColumnType,
    form: Form,
    /// For a numeric without declared digits, unless it had a value that is no number: the most digits before and after
    /// the point so far. It travels as its digits, and what the column is called is decided by all of them.
    digits: Option<(i64, i64)>,
    /// Values that Snowflake could not hold as what they are.
    affected: u64,
}

/// Reads the rows of one result.
pub struct RowReader {
    readers: Vec<Reader>,
    types: Types,
    memory: ValueMemory,
    on_out_of_range: OutOfRange,
    rows: u64,
}

impl RowReader {
    /// Plans a result of that description. The current memory context must outlive what is made here.
    ///
    /// # Errors
    /// If a name or a type cannot be had in Snowflake.
    ///
    /// # Safety
    /// A live descriptor; on the main thread, inside a transaction and SPI.
    pub unsafe fn new(descriptor: pg_sys::TupleDesc, options: PlanOptions) -> Result<Self> {
        let on_out_of_range = options.on_out_of_range;
        // SAFETY: as the caller promises.
        let attributes = unsafe { column::attributes(descriptor) }?;
        let names = column_names(
            attributes.iter().map(|attribute| attribute.name.as_str()),
            options.column_case,
        )?;
        let mut readers = Vec::with_capacity(names.len());
        for (attribute, name) in attributes.iter().zip(names) {
            // SAFETY: as the caller promises.
            let (form, column_type) = unsafe {
                Form::of(
                    attribute,
                    on_out_of_range == OutOfRange::Text,
                    options.numeric == Numeric::Varchar,
                )
            }?;
            readers.push(Reader {
                digits: form.is_counted().then_some((0, 0)),
                name,
                column_type,
                form,
                affected: 0,
            });
        }
        // SAFETY: as the caller promises.
        let (mut types, memory) = unsafe { (Types::new(), ValueMemory::new()) };
        for reader in &readers {
            if let Form::Json(type_oid) = reader.form {
                // SAFETY: as the caller promises; the type of a column.
                unsafe { types.hold(type_oid) }?;
            }
        }
        Ok(Self {
            readers,
            types,
            memory,
            on_out_of_range,
            rows: 0,
        })
    }

    /// The columns as the files have them.
    pub fn columns(&self) -> Vec<Column> {
        self.readers
            .iter()
            .map(|reader| Column {
                is_int64: matches!(reader.form, Form::Int8),
                ..Column::new(&reader.name, reader.column_type)
            })
            .collect()
    }

    /// Whether what the values become is the same under all settings, so that nothing has to be [`Pinned`].
    pub fn is_independent(&self) -> bool {
        self.readers
            .iter()
            .all(|reader| reader.form.is_independent())
    }

    /// Gives the values of one row to `sink`, whose row the caller ends: what was made here for them is gone by then.
    ///
    /// # Errors
    /// For a value that cannot be held, naming column and row; whatever the sink says.
    ///
    /// # Safety
    /// Values of the planned description, which live until this returns; while settings are [`Pinned`], unless the result
    /// [`is_independent`](Self::is_independent).
    pub unsafe fn read(
        &mut self,
        values: &[pg_sys::Datum],
        nulls: &[bool],
        sink: &mut impl RowSink,
    ) -> Result<()> {
        self.rows += 1;
        for index in 0..self.readers.len() {
            let (Some(reader), Some(&value), Some(false)) =
                (self.readers.get(index), values.get(index), nulls.get(index))
            else {
                // A column that gets no value is NULL.
                continue;
            };
            // SAFETY: as the caller promises.
            match unsafe { reader.form.at_hand(value, &mut self.types) } {
                Some(value) => sink.append(index, value)?,
                // SAFETY: as the caller promises.
                None => unsafe { self.read_value(index, value, sink) }?,
            }
        }
        self.types.forget_large();
        Ok(())
    }

    /// # Safety
    /// As [`RowReader::read`], for a value that is not NULL.
    unsafe fn read_value(
        &mut self,
        index: usize,
        value: pg_sys::Datum,
        sink: &mut impl RowSink,
    ) -> Result<()> {
        let Self {
            readers,
            types,
            memory,
            on_out_of_range,
            rows,
            ..
        } = self;
        let Some(reader) = readers.get_mut(index) else {
            return Ok(());
        };
        let Reader {
            name,
            form,
            digits,
            affected,
            ..
        } = reader;
        let mut take = |value: Result<(Value<'_>, bool), Unread>| match value {
            Ok((value, is_odd)) => {
                *affected += u64::from(is_odd);
                *digits = digits.and_then(|digits| measure(digits, value));
                Ok(sink.append(index, value)?)
            }
            Err(Unread::OutOfRange { .. }) if *on_out_of_range == OutOfRange::Null => {
                *affected += 1;
                Ok(())
            }
            Err(Unread::OutOfRange { problem, hint }) => {
                let message = format!("{}: {problem}", place(name, *rows));
                Err(CoreError::new(ErrorKind::Data, message)
                    .with_hint(hint)
                    .into())
            }
            Err(Unread::Fault(Error::User {
                sqlstate,
                message,
                hint,
            })) => Err(Error::User {
                sqlstate,
                message: format!("{}: {message}", place(name, *rows)),
                hint,
            }),
            Err(Unread::Fault(error)) => Err(error),
        };
        if form.is_written() {
            // What the value was is gone before what it has become is copied.
            // SAFETY: as the caller promises.
            take(memory.scoped(|| unsafe { form.value(value, types) }))
        } else {
            // SAFETY: as the caller promises.
            memory.scoped(|| take(unsafe { form.value(value, types) }))
        }
    }

    /// Gives the columns whose type all rows decide their final type, and tells how many values of which column Snowflake
    /// could not hold as what they are.
    ///
    /// # Errors
    /// If the numbers of a column need more digits than Snowflake has.
    pub fn settle(self, manifest: &mut Manifest) -> Result<Vec<(String, u64)>> {
        for (reader, column) in self.readers.iter().zip(&mut manifest.columns) {
            let Some((integer_digits, scale)) = reader.digits else {
                continue;
            };
            column.narrowest = ColumnType::narrowest_number(integer_digits, scale);
            if matches!(reader.form, Form::Digits(_)) {
                column.column_type = ColumnType::number_for(integer_digits, scale, USUAL_SCALE)
                    .ok_or_else(|| too_many_digits(&reader.name, integer_digits, scale))?;
            }
        }
        Ok(self
            .readers
            .into_iter()
            .filter(|reader| reader.affected > 0)
            .map(|reader| (reader.name, reader.affected))
            .collect())
    }
}

fn place(column: &str, row: u64) -> String {
    format!("column {}, row {row}", shown(column))
}

/// The digits with those of one more value; `None` if that is no number.
fn measure((integer_digits, scale): (i64, i64), value: Value<'_>) -> Option<(i64, i64)> {
    let Value::Text(text) = value else {
        return None;
    };
    let number = Decimal::parse(text)?;
    Some((
        integer_digits.max(number.integer_digits()),
        scale.max(number.scale()),
    ))
}

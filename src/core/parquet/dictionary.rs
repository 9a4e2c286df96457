//! The values of a column, each once, so that rows say by number which of them they have.

use std::collections::HashMap;

use ahash::RandomState;
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::datatypes::{
    BinaryType, DataType, Date32Type, Decimal64Type, Decimal128Type, Float64Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType, Utf8Type,
};

use super::page::{Layout, Values, each, each_bytes, unsuitable};
use crate::error::Result;

/// Bytes of a column's values up to which a row group has a dictionary of them. Columns that repeat themselves, as names and
/// days do, become much smaller by it. Writers of Parquet usually stop here, and readers have the whole table in memory.
const MAX_BYTES: usize = 1 << 20;

/// Rows after which a column in which each value was new is one of those, and those after which half of them is enough.
const FIRST_LOOK: usize = 1_024;
const SECOND_LOOK: usize = 8_192;

/// About what an entry takes beside its value.
const ENTRY: usize = 48;

/// Numbers for the values of one column.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    fixed: HashMap<i128, u32, RandomState>,
    bytes: HashMap<Box<[u8]>, u32, RandomState>,
    /// The values in their plain form, in the order of their numbers, and where each of them begins.
    values: Vec<u8>,
    starts: Vec<u32>,
    /// The numbers of the open page.
    numbers: Vec<u32>,
    rows: usize,
    last: Option<i128>,
}

impl Dictionary {
    /// Whether columns of that layout can have one.
    pub(super) fn suits(layout: Layout) -> bool {
        layout != Layout::Bit
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// What it takes in memory, about.
    pub(super) fn memory(&self) -> usize {
        2 * self.values.len() + self.len() * ENTRY + 4 * self.numbers.len()
    }

    /// The values in their plain form.
    pub(super) fn take_values(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.values)
    }

    /// The numbers of the values of the open page, NULLs left out; the next page begins.
    pub(super) fn take_numbers(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.numbers)
    }

    /// Whether it has grown to more than it saves.
    pub(super) fn is_useless(&self) -> bool {
        let distinct = self.len();
        self.values.len() > MAX_BYTES
            || self.rows >= SECOND_LOOK && distinct > self.rows / 2
            || self.rows >= FIRST_LOOK && distinct + FIRST_LOOK / 128 > self.rows
    }

    /// Takes the array's values up to where the dictionary is found to be useless. The answer is how many rows were taken.
    ///
    /// # Errors
    /// `Internal` for an array that the column cannot be made of.
    pub(super) fn append(&mut self, layout: Layout, array: &ArrayRef) -> Result<usize> {
        let rows = array.len();
        let mut done = 0;
        while done < rows {
            let piece = (rows - done).min(if self.rows < SECOND_LOOK {
                FIRST_LOOK
            } else {
                rows
            });
            self.take(layout, &array.slice(done, piece))?;
            self.rows += piece;
            done += piece;
            if self.is_useless() {
                break;
            }
        }
        Ok(done)
    }

    fn take(&mut self, layout: Layout, array: &ArrayRef) -> Result<()> {
        match array.data_type() {
            DataType::Date32 => self.fixed::<Date32Type>(layout, array, i128::from),
            DataType::Int64 => self.fixed::<Int64Type>(layout, array, i128::from),
            DataType::Time64(_) => self.fixed::<Time64MicrosecondType>(layout, array, i128::from),
            DataType::Timestamp(_, _) => {
                self.fixed::<TimestampMicrosecondType>(layout, array, i128::from);
            }
            // By their bits: zeros of both signs are two values, and NaN is one.
            DataType::Float64 => {
                self.fixed::<Float64Type>(layout, array, |value| value.to_bits().into());
            }
            DataType::Decimal64(_, _) => self.fixed::<Decimal64Type>(layout, array, i128::from),
            DataType::Decimal128(_, _) => {
                self.fixed::<Decimal128Type>(layout, array, |value| value)
            }
            DataType::Utf8 => {
                each_bytes::<Utf8Type>(array.as_bytes(), |value| self.number_of(value))
            }
            DataType::Binary => {
                each_bytes::<BinaryType>(array.as_bytes(), |value| self.number_of(value));
            }
            other => return Err(unsuitable(other)),
        }
        Ok(())
    }

    fn fixed<T: ArrowPrimitiveType>(
        &mut self,
        layout: Layout,
        array: &ArrayRef,
        key: impl Fn(T::Native) -> i128,
    ) {
        let Self {
            fixed,
            values,
            starts,
            numbers,
            last,
            ..
        } = self;
        each(array.as_primitive::<T>(), |value| {
            let key = key(value);
            if *last == Some(key)
                && let Some(number) = numbers.last().copied()
            {
                numbers.push(number);
                return;
            }
            *last = Some(key);
            let number = *fixed.entry(key).or_insert_with(|| {
                starts.push(values.len() as u32);
                match layout {
                    Layout::Big(size) => {
                        let bytes = key.to_be_bytes();
                        values.extend_from_slice(bytes.get(16 - size..).unwrap_or(&bytes));
                    }
                    Layout::Little(size) => {
                        let bytes = key.to_le_bytes();
                        values.extend_from_slice(bytes.get(..size).unwrap_or(&bytes));
                    }
                    Layout::Bit | Layout::Counted => {}
                }
                (starts.len() - 1) as u32
            });
            numbers.push(number);
        });
    }

    fn number_of(&mut self, value: &[u8]) {
        // Rows repeat the one before more often than any other.
        if let Some(last) = self.numbers.last().copied()
            && self.value(last as usize).get(4..) == Some(value)
        {
            self.numbers.push(last);
            return;
        }
        let number = match self.bytes.get(value) {
            Some(number) => *number,
            None => {
                let number = self.starts.len() as u32;
                self.starts.push(self.values.len() as u32);
                self.values
                    .extend_from_slice(&(value.len() as u32).to_le_bytes());
                self.values.extend_from_slice(value);
                self.bytes.insert(value.into(), number);
                number
            }
        };
        self.numbers.push(number);
    }

    /// A value in its plain form.
    fn value(&self, number: usize) -> &[u8] {
        let start = self.starts.get(number).map_or(0, |start| *start as usize);
        let end = self
            .starts
            .get(number + 1)
            .map_or(self.values.len(), |end| *end as usize);
        self.values.get(start..end).unwrap_or_default()
    }

    /// The values of the open page in their plain form.
    pub(super) fn spell_out(&mut self, into: &mut Values) {
        for number in self.take_numbers() {
            into.bytes.extend_from_slice(self.value(number as usize));
        }
    }
}

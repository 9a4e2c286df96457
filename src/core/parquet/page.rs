//! What a page of a Parquet file is made of: definition levels, values in their plain form, and numbers of few bits.

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanBufferBuilder, GenericByteArray,
    PrimitiveArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowNativeType, BinaryType, ByteArrayType, DataType, Date32Type, Decimal64Type,
    Decimal128Type, Float64Type, Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
    Utf8Type,
};

use crate::error::{Error, ErrorKind, Result};

/// How many bytes a value of a column takes in the file, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// One bit.
    Bit,
    /// So many bytes, the lowest first.
    Little(usize),
    /// So many bytes, the highest first.
    Big(usize),
    /// Its length in four bytes, then the value.
    Counted,
}

/// Which rows of an open page have a value.
#[derive(Debug, Default)]
pub(super) struct Levels {
    rows: usize,
    /// A bit for each row, as soon as one is NULL.
    present: Option<BooleanBufferBuilder>,
}

impl Levels {
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn append(&mut self, rows: usize, nulls: Option<&NullBuffer>) {
        if nulls.is_some_and(|nulls| nulls.null_count() > 0) && self.present.is_none() {
            let mut present = BooleanBufferBuilder::new(self.rows + rows);
            present.append_n(self.rows, true);
            self.present = Some(present);
        }
        if let Some(present) = &mut self.present {
            match nulls {
                Some(nulls) => present.append_buffer(nulls.inner()),
                None => present.append_n(rows, true),
            }
        }
        self.rows += rows;
    }

    /// Appends the levels of the page, their size first, and begins the next page.
    pub(super) fn encode(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        match self.present.take() {
            None => {
                varint((self.rows as u64) << 1, out);
                out.push(1);
            }
            Some(mut present) => {
                varint(packed_header(self.rows), out);
                out.extend_from_slice(present.finish().inner().as_slice());
                out.resize(start + 4 + packed_size(self.rows, 1), 0);
            }
        }
        self.rows = 0;
        // A page has less than 2 GB.
        let size = ((out.len() - start - 4) as u32).to_le_bytes();
        if let Some(place) = out.get_mut(start..start + 4) {
            place.copy_from_slice(&size);
        }
    }
}

/// What stands before so many numbers, packed in groups of eight.
fn packed_header(count: usize) -> u64 {
    (count.div_ceil(8) as u64) << 1 | 1
}

/// The size of so many packed numbers of `width` bits with their header.
fn packed_size(count: usize, width: usize) -> usize {
    let header = packed_header(count);
    let header_size = (u64::BITS - header.leading_zeros()).div_ceil(7) as usize;
    header_size + count.div_ceil(8) * width
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends numbers below `bound`, each in as few bits as the largest needs: the bits in a byte first.
pub(super) fn pack(numbers: &[u32], bound: usize, out: &mut Vec<u8>) {
    let width = usize::BITS - bound.saturating_sub(1).leading_zeros();
    // Numbers are 32 bits wide.
    out.push(width as u8);
    if width == 0 {
        varint((numbers.len() as u64) << 1, out);
        return;
    }
    varint(packed_header(numbers.len()), out);
    let end = out.len() + numbers.len().div_ceil(8) * width as usize;
    let (mut bits, mut count) = (0u64, 0);
    for number in numbers {
        bits |= u64::from(*number) << count;
        count += width;
        if count >= 32 {
            out.extend_from_slice(&(bits as u32).to_le_bytes());
            bits >>= 32;
            count -= 32;
        }
    }
    let rest = bits.to_le_bytes();
    out.extend_from_slice(rest.get(..count.div_ceil(8) as usize).unwrap_or(&rest));
    out.resize(end, 0);
}

/// Values of an open page in their plain form.
#[derive(Debug, Default)]
pub(super) struct Values {
    pub(super) bytes: Vec<u8>,
    bits: Option<BooleanBufferBuilder>,
}

impl Values {
    /// How many bytes they take.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + self.bits.as_ref().map_or(0, |bits| bits.len() / 8)
    }

    /// Adds the values of an array, NULLs left out.
    ///
    /// # Errors
    /// `Internal` for an array that the column cannot be made of.
    pub(super) fn append(&mut self, layout: Layout, array: &ArrayRef) -> Result<()> {
        let out = &mut self.bytes;
        match (array.data_type(), layout) {
            (DataType::Boolean, Layout::Bit) => {
                let array = array.as_boolean();
                let bits = self
                    .bits
                    .get_or_insert_with(|| BooleanBufferBuilder::new(0));
                match array.nulls() {
                    None => bits.append_buffer(array.values()),
                    Some(_) => array.iter().flatten().for_each(|bit| bits.append(bit)),
                }
            }
            (DataType::Date32, Layout::Little(4)) => {
                plain::<Date32Type, 4>(array, i32::to_le_bytes, out);
            }
            (DataType::Int64, Layout::Little(8)) => {
                plain::<Int64Type, 8>(array, i64::to_le_bytes, out);
            }
            (DataType::Time64(_), Layout::Little(8)) => {
                plain::<Time64MicrosecondType, 8>(array, i64::to_le_bytes, out);
            }
            (DataType::Timestamp(_, _), Layout::Little(8)) => {
                plain::<TimestampMicrosecondType, 8>(array, i64::to_le_bytes, out);
            }
            (DataType::Float64, Layout::Little(8)) => {
                plain::<Float64Type, 8>(array, f64::to_le_bytes, out);
            }
            (DataType::Decimal64(_, _), Layout::Little(8)) => {
                plain::<Decimal64Type, 8>(array, i64::to_le_bytes, out);
            }
            // Its precision says that four bytes hold it.
            (DataType::Decimal64(_, _), Layout::Little(4)) => {
                each(array.as_primitive::<Decimal64Type>(), |value| {
                    out.extend_from_slice(&(value as i32).to_le_bytes());
                });
            }
            // As above, for the lowest bytes.
            (DataType::Decimal128(_, _), Layout::Little(size)) => {
                each(array.as_primitive::<Decimal128Type>(), |value| {
                    let bytes = value.to_le_bytes();
                    out.extend_from_slice(bytes.get(..size).unwrap_or(&bytes));
                });
            }
            (DataType::Decimal128(_, _), Layout::Big(size)) => {
                each(array.as_primitive::<Decimal128Type>(), |value| {
                    let bytes = value.to_be_bytes();
                    out.extend_from_slice(bytes.get(16 - size..).unwrap_or(&bytes));
                });
            }
            (DataType::Utf8, Layout::Counted) => counted::<Utf8Type>(array.as_bytes(), out),
            (DataType::Binary, Layout::Counted) => counted::<BinaryType>(array.as_bytes(), out),
            (other, _) => return Err(unsuitable(other)),
        }
        Ok(())
    }

    /// Moves the values to the end of `out`, and begins the next page. There is no second copy of them meanwhile: what `out`
    /// held, which is little, is moved before them.
    pub(super) fn encode(&mut self, out: &mut Vec<u8>) {
        if let Some(mut bits) = self.bits.take() {
            let count = bits.len().div_ceil(8);
            let buffer = bits.finish();
            let bytes = buffer.inner().as_slice();
            out.extend_from_slice(bytes.get(..count).unwrap_or(bytes));
        }
        self.bytes.reserve_exact(out.len());
        self.bytes.splice(..0, out.drain(..));
        std::mem::swap(&mut self.bytes, out);
    }
}

pub(super) fn unsuitable(data_type: &DataType) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("no column of a file is made of {data_type}"),
    )
}

/// Values that are in memory as they are in the file, where this machine puts the lowest byte first too.
fn plain<T: ArrowPrimitiveType, const SIZE: usize>(
    array: &ArrayRef,
    to_bytes: impl Fn(T::Native) -> [u8; SIZE],
    out: &mut Vec<u8>,
) {
    let array = array.as_primitive::<T>();
    if cfg!(target_endian = "little") && array.null_count() == 0 {
        out.extend_from_slice(array.values().inner().as_slice());
    } else {
        each(array, |value| out.extend_from_slice(&to_bytes(value)));
    }
}

pub(super) fn each<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    mut take: impl FnMut(T::Native),
) {
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => array.values().iter().copied().for_each(take),
        Some(nulls) => nulls.valid_indices().for_each(|row| take(array.value(row))),
    }
}

fn counted<T: ByteArrayType>(array: &GenericByteArray<T>, out: &mut Vec<u8>) {
    let size = array.value_data().len().min(
        array.offsets().last().map_or(0, |end| end.as_usize())
            - array.offsets().first().map_or(0, |start| start.as_usize()),
    );
    out.reserve(size + 4 * array.len());
    each_bytes(array, |value| {
        // A value has less than 2 GB.
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(value);
    });
}

pub(super) fn each_bytes<T: ByteArrayType>(
    array: &GenericByteArray<T>,
    mut take: impl FnMut(&[u8]),
) {
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => (0..array.len()).for_each(|row| take(array.value(row).as_ref())),
        Some(nulls) => nulls
            .valid_indices()
            .for_each(|row| take(array.value(row).as_ref())),
    }
}

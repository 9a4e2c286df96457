//! Values that Snowflake takes as JSON: JSON itself, arrays of any dimension, rows, hstore; and what lies inside them.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_char;

use bridge_core::batch::Value;
use bridge_core::decimal::Decimal;
use bridge_core::json::{Document, Token, TokenSink};
use pgrx::{check_for_interrupts, pg_sys};
use uuid::{Uuid, fmt::Hyphenated};

use super::Unread;
use super::catalog::{cast_of_hstore, money_scale};
use super::column::Function;
use super::memory::ValueMemory;
use super::row_type::RowTypes;
use super::scalar::bytes;
use super::text::{c_to_utf8, to_utf8};
use crate::error::Result;
use crate::memory::InMemory;
use crate::source::json_text::walk_json;
use crate::source::jsonb::Jsonb;

/// Elements between two looks for an interrupt: some tens of microseconds.
const ELEMENTS_PER_CHECK: usize = 1_024;

const LOWER_BOUNDS_HINT: &str = "Let the query number the elements from 1, as array_column[:] does, or cast the array to text, or pass \
     options => '{\"on_out_of_range\": \"null\"}' to load such values as NULL.";

/// How a type is written as JSON.
#[derive(Clone, Copy)]
enum Kind {
    Bool,
    /// By its text form, which is a number unless it is NaN or infinite.
    Number(Function),
    /// The same for a float, by the digits of the double that it is in a column; PostgreSQL's text may name a neighbour's.
    Single(Function),
    Double(Function),
    /// As the digits that its column would have.
    Money {
        scale: u8,
    },
    /// As PostgreSQL's own `to_json` writes it.
    Moment(pg_sys::Oid),
    Json,
    Jsonb,
    /// By a cast to jsonb.
    Cast(Function),
    /// Of elements of that type, the first of which has that number.
    Array {
        element: pg_sys::Oid,
        first: i32,
    },
    Row,
    /// As it is stored, without a copy.
    Text,
    Output(Function),
}

/// The types that were met, and room for values that are not in memory as they are needed.
pub(super) struct Types {
    context: pg_sys::MemoryContext,
    kinds: HashMap<pg_sys::Oid, Kind>,
    rows: RowTypes,
    document: Document,
    uuid: [u8; Hyphenated::LENGTH],
}

impl Types {
    /// # Safety
    /// Used only while the current memory context lives.
    pub(super) unsafe fn new() -> Self {
        Self {
            // SAFETY: a variable of this process.
            context: unsafe { pg_sys::CurrentMemoryContext },
            kinds: HashMap::new(),
            // SAFETY: as the caller promises.
            rows: unsafe { RowTypes::new() },
            document: Document::default(),
            uuid: [0; Hyphenated::LENGTH],
        }
    }

    /// # Safety
    /// A value of type uuid.
    pub(super) unsafe fn uuid(&mut self, value: pg_sys::Datum) -> Value<'_> {
        // SAFETY: as the caller promises: sixteen bytes.
        let bytes = unsafe { *value.cast_mut_ptr::<[u8; 16]>() };
        Value::Text(
            Uuid::from_bytes(bytes)
                .hyphenated()
                .encode_lower(&mut self.uuid),
        )
    }

    /// Gives back the memory that a large value took.
    pub(super) fn forget_large(&mut self) {
        self.document.clear();
    }

    /// The value as JSON text.
    ///
    /// # Safety
    /// A value of that type, while settings are pinned.
    pub(super) unsafe fn json(
        &mut self,
        type_oid: pg_sys::Oid,
        value: pg_sys::Datum,
    ) -> Result<&str, Unread> {
        let mut document = std::mem::take(&mut self.document);
        document.clear();
        // SAFETY: as the caller promises.
        let written = unsafe { self.write(type_oid, value, &mut document) };
        self.document = document;
        written?;
        Ok(self.document.as_str())
    }

    /// # Safety
    /// As [`Types::json`].
    unsafe fn write(
        &mut self,
        type_oid: pg_sys::Oid,
        value: pg_sys::Datum,
        to: &mut Document,
    ) -> Result<(), Unread> {
        // SAFETY: as the caller promises; each kind reads what its type is. Rows can be nested by data alone, so the stack
        // is looked after as PostgreSQL does it.
        unsafe {
            pg_sys::check_stack_depth();
            let kind = self.kind(type_oid)?;
            match kind {
                Kind::Bool => to.token(Token::Bool(value.value() != 0))?,
                Kind::Number(output) => {
                    let text = output.text(value)?;
                    if Decimal::parse(text).is_some() {
                        to.token(Token::Number(text))?;
                    } else {
                        to.token(Token::String(text))?;
                    }
                }
                Kind::Single(output) | Kind::Double(output) => {
                    let double = match kind {
                        Kind::Single(_) => f32::from_bits(value.value() as u32).into(),
                        _ => f64::from_bits(value.value() as u64),
                    };
                    if double.is_finite() {
                        to.token(Token::Number(&shortest(double)))?;
                    } else {
                        to.token(Token::String(output.text(value)?))?;
                    }
                }
                Kind::Money { scale } => {
                    to.token(Token::Number(&plain(value.value() as i64, scale)))?;
                }
                Kind::Moment(type_oid) => {
                    let mut buffer = [0 as c_char; pg_sys::MAXDATELEN as usize + 1];
                    let none = std::ptr::null();
                    pg_sys::JsonEncodeDateTime(buffer.as_mut_ptr(), value, type_oid, none);
                    to.token(Token::String(c_to_utf8(buffer.as_ptr())?))?;
                }
                Kind::Json => walk_json(value, to)?,
                Kind::Jsonb => Jsonb::from_datum(value).walk(to)?,
                Kind::Cast(cast) => Jsonb::from_datum(cast.call(value)).walk(to)?,
                Kind::Array { element, first } => self.write_array(element, first, value, to)?,
                Kind::Row => self.write_row(value, to)?,
                Kind::Text => to.token(Token::String(to_utf8(bytes(value))?))?,
                Kind::Output(output) => to.token(Token::String(output.text(value)?))?,
            }
        }
        Ok(())
    }

    /// # Safety
    /// An array of such elements.
    unsafe fn write_array(
        &mut self,
        element: pg_sys::Oid,
        first: i32,
        value: pg_sys::Datum,
        to: &mut Document,
    ) -> Result<(), Unread> {
        // SAFETY: as the caller promises; the sizes of the dimensions follow the header, and then their lower bounds.
        let (dimensions, lower_bounds, iterator, memory) = unsafe {
            let array: *mut pg_sys::ArrayType =
                pg_sys::pg_detoast_datum(value.cast_mut_ptr()).cast();
            let count = usize::try_from((*array).ndim).unwrap_or(0);
            let bounds = std::slice::from_raw_parts(array.add(1).cast::<i32>(), 2 * count);
            let (dimensions, lower_bounds) = bounds.split_at(count);
            (
                dimensions,
                lower_bounds,
                pg_sys::array_create_iterator(array, 0, std::ptr::null_mut()),
                ValueMemory::new(),
            )
        };
        if lower_bounds.iter().any(|bound| *bound != first) {
            return Err(Unread::out_of_range(
                "an array has lower bounds other than 1, which Snowflake would not keep",
                LOWER_BOUNDS_HINT,
            ));
        }
        // How many elements lie in one piece of each dimension.
        let mut strides = Vec::with_capacity(dimensions.len());
        let mut stride = 1;
        for dimension in dimensions.iter().rev() {
            stride *= usize::try_from(*dimension).unwrap_or(1).max(1);
            strides.push(stride);
        }
        let (mut index, mut value, mut is_null) = (0_usize, pg_sys::Datum::from(0), false);
        // SAFETY: a live iterator.
        while unsafe { pg_sys::array_iterate(iterator, &raw mut value, &raw mut is_null) } {
            if index.is_multiple_of(ELEMENTS_PER_CHECK) {
                check_for_interrupts!();
            }
            for _ in strides.iter().filter(|stride| index % **stride == 0) {
                to.token(Token::BeginArray)?;
            }
            if is_null {
                to.token(Token::Null)?;
            } else {
                // SAFETY: an element of the array.
                memory.scoped(|| unsafe { self.write(element, value, to) })?;
            }
            for _ in strides.iter().filter(|stride| (index + 1) % **stride == 0) {
                to.token(Token::EndArray)?;
            }
            index += 1;
        }
        if index == 0 {
            to.token(Token::BeginArray)?;
            to.token(Token::EndArray)?;
        }
        Ok(())
    }

    /// # Safety
    /// A row.
    unsafe fn write_row(&mut self, value: pg_sys::Datum, to: &mut Document) -> Result<(), Unread> {
        // SAFETY: as the caller promises; a row's header names its type.
        unsafe {
            let header = pg_sys::DatumGetHeapTupleHeader(value);
            let datum = (*header).t_choice.t_datum;
            let row_type = self.rows.get(datum.datum_typeid, datum.datum_typmod)?;
            let mut tuple = pg_sys::HeapTupleData {
                t_len: u32::try_from(pgrx::varlena::varsize_any(header.cast())).unwrap_or(0),
                t_data: header,
                ..Default::default()
            };
            let count = row_type.attributes.len();
            let mut values = vec![pg_sys::Datum::from(0); count];
            let mut nulls = vec![true; count];
            pg_sys::heap_deform_tuple(
                &raw mut tuple,
                row_type.descriptor,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            to.token(Token::BeginObject)?;
            for (attribute, (value, is_null)) in row_type
                .attributes
                .iter()
                .zip(values.into_iter().zip(nulls))
            {
                if attribute.is_dropped {
                    continue;
                }
                to.token(Token::Key(&attribute.name))?;
                if is_null {
                    to.token(Token::Null)?;
                } else {
                    self.write(attribute.type_oid, value, to)?;
                }
            }
            to.token(Token::EndObject)?;
        }
        Ok(())
    }

    /// Locks all types of rows in values of this type, as far as it tells which: nobody else changes them while values lie about.
    ///
    /// # Errors
    /// If a type cannot be looked up.
    ///
    /// # Safety
    /// A type that exists; on the main thread, inside a transaction.
    pub(super) unsafe fn hold(&mut self, type_oid: pg_sys::Oid) -> Result<()> {
        match self.kind(type_oid)? {
            // SAFETY: as the caller promises, of the types within it as well.
            Kind::Array { element, .. } => unsafe { self.hold(element) },
            Kind::Row => {
                // SAFETY: as the caller promises.
                let base = unsafe { pg_sys::getBaseType(type_oid) };
                if base == pg_sys::RECORDOID {
                    return Ok(());
                }
                // SAFETY: as the caller promises.
                let row_type = unsafe { self.rows.get(base, -1) }?;
                let attributes = row_type.attributes.iter().filter(|of| !of.is_dropped);
                for attribute in attributes {
                    // SAFETY: the type of a column.
                    unsafe { self.hold(attribute.type_oid) }?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn kind(&mut self, type_oid: pg_sys::Oid) -> Result<Kind> {
        if let Some(known) = self.kinds.get(&type_oid) {
            return Ok(*known);
        }
        // SAFETY: the type of a value that exists; what is looked up lives as long as this.
        let kind = self.kept(|| unsafe { kind(type_oid) })?;
        self.kinds.insert(type_oid, kind);
        Ok(kind)
    }

    /// Runs `work` in the memory that lives as long as this, and not only for one row.
    fn kept<T>(&self, work: impl FnOnce() -> T) -> T {
        // SAFETY: the context lives, see `new`.
        let _memory = unsafe { InMemory::of(self.context) };
        work()
    }
}

/// The shortest digits that name this double and no other: 1e23 is 1e23, where PostgreSQL says 9.999999999999999e+22. Zero
/// keeps its sign only as what cannot be read as an integer.
fn shortest(double: f64) -> String {
    match double.abs() {
        0.0 if double.is_sign_negative() => "-0.0e0".to_owned(),
        size if size == 0.0 || (1e-5..1e16).contains(&size) => double.to_string(),
        _ => format!("{double:e}"),
    }
}

/// A number of so many digits after the point.
fn plain(unscaled: i64, scale: u8) -> String {
    let scale = usize::from(scale);
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (before, after) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    let point = if scale == 0 { "" } else { "." };
    format!("{sign}{before}{point}{after}")
}

/// # Safety
/// A type that exists; as [`Function::new`].
unsafe fn kind(type_oid: pg_sys::Oid) -> Result<Kind> {
    // SAFETY: as the caller promises.
    unsafe {
        let base = pg_sys::getBaseType(type_oid);
        Ok(match base {
            pg_sys::BOOLOID => Kind::Bool,
            pg_sys::INT2OID
            | pg_sys::INT4OID
            | pg_sys::INT8OID
            | pg_sys::OIDOID
            | pg_sys::NUMERICOID => Kind::Number(Function::output(base)),
            pg_sys::FLOAT4OID => Kind::Single(Function::output(base)),
            pg_sys::FLOAT8OID => Kind::Double(Function::output(base)),
            pg_sys::MONEYOID => Kind::Money {
                scale: money_scale()?,
            },
            pg_sys::DATEOID | pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID => Kind::Moment(base),
            pg_sys::JSONOID => Kind::Json,
            pg_sys::JSONBOID => Kind::Jsonb,
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => Kind::Text,
            _ => {
                let element = pg_sys::get_element_type(base);
                if element != pg_sys::InvalidOid {
                    let is_vector = [pg_sys::INT2VECTOROID, pg_sys::OIDVECTOROID].contains(&base);
                    let first = i32::from(!is_vector);
                    Kind::Array { element, first }
                } else if pg_sys::type_is_rowtype(base) {
                    Kind::Row
                } else if let Some(cast) = cast_of_hstore(base)? {
                    Kind::Cast(Function::new(cast))
                } else {
                    Kind::Output(Function::output(base))
                }
            }
        })
    }
}

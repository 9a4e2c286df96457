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
use super::digits::{plain, write_shortest};
use super::elements::{Elements, Layout};
use super::kind::{Kind, kind};
use super::memory::ValueMemory;
use super::row_type::RowTypes;
use super::scalar::{bytes, bytes_at_hand};
use super::text::{c_to_utf8, is_utf8, to_utf8};
use crate::bound::base_type;
use crate::error::Result;
use crate::memory::InMemory;
use crate::source::json_text::walk_json;
use crate::source::jsonb::Jsonb;

/// Elements between two looks for an interrupt: some tens of microseconds.
const ELEMENTS_PER_CHECK: usize = 1_024;

const LOWER_BOUNDS_HINT: &str = "Let the query number the elements from 1, as array_column[:] does, or cast the array to text, or pass \
     options => '{\"on_out_of_range\": \"null\"}' to load such values as NULL.";

/// The types that were met, and room for values that are not in memory as they are needed.
pub(super) struct Types {
    context: pg_sys::MemoryContext,
    kinds: HashMap<pg_sys::Oid, Kind>,
    rows: RowTypes,
    document: Document,
    uuid: [u8; Hyphenated::LENGTH],
    /// The digits of a float.
    digits: String,
    /// Text of the database needs no conversion.
    is_utf8: bool,
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
            digits: String::new(),
            // SAFETY: as the caller promises.
            is_utf8: unsafe { is_utf8() },
        }
    }

    /// Whether text of the database needs no conversion.
    #[inline]
    pub(super) const fn is_utf8(&self) -> bool {
        self.is_utf8
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
        let kind = self.kind(type_oid)?;
        // SAFETY: as the caller promises.
        unsafe {
            match self.write_at_hand(kind, value, to) {
                Some(written) => Ok(written?),
                None => self.write_kind(kind, value, to),
            }
        }
    }

    /// Writes a value where it lies: without a function of the server's, and so without memory of its own. `None` for what needs one.
    /// Nearly all values are such.
    ///
    /// # Safety
    /// A value of that kind.
    #[inline]
    unsafe fn write_at_hand(
        &mut self,
        kind: Kind,
        value: pg_sys::Datum,
        to: &mut Document,
    ) -> Option<Result<(), bridge_core::Error>> {
        Some(match kind {
            Kind::Bool => to.token(Token::Bool(value.value() != 0)),
            Kind::Integer(integer) => {
                let mut digits = itoa::Buffer::new();
                to.token(Token::Number(digits.format(integer.of(value))))
            }
            Kind::Single(_) | Kind::Double(_) => {
                let double = match kind {
                    Kind::Single(_) => f32::from_bits(value.value() as u32).into(),
                    _ => f64::from_bits(value.value() as u64),
                };
                if !double.is_finite() {
                    return None;
                }
                write_shortest(double, &mut self.digits);
                to.token(Token::Number(&self.digits))
            }
            Kind::Text if self.is_utf8 => {
                // SAFETY: as the caller promises.
                let bytes = unsafe { bytes_at_hand(value) }?;
                to.token(Token::String(std::str::from_utf8(bytes).ok()?))
            }
            _ => return None,
        })
    }

    /// Writes a value that is not at hand.
    ///
    /// # Safety
    /// As [`Types::json`], a value of that kind.
    unsafe fn write_kind(
        &mut self,
        kind: Kind,
        value: pg_sys::Datum,
        to: &mut Document,
    ) -> Result<(), Unread> {
        // SAFETY: as the caller promises; each kind reads what its type is. Rows can be nested by data alone, so the stack
        // is looked after as PostgreSQL does it.
        unsafe {
            pg_sys::check_stack_depth();
            match kind {
                Kind::Number(output) => {
                    let text = output.text(value)?;
                    if Decimal::parse(text).is_some() {
                        to.token(Token::Number(text))?;
                    } else {
                        to.token(Token::String(text))?;
                    }
                }
                // What is no number.
                Kind::Single(output) | Kind::Double(output) => {
                    to.token(Token::String(output.text(value)?))?;
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
                Kind::Array {
                    element,
                    layout,
                    first,
                } => self.write_array((element, layout), first, value, to)?,
                Kind::Row => self.write_row(value, to)?,
                Kind::Text => to.token(Token::String(to_utf8(bytes(value))?))?,
                Kind::Output(output) => to.token(Token::String(output.text(value)?))?,
                // Always at hand.
                Kind::Bool | Kind::Integer(_) => {}
            }
        }
        Ok(())
    }

    /// # Safety
    /// An array of such elements.
    unsafe fn write_array(
        &mut self,
        (element, layout): (pg_sys::Oid, Layout),
        first: i32,
        value: pg_sys::Datum,
        to: &mut Document,
    ) -> Result<(), Unread> {
        // SAFETY: as the caller promises; the sizes of the dimensions follow the header, and then their lower bounds.
        let (dimensions, lower_bounds, mut elements) = unsafe {
            let array: *mut pg_sys::ArrayType =
                pg_sys::pg_detoast_datum(value.cast_mut_ptr()).cast();
            let count = usize::try_from((*array).ndim).unwrap_or(0);
            let bounds = std::slice::from_raw_parts(array.add(1).cast::<i32>(), 2 * count);
            let (dimensions, lower_bounds) = bounds.split_at(count);
            (
                dimensions,
                lower_bounds,
                Elements::of(array, element, layout),
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
        let kind = self.kind(element)?;
        let (mut index, mut memory) = (0_usize, None);
        // SAFETY: the array lives.
        while let Some(value) = unsafe { elements.next() } {
            if index.is_multiple_of(ELEMENTS_PER_CHECK) {
                check_for_interrupts!();
            }
            for _ in strides
                .iter()
                .filter(|stride| index.is_multiple_of(**stride))
            {
                to.token(Token::BeginArray)?;
            }
            match value {
                None => to.token(Token::Null)?,
                // SAFETY: an element of the array.
                Some(value) => match unsafe { self.write_at_hand(kind, value, to) } {
                    Some(written) => written?,
                    None => {
                        // SAFETY: it goes with the memory of this array.
                        let memory = memory.get_or_insert_with(|| unsafe { ValueMemory::new() });
                        // SAFETY: an element of the array.
                        memory.scoped(|| unsafe { self.write_kind(kind, value, to) })?;
                    }
                },
            }
            for _ in strides
                .iter()
                .filter(|stride| (index + 1).is_multiple_of(**stride))
            {
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
                let base = base_type(type_oid);
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

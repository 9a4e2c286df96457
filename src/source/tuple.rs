//! Single columns of a row that a trigger was fired for.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};

use pgrx::heap_tuple::PgHeapTuple;
use pgrx::{AllocatedByPostgres, FromDatum, IntoDatum, PgTupleDesc, pg_sys, varlena};

use crate::bound::base_type;
use crate::error::{Error, Result};

/// A row and its description, borrowed from the trigger's call.
#[derive(Clone, Copy)]
pub struct Tuple {
    tuple: *mut pg_sys::HeapTupleData,
    descriptor: pg_sys::TupleDesc,
}

/// The number that is the first argument of a trigger.
pub fn argument(data: &pg_sys::TriggerData) -> Option<i64> {
    // SAFETY: PostgreSQL fills in the trigger that it fires, with so many C strings as its arguments.
    unsafe {
        let trigger = data.tg_trigger.as_ref()?;
        if trigger.tgnargs < 1 {
            return None;
        }
        CStr::from_ptr(*trigger.tgargs).to_str().ok()?.parse().ok()
    }
}

/// The blanks that fill up a `char(n)` are no part of it: a cast to text leaves them away, as every query of ours does.
fn without_padding(base_type: pg_sys::Oid, text: &str) -> &str {
    if base_type == pg_sys::BPCHAROID {
        text.trim_end_matches(' ')
    } else {
        text
    }
}

impl Tuple {
    /// The row as it is (INSERT) or will be (UPDATE), and the row as it was (UPDATE).
    ///
    /// # Errors
    /// If the trigger was fired by anything but INSERT or UPDATE of a row.
    pub fn of_trigger(data: &pg_sys::TriggerData) -> Result<(Self, Option<Self>)> {
        let wrong_event =
            || Error::invalid("this trigger function is for INSERT and UPDATE of rows");
        if data.tg_trigtuple.is_null() || data.tg_relation.is_null() {
            return Err(wrong_event());
        }
        // SAFETY: PostgreSQL keeps the relation open while its trigger runs.
        let descriptor = unsafe { (*data.tg_relation).rd_att };
        let row = |tuple| Self { tuple, descriptor };
        let event = data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK;
        match event {
            pg_sys::TRIGGER_EVENT_INSERT => Ok((row(data.tg_trigtuple), None)),
            pg_sys::TRIGGER_EVENT_UPDATE if !data.tg_newtuple.is_null() => {
                Ok((row(data.tg_newtuple), Some(row(data.tg_trigtuple))))
            }
            _ => Err(wrong_event()),
        }
    }

    fn column(&self, name: &str) -> Result<i32> {
        let no_column = || {
            Error::missing(format!("column \"{name}\" does not exist any more"))
                .hint("Call snowflake_bridge.unwatch and snowflake_bridge.watch again.")
        };
        let text = CString::new(name).map_err(|_| no_column())?;
        // SAFETY: a live descriptor and a C string.
        let number = unsafe { pg_sys::SPI_fnumber(self.descriptor, text.as_ptr()) };
        if number <= 0 {
            Err(no_column())
        } else {
            Ok(number)
        }
    }

    /// The column's text form, `None` for NULL, if looking at the row tells it: nothing that could fail is called, and no
    /// memory is taken.
    pub fn plain_text(&self, name: &str) -> Option<Option<&str>> {
        let number = self.column(name).ok()?;
        // SAFETY: a live row of this description, and the column is in it. A text is read by its own length, in whichever of the two
        // forms it has that are neither compressed nor elsewhere.
        unsafe {
            let Some(value) = self.datum(number) else {
                return Some(None);
            };
            let kind = pg_sys::SPI_gettypeid(self.descriptor, number);
            match kind {
                pg_sys::BOOLOID => Some(Some(if value.value() == 0 { "f" } else { "t" })),
                pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => {
                    let text = value.cast_mut_ptr::<pg_sys::varlena>();
                    let is_here = varlena::varatt_is_4b_u(text)
                        || varlena::varatt_is_1b(text) && !varlena::varatt_is_1b_e(text);
                    if !is_here {
                        return None;
                    }
                    let length = varlena::varsize_any_exhdr(text);
                    let bytes = varlena::vardata_any(text).cast::<u8>();
                    let text = std::slice::from_raw_parts(bytes, length);
                    let text = std::str::from_utf8(text).ok()?;
                    Some(Some(without_padding(kind, text)))
                }
                _ => None,
            }
        }
    }

    /// The column's integer, as [`plain_text`](Self::plain_text).
    pub fn plain_integer(&self, name: &str) -> Option<Option<i64>> {
        let number = self.column(name).ok()?;
        // SAFETY: a live row of this description, and the column is in it; integers are passed by value.
        unsafe {
            let Some(value) = self.datum(number) else {
                return Some(None);
            };
            match pg_sys::SPI_gettypeid(self.descriptor, number) {
                pg_sys::INT2OID => i16::from_datum(value, false).map(i64::from),
                pg_sys::INT4OID => i32::from_datum(value, false).map(i64::from),
                pg_sys::INT8OID => i64::from_datum(value, false),
                _ => return None,
            }
            .map(Some)
        }
    }

    /// The column's text form; `None` for NULL.
    ///
    /// # Errors
    /// If there is no such column.
    pub fn text(&self, name: &str) -> Result<Option<String>> {
        if let Some(text) = self.plain_text(name) {
            return Ok(text.map(str::to_owned));
        }
        let number = self.column(name)?;
        // SAFETY: a live row of this description; the result is a palloc'd C string or null.
        unsafe {
            let value = pg_sys::SPI_getvalue(self.tuple, self.descriptor, number);
            if value.is_null() {
                return Ok(None);
            }
            let kind = base_type(pg_sys::SPI_gettypeid(self.descriptor, number));
            let text = CStr::from_ptr(value).to_str();
            let text = text.map(|text| without_padding(kind, text).to_owned());
            pg_sys::pfree(value.cast());
            text.map(Some)
                .map_err(|_| Error::invalid(format!("column \"{name}\" is not valid UTF-8")))
        }
    }

    /// The row with other values in these text columns.
    ///
    /// # Errors
    /// If there is no such column, or it is not for text.
    pub fn with_texts<'a>(
        &self,
        columns: &[(&str, Option<&str>)],
    ) -> Result<PgHeapTuple<'a, AllocatedByPostgres>> {
        let mut numbers = Vec::with_capacity(columns.len());
        let mut values = Vec::with_capacity(columns.len());
        let mut nulls = Vec::with_capacity(columns.len());
        for (name, text) in columns {
            let number = self.column(name)?;
            // SAFETY: the column is in this live descriptor.
            let kind = unsafe { pg_sys::SPI_gettypeid(self.descriptor, number) };
            if kind != pg_sys::TEXTOID && kind != pg_sys::VARCHAROID {
                return Err(Error::invalid(format!("column \"{name}\" is not text")));
            }
            numbers.push(number);
            values.push(text.into_datum().unwrap_or(pg_sys::Datum::null()));
            nulls.push(text.is_none());
        }
        // SAFETY: a live row of this description, whose columns of these numbers take values of type text. The new row lies in
        // the trigger's memory, as whoever called the trigger expects; PostgreSQL keeps the relation open meanwhile.
        unsafe {
            let changed = pg_sys::heap_modify_tuple_by_cols(
                self.tuple,
                self.descriptor,
                i32::try_from(numbers.len()).unwrap_or(0),
                numbers.as_mut_ptr(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            Ok(PgHeapTuple::from_heap_tuple(
                PgTupleDesc::from_pg_unchecked(self.descriptor),
                changed,
            ))
        }
    }

    /// The column's value; `None` for NULL.
    ///
    /// # Safety
    /// With the number of a column of a live row.
    unsafe fn datum(&self, number: i32) -> Option<pg_sys::Datum> {
        let mut is_null = false;
        // SAFETY: as the caller promises.
        let datum =
            unsafe { pg_sys::SPI_getbinval(self.tuple, self.descriptor, number, &raw mut is_null) };
        (!is_null).then_some(datum)
    }

    /// Whether the column is stored as it is in `other`, as far as looking at the rows tells.
    pub fn is_stored_alike(&self, other: &Self, name: &str) -> bool {
        let Ok(number) = self.column(name) else {
            return false;
        };
        // SAFETY: live rows of one description, and the column is in it; a varlena has its own length.
        unsafe {
            let (this, that) = match (self.datum(number), other.datum(number)) {
                (Some(this), Some(that)) => (this, that),
                (this, that) => return this.is_none() && that.is_none(),
            };
            matches!(
                pg_sys::SPI_gettypeid(self.descriptor, number),
                pg_sys::JSONBOID | pg_sys::JSONOID | pg_sys::TEXTOID
            ) && stored_image(this.cast_mut_ptr()) == stored_image(that.cast_mut_ptr())
        }
    }

    /// Whether the column holds the same bytes as in `other`, however the two are stored.
    ///
    /// # Errors
    /// If there is no such column.
    pub fn same(&self, other: &Self, name: &str) -> Result<bool> {
        let number = self.column(name)?;
        // SAFETY: live rows of one description, and the column is in it; values are read by the length that their
        // type declares.
        unsafe {
            let (this, that) = match (self.datum(number), other.datum(number)) {
                (Some(this), Some(that)) => (this, that),
                (this, that) => return Ok(this.is_none() && that.is_none()),
            };
            let (mut length, mut by_value) = (0_i16, false);
            let type_oid = pg_sys::SPI_gettypeid(self.descriptor, number);
            pg_sys::get_typlenbyval(type_oid, &raw mut length, &raw mut by_value);
            if by_value {
                return Ok(this.value() == that.value());
            }
            Ok(match length {
                -1 => {
                    stored_image(this.cast_mut_ptr()) == stored_image(that.cast_mut_ptr())
                        || plain_image(this) == plain_image(that)
                }
                -2 => CStr::from_ptr(this.cast_mut_ptr()) == CStr::from_ptr(that.cast_mut_ptr()),
                length => {
                    let length = usize::from(length.unsigned_abs());
                    std::slice::from_raw_parts(this.cast_mut_ptr::<u8>(), length)
                        == std::slice::from_raw_parts(that.cast_mut_ptr::<u8>(), length)
                }
            })
        }
    }
}

/// The value as it is stored, maybe only a pointer to where it lies: equal pointers are equal values, at no cost.
///
/// # Safety
/// `value` points to a varlena.
unsafe fn stored_image<'a>(value: *mut pg_sys::varlena) -> &'a [u8] {
    // SAFETY: as the caller promises; the size is that of the stored form.
    unsafe { std::slice::from_raw_parts(value.cast::<u8>(), varlena::varsize_any(value)) }
}

/// The value itself.
///
/// # Safety
/// `value` is a varlena.
unsafe fn plain_image<'a>(value: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: as the caller promises; what detoasting gives lives as long as the memory context of the trigger.
    unsafe {
        let plain = pg_sys::pg_detoast_datum(value.cast_mut_ptr());
        std::slice::from_raw_parts(plain.cast::<u8>(), varlena::varsize_any(plain))
    }
}

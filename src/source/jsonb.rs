//! The walk over a `jsonb` value: its binary form, one token at a time, without recursion and without its text.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::MaybeUninit;

use bridge_core::decimal::TEXT_ROOM;
use bridge_core::json::{Token, TokenSink};
use pgrx::{check_for_interrupts, pg_sys};

use super::values::numeric;
use super::values::text::{is_utf8, to_utf8};
use super::values::varlena_bytes;
use crate::error::{Error, Result};

/// Tokens between two looks for an interrupt: some tens of microseconds.
const TOKENS_PER_CHECK: u32 = 4_096;

/// A detoasted `jsonb` value, which lives as long as the memory context it was read in.
pub struct Jsonb(*mut pg_sys::Jsonb);

impl Jsonb {
    /// # Safety
    /// `datum` is a `jsonb`, and the current memory context outlives the result.
    pub unsafe fn from_datum(datum: pg_sys::Datum) -> Self {
        // SAFETY: as the caller promises.
        Self(unsafe { pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast() })
    }

    /// Gives every token to `sink`, in order.
    ///
    /// # Errors
    /// The first error of `sink`; an interrupt raises an ERROR.
    pub fn walk(&self, sink: &mut dyn TokenSink) -> Result<()> {
        let mut value = MaybeUninit::<pg_sys::JsonbValue>::zeroed();
        let mut until_check = TOKENS_PER_CHECK;
        // SAFETY: the iterator reads a live jsonb and fills `value`, which is plain data; which member of the union
        // is valid is what its type says.
        unsafe {
            let is_utf8 = is_utf8();
            let mut iterator = pg_sys::JsonbIteratorInit(&raw mut (*self.0).root);
            loop {
                let step = pg_sys::JsonbIteratorNext(&raw mut iterator, value.as_mut_ptr(), false);
                let value = value.assume_init_ref();
                match step {
                    pg_sys::JsonbIteratorToken::WJB_DONE => return Ok(()),
                    pg_sys::JsonbIteratorToken::WJB_KEY => {
                        sink.token(Token::Key(string(value, is_utf8)?))?
                    }
                    pg_sys::JsonbIteratorToken::WJB_VALUE
                    | pg_sys::JsonbIteratorToken::WJB_ELEM => scalar(value, is_utf8, sink)?,
                    // A bare scalar is stored as an array of one element.
                    pg_sys::JsonbIteratorToken::WJB_BEGIN_ARRAY if value.val.array.rawScalar => {}
                    pg_sys::JsonbIteratorToken::WJB_BEGIN_ARRAY => sink.token(Token::BeginArray)?,
                    pg_sys::JsonbIteratorToken::WJB_END_ARRAY if self.is_raw_scalar() => {}
                    pg_sys::JsonbIteratorToken::WJB_END_ARRAY => sink.token(Token::EndArray)?,
                    pg_sys::JsonbIteratorToken::WJB_BEGIN_OBJECT => {
                        sink.token(Token::BeginObject)?
                    }
                    pg_sys::JsonbIteratorToken::WJB_END_OBJECT => sink.token(Token::EndObject)?,
                    other => return Err(Error::invalid(format!("unknown jsonb token {other}"))),
                }
                until_check -= 1;
                if until_check == 0 {
                    check_for_interrupts!();
                    until_check = TOKENS_PER_CHECK;
                }
            }
        }
    }

    fn is_raw_scalar(&self) -> bool {
        // SAFETY: reads the header of a live jsonb.
        unsafe { (*self.0).root.header & pg_sys::JB_FSCALAR != 0 }
    }
}

/// # Safety
/// `value` is a string or key that the iterator just gave; `is_utf8` says what text of this database is.
unsafe fn string(value: &pg_sys::JsonbValue, is_utf8: bool) -> Result<&str> {
    // SAFETY: as the caller promises; the bytes lie in the jsonb value.
    let bytes = unsafe {
        let string = value.val.string;
        std::slice::from_raw_parts(
            string.val.cast::<u8>(),
            usize::try_from(string.len).unwrap_or(0),
        )
    };
    match std::str::from_utf8(bytes) {
        Ok(text) if is_utf8 => Ok(text),
        // SAFETY: as the caller promises.
        _ => unsafe { to_utf8(bytes) },
    }
}

/// # Safety
/// `value` is an element or value that the iterator just gave.
unsafe fn scalar(
    value: &pg_sys::JsonbValue,
    is_utf8: bool,
    sink: &mut dyn TokenSink,
) -> Result<()> {
    // SAFETY: as the caller promises; each member is read only under its type.
    unsafe {
        match value.type_ {
            pg_sys::jbvType::jbvNull => sink.token(Token::Null)?,
            pg_sys::jbvType::jbvBool => sink.token(Token::Bool(value.val.boolean))?,
            pg_sys::jbvType::jbvString => sink.token(Token::String(string(value, is_utf8)?))?,
            pg_sys::jbvType::jbvNumeric => number(value.val.numeric.cast(), sink)?,
            other => return Err(Error::invalid(format!("unknown jsonb value type {other}"))),
        }
    }
    Ok(())
}

/// # Safety
/// A numeric.
unsafe fn number(numeric: *mut pg_sys::varlena, sink: &mut dyn TokenSink) -> Result<()> {
    let numeric = pg_sys::Datum::from(numeric);
    let mut room = [0; TEXT_ROOM];
    // SAFETY: as the caller promises; one within a jsonb is neither compressed nor stored elsewhere. The text is freed once.
    unsafe {
        if let Some(text) = numeric::write(varlena_bytes(numeric), &mut room) {
            return Ok(sink.token(Token::Number(text))?);
        }
        let text: *mut std::ffi::c_char =
            pgrx::direct_function_call_as_datum(pg_sys::numeric_out, &[Some(numeric)])
                .map_or(std::ptr::null_mut(), |datum| datum.cast_mut_ptr());
        if text.is_null() {
            return Err(Error::invalid("a number has no text form"));
        }
        let pushed = sink.token(Token::Number(
            CStr::from_ptr(text).to_str().unwrap_or("NaN"),
        ));
        pg_sys::pfree(text.cast());
        Ok(pushed?)
    }
}

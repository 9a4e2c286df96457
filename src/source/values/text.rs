//! Text of the server in UTF-8, which is what files and Snowflake have.
#![allow(unsafe_code)]

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::error::{Error, Result};

/// Whether text of the database is taken as UTF-8 without being converted.
///
/// # Safety
/// Inside a transaction.
pub unsafe fn is_utf8() -> bool {
    // SAFETY: reads a variable of this process.
    let encoding = unsafe { pg_sys::GetDatabaseEncoding() };
    encoding == pg_sys::pg_enc::PG_UTF8 as i32 || encoding == pg_sys::pg_enc::PG_SQL_ASCII as i32
}

/// The same text in UTF-8; in the current memory context where it had to be converted.
///
/// # Errors
/// For bytes that are not text of the database's encoding, or that nobody says the encoding of.
///
/// # Safety
/// The result is used only while the bytes and the current memory context live.
pub unsafe fn to_utf8(bytes: &[u8]) -> Result<&str> {
    // SAFETY: reads of this process's own variables; the converted text is a C string in the current memory context.
    unsafe {
        let converted = if is_utf8() {
            bytes
        } else {
            let encoding = pg_sys::GetDatabaseEncoding();
            let utf8 = pg_sys::pg_enc::PG_UTF8 as i32;
            let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
            let source = bytes.as_ptr().cast_mut();
            let result = pg_sys::pg_do_encoding_conversion(source, length, encoding, utf8);
            if std::ptr::eq(result, source) {
                bytes
            } else {
                CStr::from_ptr(result.cast()).to_bytes()
            }
        };
        std::str::from_utf8(converted).map_err(|_| {
            Error::invalid("the result holds text that is not valid UTF-8").hint(
                "The database's encoding is SQL_ASCII, which does not say what the bytes mean. Say it in the query: \
                 convert_from(convert(convert_to(column, 'SQL_ASCII'), 'LATIN1', 'UTF8'), 'UTF8').",
            )
        })
    }
}

/// A C string of the server in UTF-8.
///
/// # Errors
/// As [`to_utf8`].
///
/// # Safety
/// As [`to_utf8`], and `text` is a C string.
pub unsafe fn c_to_utf8<'a>(text: *const std::ffi::c_char) -> Result<&'a str> {
    // SAFETY: as the caller promises.
    unsafe { to_utf8(CStr::from_ptr(text).to_bytes()) }
}

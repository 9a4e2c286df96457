//! How the types of values within values are written.
#![allow(unsafe_code)]

use pgrx::pg_sys;

use super::catalog::{cast_of_hstore, money_scale};
use super::column::Function;
use super::elements::Layout;
use crate::bound::base_type;
use crate::error::Result;

/// How a type is written as JSON.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Bool,
    Integer(Integer),
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
        layout: Layout,
        first: i32,
    },
    Row,
    /// As it is stored, without a copy.
    Text,
    Output(Function),
}

/// An integer that is passed by value.
#[derive(Clone, Copy)]
pub(super) enum Integer {
    Int2,
    Int4,
    Int8,
    Oid,
}

impl Integer {
    /// The number, which lies in the lower part of the word.
    pub(super) fn of(self, value: pg_sys::Datum) -> i64 {
        match self {
            Self::Int2 => (value.value() as i16).into(),
            Self::Int4 => (value.value() as i32).into(),
            Self::Int8 => value.value() as i64,
            Self::Oid => (value.value() as u32).into(),
        }
    }
}

/// # Safety
/// A type that exists; as [`Function::new`].
pub(super) unsafe fn kind(type_oid: pg_sys::Oid) -> Result<Kind> {
    // SAFETY: as the caller promises.
    unsafe {
        let base = base_type(type_oid);
        Ok(match base {
            pg_sys::BOOLOID => Kind::Bool,
            pg_sys::INT2OID => Kind::Integer(Integer::Int2),
            pg_sys::INT4OID => Kind::Integer(Integer::Int4),
            pg_sys::INT8OID => Kind::Integer(Integer::Int8),
            pg_sys::OIDOID => Kind::Integer(Integer::Oid),
            pg_sys::NUMERICOID => Kind::Number(Function::output(base)),
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
                    Kind::Array {
                        element,
                        layout: Layout::of(element),
                        first,
                    }
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

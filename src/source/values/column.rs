//! In which form the values of a type of PostgreSQL are read. Which Snowflake column it gets, [`SourceType`] says.
#![allow(unsafe_code)]

use bridge_core::batch::Value;
use bridge_core::decimal::Decimal;
use bridge_core::json::TOO_LONG_HINT;
use bridge_core::types::{
    ColumnType, MAX_BINARY_BYTES, MAX_TEXT_BYTES, MONEY_PRECISION, SourceType,
};
use pgrx::pg_sys;

use super::Unread;
use super::catalog::{extension_type, money_scale};
use super::nested::Types;
use super::numeric;
use super::scalar::{self, Moment};
use super::text::{c_to_utf8, to_utf8};
use crate::error::Result;

/// A column of the result, as PostgreSQL describes it.
pub(super) struct Attribute {
    pub(super) name: String,
    pub(super) type_oid: pg_sys::Oid,
    pub(super) typmod: i32,
    pub(super) is_dropped: bool,
}

/// # Safety
/// A live descriptor.
pub(super) unsafe fn attributes(descriptor: pg_sys::TupleDesc) -> Result<Vec<Attribute>> {
    // SAFETY: as the caller promises; a name is a C string.
    unsafe {
        pgrx::PgTupleDesc::from_pg_copy(descriptor)
            .iter()
            .map(|attribute| {
                Ok(Attribute {
                    name: c_to_utf8(attribute.attname.data.as_ptr())?.to_owned(),
                    type_oid: attribute.atttypid,
                    typmod: attribute.atttypmod,
                    is_dropped: attribute.attisdropped,
                })
            })
            .collect()
    }
}

/// A function of a type, looked up once.
#[derive(Clone, Copy)]
pub(super) struct Function(*mut pg_sys::FmgrInfo);

impl Function {
    /// # Safety
    /// The function exists; it is used only while the current memory context lives.
    pub(super) unsafe fn new(oid: pg_sys::Oid) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let info = pg_sys::palloc0(size_of::<pg_sys::FmgrInfo>()).cast();
            pg_sys::fmgr_info_cxt(oid, info, pg_sys::CurrentMemoryContext);
            Self(info)
        }
    }

    /// The output function of a type.
    ///
    /// # Safety
    /// As [`Function::new`].
    pub(super) unsafe fn output(type_oid: pg_sys::Oid) -> Self {
        let (mut function, mut is_varlena) = (pg_sys::InvalidOid, false);
        // SAFETY: as the caller promises.
        unsafe {
            pg_sys::getTypeOutputInfo(type_oid, &raw mut function, &raw mut is_varlena);
            Self::new(function)
        }
    }

    /// The function that gives the binary form of a type.
    ///
    /// # Safety
    /// As [`Function::new`].
    unsafe fn send(type_oid: pg_sys::Oid) -> Self {
        let (mut function, mut is_varlena) = (pg_sys::InvalidOid, false);
        // SAFETY: as the caller promises.
        unsafe {
            pg_sys::getTypeBinaryOutputInfo(type_oid, &raw mut function, &raw mut is_varlena);
            Self::new(function)
        }
    }

    /// # Safety
    /// A value of the type; the result lives as long as the current memory context.
    pub(super) unsafe fn text<'a>(self, value: pg_sys::Datum) -> Result<&'a str> {
        // SAFETY: as the caller promises.
        unsafe { c_to_utf8(pg_sys::OutputFunctionCall(self.0, value)) }
    }

    /// # Safety
    /// A value of the function's only argument.
    pub(super) unsafe fn call(self, value: pg_sys::Datum) -> pg_sys::Datum {
        // SAFETY: as the caller promises.
        unsafe { pg_sys::FunctionCall1Coll(self.0, pg_sys::InvalidOid, value) }
    }
}

/// In which form the values of a column are read.
pub(super) enum Form {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    /// A numeric of declared digits.
    Number {
        scale: u8,
    },
    /// A numeric without, as its digits; what the column is called is decided when all have been seen.
    Digits(Function),
    /// A numeric without, as text whatever it is.
    DigitsText(Function),
    /// The same because numbers are to be text: no value is odd. A table's NUMBER may take them all the same.
    NumberText(Function),
    Money {
        scale: u8,
    },
    Text,
    Name,
    Bytea,
    Uuid,
    Moment(Moment),
    /// Of a type that has values which Snowflake does not hold, as text whatever it is.
    MomentText(Moment, Function),
    /// JSON, an array, a row or hstore.
    Json(pg_sys::Oid),
    /// The binary form that the type sends to clients.
    Sent(Function),
    /// The text form of everything else.
    Output(Function),
}

impl Form {
    /// The form and the Snowflake column of a result's column. `as_text`: types with values out of range are text;
    /// `numeric_as_text`: so is a numeric without declared digits.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    ///
    /// # Safety
    /// As [`Function::new`].
    pub(super) unsafe fn of(
        attribute: &Attribute,
        as_text: bool,
        numeric_as_text: bool,
    ) -> Result<(Self, ColumnType)> {
        let mut typmod = attribute.typmod;
        // SAFETY: as the caller promises, here and where the functions of a type are looked up.
        let type_oid = unsafe { pg_sys::getBaseTypeAndTypmod(attribute.type_oid, &raw mut typmod) };
        // SAFETY: as above.
        let output = || unsafe { Function::output(type_oid) };
        let moment = |moment: Moment| {
            let form = if as_text {
                Self::MomentText(moment, output())
            } else {
                Self::Moment(moment)
            };
            (form, moment.source_type())
        };
        let (form, source_type) = match type_oid {
            pg_sys::BOOLOID => (Self::Bool, SourceType::Boolean),
            pg_sys::INT2OID => (Self::Int2, SourceType::SmallInt),
            pg_sys::INT4OID => (Self::Int4, SourceType::Integer),
            pg_sys::INT8OID => (Self::Int8, SourceType::BigInt),
            pg_sys::OIDOID => (Self::Oid, SourceType::Oid),
            pg_sys::FLOAT4OID => (Self::Float4, SourceType::Real),
            pg_sys::FLOAT8OID => (Self::Float8, SourceType::Double),
            pg_sys::NUMERICOID => {
                let source_type = scalar::declared_digits(typmod);
                let form = match source_type {
                    SourceType::Number { scale, .. } => Self::Number { scale },
                    _ if numeric_as_text => Self::NumberText(output()),
                    _ if as_text => Self::DigitsText(output()),
                    _ => Self::Digits(output()),
                };
                (form, source_type)
            }
            pg_sys::MONEYOID => {
                let scale = money_scale()?;
                (Self::Money { scale }, SourceType::Money)
            }
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => {
                (Self::Text, SourceType::Text)
            }
            pg_sys::NAMEOID => (Self::Name, SourceType::Text),
            pg_sys::BYTEAOID => (Self::Bytea, SourceType::Bytes),
            pg_sys::UUIDOID => (Self::Uuid, SourceType::Uuid),
            pg_sys::DATEOID => moment(Moment::Date),
            pg_sys::TIMEOID => moment(Moment::Time),
            pg_sys::TIMESTAMPOID => moment(Moment::Timestamp),
            pg_sys::TIMESTAMPTZOID => moment(Moment::TimestampTz),
            pg_sys::JSONOID | pg_sys::JSONBOID => (Self::Json(type_oid), SourceType::Document),
            // SAFETY: a catalog lookup.
            _ if unsafe { pg_sys::get_element_type(type_oid) } != pg_sys::InvalidOid => {
                (Self::Json(type_oid), SourceType::Array)
            }
            // SAFETY: a catalog lookup.
            _ if unsafe { pg_sys::type_is_rowtype(type_oid) } => {
                (Self::Json(type_oid), SourceType::Document)
            }
            _ => match extension_type(type_oid)?.as_deref() {
                Some("hstore") => (Self::Json(type_oid), SourceType::Document),
                Some("geometry" | "geography") => {
                    // SAFETY: as the caller promises.
                    let send = unsafe { Function::send(type_oid) };
                    (Self::Sent(send), SourceType::Geometry)
                }
                _ => (Self::Output(output()), SourceType::Other),
            },
        };
        let column_type = match (&form, source_type.column_type()) {
            (Self::MomentText(..), _) => ColumnType::Text,
            (Self::Money { scale }, _) => ColumnType::number(MONEY_PRECISION, *scale)?,
            (_, Some(column_type)) => column_type,
            // Digits, which travel as text.
            (_, None) => ColumnType::Text,
        };
        Ok((form, column_type))
    }

    /// Whether what the values become is the same under all settings.
    pub(super) fn is_independent(&self) -> bool {
        match self {
            Self::Bool
            | Self::Int2
            | Self::Int4
            | Self::Int8
            | Self::Oid
            | Self::Float4
            | Self::Float8
            | Self::Number { .. }
            | Self::Digits(_)
            | Self::DigitsText(_)
            | Self::NumberText(_)
            | Self::Money { .. }
            | Self::Text
            | Self::Name
            | Self::Bytea
            | Self::Uuid
            | Self::Moment(_)
            | Self::Json(pg_sys::JSONOID | pg_sys::JSONBOID) => true,
            Self::MomentText(..) | Self::Json(_) | Self::Sent(_) | Self::Output(_) => false,
        }
    }

    /// The value, if it lies in memory as it is read: without a function that needs memory of its own, and without a reason to
    /// refuse it. Nearly all values are such.
    ///
    /// # Safety
    /// A value of the column's type; the result lives as long as it and `types`.
    #[inline]
    pub(super) unsafe fn at_hand<'a>(
        &self,
        value: pg_sys::Datum,
        types: &'a mut Types,
    ) -> Option<Value<'a>> {
        // SAFETY: as the caller promises; each form reads what its type is.
        unsafe {
            Some(match self {
                Self::Bool => Value::Bool(value.value() != 0),
                Self::Int2 => Value::Int((value.value() as i16).into()),
                Self::Int4 => Value::Int((value.value() as i32).into()),
                Self::Int8 => Value::Int(value.value() as i64),
                Self::Oid => Value::Int((value.value() as u32).into()),
                Self::Float4 => Value::Float(f32::from_bits(value.value() as u32).into()),
                Self::Float8 => Value::Float(f64::from_bits(value.value() as u64)),
                Self::Money { scale } => Value::Decimal {
                    unscaled: (value.value() as i64).into(),
                    scale: *scale,
                },
                Self::Moment(moment) => moment.value(value).ok()?,
                Self::Number { scale } => {
                    numeric::number(scalar::bytes_at_hand(value)?, *scale).ok()?
                }
                Self::Text if types.is_utf8() => {
                    let bytes = scalar::bytes_at_hand(value)?;
                    text(std::str::from_utf8(bytes).ok()?).ok()?
                }
                Self::Bytea => binary(scalar::bytes_at_hand(value)?).ok()?,
                Self::Uuid => types.uuid(value),
                _ => return None,
            })
        }
    }

    /// Whether the value that is read lies in [`Types`], and no more in the memory that it was read in.
    pub(super) const fn is_written(&self) -> bool {
        matches!(self, Self::Json(_))
    }

    /// Whether what a table's column must be like depends on the digits of all values.
    pub(super) const fn is_counted(&self) -> bool {
        matches!(
            self,
            Self::Digits(_) | Self::DigitsText(_) | Self::NumberText(_)
        )
    }

    /// The value, and whether Snowflake could not hold it as what it is.
    ///
    /// # Safety
    /// A value of the column's type, while settings are pinned; the result lives as long as `types`, and as the current memory
    /// context unless the form [`is_written`](Self::is_written).
    pub(super) unsafe fn value<'a>(
        &'a self,
        value: pg_sys::Datum,
        types: &'a mut Types,
    ) -> Result<(Value<'a>, bool), Unread> {
        // SAFETY: as the caller promises; each form reads what its type is.
        let value = unsafe {
            match self {
                Self::Bool => Value::Bool(value.value() != 0),
                // An integer passed by value lies in the lower part of the word.
                Self::Int2 => Value::Int((value.value() as i16).into()),
                Self::Int4 => Value::Int((value.value() as i32).into()),
                Self::Int8 => Value::Int(value.value() as i64),
                Self::Oid => Value::Int((value.value() as u32).into()),
                Self::Float4 => Value::Float(f32::from_bits(value.value() as u32).into()),
                Self::Float8 => Value::Float(f64::from_bits(value.value() as u64)),
                Self::Number { scale } => numeric::number(scalar::bytes(value), *scale)?,
                Self::Digits(output) => {
                    let digits = output.text(value)?;
                    scalar::require_number(digits)?;
                    Value::Text(without_zeros(digits))
                }
                Self::DigitsText(output) => {
                    let digits = output.text(value)?;
                    let fits = Decimal::parse(digits).is_some_and(|number| number.fits_number());
                    return Ok((Value::Text(digits), !fits));
                }
                Self::Money { scale } => Value::Decimal {
                    unscaled: (value.value() as i64).into(),
                    scale: *scale,
                },
                Self::Text => text(to_utf8(scalar::bytes(value))?)?,
                Self::Name => text(c_to_utf8(value.cast_mut_ptr::<std::ffi::c_char>())?)?,
                Self::Bytea => binary(scalar::bytes(value))?,
                Self::Sent(send) => binary(scalar::bytes(send.call(value)))?,
                Self::Uuid => types.uuid(value),
                Self::Moment(moment) => moment.value(value)?,
                Self::MomentText(moment, output) => {
                    let is_odd = moment.value(value).is_err();
                    return Ok((text(output.text(value)?)?, is_odd));
                }
                Self::Json(type_oid) => {
                    let json = types.json(*type_oid, value)?;
                    within(json.len(), MAX_TEXT_BYTES)?;
                    Value::Json(json)
                }
                Self::NumberText(output) | Self::Output(output) => text(output.text(value)?)?,
            }
        };
        Ok((value, false))
    }
}

/// The digits without those zeros at the end of the fraction that a declared scale adds: there can be more of them than
/// what makes a NUMBER of the text would read.
fn without_zeros(digits: &str) -> &str {
    if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits
    }
}

fn text(text: &str) -> Result<Value<'_>, Unread> {
    within(text.len(), MAX_TEXT_BYTES)?;
    Ok(Value::Text(text))
}

fn binary(bytes: &[u8]) -> Result<Value<'_>, Unread> {
    within(bytes.len(), MAX_BINARY_BYTES)?;
    Ok(Value::Bytes(bytes))
}

fn within(bytes: usize, limit: usize) -> Result<(), Unread> {
    if bytes <= limit {
        return Ok(());
    }
    Err(Unread::out_of_range(
        format!("the value takes {bytes} bytes, and Snowflake holds at most {limit}"),
        TOO_LONG_HINT,
    ))
}

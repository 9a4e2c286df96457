//! Single values in their binary form.
#![allow(unsafe_code)]

use bridge_core::batch::Value;
use bridge_core::calendar::{MICROS_PER_DAY, day_in_range, timestamp_in_range};
use bridge_core::decimal::Decimal;
use bridge_core::types::{MAX_PRECISION, MAX_SCALE, SourceType};
use pgrx::pg_sys;

use super::Unread;

/// Days from 1970-01-01, from which Arrow counts, to 2000-01-01, from which PostgreSQL does.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * MICROS_PER_DAY;

const NUMBER_HINT: &str = "Pass options => '{\"numeric\": \"varchar\"}' to load numerics without declared digits as text, or \
     '{\"on_out_of_range\": \"null\"}' to load such values as NULL.";
pub(super) const DECLARED_NUMBER_HINT: &str = "Pass options => '{\"on_out_of_range\": \"null\"}' to load such values as NULL, or cast \
     the column to text, or to numeric without digits, in the query.";
const MOMENT_HINT: &str = "Snowflake holds the years 1 to 9999 and times of day before 24:00. Pass \
     options => '{\"on_out_of_range\": \"null\"}', or \"text\", to load such values as NULL, or the columns as text.";

/// What a varlena holds.
///
/// # Safety
/// A value of a type of variable length; the result lives as long as it and the current memory context.
pub(in crate::source) unsafe fn bytes<'a>(value: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: as the caller promises.
    unsafe {
        let plain = pg_sys::pg_detoast_datum_packed(value.cast_mut_ptr());
        std::slice::from_raw_parts(
            pgrx::varlena::vardata_any(plain).cast(),
            pgrx::varlena::varsize_any_exhdr(plain),
        )
    }
}

/// What a varlena holds, unless it is compressed or stored elsewhere.
///
/// # Safety
/// A value of a type of variable length; the result lives as long as it.
#[inline]
pub(super) unsafe fn bytes_at_hand<'a>(value: pg_sys::Datum) -> Option<&'a [u8]> {
    let plain: *const pg_sys::varlena = value.cast_mut_ptr();
    // SAFETY: as the caller promises.
    unsafe {
        if pgrx::varlena::varatt_is_1b_e(plain)
            || !(pgrx::varlena::varatt_is_1b(plain) || pgrx::varlena::varatt_is_4b_u(plain))
        {
            return None;
        }
        Some(std::slice::from_raw_parts(
            pgrx::varlena::vardata_any(plain).cast(),
            pgrx::varlena::varsize_any_exhdr(plain),
        ))
    }
}

/// Dates and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Date,
    Time,
    Timestamp,
    TimestampTz,
}

impl Moment {
    pub(super) fn source_type(self) -> SourceType {
        match self {
            Self::Date => SourceType::Date,
            Self::Time => SourceType::Time,
            Self::Timestamp => SourceType::Timestamp,
            Self::TimestampTz => SourceType::TimestampTz,
        }
    }

    /// The value, counted from 1970; a value of these types is passed by value.
    pub(super) fn value<'a>(self, value: pg_sys::Datum) -> Result<Value<'a>, Unread> {
        let number = value.value() as i64;
        let refused = |problem: &str| {
            Err(Unread::out_of_range(
                format!("the value is {problem}"),
                MOMENT_HINT,
            ))
        };
        match self {
            Self::Date => match number as i32 {
                i32::MIN | i32::MAX => refused("infinite"),
                days => match days.checked_add(EPOCH_DAYS) {
                    Some(days) if day_in_range(days) => Ok(Value::Date(days)),
                    _ => refused("outside of the years 1 to 9999"),
                },
            },
            Self::Time if number >= MICROS_PER_DAY => refused("24:00"),
            Self::Time => Ok(Value::Time(number)),
            Self::Timestamp | Self::TimestampTz => match number {
                i64::MIN | i64::MAX => refused("infinite"),
                micros => match micros.checked_add(EPOCH_MICROS) {
                    Some(micros) if timestamp_in_range(micros) => Ok(match self {
                        Self::TimestampTz => Value::TimestampTz(micros),
                        _ => Value::Timestamp(micros),
                    }),
                    _ => refused("outside of the years 1 to 9999"),
                },
            },
        }
    }
}

/// The numeric of that modifier.
pub(super) fn declared_digits(typmod: i32) -> SourceType {
    // As `make_numeric_typmod` packs them, behind the size of a varlena's header.
    match typmod.checked_sub(4).filter(|packed| *packed >= 0) {
        Some(packed) => {
            let scale = ((packed & 0x7FF) ^ 1024) - 1024;
            SourceType::numeric(packed >> 16 & 0xFFFF, scale)
        }
        None => SourceType::Numeric,
    }
}

/// Refuses the text of a numeric that no NUMBER holds.
pub(super) fn require_number(digits: &str) -> Result<(), Unread> {
    match Decimal::parse(digits) {
        Some(number) if number.fits_number() => Ok(()),
        Some(_) => Err(Unread::out_of_range(
            format!(
                "the number has more than Snowflake's {MAX_PRECISION} digits, {MAX_SCALE} of them after the point"
            ),
            NUMBER_HINT,
        )),
        None => Err(Unread::out_of_range(
            "the number is NaN or infinite",
            NUMBER_HINT,
        )),
    }
}

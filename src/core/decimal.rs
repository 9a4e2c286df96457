//! Exact decimal numbers, read from their text without a detour over binary fractions.

mod stored;

pub use self::stored::Stored;
use crate::types::{MAX_PRECISION, MAX_SCALE};

/// 10^0 … 10^38, the last power of ten that 128 bits hold.
const POWERS_OF_TEN: [u128; MAX_PRECISION as usize + 1] = {
    let mut powers = [1u128; MAX_PRECISION as usize + 1];
    let mut i = 1;
    while i < powers.len() {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// Exponents are cut here, on either side. Far beyond what any type holds, and near enough that sums cannot wrap.
const EXPONENT_BOUND: i64 = 1 << 40;

fn power_of_ten(exponent: i64) -> Option<u128> {
    POWERS_OF_TEN.get(usize::try_from(exponent).ok()?).copied()
}

/// A decimal number: `significand` × 10^`exponent`, where the significand has no trailing zero.
///
/// Equal numbers are equal here however they were written: `1e3`, `1000` and `1000.0` are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    /// `None` when there are more than 38 significant digits: those are only counted.
    significand: Option<u128>,
    digits: i64,
    exponent: i64,
}

impl Decimal {
    const ZERO: Self = Self {
        negative: false,
        significand: Some(0),
        digits: 0,
        exponent: 0,
    };

    /// Reads `[+-]digits[.digits][e[+-]digits]`; leading zeros do no harm, and one side of the point may be empty.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.as_bytes();
        let mut negative = false;
        if let [sign @ (b'+' | b'-'), after @ ..] = rest {
            negative = *sign == b'-';
            rest = after;
        }
        let mut significand = 0u128;
        let mut digits = 0i64;
        let mut zeros = 0i64; // read since the last digit that was not zero
        let mut exponent = 0i64;
        let mut any = false;
        let mut point = false;
        while let [byte, after @ ..] = rest {
            match byte {
                b'0'..=b'9' => {
                    any = true;
                    exponent -= i64::from(point);
                    if *byte != b'0' {
                        digits += zeros + 1;
                        if let (true, Some(power)) =
                            (digits <= i64::from(MAX_PRECISION), power_of_ten(zeros + 1))
                        {
                            significand = significand * power + u128::from(byte - b'0');
                        }
                        zeros = 0;
                    } else if digits > 0 {
                        zeros += 1;
                    }
                }
                b'.' if !point => point = true,
                _ => break,
            }
            rest = after;
        }
        if !any {
            return None;
        }
        match rest {
            [] => {}
            [b'e' | b'E', after @ ..] => exponent += parse_exponent(after)?,
            _ => return None,
        }
        if digits == 0 {
            return Some(Self::ZERO);
        }
        Some(Self {
            negative,
            significand: (digits <= i64::from(MAX_PRECISION)).then_some(significand),
            digits,
            exponent: exponent + zeros,
        })
    }

    /// Digits before the point; none for a number below one.
    #[must_use]
    pub fn integer_digits(&self) -> i64 {
        (self.digits + self.exponent).max(0)
    }

    /// Digits after the point.
    #[must_use]
    pub fn scale(&self) -> i64 {
        (-self.exponent).max(0)
    }

    /// The number × 10^`scale`, if that is an integer of at most `precision` digits.
    #[must_use]
    pub fn unscaled(&self, precision: u8, scale: u8) -> Option<i128> {
        let significand = self.significand?;
        if significand == 0 {
            return Some(0);
        }
        let shift = self.exponent + i64::from(scale);
        if shift < 0 || self.digits + shift > i64::from(precision.min(MAX_PRECISION)) {
            return None;
        }
        let magnitude = i128::try_from(significand.checked_mul(power_of_ten(shift)?)?).ok()?;
        Some(if self.negative { -magnitude } else { magnitude })
    }

    /// Whether `NUMBER(38, s)` holds the number exactly for some scale `s`.
    #[must_use]
    pub fn fits_number(&self) -> bool {
        self.significand.is_some()
            && self.scale() <= i64::from(MAX_SCALE)
            && self.integer_digits() + self.scale() <= i64::from(MAX_PRECISION)
    }

    /// Whether a double is this number: the shortest text that names that double is this number's.
    #[must_use]
    pub fn is_double(text: &str) -> bool {
        let Some(number) = Self::parse(text) else {
            return false;
        };
        let Ok(double) = text.parse::<f64>() else {
            return false;
        };
        double.is_finite() && Self::parse(&format!("{double:e}")) == Some(number)
    }
}

/// The digits after the `e`, cut at [`EXPONENT_BOUND`].
fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut exponent = 0i64;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        exponent = (exponent * 10 + i64::from(byte - b'0')).min(EXPONENT_BOUND);
    }
    Some(if negative { -exponent } else { exponent })
}

/// `unscaled` at scale `from`, brought to scale `to` if it then has at most `precision` digits and loses none.
#[must_use]
pub fn rescale(unscaled: i128, from: u8, to: u8, precision: u8) -> Option<i128> {
    let rescaled = if to >= from {
        unscaled.checked_mul(i128::try_from(power_of_ten(i64::from(to - from))?).ok()?)?
    } else {
        let divisor = i128::try_from(power_of_ten(i64::from(from - to))?).ok()?;
        if unscaled % divisor != 0 {
            return None;
        }
        unscaled / divisor
    };
    (rescaled.unsigned_abs() < power_of_ten(i64::from(precision))?).then_some(rescaled)
}

/// Whether the number has at most so many digits, of no more than 38.
#[must_use]
#[inline]
pub fn has_digits(unscaled: i128, precision: u8) -> bool {
    power_of_ten(precision.into()).is_some_and(|power| unscaled.unsigned_abs() < power)
}

/// The number ± Σ `groups[i]` × 10000^(`weight` - i), as an integer times 10^-`scale`, if 128 bits hold it and no digit is lost.
#[must_use]
pub fn unscaled_of_groups(
    negative: bool,
    groups: impl ExactSizeIterator<Item = u16> + Clone,
    weight: i32,
    scale: u8,
) -> Option<i128> {
    let few = few_groups(groups.clone(), weight, scale).map(i128::from);
    let magnitude = few.or_else(|| many_groups(groups, weight, scale))?;
    Some(if negative { -magnitude } else { magnitude })
}

/// The magnitude of most numbers, with which 64 bits can reckon; nothing says no more than that it is another one.
fn few_groups(groups: impl ExactSizeIterator<Item = u16>, weight: i32, scale: u8) -> Option<u64> {
    /// Of 16 digits.
    const FEW: usize = 4;
    let count = groups.len();
    if count > FEW {
        return None;
    }
    let magnitude = groups.fold(0, |sum, group| sum * 10_000 + u64::from(group));
    // Of the last digit of the last group, in the unscaled number.
    let exponent = (i64::from(weight) - count as i64 + 1) * 4 + i64::from(scale);
    let power = u64::try_from(power_of_ten(exponent.abs())?).ok()?;
    if exponent >= 0 {
        magnitude.checked_mul(power)
    } else {
        (magnitude % power == 0).then(|| magnitude / power)
    }
}

fn many_groups(groups: impl Iterator<Item = u16>, weight: i32, scale: u8) -> Option<i128> {
    let mut magnitude = 0u128;
    // Of the last digit of the group, in the unscaled number.
    let mut exponent = i64::from(weight) * 4 + i64::from(scale);
    for group in groups {
        let group = u128::from(group);
        let part = if exponent >= 0 || group == 0 {
            group.checked_mul(if group == 0 {
                1
            } else {
                power_of_ten(exponent)?
            })?
        } else {
            let divisor = power_of_ten(-exponent)?;
            if group % divisor != 0 {
                return None;
            }
            group / divisor
        };
        magnitude = magnitude.checked_add(part)?;
        exponent -= 4;
    }
    i128::try_from(magnitude).ok()
}

/// The text of a number times 10^-`scale`, with all decimals, as the database writes it; the end of `room`, which is ample.
pub fn write_unscaled(unscaled: i128, scale: u8, room: &mut [u8; TEXT_ROOM]) -> &str {
    let mut at = room.len();
    let mut put = |byte: u8| {
        at -= 1;
        if let Some(place) = room.get_mut(at) {
            *place = byte;
        }
    };
    let mut rest = unscaled.unsigned_abs();
    let (mut digits, decimals) = (0u16, u16::from(scale));
    // At least one digit stands before the point.
    while rest != 0 || digits <= decimals {
        if digits == decimals && decimals != 0 {
            put(b'.');
        }
        let digit = match u64::try_from(rest) {
            // Much quicker.
            Ok(short) => {
                rest = u128::from(short / 10);
                short % 10
            }
            Err(_) => {
                let digit = rest % 10;
                rest /= 10;
                digit as u64
            }
        };
        put(b'0' + digit as u8);
        digits += 1;
    }
    if unscaled < 0 {
        put(b'-');
    }
    room.get(at..)
        .and_then(|text| std::str::from_utf8(text).ok())
        .unwrap_or_default()
}

/// Room for a sign, a point and either 39 digits, which 128 bits have, or a zero and as many decimals as a scale can say.
pub const TEXT_ROOM: usize = 2 + 1 + u8::MAX as usize;

#[cfg(test)]
pub(crate) use stored::tests::stored;

#[cfg(test)]
mod tests {
    use super::*;
    use num_bigint::BigInt;
    use proptest::prelude::*;

    fn unscaled(text: &str, precision: u8, scale: u8) -> Option<i128> {
        Decimal::parse(text).unwrap().unscaled(precision, scale)
    }

    #[test]
    fn numbers_are_read_exactly() {
        let nines = "9".repeat(38);
        let all = nines.parse::<i128>().unwrap();
        for (text, precision, scale, expected) in [
            ("0", 1, 0, Some(0)),
            ("-0", 1, 0, Some(0)),
            ("0.000", 38, 0, Some(0)),
            ("0e999999999999999999999", 38, 0, Some(0)),
            ("1e3", 38, 0, Some(1000)),
            ("1.5e1", 38, 0, Some(15)),
            ("150e-1", 38, 0, Some(15)),
            ("1000.0", 38, 0, Some(1000)),
            ("007", 38, 0, Some(7)),
            ("+7", 1, 0, Some(7)),
            (".5", 38, 1, Some(5)),
            ("5.", 38, 0, Some(5)),
            ("1.10", 38, 1, Some(11)),
            ("1.11", 38, 1, None),
            ("-12.345", 5, 3, Some(-12345)),
            ("-12.345", 4, 3, None),
            ("1e37", 38, 0, Some(10i128.pow(37))),
            ("1e38", 38, 0, None),
            ("1e-38", 38, 38, Some(1)),
            ("1e-39", 38, 38, None),
            ("1e999999999999999999999", 38, 0, None),
            ("1e-999999999999999999999", 38, 38, None),
            (nines.as_str(), 38, 0, Some(all)),
            (&format!("-{nines}"), 38, 0, Some(-all)),
            (&format!("{nines}.0"), 38, 0, Some(all)),
            (&format!("{nines}0"), 38, 0, None),
            (&format!("{nines}0e-1"), 38, 0, Some(all)),
            (&format!("{nines}9e-1"), 38, 0, None),
            (&format!("0.{nines}"), 38, 38, Some(all)),
        ] {
            assert_eq!(
                unscaled(text, precision, scale),
                expected,
                "{text} as NUMBER({precision},{scale})"
            );
        }
    }

    #[test]
    fn what_is_no_number_is_not_read() {
        for text in [
            "", "-", "+", ".", "e5", "1e", "1e+", "1.2.3", " 1", "1 ", "0x10", "NaN", "Infinity",
            "1_000", "١",
        ] {
            assert_eq!(Decimal::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn one_number_has_one_form() {
        for (a, b) in [
            ("1e3", "1000"),
            ("1.50", "15e-1"),
            ("-0.0", "0"),
            ("00012e0", "12"),
        ] {
            assert_eq!(Decimal::parse(a), Decimal::parse(b));
        }
    }

    #[test]
    fn doubles_are_told_from_what_only_resembles_them() {
        for text in [
            "1e300",
            "0.1",
            "0.30000000000000004",
            "5e-324",
            "1.7976931348623157e308",
            "-0",
            "123456789012345670000000000000000000000000000",
        ] {
            assert!(Decimal::is_double(text), "{text}");
        }
        for text in [
            "1e400",
            "0.1000000000000000000000000000000000000000000001",
            "123456789012345678901234567890123456789012345",
            "1e-400",
            "x",
        ] {
            assert!(!Decimal::is_double(text), "{text}");
        }
    }

    proptest! {
        /// Digits, point and exponent against arithmetic on big integers that knows nothing of this file.
        #[test]
        fn reading_agrees_with_big_integers(
            negative: bool, before in "[0-9]{1,42}", after in "[0-9]{0,42}", exponent in -60i64..60, precision in 1u8..=38, scale in 0u8..=38,
        ) {
            let text = format!("{}{before}.{after}e{exponent}", if negative { "-" } else { "" });
            // value × 10^scale = digits × 10^(exponent - after.len() + scale)
            let mut expected: BigInt = format!("{before}{after}").parse().unwrap();
            let shift = exponent - after.len() as i64 + i64::from(scale);
            let power = BigInt::from(10).pow(shift.unsigned_abs() as u32);
            let exact = if shift >= 0 {
                expected *= power;
                true
            } else {
                let exact = (&expected % &power) == BigInt::from(0);
                expected /= power;
                exact
            };
            let fits = exact && expected < BigInt::from(10).pow(u32::from(precision));
            let expected = if negative { -expected } else { expected };
            let read = unscaled(&text, precision, scale);
            prop_assert_eq!(read.is_some(), fits);
            if let Some(read) = read {
                prop_assert_eq!(BigInt::from(read), expected);
            }
        }

        #[test]
        fn digit_counts_are_what_the_number_needs(unscaled_value in -(10i128.pow(38) - 1)..10i128.pow(38), scale in 0u8..=38) {
            let text = format!("{unscaled_value}e-{scale}");
            let number = Decimal::parse(&text).unwrap();
            prop_assert!(number.scale() <= i64::from(scale));
            prop_assert_eq!(number.unscaled(38, scale), Some(unscaled_value));
            if unscaled_value != 0 && number.scale() > 0 {
                prop_assert_eq!(number.unscaled(38, number.scale() as u8 - 1), None);
            }
        }

        #[test]
        fn rescaling_agrees_with_reading(value: i64, from in 0u8..=10, to in 0u8..=20, precision in 1u8..=38) {
            let text = format!("{value}e-{from}");
            prop_assert_eq!(rescale(i128::from(value), from, to, precision), unscaled(&text, precision, to));
        }

        #[test]
        fn every_double_is_one(double in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL) {
            let (scientific, plain) = (format!("{double:e}"), format!("{double}"));
            prop_assert!(Decimal::is_double(&scientific));
            prop_assert!(Decimal::is_double(&plain));
        }
    }

    #[test]
    fn groups_of_four_digits() {
        for (groups, weight, scale, expected) in [
            (&[][..], 0, 2, Some(0)),
            (&[1], 0, 0, Some(1)),
            (&[1, 5000], 0, 1, Some(15)),
            (&[1, 5000], 0, 2, Some(150)),
            (&[1, 5000], 0, 0, None),
            (&[1], 1, 0, Some(10_000)),
            (&[1], -1, 4, Some(1)),
            (&[1], -1, 3, None),
            (&[1000], -2, 5, Some(1)),
            (&[1], 9, 2, Some(10i128.pow(38))),
            (&[1], 9, 3, None),
            (&[9999], 9, 0, None),
            (&[0, 0, 7], 20, 0, None),
            (&[7], 1_000_000, 38, None),
        ] {
            let found = unscaled_of_groups(false, groups.iter().copied(), weight, scale);
            assert_eq!(found, expected, "{groups:?} {weight} {scale}");
            assert_eq!(
                unscaled_of_groups(true, groups.iter().copied(), weight, scale),
                expected.map(|value| -value)
            );
        }
    }

    #[test]
    fn numbers_are_written_with_all_their_decimals() {
        for (unscaled, scale, expected) in [
            (0, 0, "0"),
            (0, 2, "0.00"),
            (5, 0, "5"),
            (-5, 1, "-0.5"),
            (-5, 2, "-0.05"),
            (1999, 2, "19.99"),
            (-120_000, 4, "-12.0000"),
            (i128::MAX, 0, "170141183460469231731687303715884105727"),
            (i128::MIN, 38, "-1.70141183460469231731687303715884105728"),
        ] {
            assert_eq!(
                write_unscaled(unscaled, scale, &mut [0; TEXT_ROOM]),
                expected
            );
        }
        let longest = format!("-0.{}1", "0".repeat(254));
        assert_eq!(write_unscaled(-1, 255, &mut [0; TEXT_ROOM]), longest);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same_number(unscaled_value: i128, scale in 0u8..=38) {
            let mut room = [0; TEXT_ROOM];
            let text = write_unscaled(unscaled_value, scale, &mut room);
            let digits: String = text.chars().filter(|c| *c != '.').collect();
            prop_assert_eq!(digits.parse::<i128>().unwrap(), unscaled_value);
            prop_assert_eq!(text.split_once('.').map_or(0, |(_, decimals)| decimals.len()), usize::from(scale));
        }

        /// Against the number's text, written group by group.
        #[test]
        fn groups_are_read_as_their_digits(
            negative: bool,
            groups in proptest::collection::vec(0u16..10_000, 1..12),
            weight in -6i32..10,
            scale in 0u8..39,
        ) {
            let digits: String = groups.iter().map(|group| format!("{group:04}")).collect();
            let exponent = (weight + 1) * 4 - i32::try_from(digits.len()).unwrap();
            let text = format!("{}{digits}e{exponent}", if negative { "-" } else { "" });
            let unscaled = unscaled_of_groups(negative, groups.iter().copied(), weight, scale);
            let expected = Decimal::parse(&text).unwrap().unscaled(38, scale);
            if expected.is_some() {
                prop_assert_eq!(unscaled, expected);
            } else {
                // 128 bits hold a few numbers of 39 digits; nothing else may pass.
                let limit = 10u128.pow(38);
                prop_assert!(unscaled.is_none_or(|value| value.unsigned_abs() >= limit));
            }
        }
    }
}

//! A decimal number as a database keeps it, from which its digits can be had without its text.

use super::{Decimal, TEXT_ROOM, unscaled_of_groups, write_unscaled};
use crate::types::MAX_PRECISION;

/// Decimal digits of a group.
const GROUP_DIGITS: i64 = 4;
const GROUP: u16 = 10_000;

/// A finite number in the form in which a database stores its numeric: a header that says sign, scale and weight, and groups of four
/// decimal digits, the first of which counts 10000^weight.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    is_negative: bool,
    weight: i32,
    /// Digits after the point that its text has.
    scale: u16,
    /// Two bytes for each group.
    groups: &'a [u8],
}

impl<'a> Stored<'a> {
    /// Reads the stored form without its length. Nothing for NaN and infinities.
    #[must_use]
    pub fn read(stored: &'a [u8]) -> Option<Self> {
        const KIND: u16 = 0xC000;
        const NEGATIVE: u16 = 0x4000;
        const SHORT: u16 = 0x8000;
        const SPECIAL: u16 = 0xC000;
        const SCALE: u16 = 0x3FFF;
        const SHORT_NEGATIVE: u16 = 0x2000;
        const SHORT_SCALE: u16 = 0x1F80;
        const SHORT_SCALE_SHIFT: u32 = 7;
        const SHORT_WEIGHT: u16 = 0x003F;
        const SHORT_WEIGHT_NEGATIVE: u16 = 0x0040;

        let (header, rest) = stored.split_first_chunk()?;
        let header = u16::from_ne_bytes(*header);
        match header & KIND {
            SPECIAL => None,
            SHORT => {
                let weight = i32::from(header & SHORT_WEIGHT);
                let is_below = header & SHORT_WEIGHT_NEGATIVE != 0;
                Some(Self {
                    is_negative: header & SHORT_NEGATIVE != 0,
                    weight: if is_below {
                        weight - i32::from(SHORT_WEIGHT) - 1
                    } else {
                        weight
                    },
                    scale: (header & SHORT_SCALE) >> SHORT_SCALE_SHIFT,
                    groups: rest,
                })
            }
            kind => {
                let (weight, groups) = rest.split_first_chunk()?;
                Some(Self {
                    is_negative: kind == NEGATIVE,
                    weight: i16::from_ne_bytes(*weight).into(),
                    scale: header & SCALE,
                    groups,
                })
            }
        }
    }

    /// What is no number, as the database writes it: of a form that [`read`](Self::read) does not take.
    #[must_use]
    pub fn special(stored: &[u8]) -> &'static str {
        const INFINITY: u16 = 0xD000;
        const MINUS_INFINITY: u16 = 0xF000;
        match stored
            .first_chunk()
            .map(|header| u16::from_ne_bytes(*header))
        {
            Some(INFINITY) => "Infinity",
            Some(MINUS_INFINITY) => "-Infinity",
            _ => "NaN",
        }
    }

    fn groups(&self) -> impl ExactSizeIterator<Item = u16> + Clone + use<'a> {
        groups(self.groups)
    }

    /// The number × 10^`scale`, if that is an integer which 128 bits hold.
    #[must_use]
    #[inline]
    pub fn unscaled(&self, scale: u8) -> Option<i128> {
        unscaled_of_groups(self.is_negative, self.groups(), self.weight, scale)
    }

    /// What [`Decimal::parse`] makes of its text.
    #[must_use]
    pub fn decimal(&self) -> Decimal {
        /// Of 16 digits, with which 64 bits can reckon.
        const FEW: usize = 4;
        let mut kept = self.groups;
        let mut weight = i64::from(self.weight);
        while let [0, 0, rest @ ..] = kept {
            kept = rest;
            weight -= 1;
        }
        while let [rest @ .., 0, 0] = kept {
            kept = rest;
        }
        let count = kept.len() / 2;
        let mut before = groups(kept);
        let (Some(first), Some(mut last)) = (before.clone().next(), before.clone().last()) else {
            return Decimal::ZERO;
        };
        let mut zeros = 0;
        while last % 10 == 0 && last > 0 {
            last /= 10;
            zeros += 1;
        }
        let digits = i64::from(first.checked_ilog10().unwrap_or(0)) + 1 - zeros
            + GROUP_DIGITS * (count as i64 - 1);
        let significand = if count <= FEW {
            let sum = before.fold(0, |sum, group| sum * u64::from(GROUP) + u64::from(group));
            Some(u128::from(sum / 10_u64.pow(zeros as u32)))
        } else if digits <= i64::from(MAX_PRECISION) {
            (1..count)
                .try_fold(0_u128, |sum, _| {
                    sum.checked_mul(GROUP.into())?
                        .checked_add(before.next()?.into())
                })
                .and_then(|sum| sum.checked_mul(10_u128.pow((GROUP_DIGITS - zeros) as u32)))
                .and_then(|sum| sum.checked_add(last.into()))
        } else {
            None
        };
        Decimal {
            negative: self.is_negative,
            significand,
            digits,
            exponent: GROUP_DIGITS * (weight - (count as i64 - 1)) + zeros,
        }
    }

    /// Gives its text to `work`, as the database writes it.
    pub fn with_text<T>(&self, work: impl FnOnce(&str) -> T) -> T {
        let mut room = [0; TEXT_ROOM];
        let short = u8::try_from(self.scale)
            .ok()
            .and_then(|scale| Some(write_unscaled(self.unscaled(scale)?, scale, &mut room)));
        match short {
            Some(text) => work(text),
            None => work(&self.long_text()),
        }
    }

    /// The text of a number of any length.
    fn long_text(&self) -> String {
        // That at 10000^-`index` of the first one.
        let group = |index: i32| {
            let start = usize::try_from(index).map_or(usize::MAX, |index| index * 2);
            self.groups
                .get(start..start.saturating_add(2))
                .and_then(|word| groups(word).next())
                .unwrap_or(0)
        };
        let mut text = String::new();
        if self.is_negative && self.groups().any(|group| group != 0) {
            text.push('-');
        }
        if self.weight < 0 {
            text.push('0');
        }
        for index in 0..=self.weight {
            if index == 0 {
                text.push_str(&group(index).to_string());
            } else {
                text.push_str(&format!("{:04}", group(index)));
            }
        }
        if self.scale > 0 {
            text.push('.');
            let end = text.len() + usize::from(self.scale);
            let mut index = self.weight + 1;
            while text.len() < end {
                text.push_str(&format!("{:04}", group(index)));
                index += 1;
            }
            text.truncate(end);
        }
        text
    }
}

fn groups(bytes: &[u8]) -> impl ExactSizeIterator<Item = u16> + Clone + use<'_> {
    bytes
        .chunks_exact(2)
        .map(|word| u16::from_ne_bytes([word[0], word[1]]))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The stored form of a number in plain notation, in the long form or in the short one, where that holds it.
    pub(crate) fn stored(text: &str, is_short: bool) -> Vec<u8> {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (integer, decimals) = text.split_once('.').unwrap_or((text, ""));
        let whole = integer.len().div_ceil(4);
        let zeros = "0".repeat(whole * 4 - integer.len());
        let mut digits = format!("{zeros}{integer}{decimals}");
        while digits.len() % 4 != 0 {
            digits.push('0');
        }
        let mut groups: Vec<u16> = digits
            .as_bytes()
            .chunks(4)
            .map(|group| std::str::from_utf8(group).unwrap().parse().unwrap())
            .collect();
        let mut weight = whole as i32 - 1;
        while groups.first() == Some(&0) {
            groups.remove(0);
            weight -= 1;
        }
        while groups.last() == Some(&0) {
            groups.pop();
        }
        let is_negative = is_negative && !groups.is_empty();
        if groups.is_empty() {
            weight = 0;
        }
        let scale = decimals.len() as u16;
        let mut bytes = Vec::new();
        if is_short && scale < 64 && (-64..64).contains(&weight) {
            let mut header = 0x8000 | scale << 7 | (weight & 0x3F) as u16;
            header |= u16::from(weight < 0) << 6 | u16::from(is_negative) << 13;
            bytes.extend(header.to_ne_bytes());
        } else {
            bytes.extend((scale | u16::from(is_negative) << 14).to_ne_bytes());
            bytes.extend((weight as i16).to_ne_bytes());
        }
        bytes.extend(groups.iter().flat_map(|group| group.to_ne_bytes()));
        bytes
    }

    #[test]
    fn what_is_no_number() {
        for (header, text) in [
            (0xC000_u16, "NaN"),
            (0xD000, "Infinity"),
            (0xF000, "-Infinity"),
        ] {
            let bytes = header.to_ne_bytes();
            assert!(Stored::read(&bytes).is_none());
            assert_eq!(Stored::special(&bytes), text);
        }
        assert!(Stored::read(&[]).is_none());
    }

    #[test]
    fn the_longest_numbers() {
        let long = "1".repeat(131_072);
        let scale = format!("-0.{}1", "0".repeat(16_382));
        let both = format!("{}.{}", &long[..50_000], "2".repeat(300));
        for text in [
            long.as_str(),
            &scale,
            &both,
            &format!("0.{}", "0".repeat(300)),
        ] {
            let bytes = stored(text, false);
            let number = Stored::read(&bytes).unwrap();
            assert!(number.with_text(|written| written == text));
            assert!(Decimal::parse(text) == Some(number.decimal()));
        }
    }

    proptest! {
        #[test]
        fn a_stored_number_is_that_of_its_text(
            text in "-?(0|[1-9][0-9]{0,45}|[1-9]0{0,45})(\\.([0-9]{1,45}|0{0,20}[0-9]{1,3}0{0,20}))?",
            is_short: bool,
            scale in 0u8..40,
        ) {
            let bytes = stored(&text, is_short);
            let number = Stored::read(&bytes).unwrap();
            let parsed = Decimal::parse(&text).unwrap();
            prop_assert_eq!(number.decimal(), parsed);
            let is_zero = !text.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
            let expected = if is_zero { text.trim_start_matches('-') } else { text.as_str() };
            number.with_text(|written| assert_eq!(written, expected));
            prop_assert_eq!(number.long_text(), expected);
            if let Some(unscaled) = parsed.unscaled(38, scale) {
                prop_assert_eq!(number.unscaled(scale), Some(unscaled));
            }
        }

        /// Damaged ones too have some answer.
        #[test]
        fn no_bytes_stop_it(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(number) = Stored::read(&bytes) {
                let _ = number.decimal().fits_number();
                let _ = number.unscaled(10);
            }
        }
    }
}

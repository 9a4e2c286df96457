//! The stored form of a numeric.

use bridge_core::batch::Value;
use bridge_core::decimal::{TEXT_ROOM, unscaled_of_groups, write_unscaled};

use super::Unread;
use super::scalar::DECLARED_NUMBER_HINT;

/// A finite numeric as `numeric.c` describes its stored form: a header that says sign, scale and weight, and groups of four
/// decimal digits, the first of which counts 10000^weight.
struct Stored<'a> {
    is_negative: bool,
    weight: i32,
    /// Digits after the point that its text has.
    scale: u16,
    groups: &'a [u8],
}

impl<'a> Stored<'a> {
    /// Nothing for NaN and infinities.
    fn read(stored: &'a [u8]) -> Option<Self> {
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

    fn unscaled(&self, scale: u8) -> Option<i128> {
        let groups = self
            .groups
            .chunks_exact(2)
            .map(|word| u16::from_ne_bytes([word[0], word[1]]));
        unscaled_of_groups(self.is_negative, groups, self.weight, scale)
    }
}

/// The number for a column of that scale.
pub(super) fn number<'a>(stored: &[u8], scale: u8) -> Result<Value<'a>, Unread> {
    let Some(number) = Stored::read(stored) else {
        return Err(Unread::out_of_range(
            "the number is NaN or infinite",
            DECLARED_NUMBER_HINT,
        ));
    };
    number
        .unscaled(scale)
        .map(|unscaled| Value::Decimal { unscaled, scale })
        .ok_or_else(|| {
            Unread::out_of_range(
                "the number does not fit the declared digits",
                DECLARED_NUMBER_HINT,
            )
        })
}

/// The number's text as the database writes it; nothing for one that 128 bits do not hold.
pub(in crate::source) fn write<'a>(
    stored: &[u8],
    room: &'a mut [u8; TEXT_ROOM],
) -> Option<&'a str> {
    let number = Stored::read(stored)?;
    let scale = u8::try_from(number.scale).ok()?;
    Some(write_unscaled(number.unscaled(scale)?, scale, room))
}

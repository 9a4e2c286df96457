//! The stored form of a numeric.

use bridge_core::batch::Value;
use bridge_core::decimal::Stored;

use super::Unread;
use super::scalar::DECLARED_NUMBER_HINT;

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

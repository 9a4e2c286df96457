//! How one JSON value is read as a value of its column's type: exactly, or not at all.

use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::Token;
use super::writer::{JsonText, KEPT, number_in_variant};
use crate::batch::Value;
use crate::calendar::{
    is_beyond, is_end_of_day, parse_date, parse_time, parse_timestamp, parse_timestamp_with_offset,
};
use crate::decimal::Decimal;
use crate::types::ColumnType;

/// How the values of a column are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// As the column's type says.
    Plain(ColumnType),
    /// The nearest number of single precision, as the double that it is.
    Real,
    /// A number, or what else a decimal of a database can be: NaN, and infinities; kept as its own text.
    NumberText,
    /// The same, where no NUMBER holding it is counted.
    NumericText,
    /// A date or time of that type, or one that Snowflake cannot hold, kept as its own text.
    MomentText(ColumnType),
    /// A UUID, written in its usual form.
    Uuid,
}

impl Reading {
    /// Whether columns of the kind take values that Snowflake cannot hold, as text.
    pub(super) const fn takes_odd_values(self) -> bool {
        matches!(self, Self::NumericText | Self::MomentText(_))
    }

    /// Whether the value, which is no object or array, is of the column's kind, but Snowflake cannot hold it.
    pub(super) fn is_out_of_range(self, token: Token<'_>) -> bool {
        match (self, token) {
            (Self::MomentText(column_type), token) => {
                Self::Plain(column_type).is_out_of_range(token)
            }
            (
                Self::NumericText | Self::Plain(ColumnType::Number { .. }),
                Token::Number(text) | Token::String(text),
            ) => match Decimal::parse(text) {
                Some(number) => !number.fits_number(),
                None => is_no_number(text),
            },
            (Self::Plain(ColumnType::Variant), Token::Number(text)) => {
                number_in_variant(text).is_none()
            }
            (Self::Plain(ColumnType::Date), Token::String(text)) => is_beyond(text, parse_date),
            (Self::Plain(ColumnType::Time), Token::String(text)) => is_end_of_day(text),
            (Self::Plain(ColumnType::TimestampNtz), Token::String(text)) => {
                is_beyond(text, parse_timestamp)
            }
            (Self::Plain(ColumnType::TimestampTz), Token::String(text)) => {
                is_beyond(text, parse_timestamp_with_offset)
            }
            _ => false,
        }
    }
}

/// Why a value cannot be read; the words complete "the value is not …".
pub(super) type Expected = &'static str;

/// Room for values that are not in the document as they are needed.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) json: JsonText,
    bytes: Vec<u8>,
}

impl Scratch {
    /// Gives back the memory that a large value took.
    pub(super) fn forget_large(&mut self) {
        self.json.clear();
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
    }

    /// Reads a value that is neither an object nor an array.
    pub(super) fn scalar<'a>(
        &'a mut self,
        reading: Reading,
        token: Token<'a>,
    ) -> Result<Value<'a>, Expected> {
        if token == Token::Null {
            return Ok(Value::Null);
        }
        match reading {
            Reading::Plain(column_type) => self.plain(column_type, token),
            Reading::Real => match token {
                Token::Number(text) | Token::String(text) => {
                    single(text).map(Value::Float).ok_or(SINGLE)
                }
                _ => Err(SINGLE),
            },
            Reading::NumberText | Reading::NumericText => match token {
                Token::Number(text) | Token::String(text)
                    if Decimal::parse(text).is_some() || is_no_number(text) =>
                {
                    Ok(Value::Text(text))
                }
                _ => Err("a number"),
            },
            Reading::MomentText(column_type) => match token {
                Token::String(text)
                    if reading.is_out_of_range(token) || self.plain(column_type, token).is_ok() =>
                {
                    Ok(Value::Text(text))
                }
                _ => Err(expected(column_type)),
            },
            Reading::Uuid => match token {
                Token::String(text) => {
                    let uuid = Uuid::try_parse(text).map_err(|_| "a UUID")?;
                    self.bytes.resize(Hyphenated::LENGTH, 0);
                    Ok(Value::Text(uuid.hyphenated().encode_lower(&mut self.bytes)))
                }
                _ => Err("a UUID"),
            },
        }
    }

    /// Reads the object or array that was written to [`Scratch::json`].
    pub(super) fn nested(&self, reading: Reading) -> Result<Value<'_>, Expected> {
        let json = self.json.as_str();
        match reading {
            Reading::Plain(ColumnType::Variant) => Ok(Value::Json(json)),
            Reading::Plain(ColumnType::Array) if json.starts_with('[') => Ok(Value::Json(json)),
            Reading::Plain(ColumnType::Text) => Ok(Value::Text(json)),
            Reading::Plain(column_type) | Reading::MomentText(column_type) => {
                Err(expected(column_type))
            }
            Reading::Real => Err(SINGLE),
            Reading::NumberText | Reading::NumericText => Err("a number"),
            Reading::Uuid => Err("a UUID"),
        }
    }

    fn plain<'a>(
        &'a mut self,
        column_type: ColumnType,
        token: Token<'a>,
    ) -> Result<Value<'a>, Expected> {
        let value = match (column_type, token) {
            (ColumnType::Boolean, Token::Bool(value)) => Some(Value::Bool(value)),
            (ColumnType::Boolean, Token::String("true" | "t")) => Some(Value::Bool(true)),
            (ColumnType::Boolean, Token::String("false" | "f")) => Some(Value::Bool(false)),
            (
                ColumnType::Number { precision, scale },
                Token::Number(text) | Token::String(text),
            ) => Decimal::parse(text)
                .and_then(|number| number.unscaled(precision, scale))
                .map(|unscaled| Value::Decimal { unscaled, scale }),
            (ColumnType::Float, Token::Number(text) | Token::String(text)) => {
                float(text).map(Value::Float)
            }
            (ColumnType::Text, Token::String(text) | Token::Number(text)) => {
                Some(Value::Text(text))
            }
            (ColumnType::Text, Token::Bool(value)) => {
                Some(Value::Text(if value { "true" } else { "false" }))
            }
            (ColumnType::Binary, Token::String(text)) => {
                self.hex(text).then_some(Value::Bytes(&self.bytes))
            }
            (ColumnType::Date, Token::String(text)) => parse_date(text).map(Value::Date),
            (ColumnType::Time, Token::String(text)) => parse_time(text).map(Value::Time),
            (ColumnType::TimestampNtz, Token::String(text)) => {
                parse_timestamp(text).map(Value::Timestamp)
            }
            (ColumnType::TimestampTz, Token::String(text)) => {
                parse_timestamp_with_offset(text).map(Value::TimestampTz)
            }
            (ColumnType::Variant, Token::Number(text)) => {
                let number = number_in_variant(text).ok_or(NUMBER_IN_VARIANT)?;
                self.json.clear();
                self.json.token(Token::Number(&number));
                Some(Value::Json(self.json.as_str()))
            }
            (ColumnType::Variant, token) => {
                self.json.clear();
                self.json.token(token);
                Some(Value::Json(self.json.as_str()))
            }
            _ => None,
        };
        value.ok_or_else(|| expected(column_type))
    }

    /// Reads `\x` and pairs of hexadecimal digits into [`Scratch::bytes`].
    fn hex(&mut self, text: &str) -> bool {
        self.bytes.clear();
        let Some(digits) = text.strip_prefix("\\x") else {
            return false;
        };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        for pair in digits.as_bytes().chunks(2) {
            let [high, low] = pair else { return false };
            let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
                return false;
            };
            self.bytes.extend(u8::try_from(high * 16 + low));
        }
        true
    }
}

/// What is said of JSON that Snowflake refuses.
pub(super) const DISTINCT_KEYS: Expected = "JSON whose objects have no key twice";

/// What is said of a number that a VARIANT would round.
pub(super) const NUMBER_IN_VARIANT: Expected =
    "a number that a VARIANT keeps exactly (38 digits, or a double)";

const SINGLE: Expected = "a number of single precision";

/// What a decimal of a database can be without being a number.
fn is_no_number(text: &str) -> bool {
    matches!(text, "NaN" | "Infinity" | "-Infinity")
}

/// The nearest double, which is what whoever declares a double asked for; a number too large for any is none.
fn float(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => {
            Decimal::parse(text)?;
            text.parse().ok().filter(|value: &f64| value.is_finite())
        }
    }
}

/// The same for single precision.
fn single(text: &str) -> Option<f64> {
    if is_no_number(text) {
        return float(text);
    }
    Decimal::parse(text)?;
    let value: f32 = text.parse().ok()?;
    value.is_finite().then(|| value.into())
}

fn expected(column_type: ColumnType) -> Expected {
    match column_type {
        ColumnType::Boolean => "a boolean",
        ColumnType::Number { scale: 0, .. } => "an integer of the declared size",
        ColumnType::Number { .. } => "a number of the declared digits",
        ColumnType::Float => "a double precision number",
        ColumnType::Text => "text",
        ColumnType::Binary => "hexadecimal bytes (\\x…)",
        ColumnType::Date => "a date (YYYY-MM-DD, years 1 to 9999)",
        ColumnType::Time => "a time of day (HH:MM:SS, at most microseconds)",
        ColumnType::TimestampNtz => {
            "a timestamp without an offset (YYYY-MM-DDTHH:MM:SS, at most microseconds)"
        }
        ColumnType::TimestampTz => {
            "a timestamp with an offset (YYYY-MM-DDTHH:MM:SS+HH:MM, at most microseconds)"
        }
        ColumnType::Variant => "JSON",
        ColumnType::Array => "an array",
    }
}

//! Tokens written as JSON text, for columns that travel as such.

use std::borrow::Cow;
use std::fmt::Write;

use super::Token;
use crate::decimal::Decimal;
use crate::types::MAX_PRECISION;

/// Bytes of memory that a value leaves for the next one.
pub(super) const KEPT: usize = 1 << 20;

/// JSON text in the making. It is as compact as the tokens allow; numbers keep their own digits.
#[derive(Debug, Default)]
pub(super) struct JsonText {
    text: String,
    comma: bool,
}

impl JsonText {
    /// Starts over. Memory is kept for the next value, unless this one was unusually large.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(KEPT);
        self.comma = false;
    }

    /// What was written.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Adds a token. The tokens must be those of one value.
    pub(super) fn token(&mut self, token: Token<'_>) {
        if self.comma && !matches!(token, Token::EndArray | Token::EndObject) {
            self.text.push(',');
        }
        self.comma = !matches!(
            token,
            Token::Key(_) | Token::BeginArray | Token::BeginObject
        );
        match token {
            Token::Null => self.text.push_str("null"),
            Token::Bool(value) => self.text.push_str(if value { "true" } else { "false" }),
            Token::Number(digits) => self.text.push_str(digits),
            Token::String(string) => self.string(string),
            Token::Key(key) => {
                self.string(key);
                self.text.push(':');
            }
            Token::BeginArray => self.text.push('['),
            Token::EndArray => self.text.push(']'),
            Token::BeginObject => self.text.push('{'),
            Token::EndObject => self.text.push('}'),
        }
    }

    /// Adds a string in quotes; what JSON does not allow between them is escaped, all else stays as it is.
    fn string(&mut self, string: &str) {
        self.text.push('"');
        let mut rest = string;
        while let Some(at) = rest
            .bytes()
            .position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\')
        {
            // The byte found is ASCII, so both cuts are between characters.
            let (plain, special) = rest.split_at(at);
            self.text.push_str(plain);
            let (special, after) = special.split_at(1);
            match special {
                "\n" => self.text.push_str("\\n"),
                "\r" => self.text.push_str("\\r"),
                "\t" => self.text.push_str("\\t"),
                "\"" => self.text.push_str("\\\""),
                "\\" => self.text.push_str("\\\\"),
                control => {
                    for byte in control.bytes() {
                        // Writing to a String cannot fail.
                        let _ = write!(self.text, "\\u{byte:04x}");
                    }
                }
            }
            rest = after;
        }
        self.text.push_str(rest);
        self.text.push('"');
    }
}

/// The number as PARSE_JSON keeps it exactly, if it does. In plain notation it keeps what 38 digits hold, of which zeros at the
/// end may be some. Everything else it makes a double, at least where an exponent leaves it no choice; so that is how a double is
/// written.
pub(super) fn number_in_variant(number: &str) -> Option<Cow<'_, str>> {
    let is_plain = !number.bytes().any(|byte| matches!(byte, b'e' | b'E'));
    if is_plain {
        if number.len() <= usize::from(MAX_PRECISION) {
            return Some(Cow::Borrowed(number));
        }
        if Decimal::parse(number).is_some_and(|number| number.fits_number()) {
            return Some(Cow::Borrowed(without_zeros(number)));
        }
    }
    if !Decimal::is_double(number) {
        return None;
    }
    if is_plain {
        let double: f64 = number.parse().ok()?;
        return Some(Cow::Owned(format!("{double:e}")));
    }
    Some(Cow::Borrowed(number))
}

/// The number in plain notation without the zeros that end its decimals.
fn without_zeros(number: &str) -> &str {
    if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    }
}

//! One value written as the JSON text of a VARIANT or ARRAY: exactly, or refused.

use std::collections::HashSet;

use super::reading::NUMBER_IN_VARIANT;
use super::writer::{JsonText, number_in_variant};
use super::{Token, TokenSink};
use crate::error::{Error, ErrorKind, Result};
use crate::types::MAX_TEXT_BYTES;

/// What becomes of a value that Snowflake has no room for.
pub const TOO_LONG_HINT: &str =
    "Leave the value out, or pass options => '{\"on_out_of_range\": \"null\"}'.";

/// Writes the tokens of one value as JSON text. What Snowflake would change is refused: a number that it would round, and
/// a key that an object has twice.
#[derive(Debug, Default)]
pub struct Document {
    json: JsonText,
    keys: OpenKeys,
}

/// The keys of the objects that are open; `None` for an array.
#[derive(Debug, Default)]
pub(super) struct OpenKeys(Vec<Option<HashSet<String>>>);

impl OpenKeys {
    /// Starts over.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes the next token. Whether it is a key that its object has already, of which Snowflake would refuse the JSON.
    pub(super) fn is_repeated(&mut self, token: Token<'_>) -> bool {
        match token {
            Token::BeginObject => self.0.push(Some(HashSet::new())),
            Token::BeginArray => self.0.push(None),
            Token::EndObject | Token::EndArray => {
                self.0.pop();
            }
            Token::Key(key) => {
                if let Some(Some(keys)) = self.0.last_mut() {
                    return !keys.insert(key.to_owned());
                }
            }
            _ => {}
        }
        false
    }
}

impl Document {
    /// Starts over. Memory is kept for the next value, unless this one was unusually large.
    pub fn clear(&mut self) {
        self.json.clear();
        self.keys.clear();
    }

    /// What was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.json.as_str()
    }
}

impl TokenSink for Document {
    fn token(&mut self, token: Token<'_>) -> Result<()> {
        let length = match token {
            Token::String(text) | Token::Key(text) | Token::Number(text) => text.len(),
            _ => 0,
        };
        // Looked at on the way, so that memory is bounded by the limit and not by the value.
        if self.json.as_str().len() + length > MAX_TEXT_BYTES {
            return Err(Error::new(
                ErrorKind::Data,
                format!(
                    "the value takes more bytes than the {MAX_TEXT_BYTES} that Snowflake holds"
                ),
            )
            .with_hint(TOO_LONG_HINT));
        }
        if self.keys.is_repeated(token) {
            return Err(Error::new(
                ErrorKind::Data,
                "an object in it has the same key twice",
            )
            .with_hint("Snowflake refuses such JSON. Cast it to jsonb, which keeps the last of them, or to text."));
        }
        let Token::Number(number) = token else {
            self.json.token(token);
            return Ok(());
        };
        let number = number_in_variant(number).ok_or_else(|| {
            Error::new(
                ErrorKind::Data,
                format!("a number in it is not {NUMBER_IN_VARIANT}"),
            )
            .with_hint("Snowflake would round the number. Cast the value to text.")
        })?;
        self.json.token(Token::Number(&number));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse_text;

    fn written(json: &str) -> Result<String> {
        let mut document = Document::default();
        parse_text(json, &mut document)?;
        Ok(document.as_str().to_owned())
    }

    #[test]
    fn a_value_is_written_as_it_is_read() {
        for json in [
            "null",
            "true",
            "[]",
            "{}",
            r#"{"a":{"a":[1,{"a":null}]},"b":{"a":2}}"#,
            r#""é\n\"""#,
            "[12345678901234567890123456789012345678,0.1,1e300]",
        ] {
            assert_eq!(written(json).unwrap(), json);
        }
        assert_eq!(
            written(" { \"a\" : [ 1 , 2 ] } ").unwrap(),
            r#"{"a":[1,2]}"#
        );
    }

    #[test]
    fn what_only_a_double_holds_is_written_as_one() {
        let plain = format!(
            "[1{}, -0.{}25, 0.{}1]",
            "0".repeat(300),
            "0".repeat(39),
            "0".repeat(36)
        );
        assert_eq!(
            written(&plain).unwrap(),
            format!("[1e300,-2.5e-40,0.{}1]", "0".repeat(36))
        );
    }

    #[test]
    fn zeros_at_the_end_do_not_take_the_room_of_digits() {
        let zeros = "0".repeat(30);
        let digits = "1".repeat(38);
        assert_eq!(
            written(&format!(
                "[0.12345678901234567890{zeros},-1.{zeros}{zeros},{digits}.0,{}0]",
                &digits[1..]
            ))
            .unwrap(),
            format!("[0.1234567890123456789,-1,{digits},{}0]", &digits[1..])
        );
    }

    #[test]
    fn what_snowflake_would_change_is_refused() {
        for (json, problem) in [
            (r#"{"a":1,"b":2,"a":3}"#, "the same key twice"),
            (r#"[{"a":{"x":1,"x":1}}]"#, "the same key twice"),
            ("[123456789012345678901234567890123456789]", "38 digits"),
            ("0.1234567890123456789012345678901234567890", "38 digits"),
        ] {
            let error = written(json).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(error.message().contains(problem), "{error}");
            assert!(error.hint().is_some());
        }
        // The same key in two objects is nobody's trouble.
        assert!(written(r#"[{"a":1},{"a":2}]"#).is_ok());
    }

    #[test]
    fn a_document_can_be_used_again() {
        let mut document = Document::default();
        parse_text(r#"{"a":[1"#, &mut document).unwrap_err();
        document.clear();
        parse_text(r#"{"a":2}"#, &mut document).unwrap();
        assert_eq!(document.as_str(), r#"{"a":2}"#);
    }
}

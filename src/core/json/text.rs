//! Tokens of JSON that comes as text.

use json_event_parser::{JsonEvent, SliceJsonParser};

use super::{Token, TokenSink};
use crate::error::{Error, ErrorKind, Result};

/// Feeds the tokens of the document `json` to `sink`.
///
/// # Errors
/// `Data` when the text is not one JSON document, or is nested deeper than the parser's 65,536 levels; or what the sink says.
pub fn parse_text(json: &str, sink: &mut dyn TokenSink) -> Result<()> {
    let mut parser = SliceJsonParser::new(json.as_bytes());
    loop {
        let event = parser.parse_next().map_err(|error| {
            let at = error.location().start;
            // The parser's own message may quote the text, and the text is the user's data.
            Error::new(
                ErrorKind::Data,
                format!(
                    "malformed JSON in line {}, column {}",
                    at.line + 1,
                    at.column + 1
                ),
            )
        })?;
        match event {
            JsonEvent::Null => sink.token(Token::Null)?,
            JsonEvent::Boolean(value) => sink.token(Token::Bool(value))?,
            JsonEvent::Number(digits) => sink.token(Token::Number(&digits))?,
            JsonEvent::String(string) => sink.token(Token::String(&string))?,
            JsonEvent::ObjectKey(key) => sink.token(Token::Key(&key))?,
            JsonEvent::StartArray => sink.token(Token::BeginArray)?,
            JsonEvent::EndArray => sink.token(Token::EndArray)?,
            JsonEvent::StartObject => sink.token(Token::BeginObject)?,
            JsonEvent::EndObject => sink.token(Token::EndObject)?,
            JsonEvent::Eof => return Ok(()),
        }
    }
}

//! Words of the other side, made fit for a log line and an error message.

use secrecy::{ExposeSecret, SecretString};

/// Longer texts of servers are pages, not messages.
const MAX_CHARS: usize = 300;
/// Snowflake's longest identifier, in characters.
const MAX_NAME: usize = 255;
/// Stands where a secret stood.
const REDACTED: &str = "[REDACTED]";

/// One line of at most [`MAX_CHARS`] characters, without control characters and without a final full stop.
pub(crate) fn clean(text: &str) -> String {
    let mut line = String::new();
    let mut count = 0;
    for word in text
        .split(|c: char| c.is_whitespace() || is_unprintable(c))
        .filter(|word| !word.is_empty())
    {
        if !line.is_empty() {
            line.push(' ');
            count += 1;
        }
        for c in word.chars() {
            if count >= MAX_CHARS {
                line.push('…');
                return line;
            }
            line.push(c);
            count += 1;
        }
    }
    line.truncate(line.trim_end_matches(['.', ' ']).len());
    line
}

/// Like [`clean`], and with what stands in single quotes left out: in messages about data that is a cell's value.
pub(crate) fn without_values(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    // The first and every second piece after it is outside the quotes; an open quote hides the rest.
    for (i, piece) in text.split('\'').enumerate() {
        if i % 2 == 0 {
            kept.push_str(piece);
        } else {
            kept.push_str("'…'");
        }
    }
    clean(&kept)
}

/// Of a message about data only where it happened: file, row and column. All else in it may be a cell's value.
pub(crate) fn place(text: &str) -> String {
    // Snowflake tells the place after the value, and the file first.
    let Some((_, after)) = text.rsplit_once("File '") else {
        return String::new();
    };
    let mut place = Vec::new();
    let (file, after) = after.split_once('\'').unwrap_or((after, ""));
    if !file.is_empty() && file.len() <= MAX_NAME && file.bytes().all(is_path_byte) {
        place.push(format!("file {file}"));
    }
    let lower = after.to_ascii_lowercase();
    if let Some(row) = lower.find("row ").and_then(|at| after.get(at + 4..)) {
        let digits: String = row
            .chars()
            .take_while(char::is_ascii_digit)
            .take(20)
            .collect();
        if !digits.is_empty() {
            place.push(format!("row {digits}"));
        }
    }
    if let Some(column) = lower.find("column \"").and_then(|at| after.get(at + 7..)) {
        let quoted = column.get(1..).and_then(|rest| rest.split_once('"'));
        if let Some((name, _)) = quoted.filter(|(name, _)| is_name(name)) {
            // `"TABLE"["COLUMN":3]`; the second name is the one that helps.
            let inner = column
                .split_once("[\"")
                .and_then(|(_, rest)| rest.split_once('"'));
            let name = inner.map_or(name, |(inner, _)| inner);
            place.push(format!("column {name:?}"));
        }
    }
    clean(&place.join(", "))
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-' | b'@' | b'~')
}

/// Replaces every secret that a server repeats.
pub(crate) fn mask<'a>(
    message: String,
    secrets: impl IntoIterator<Item = &'a SecretString>,
) -> String {
    secrets
        .into_iter()
        .map(|secret| secret.expose_secret())
        // Shorter ones would blank out ordinary words.
        .filter(|secret| secret.len() >= 4)
        .fold(message, |message, secret| message.replace(secret, REDACTED))
}

/// Whether a text can be a name: not empty, of at most [`MAX_NAME`] characters, none of which hides or moves others.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().count() <= MAX_NAME && !text.chars().any(is_unprintable)
}

/// A code, a state or an id: what a server may put there, and nothing that could be more.
pub(crate) fn token(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_')
        .take(64)
        .collect()
}

/// Control characters, and those that reorder or hide the text around them.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_stay_lines() {
        assert_eq!(
            clean("a\r\nERROR:  fake\tline\u{1b}[31m.\n"),
            "a ERROR: fake line [31m"
        );
        assert_eq!(clean("  "), "");
        assert_eq!(clean("one. .\n..."), "one");
        assert_eq!(clean(&"x".repeat(1000)).chars().count(), MAX_CHARS + 1);
        assert_eq!(clean("left\u{202e}right"), "left right");
    }

    #[test]
    fn values_are_left_out() {
        assert_eq!(
            without_values("value 'a secret' in column \"A\""),
            "value '…' in column \"A\""
        );
        assert_eq!(without_values("value 'it''s' is"), "value '…''…' is");
        assert_eq!(without_values("open 'end"), "open '…'");
    }

    #[test]
    fn of_data_only_the_place_is_told() {
        assert_eq!(
            place(
                "Numeric value 'jane' is not recognized\n  File 'a/part-00000.parquet', line 1, character 1\n  Row 3, column \"T\"[\"A b\":1]\n  If you"
            ),
            "file a/part-00000.parquet, row 3, column \"A b\""
        );
        assert_eq!(place("Row Values: [4711, \"jane\"]"), "");
        assert_eq!(place("value {\"row 5\": 1} column \"x\""), "");
        assert_eq!(place("File 'jane doe', Row x, column \"\u{1b}\""), "");
    }

    proptest! {
        #[test]
        fn never_a_control_character_or_a_page(text in "\\PC*|(?s).*") {
            for out in [clean(&text), without_values(&text), place(&text)] {
                prop_assert!(out.chars().count() <= MAX_CHARS + 1);
                prop_assert!(!out.chars().any(is_unprintable));
                prop_assert_eq!(out.trim(), &out);
            }
            prop_assert!(token(&text).len() <= 64);
        }
    }
}

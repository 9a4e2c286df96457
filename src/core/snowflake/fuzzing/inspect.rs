//! Which parts of an answer are secret. The corpus writes a mark into every secret, by which it is found where it must
//! not be.

use serde::de::IgnoredAny;
use serde_json::Value;

use crate::snowflake::script::Answer;

/// Stands in every secret of the corpus.
pub(super) const MARK: &str = "hunter2";

/// The fields of answers that are proof of something, wherever they stand.
const SECRET: [&str; 21] = [
    "token",
    "masterToken",
    "sessionToken",
    "idToken",
    "mfaToken",
    "remMeToken",
    "access_token",
    "refresh_token",
    "qrmk",
    "chunkHeaders",
    "url",
    "queryStageMasterKey",
    "presignedUrl",
    "AWS_KEY_ID",
    "AWS_SECRET_KEY",
    "AWS_TOKEN",
    "AWS_ID",
    "AWS_KEY",
    "AZURE_SAS_TOKEN",
    "GCS_ACCESS_TOKEN",
    "x-amz-server-side-encryption-customer-key",
];

/// Whether the mark stands in secrets of this answer, if anywhere; elsewhere it may be shown. All of an object that is
/// not JSON counts as secret: where such a one was cut off is not known.
pub(super) fn marks_secrets_only(answer: &Answer) -> bool {
    let in_headers = answer
        .headers
        .values()
        .any(|value| mentions(value.as_bytes(), MARK));
    if in_headers {
        return false;
    }
    match serde_json::from_slice::<Value>(&answer.body) {
        Ok(value) => {
            let (secret, other) = count(&value, false);
            other == 0 && secret >= occurrences(&answer.body)
        }
        // What the client reads all the same, because it looks at parts of it only.
        Err(_) if serde_json::from_slice::<IgnoredAny>(&answer.body).is_ok() => false,
        Err(_) => {
            !mentions(before_data(&answer.body), MARK) && !storage_code(&answer.body).contains(MARK)
        }
    }
}

/// Whether bytes hold a text.
pub(super) fn mentions(bytes: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(bytes).contains(text)
}

/// Whether a key or text in it holds a text.
pub(super) fn holds(value: &Value, text: &str) -> bool {
    match value {
        Value::String(string) => string.contains(text),
        Value::Array(items) => items.iter().any(|item| holds(item, text)),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, field)| name.contains(text) || holds(field, text)),
        _ => false,
    }
}

/// What stands before anything that looks like data.
fn before_data(body: &[u8]) -> &[u8] {
    let end = body
        .iter()
        .position(|byte| matches!(byte, b'{' | b'[' | b'"'));
    &body[..end.unwrap_or(body.len())]
}

/// What storage calls its refusal, which is shown.
fn storage_code(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let begun = text.split_once("<Code>").map_or("", |(_, begun)| begun);
    let code = begun.split("</Code>").next().unwrap_or_default();
    code.chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .collect()
}

/// How often the mark stands in secrets, and elsewhere.
fn count(value: &Value, secret: bool) -> (usize, usize) {
    let of = |times: usize| if secret { (times, 0) } else { (0, times) };
    let add = |a: (usize, usize), b: (usize, usize)| (a.0 + b.0, a.1 + b.1);
    match value {
        // The host of an address is no secret, and is told when it is refused.
        Value::String(text) if host_of(text).contains(MARK) => (0, 1),
        Value::String(text) => of(text.matches(MARK).count()),
        Value::Array(items) => items
            .iter()
            .map(|item| count(item, secret))
            .fold((0, 0), add),
        Value::Object(fields) => fields.iter().fold((0, 0), |sum, (name, field)| {
            let inner = count(field, secret || SECRET.contains(&name.as_str()));
            add(add(sum, of(name.matches(MARK).count())), inner)
        }),
        _ => (0, 0),
    }
}

/// What might be the host of an address, generously; empty where there is no scheme.
fn host_of(text: &str) -> String {
    let text = text.replace(['\t', '\n', '\r'], "");
    let Some((_, rest)) = text.split_once(':') else {
        return String::new();
    };
    let rest = rest.trim_start_matches(['/', '\\']);
    let end = rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len());
    rest[..end].to_ascii_lowercase()
}

fn occurrences(body: &[u8]) -> usize {
    String::from_utf8_lossy(body).matches(MARK).count()
}

//! What holds whatever a server says: where requests go, and what users are shown.

use std::error::Error as _;
use std::io::Read;
use std::time::Duration;

use flate2::read::GzDecoder;
use http::Method;
use serde_json::Value;
use url::Url;

use super::FILE;
use super::answers::Answers;
use super::world::{ACCOUNT_HOST, MASTER_TOKEN, SESSION_TOKEN};
use crate::Error;
use crate::snowflake::QueryResult;
use crate::snowflake::encryption::encrypted_size;
use crate::snowflake::login::SessionInfo;
use crate::snowflake::route::MAX_ANSWER;
use crate::snowflake::rows::{MAX_CELLS, MAX_ROWS, MAX_TEXT};
use crate::snowflake::script::Asked;

/// A server's words, ours around them, and a few names of up to 255 characters, some of which are escaped.
const MAX_SHOWN: usize = 4_000;
/// Snowflake's longest name.
const MAX_NAME: usize = 255;
/// Nobody waits longer because a server says so.
const MAX_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// An error is fit for a log line, for a terminal and for a table of errors.
pub(super) fn error(error: &Error) {
    let message = error.message();
    assert!(!message.is_empty(), "an empty message");
    assert_eq!(message, message.trim(), "blanks around a message");
    assert!(!message.ends_with('.'), "a full stop: {message}");
    for token in [error.code(), error.sqlstate(), error.query_id()] {
        let redacted = token.is_some_and(|token| token.contains("[REDACTED]"));
        assert!(
            redacted || token.is_none_or(is_token),
            "no identifier: {token:?}"
        );
    }
    shown(message);
    shown(error.hint().unwrap_or_default());
    shown(&error.to_string());
    shown(&format!("{error:?}"));
    let mut cause = error.source();
    while let Some(inner) = cause {
        shown(&inner.to_string());
        cause = inner.source();
    }
    assert!(
        error.retry_after().is_none_or(|pause| pause <= MAX_PAUSE),
        "a pause of {:?}",
        error.retry_after()
    );
}

/// What a login tells is what it can be.
pub(super) fn info(info: &SessionInfo) {
    for name in [&info.role, &info.warehouse, &info.database, &info.schema]
        .into_iter()
        .flatten()
    {
        shown(name);
        assert!(
            (1..=MAX_NAME).contains(&name.chars().count()),
            "a name of {} bytes",
            name.len()
        );
    }
    shown(info.server_version.as_deref().unwrap_or_default());
}

/// A result is within its bounds, and whatever is in it can be looked at.
pub(super) fn result(result: &QueryResult) {
    assert!(result.rows.len() <= MAX_ROWS);
    assert!(result.rows.iter().map(Vec::len).sum::<usize>() <= MAX_CELLS);
    let text = result.rows.iter().flatten().flatten().map(String::len);
    assert!(text.sum::<usize>() <= MAX_TEXT);
    assert!(
        result.query_id.is_empty() || is_token(&result.query_id),
        "no query id: {:?}",
        result.query_id
    );
    let _ = (result.first_value(), result.rows_changed());
    for column in &result.columns {
        assert!(result.value(result.rows.len(), column).is_none());
        let _ = result.value(0, column);
    }
}

/// The rows behind the first are those that a part of a result holds.
pub(super) fn rows_of_part(result: &QueryResult, part: &[u8]) {
    let mut text = b"[".to_vec();
    if part.starts_with(&[0x1f, 0x8b]) {
        let unpacked = GzDecoder::new(part)
            .take(MAX_ANSWER as u64 + 1)
            .read_to_end(&mut text);
        assert!(unpacked.is_ok_and(|size| size <= MAX_ANSWER));
    } else {
        text.extend_from_slice(part);
    }
    text.push(b']');
    let rows: Vec<Vec<Value>> = serde_json::from_slice(&text).expect("rows");
    assert_eq!(result.rows.len(), rows.len() + 1);
    for (row, expected) in result.rows.iter().skip(1).zip(&rows) {
        assert_eq!(row.len(), expected.len());
        for (cell, expected) in row.iter().zip(expected) {
            match expected {
                Value::Null => assert_eq!(cell, &None),
                Value::String(text) => assert_eq!(cell.as_ref(), Some(text)),
                Value::Bool(_) | Value::Number(_) => assert!(cell.is_some()),
                Value::Array(_) | Value::Object(_) => panic!("a cell of several values"),
            }
        }
    }
}

/// Requests go to the service, to storage of the three clouds, or to what a superuser has listed; the session's tokens
/// to the service alone.
pub(super) fn requests(asked: &[Asked], answers: &Answers) {
    let redirected = answers.0.iter().any(|answer| {
        answer.status.is_redirection() && answer.headers.contains_key(http::header::LOCATION)
    });
    let file = std::fs::metadata(FILE).map_or(0, |file| file.len());
    for Asked {
        method,
        url,
        headers,
        size,
    } in asked
    {
        let service = is_service(url);
        assert!(
            service || is_listed(url) || is_storage(url),
            "a request goes to {url}"
        );
        assert!(
            url.username().is_empty() && url.password().is_none(),
            "a request goes to {url}"
        );
        let shows = |token: &str| {
            headers
                .values()
                .any(|value| String::from_utf8_lossy(value.as_bytes()).contains(token))
        };
        for token in [SESSION_TOKEN, MASTER_TOKEN, "Snowflake Token"] {
            // Where a server says the client's own secrets, they are as much its own.
            assert!(
                service || !shows(token) || answers.mention(token),
                "a token of the session goes to {url}"
            );
        }
        // Nothing but the file is put, in the clear or encrypted.
        assert!(
            method != Method::PUT || [file, encrypted_size(file)].contains(size),
            "{size} bytes are put"
        );
        if url.host_str() == Some(ACCOUNT_HOST) && !redirected {
            assert!(is_path_of_service(url.path()), "a request goes to {url}");
        }
    }
}

fn is_service(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    is_https(url)
        && (host.ends_with(".snowflakecomputing.com") || host.ends_with(".snowflakecomputing.cn"))
}

fn is_storage(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let amazon = host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn");
    let azure = [
        ".blob.core.windows.net",
        ".blob.core.usgovcloudapi.net",
        ".blob.core.chinacloudapi.cn",
    ];
    let google = [".storage.googleapis.com", ".rep.googleapis.com"];
    is_https(url)
        && (amazon && host.split('.').any(|label| label.starts_with("s3"))
            || azure.iter().any(|domain| host.ends_with(domain))
            || google.iter().any(|domain| host.ends_with(domain))
            || host == "storage.googleapis.com")
}

/// As [`super::world::ALLOWED`] says. Buckets have hosts of their own below what is not of this machine.
fn is_listed(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    match (url.scheme(), url.port_or_known_default()) {
        ("http", Some(9000)) => host == "127.0.0.1",
        ("http", Some(9001)) => host == "s3.localhost",
        ("http", Some(10000)) => host.ends_with(".blob.localhost"),
        ("http", Some(4443)) => host == "storage.localhost",
        ("https", Some(8443)) => host == "snow.corp" || host.ends_with(".snow.corp"),
        ("https", Some(443)) => host == "idp.corp" || host.ends_with(".idp.corp"),
        _ => false,
    }
}

fn is_https(url: &Url) -> bool {
    url.scheme() == "https" && url.port_or_known_default() == Some(443)
}

fn is_path_of_service(path: &str) -> bool {
    let is_id = |id: &str| {
        !id.is_empty()
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    matches!(
        path,
        "/session/v1/login-request"
            | "/session/token-request"
            | "/session/heartbeat"
            | "/session"
            | "/queries/v1/query-request"
            | "/queries/v1/abort-request"
    ) || path
        .strip_prefix("/queries/")
        .and_then(|rest| rest.strip_suffix("/result"))
        .is_some_and(is_id)
}

fn is_token(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn shown(text: &str) {
    assert!(
        text.chars().count() <= MAX_SHOWN,
        "{} characters are shown",
        text.chars().count()
    );
    let reorders = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    assert!(
        !text.chars().any(|c| c.is_control() || reorders(c)),
        "control characters are shown: {text:?}"
    );
}

//! The parts of a large result that lie in cloud storage.

use std::collections::HashMap;
use std::io::Read;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::error::Category;
use tokio::time::timeout;
use url::Url;

use super::http::{self as client, Http};
use super::route::MAX_ANSWER;
use super::rows::Rows;
use super::wire::Chunk;
use super::{errors, storage};
use crate::{Error, ErrorKind, Result};

/// The bytes with which gzip begins; storage may or may not say that a part is compressed.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Fetches the rows of one part. Its address is its own proof: Snowflake's token is never sent there.
///
/// # Errors
/// `Configuration` for an address outside of the clouds; `Transient` if it cannot be fetched.
pub(crate) async fn fetch(
    http: &Http,
    chunk: &Chunk,
    headers: Option<&HashMap<String, String>>,
    key: Option<&SecretString>,
) -> Result<Rows> {
    let damaged = || {
        Error::new(
            ErrorKind::Internal,
            "Snowflake describes a part of a result that cannot be fetched",
        )
    };
    let url = Url::parse(chunk.url.expose_secret()).map_err(|_| damaged())?;
    storage::check_address(&http.network.allowed_hosts, &url)?;
    let headers = request_headers(headers, key).ok_or_else(damaged)?;
    client::retried(&http.network, async || {
        rows(&fetch_once(http, &url, &headers).await?)
    })
    .await
}

/// What the server wants to be sent along; in its absence the key with which storage decrypts the part.
fn request_headers(
    given: Option<&HashMap<String, String>>,
    key: Option<&SecretString>,
) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut set = |name: &str, value: &str| {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
        Some(())
    };
    match (given, key) {
        (Some(given), _) => {
            for (name, value) in given {
                set(name, value)?;
            }
        }
        (None, Some(key)) => {
            set("x-amz-server-side-encryption-customer-algorithm", "AES256")?;
            set(
                "x-amz-server-side-encryption-customer-key",
                key.expose_secret(),
            )?;
        }
        (None, None) => {}
    }
    Some(headers)
}

async fn fetch_once(http: &Http, url: &Url, headers: &HeaderMap) -> Result<Bytes> {
    let host = url.host_str().unwrap_or_default();
    let stall = http.network.stall_timeout;
    let mut request = reqwest::Request::new(Method::GET, url.clone());
    *request.headers_mut() = headers.clone();
    let answer = timeout(stall, http.execute(request))
        .await
        .map_err(|_| client::late(host))?
        .map_err(|cause| client::failure(cause, host))?;
    if !answer.status().is_success() {
        let refused = refused(answer.status(), host);
        return Err(errors::with_retry_after(refused, answer.headers()));
    }
    client::read_body(answer, host, stall, MAX_ANSWER).await
}

/// What it means that storage does not give a part.
fn refused(status: StatusCode, host: &str) -> Error {
    let number = status.as_u16();
    match number {
        429 => errors::http_status(status, host),
        408 | 500..=599 => Error::new(
            ErrorKind::Transient,
            format!("the storage of a result is not available at {host} (HTTP {number})"),
        ),
        _ => Error::new(
            ErrorKind::Internal,
            format!("the storage at {host} refused a part of a result (HTTP {number})"),
        )
        .with_hint("Its address holds for some hours only; ask again."),
    }
}

/// A part is rows separated by commas, without the brackets around them.
fn rows(body: &[u8]) -> Result<Rows> {
    let mut text = vec![b'['];
    if body.starts_with(&GZIP) {
        let limit = MAX_ANSWER as u64;
        let read = GzDecoder::new(body).take(limit + 1).read_to_end(&mut text);
        if read.map_err(|_| damaged())? as u64 > limit {
            return Err(too_large());
        }
    } else {
        text.extend_from_slice(body);
    }
    text.push(b']');
    serde_json::from_slice(&text).map_err(|cause| match cause.classify() {
        // Whole, and nothing that another try would change.
        Category::Data => Error::new(
            ErrorKind::Internal,
            "a part of a result does not consist of rows",
        ),
        _ => damaged(),
    })
}

fn damaged() -> Error {
    Error::new(ErrorKind::Transient, "a part of a result arrived damaged")
}

fn too_large() -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("a part of a result is larger than {MAX_ANSWER} bytes"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn parts_are_rows_without_brackets() {
        let plain = br#"["1",null],["2","b"]"#;
        for body in [plain.to_vec(), gzip(plain)] {
            assert_eq!(
                rows(&body).unwrap().rows,
                [
                    [Some("1".to_owned()), None],
                    [Some("2".into()), Some("b".into())]
                ]
            );
        }
        let error = rows(b"{}").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        let cut = gzip(plain);
        assert!(
            rows(&cut[..cut.len() - 9])
                .err()
                .unwrap()
                .kind()
                .is_retryable()
        );
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let error = rows(&gzip(&vec![b' '; MAX_ANSWER + 1])).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }

    #[test]
    fn headers_of_parts() {
        let key: SecretString = "k".into();
        assert_eq!(request_headers(None, Some(&key)).unwrap().len(), 2);
        assert_eq!(
            request_headers(Some(&HashMap::new()), Some(&key))
                .unwrap()
                .len(),
            0
        );
        assert_eq!(request_headers(None, None).unwrap().len(), 0);
        let bad = HashMap::from([("a b".to_owned(), "c\r\nd".to_owned())]);
        assert!(request_headers(Some(&bad), None).is_none());
    }
}

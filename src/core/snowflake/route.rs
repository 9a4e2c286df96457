//! The middleware below the crate that forms requests: it sends them where they belong and lets only sound answers back.

use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{self, HeaderValue};
use http::{Extensions, StatusCode};
use reqwest::{Body, Request, Response};
use reqwest_middleware::{Middleware, Next};
use secrecy::SecretString;
use tokio::time::timeout;
use url::Url;

use super::transport::lock;
use super::wire::Envelope;
use super::{clock, errors, http as client, text};
use crate::config::Account;
use crate::{Error, ErrorKind};

/// The largest answer that is taken, after decompression. Snowflake keeps inline results and result chunks below 16 MB
/// or so; twice that leaves room, and no server can fill the memory.
pub(crate) const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// Drivers follow a few redirects in a row; more is a circle.
const MAX_REDIRECTS: usize = 5;
/// The header by which the service routes a session's requests to one server.
const AFFINITY: &str = "x-snowflake-session";

/// A try that brought no answer.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// The HTTP status, or 0 if there was none; the server wants to know with the next try.
    pub(crate) status: u16,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, status: 0 }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Failed {}

/// Where the requests of one purpose go, and how long their answers may take.
pub(crate) struct Route {
    /// Scheme, host, port and path; replaces those of the request.
    pub(crate) url: Url,
    /// For messages.
    pub(crate) host: String,
    /// The longest wait for the beginning of an answer.
    pub(crate) patience: Duration,
    /// The longest wait for the next piece of it.
    pub(crate) stall_timeout: Duration,
    pub(crate) affinity: Arc<Mutex<Option<HeaderValue>>>,
    /// Taken out of whatever a page says that came in place of an answer.
    pub(crate) secrets: Vec<SecretString>,
}

#[async_trait]
impl Middleware for Route {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        self.aim(&mut request);
        compress(&mut request).map_err(reqwest_middleware::Error::middleware)?;
        for _ in 0..=MAX_REDIRECTS {
            let repeated = request.try_clone();
            let asked = next.clone().run(request, extensions);
            let answer = match timeout(self.patience, asked).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(reqwest_middleware::Error::Reqwest(cause))) => {
                    return Err(fail(client::failure(cause, &self.host), 0));
                }
                Ok(Err(other)) => return Err(other),
                Err(_) => return Err(fail(self.late(), 0)),
            };
            match (self.redirect(&answer), repeated) {
                (Some(url), Some(again)) => {
                    request = again;
                    *request.url_mut() = url;
                }
                _ => {
                    return self
                        .check(answer)
                        .await
                        .map_err(reqwest_middleware::Error::middleware);
                }
            }
        }
        let endless = Error::new(
            ErrorKind::Configuration,
            format!("{} redirects in a circle", self.host),
        );
        Err(fail(endless, StatusCode::TEMPORARY_REDIRECT.as_u16()))
    }
}

fn fail(error: Error, status: u16) -> reqwest_middleware::Error {
    reqwest_middleware::Error::middleware(Failed { error, status })
}

impl Route {
    /// Replaces the address, and keeps of each query key only the last value, which is ours.
    fn aim(&self, request: &mut Request) {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (key, value) in request.url().query_pairs() {
            pairs.retain(|(known, _)| *known != key);
            pairs.push((key.into_owned(), value.into_owned()));
        }
        let mut url = self.url.clone();
        url.query_pairs_mut().clear().extend_pairs(pairs);
        *request.url_mut() = url;
        if let Some(value) = lock(&self.affinity).clone() {
            request.headers_mut().insert(AFFINITY, value);
        }
    }

    /// Where the same request has to go instead, if that is a place it may go to: the same host, or for an account of
    /// Snowflake's own domains another host there. Secrets go along, so any other redirect is refused.
    fn redirect(&self, answer: &Response) -> Option<Url> {
        let location = answer.headers().get(header::LOCATION)?.to_str().ok()?;
        let url = answer.url().join(location).ok()?;
        let may_go_there = url.origin() == self.url.origin()
            || Account::serves(&self.url) && Account::serves(&url);
        (repeats_request(answer.status())
            && may_go_there
            && url.username().is_empty()
            && url.password().is_none())
        .then_some(url)
    }

    async fn check(&self, answer: Response) -> Result<Response, Failed> {
        let status = answer.status();
        let headers = answer.headers().clone();
        clock::observe(&headers);
        let body = client::read_body(answer, &self.host, self.stall_timeout, MAX_ANSWER)
            .await
            .map_err(|error| Failed {
                error,
                status: status.as_u16(),
            })?;
        if let Some(value) = headers.get(AFFINITY) {
            *lock(&self.affinity) = Some(value.clone());
        }
        let failed = |error: Error| Failed {
            error,
            status: status.as_u16(),
        };
        // Some refusals come with a status and yet say what they mean.
        let explained =
            status.is_client_error() && !is_throttling(status) && is_explained(status, &body);
        if repeats_request(status) && !headers.contains_key(header::LOCATION) {
            // To nowhere: drivers take it for a front end in trouble.
            let error = Error::new(
                ErrorKind::Transient,
                format!(
                    "{} redirects to nowhere (HTTP {})",
                    self.host,
                    status.as_u16()
                ),
            );
            return Err(failed(error));
        }
        if !status.is_success() && !explained {
            return Err(failed(errors::with_retry_after(
                errors::http_status(status, &self.host),
                &headers,
            )));
        }
        if !looks_whole(&body) {
            return Err(failed(self.not_json(&body)));
        }
        Ok(Response::from(http::Response::new(body)))
    }

    fn late(&self) -> Error {
        client::late(&self.host)
    }

    fn not_json(&self, body: &[u8]) -> Error {
        let begins_well = body.trim_ascii_start().first() == Some(&b'{');
        let what = if body.is_empty() {
            "an empty answer".to_owned()
        } else if begins_well {
            "an answer that was cut off".to_owned()
        } else {
            match begin_of_page(body, &self.secrets).as_str() {
                "" => "something other than Snowflake's JSON".to_owned(),
                begin => format!("something other than Snowflake's JSON: {begin}"),
            }
        };
        Error::new(ErrorKind::Transient, format!("{} sent {what}", self.host))
    }
}

fn compress(request: &mut Request) -> Result<(), Failed> {
    let Some(plain) = request.body().and_then(Body::as_bytes) else {
        return Ok(());
    };
    if plain == b"null" {
        // The crate that forms requests writes a body in any case; the protocol wants none here.
        *request.body_mut() = None;
        return Ok(());
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let packed = encoder
        .write_all(plain)
        .and_then(|()| encoder.finish())
        .map_err(|cause| {
            Failed::from(
                Error::new(ErrorKind::Internal, "cannot compress a request").with_source(cause),
            )
        })?;
    *request.body_mut() = Some(packed.into());
    request
        .headers_mut()
        .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    Ok(())
}

fn repeats_request(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
    )
}

fn is_throttling(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
    )
}

/// The first words of a page of some proxy, which tell whose it is. What looks like data is left out, as an answer behind
/// a byte order mark would be, and so are secrets.
fn begin_of_page(body: &[u8], secrets: &[SecretString]) -> String {
    /// Enough for the words that are shown, and for what is taken out of them.
    const READ: usize = 4096;
    let begin = String::from_utf8_lossy(body.get(..READ).unwrap_or(body));
    let words = begin.split(['{', '[', '"']).next().unwrap_or_default();
    text::clean(&text::mask(words.to_owned(), secrets))
}

/// Whether a body is Snowflake's own answer with a code in it that says more than the status does.
fn is_explained(status: StatusCode, body: &[u8]) -> bool {
    // The front end uses the code of a refused key pair as well where there is no such account.
    let no_account = matches!(status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND);
    serde_json::from_slice::<Envelope>(body)
        .ok()
        .and_then(|envelope| envelope.code)
        .is_some_and(|code| !(no_account && code == errors::KEY_PAIR_REFUSED))
}

/// A body that was cut off ends elsewhere, and a page begins elsewhere.
fn looks_whole(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    body.first() == Some(&b'{') && body.last() == Some(&b'}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_named_by_their_first_words() {
        let secrets = ["hunter2-token".into(), "hunter2 pass".into()];
        for (body, words) in [
            (
                "<html>\n<title>Proxy</title>",
                "<html> <title>Proxy</title>",
            ),
            ("\u{feff}{\"data\": {\"token\": \"x\"}}", ""),
            ("[{\"token\": \"x\"}]", ""),
            (
                "Authorization: Snowflake Token=\"x\"",
                "Authorization: Snowflake Token=",
            ),
            (
                "you sent hunter2-token and hunter2 pass",
                "you sent [REDACTED] and [REDACTED]",
            ),
        ] {
            assert_eq!(begin_of_page(body.as_bytes(), &secrets), words);
        }
        // Cut only after secrets are gone, so that no half of one stays.
        let long = format!("{}hunter2-token", "x".repeat(295));
        assert!(!begin_of_page(long.as_bytes(), &secrets).contains("hun"));
    }
}

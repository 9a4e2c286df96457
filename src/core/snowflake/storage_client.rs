//! The HTTP client that `object_store` works with: ours, so that storage is reached under the same rules as Snowflake,
//! gives up when nothing moves rather than after a fixed time, and keeps the reason of a failure.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpService,
};
use tokio::time::{Instant, timeout, timeout_at};

use super::http::{self as client, Http};
use super::transport::lock;
use crate::{Error, ErrorKind};

/// Bodies go out in pieces of this size, so that progress is seen while a large one travels.
const PIECE: usize = 64 * 1024;
/// Storage answers with a few lines of XML; more is not of interest.
const MAX_ANSWER: usize = 1024 * 1024;

/// Why storage did not take a request.
#[derive(Debug)]
pub(crate) enum StorageFailure {
    /// It answered with this status and, where it said so, this code.
    Refused {
        status: StatusCode,
        code: Option<String>,
    },
    /// It did not answer.
    Unreachable(Error),
}

/// Makes the client of one upload.
#[derive(Debug, Clone)]
pub(crate) struct StorageClient {
    http: Http,
    last_failure: Arc<Mutex<Option<StorageFailure>>>,
}

impl StorageClient {
    pub(crate) fn new(http: &Http) -> Self {
        Self {
            http: http.clone(),
            last_failure: Arc::default(),
        }
    }

    /// The reason of the last request that failed.
    pub(crate) fn take_failure(&self) -> Option<StorageFailure> {
        lock(&self.last_failure).take()
    }

    fn note(&self, failure: StorageFailure) {
        *lock(&self.last_failure) = Some(failure);
    }

    fn unreachable(&self, kind: HttpErrorKind, error: Error) -> HttpError {
        let words = Error::new(error.kind(), error.message());
        // What cannot get better is not tried again.
        let kind = if error.kind().is_retryable() {
            kind
        } else {
            HttpErrorKind::Unknown
        };
        self.note(StorageFailure::Unreachable(error));
        HttpError::new(kind, words)
    }

    fn late(&self, host: &str) -> HttpError {
        let error = Error::new(
            ErrorKind::Transient,
            format!("nothing moved on the connection to {host}"),
        );
        self.unreachable(HttpErrorKind::Timeout, error)
    }

    fn lost(&self, cause: reqwest::Error, host: &str) -> HttpError {
        let kind = if cause.is_connect() {
            HttpErrorKind::Connect
        } else {
            HttpErrorKind::Interrupted
        };
        self.unreachable(kind, client::failure(cause, host))
    }

    /// Waits for an answer as long as the body moves.
    async fn send(
        &self,
        request: reqwest::Request,
        host: &str,
        moved: &Mutex<Instant>,
    ) -> Result<reqwest::Response, HttpError> {
        let stall = self.http.network.stall_timeout;
        let answer = self.http.client.execute(request);
        tokio::pin!(answer);
        loop {
            let deadline = *lock(moved) + stall;
            match timeout_at(deadline, &mut answer).await {
                Ok(answer) => return answer.map_err(|cause| self.lost(cause, host)),
                Err(_) if *lock(moved) + stall > deadline => {}
                Err(_) => return Err(self.late(host)),
            }
        }
    }

    async fn read(
        &self,
        mut answer: reqwest::Response,
        host: &str,
        stall: Duration,
    ) -> Result<Bytes, HttpError> {
        let mut body = BytesMut::new();
        loop {
            match timeout(stall, answer.chunk()).await {
                Ok(Ok(Some(piece))) => {
                    let room = MAX_ANSWER.saturating_sub(body.len());
                    body.extend_from_slice(piece.get(..room).unwrap_or(&piece));
                    if body.len() >= MAX_ANSWER {
                        return Ok(body.freeze());
                    }
                }
                Ok(Ok(None)) => return Ok(body.freeze()),
                Ok(Err(cause)) => return Err(self.lost(cause, host)),
                Err(_) => return Err(self.late(host)),
            }
        }
    }
}

impl HttpConnector for StorageClient {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for StorageClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url = url::Url::parse(&parts.uri.to_string())
            .map_err(|cause| HttpError::new(HttpErrorKind::Unknown, cause))?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let moved = Arc::new(Mutex::new(Instant::now()));
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        *request.body_mut() = Some(reqwest::Body::wrap(Watched {
            body,
            piece: Bytes::new(),
            moved: Arc::clone(&moved),
        }));
        let answer = self.send(request, &host, &moved).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = self
            .read(answer, &host, self.http.network.stall_timeout)
            .await?;
        if !status.is_success() {
            self.note(StorageFailure::Refused {
                status,
                code: error_code(&body),
            });
        }
        let mut response = HttpResponse::new(body.into());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

/// What stands in `<Code>` of S3's error answers.
fn error_code(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, begun) = text.split_once("<Code>")?;
    let (code, _) = begun.split_once("</Code>")?;
    Some(super::text::token(code))
}

/// A body in small pieces that notes when the last one was taken.
struct Watched {
    body: HttpRequestBody,
    piece: Bytes,
    moved: Arc<Mutex<Instant>>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        *lock(&self.moved) = Instant::now();
        if self.piece.is_empty() {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.piece = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let size = self.piece.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.piece.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.piece.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.piece.len() as u64;
        let hint = self.body.size_hint();
        match hint.exact() {
            Some(exact) => SizeHint::with_exact(exact + rest),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_errors() {
        let xml = b"<?xml version=\"1.0\"?><Error><Code>ExpiredToken</Code><Message>AKIA secret</Message></Error>";
        assert_eq!(error_code(xml).as_deref(), Some("ExpiredToken"));
        assert_eq!(error_code(b"<Error></Error>"), None);
        assert_eq!(error_code(b"\xff<Code>x</Code>"), None);
        assert_eq!(error_code(b"<Code>a\r\nb c</Code>").as_deref(), Some("abc"));
    }
}

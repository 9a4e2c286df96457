//! Uploads to Google: one request for a file of any size, since the tokens that Snowflake hands out are not known to be
//! good for more. The body is made while it travels, so that memory stays bounded all the same.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Method;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use url::Url;

use super::Progress;
use super::refusal::{UploadFailure, error_code, refused};
use super::source::{Content, Source};
use super::transfer::{self, Answer};
use crate::snowflake::encryption::FileKey;
use crate::snowflake::errors;
use crate::snowflake::http::Http;
use crate::{Error, ErrorKind, Result};

/// Pieces of about a megabyte that wait to be sent.
const AHEAD: usize = 2;
/// What a file takes on its way: those, one being sent, and one being made.
const MEMORY: usize = (AHEAD + 2) << 20;
/// How often progress is told while the body travels.
const TELL: Duration = Duration::from_millis(500);

/// Where one file goes.
pub(super) struct GoogleUpload {
    pub(super) http: Http,
    /// The object's own address, or a presigned one, which needs no token.
    pub(super) url: Url,
    pub(super) token: Option<SecretString>,
}

impl fmt::Debug for GoogleUpload {
    /// Without the address, which may be presigned.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GoogleUpload")
            .field(&self.url.host_str())
            .finish()
    }
}

impl GoogleUpload {
    /// Uploads a file; `metadata` travels with it.
    pub(super) async fn upload(
        &self,
        source: &Source,
        file_key: Option<&FileKey>,
        metadata: &[(&'static str, String)],
        progress: Progress<'_>,
    ) -> Result<(), UploadFailure> {
        let headers = self.headers(metadata)?;
        let network = &self.http.network;
        let (mut wait, mut attempt) = (Duration::ZERO, 1);
        loop {
            let failure = match self.try_once(source, file_key, &headers, progress).await {
                Ok(answer) if answer.status.is_success() => {
                    progress(source.size);
                    return Ok(());
                }
                Ok(answer) => self.refused(&answer),
                Err(failure) => failure,
            };
            let asked = failure.error.retry_after().unwrap_or_default();
            if failure.may_be_expiry
                || !failure.error.kind().is_retryable()
                || attempt >= network.tries
                || asked > network.backoff.max
            {
                return Err(failure);
            }
            attempt += 1;
            wait = network.backoff.delay(wait, &mut rand::thread_rng());
            tokio::time::sleep(wait.max(asked)).await;
        }
    }

    async fn try_once(
        &self,
        source: &Source,
        file_key: Option<&FileKey>,
        headers: &HeaderMap,
        progress: Progress<'_>,
    ) -> Result<Answer, UploadFailure> {
        let _taken = self.http.network.send_memory.take(MEMORY).await;
        let content = source.content(file_key).await?;
        let read = Arc::new(AtomicU64::new(0));
        let body = FileBody::new(content, source.content_size(file_key), Arc::clone(&read));
        let sent = transfer::send(
            &self.http,
            Method::PUT,
            self.url.clone(),
            headers.clone(),
            body,
        );
        tokio::pin!(sent);
        let mut told = tokio::time::interval(TELL);
        loop {
            tokio::select! {
                answer = &mut sent => return Ok(answer?),
                _ = told.tick() => progress(read.load(Ordering::Relaxed)),
            }
        }
    }

    fn headers(&self, metadata: &[(&'static str, String)]) -> Result<HeaderMap> {
        let unusable = || {
            Error::new(
                ErrorKind::Internal,
                "Snowflake's answer to PUT holds what no header can",
            )
        };
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        for (name, value) in metadata {
            let name =
                HeaderName::try_from(format!("x-goog-meta-{name}")).map_err(|_| unusable())?;
            headers.insert(name, HeaderValue::try_from(value).map_err(|_| unusable())?);
        }
        if let Some(token) = &self.token {
            let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
                .map_err(|_| unusable())?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        Ok(headers)
    }

    /// A presigned address that has run out is answered with 400.
    fn refused(&self, answer: &Answer) -> UploadFailure {
        let mut failure = refused(answer.status, error_code(&answer.body).as_deref());
        failure.may_be_expiry |= self.token.is_none() && answer.status.as_u16() == 400;
        failure.error = errors::with_retry_after(failure.error, &answer.headers);
        failure
    }
}

/// The content of a file as the body of a request. A task reads and encrypts it, a little ahead of what is sent.
struct FileBody {
    pieces: mpsc::Receiver<Result<Bytes>>,
    left: u64,
}

impl FileBody {
    fn new(mut content: Content, size: u64, read: Arc<AtomicU64>) -> Self {
        let (sender, pieces) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            let mut piece = BytesMut::new();
            loop {
                let more = content.append(&mut piece).await;
                read.store(content.read, Ordering::Relaxed);
                let next = match more {
                    Ok(false) => return,
                    Ok(true) if piece.is_empty() => continue,
                    Ok(true) => Ok(piece.split().freeze()),
                    Err(error) => Err(error),
                };
                // Nobody reads any more: the request was given up.
                if sender.send(next).await.is_err() {
                    return;
                }
            }
        });
        Self { pieces, left: size }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let piece = std::task::ready!(self.pieces.poll_recv(context));
        if let Some(Ok(piece)) = &piece {
            self.left = self.left.saturating_sub(piece.len() as u64);
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

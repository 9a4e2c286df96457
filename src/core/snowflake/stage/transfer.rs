//! One request to storage: sent in small pieces, given up when nothing moves rather than after a fixed time.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use crate::snowflake::http::{self as client, Http};
use crate::snowflake::transport::lock;
use crate::{Error, ErrorKind, Result};

/// Bodies go out in pieces of this size, so that progress is seen while a large one travels.
const PIECE: usize = 64 * 1024;
/// Storage answers with a few lines of XML; more is not of interest. What it takes to read XML may grow with the square of its size,
/// and whoever has a stage may write it.
const MAX_ANSWER: usize = 16 * 1024;

/// What storage answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// At most [`MAX_ANSWER`] bytes of it.
    pub(super) body: Bytes,
}

/// Sends a request and reads its answer.
///
/// # Errors
/// `Transient` if the storage cannot be reached, or nothing moves for the stall timeout.
pub(super) async fn send<B>(
    http: &Http,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: B,
) -> Result<Answer>
where
    B: Body<Data = Bytes> + Send + Sync + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stall = http.network.stall_timeout;
    let host = url.host_str().unwrap_or_default().to_owned();
    let moved = Arc::new(Mutex::new(Instant::now()));
    let size = body.size_hint().exact().unwrap_or(BUFFERED);
    let mut request = reqwest::Request::new(method, url);
    *request.headers_mut() = headers;
    *request.body_mut() = Some(reqwest::Body::wrap(Watched {
        body,
        piece: Bytes::new(),
        moved: Arc::clone(&moved),
    }));
    let answer = answer(http, request, &host, &moved, size).await?;
    Ok(Answer {
        status: answer.status(),
        headers: answer.headers().clone(),
        body: read(answer, &host, stall).await?,
    })
}

/// What the buffers of this machine may hold of a body that was handed over whole.
const BUFFERED: u64 = 4 * 1024 * 1024;
/// How slowly those may drain, in bytes a second. That they do not drain at all is for the kernel to notice.
const DRAIN: u64 = 10_000;

/// Waits for an answer as long as the body moves, and then as long as it may take to leave this machine.
async fn answer(
    http: &Http,
    request: reqwest::Request,
    host: &str,
    moved: &Mutex<Instant>,
    size: u64,
) -> Result<reqwest::Response> {
    let draining = Duration::from_secs(size.min(BUFFERED) / DRAIN);
    let stall = http.network.stall_timeout + draining;
    let answer = http.execute(request);
    tokio::pin!(answer);
    loop {
        let deadline = *lock(moved) + stall;
        match timeout_at(deadline, &mut answer).await {
            Ok(answer) => return answer.map_err(|cause| client::failure(cause, host)),
            Err(_) if *lock(moved) + stall > deadline => {}
            Err(_) => return Err(stalled(host)),
        }
    }
}

async fn read(mut answer: reqwest::Response, host: &str, stall: Duration) -> Result<Bytes> {
    let mut body = BytesMut::new();
    let begun = std::time::Instant::now();
    loop {
        if client::trickles(body.len(), begun, stall) {
            return Err(stalled(host));
        }
        match timeout(stall, answer.chunk()).await {
            Ok(Ok(Some(piece))) => {
                let room = MAX_ANSWER.saturating_sub(body.len());
                body.extend_from_slice(piece.get(..room).unwrap_or(&piece));
                if body.len() >= MAX_ANSWER {
                    return Ok(body.freeze());
                }
            }
            Ok(Ok(None)) => return Ok(body.freeze()),
            Ok(Err(cause)) => return Err(client::failure(cause, host)),
            Err(_) => return Err(stalled(host)),
        }
    }
}

fn stalled(host: &str) -> Error {
    Error::new(
        ErrorKind::Transient,
        format!("nothing moved on the connection to {host}"),
    )
}

/// A body in small pieces that notes when the last one was taken.
struct Watched<B> {
    body: B,
    piece: Bytes,
    moved: Arc<Mutex<Instant>>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
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

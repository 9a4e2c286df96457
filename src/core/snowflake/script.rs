//! Answers from a script in place of those of servers, for tests of what any server might say. Never part of a release.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Mutex;

use async_trait::async_trait;
use http::header::HeaderMap;
use http::{Extensions, Method, StatusCode};
use http_body::Body as _;
use reqwest::{Body, Request, Response, ResponseBuilderExt};
use reqwest_middleware::{Middleware, Next};
use url::Url;

use super::transport::lock;

/// No sequence of answers makes a client ask as often; whoever does so goes round in a circle.
const MAX_REQUESTS: usize = 5_000;

/// One answer of a server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// What a server would have seen of a request.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// How many bytes its body has.
    pub(crate) size: u64,
}

/// Answers in the order in which requests come, and 503 after the last.
#[derive(Debug, Default)]
pub(crate) struct Script {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Asked>>,
}

impl Script {
    pub(crate) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self {
            answers: Mutex::new(answers.into_iter().collect()),
            asked: Mutex::default(),
        }
    }

    /// How many requests have come so far.
    pub(crate) fn count(&self) -> u32 {
        lock(&self.asked).len() as u32
    }

    /// The requests that have come so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *lock(&self.asked))
    }

    /// Notes a request and answers it.
    pub(crate) async fn answer(&self, mut request: Request) -> Response {
        let size = match request.body_mut().take() {
            Some(body) => read(body).await,
            None => 0,
        };
        let url = request.url().clone();
        let mut asked = lock(&self.asked);
        asked.push(Asked {
            method: request.method().clone(),
            url: url.clone(),
            headers: request.headers().clone(),
            size,
        });
        assert!(asked.len() <= MAX_REQUESTS, "the client asks on and on");
        drop(asked);
        let answer = lock(&self.answers).pop_front().unwrap_or(Answer {
            status: StatusCode::SERVICE_UNAVAILABLE,
            ..Answer::default()
        });
        let mut response = http::Response::builder()
            .status(answer.status)
            .url(url)
            .body(answer.body)
            .expect("a status and a body");
        *response.headers_mut() = answer.headers;
        Response::from(response)
    }
}

async fn read(mut body: Body) -> u64 {
    let mut size = 0;
    while let Some(frame) =
        std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        let Ok(frame) = frame else { break };
        size += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    size
}

#[async_trait]
impl Middleware for Script {
    async fn handle(
        &self,
        request: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        Ok(self.answer(request).await)
    }
}

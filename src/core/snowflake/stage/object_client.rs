//! The HTTP client that `object_store` works with: ours, so that storage is reached under the same rules as Snowflake,
//! and the reason of a failure is kept.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use http::StatusCode;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use url::Url;

use super::refusal::{UploadFailure, error_code, refused};
use super::transfer::{self, Answer};
use crate::Error;
use crate::memory::SendMemory;
use crate::snowflake::errors;
use crate::snowflake::http::Http;
use crate::snowflake::transport::lock;

/// Makes the client of one upload.
#[derive(Debug, Clone)]
pub(super) struct ObjectClient {
    http: Http,
    last_failure: Arc<Mutex<Option<UploadFailure>>>,
}

impl ObjectClient {
    pub(super) fn new(http: &Http) -> Self {
        Self {
            http: http.clone(),
            last_failure: Arc::default(),
        }
    }

    /// The memory for parts on their way.
    pub(super) fn memory(&self) -> &SendMemory {
        &self.http.network.send_memory
    }

    /// The reason of the last request that failed.
    pub(super) fn take_failure(&self) -> Option<UploadFailure> {
        lock(&self.last_failure).take()
    }
}

impl HttpConnector for ObjectClient {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// Storage may say that something failed, or say 200 and then that something failed.
fn failure_of(answer: &Answer) -> Option<UploadFailure> {
    let code = error_code(&answer.body);
    let mut failure = match answer.status.is_success() {
        true => refused(StatusCode::INTERNAL_SERVER_ERROR, Some(code.as_deref()?)),
        false => refused(answer.status, code.as_deref()),
    };
    failure.error = errors::with_retry_after(failure.error, &answer.headers);
    Some(failure)
}

#[async_trait]
impl HttpService for ObjectClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string())
            .map_err(|cause| HttpError::new(HttpErrorKind::Unknown, cause))?;
        let answer = transfer::send(&self.http, parts.method, url, parts.headers, body)
            .await
            .map_err(|error| {
                let words = Error::new(error.kind(), error.message());
                // What cannot get better is not tried again.
                let kind = match error.kind().is_retryable() {
                    true => HttpErrorKind::Interrupted,
                    false => HttpErrorKind::Unknown,
                };
                *lock(&self.last_failure) = Some(error.into());
                HttpError::new(kind, words)
            })?;
        *lock(&self.last_failure) = failure_of(&answer);
        let mut response = HttpResponse::new(answer.body.into());
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

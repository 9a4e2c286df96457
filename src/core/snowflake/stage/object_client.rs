//! The HTTP client that `object_store` works with: ours, so that storage is reached under the same rules as Snowflake,
//! and the reason of a failure is kept.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use url::Url;

use super::refusal::{UploadFailure, error_code, refused};
use super::transfer;
use crate::Error;
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
        if !answer.status.is_success() {
            let code = error_code(&answer.body);
            *lock(&self.last_failure) = Some(refused(answer.status, code.as_deref()));
        }
        let mut response = HttpResponse::new(answer.body.into());
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

//! One request to Snowflake and its answer: the address, the ids, the tries, and the bounds of what comes back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use snowflake_api::connection::{Connection, ConnectionError, QueryType};
use uuid::Uuid;

use super::http::{self as client, Http};
use super::route::{Failed, Route};
use super::wire::Envelope;
use crate::config::Account;
use crate::{Error, ErrorKind, Result};

/// Snowflake parks a request whose statement still runs, and answers with a path to poll after about this time.
const PARKED: Duration = Duration::from_secs(45);
/// Closing a session is a courtesy that nobody waits for; drivers give it as long.
const GOODBYE: Duration = Duration::from_secs(5);

/// What a request is for, which decides its path and its patience.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose<'a> {
    Login,
    Query,
    /// Fetches the answer of a running statement from a path on the account's host.
    Poll(&'a str),
    Renew,
    Heartbeat,
    Abort,
    Close,
}

/// A request, without its body.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) purpose: Purpose<'a>,
    /// The same for all tries, so that the server runs a statement once.
    pub(crate) request_id: Uuid,
    pub(crate) token: Option<&'a SecretString>,
    pub(crate) parameters: Vec<(&'static str, &'a str)>,
    /// Taken out of whatever the server says.
    pub(crate) secrets: Vec<&'a SecretString>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(purpose: Purpose<'a>, token: Option<&'a SecretString>) -> Self {
        Self {
            purpose,
            request_id: Uuid::new_v4(),
            token,
            parameters: Vec::new(),
            secrets: token.into_iter().collect(),
        }
    }
}

/// The way to one account.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) http: Http,
    account: Account,
    /// `x-snowflake-session` of the newest answer, which the next request brings back so that it meets the same server.
    affinity: Arc<Mutex<Option<HeaderValue>>>,
}

impl Transport {
    pub(crate) fn new(http: Http, account: Account) -> Self {
        Self {
            http,
            account,
            affinity: Arc::default(),
        }
    }

    /// Sends a request until it is answered, with a body that is made anew for each try.
    ///
    /// # Errors
    /// Whatever kept Snowflake from answering. A refusal by Snowflake is an answer.
    pub(crate) async fn call(
        &self,
        call: &Call<'_>,
        body: impl Fn() -> Result<Value>,
    ) -> Result<Envelope> {
        let network = &self.http.network;
        let tries = match call.purpose {
            Purpose::Close => 1,
            _ => network.tries.max(1),
        };
        let first_sent = milliseconds(SystemTime::now()).to_string();
        let mut wait = Duration::ZERO;
        let mut attempt = 0;
        let mut reason = 0;
        loop {
            let failed = match self
                .try_once(call, body()?, &first_sent, attempt, reason)
                .await
            {
                Ok(mut envelope) => {
                    envelope.secrets = call.secrets.iter().copied().cloned().collect();
                    return Ok(envelope);
                }
                Err(failed) => failed,
            };
            attempt += 1;
            reason = failed.status;
            wait = network.backoff.delay(wait, &mut rand::thread_rng());
            let asked = failed.error.retry_after().unwrap_or_default();
            // A server that wants a longer pause gets it from the caller, who does not hold anything meanwhile.
            if !failed.error.kind().is_retryable()
                || attempt >= tries
                || asked > network.backoff.max
            {
                return Err(failed.error);
            }
            tokio::time::sleep(wait.max(asked)).await;
        }
    }

    async fn try_once(
        &self,
        call: &Call<'_>,
        body: Value,
        first_sent: &str,
        attempt: u32,
        reason: u16,
    ) -> Result<Envelope, Failed> {
        let request_id = call.request_id.to_string();
        let guid = Uuid::new_v4().to_string();
        let (attempt_text, reason_text) = (attempt.to_string(), reason.to_string());
        let mut parameters = vec![
            ("requestId", request_id.as_str()),
            ("request_guid", guid.as_str()),
            ("clientStartTime", first_sent),
        ];
        if attempt > 0 {
            parameters.push(("retryCount", &attempt_text));
            parameters.push(("retryReason", &reason_text));
        }
        parameters.extend_from_slice(&call.parameters);
        let authorization = call.token.map(authorization);
        let connection = self.connection(call)?;
        let answer = match call.purpose {
            Purpose::Poll(path) => {
                let mut url = self.account.url()?;
                url.set_path(path);
                url.query_pairs_mut().extend_pairs(parameters);
                let mut headers =
                    HashMap::from([("Accept".to_owned(), "application/json".to_owned())]);
                if let Some(authorization) = authorization {
                    headers.insert("Authorization".to_owned(), authorization);
                }
                let bytes: Bytes = connection
                    .get_chunk(url.as_str(), &headers)
                    .await
                    .map_err(|cause| self.failed(cause))?;
                return serde_json::from_slice(&bytes)
                    .map_err(|cause| self.not_json(&cause).into());
            }
            Purpose::Login => QueryType::LoginRequest,
            Purpose::Renew => QueryType::TokenRequest,
            Purpose::Close => QueryType::CloseSession,
            Purpose::Query | Purpose::Abort | Purpose::Heartbeat => QueryType::JsonQuery,
        };
        connection
            .request(
                answer,
                // The crate makes an address of it, which the route replaces; not every account's name would make one.
                "account",
                &parameters,
                authorization.as_deref(),
                body,
            )
            .await
            .map_err(|cause| self.failed(cause))
    }

    /// A connection whose requests all take the way of this call's purpose; it shares the sockets of all others.
    fn connection(&self, call: &Call<'_>) -> Result<Connection> {
        let stall = self.http.network.stall_timeout;
        let (path, patience) = match call.purpose {
            Purpose::Login => ("/session/v1/login-request", stall),
            Purpose::Query => ("/queries/v1/query-request", PARKED + stall),
            Purpose::Poll(path) => (path, PARKED + stall),
            Purpose::Renew => ("/session/token-request", stall),
            Purpose::Heartbeat => ("/session/heartbeat", stall),
            Purpose::Abort => ("/queries/v1/abort-request", stall),
            Purpose::Close => ("/session", stall.min(GOODBYE)),
        };
        let mut url = self.account.url()?;
        url.set_path(path);
        let route = Route {
            url,
            host: self.account.to_string(),
            patience,
            stall_timeout: stall,
            affinity: Arc::clone(&self.affinity),
            secrets: call.secrets.iter().copied().cloned().collect(),
        };
        Ok(Connection::new_with_middware(self.http.on(route)))
    }

    fn failed(&self, cause: ConnectionError) -> Failed {
        match cause {
            ConnectionError::RequestMiddlewareError(reqwest_middleware::Error::Middleware(
                cause,
            )) => match cause.downcast::<Failed>() {
                Ok(failed) => failed,
                Err(_) => Error::new(ErrorKind::Internal, "the request could not be made").into(),
            },
            ConnectionError::RequestMiddlewareError(reqwest_middleware::Error::Reqwest(cause))
            | ConnectionError::RequestError(cause) => match cause_in_json(&cause) {
                Some(json) => self.not_json(json).into(),
                None => client::failure(cause, self.account.host()).into(),
            },
            ConnectionError::Deserialization(cause) => self.not_json(&cause).into(),
            ConnectionError::UrlParsing(cause) => {
                Error::new(ErrorKind::Internal, "the request has no valid address")
                    .with_source(cause)
                    .into()
            }
            ConnectionError::InvalidHeader(_) => Error::new(
                ErrorKind::Internal,
                "the session's token does not fit into a header",
            )
            .into(),
        }
    }

    /// An answer that began like one and is none. The parser's words could repeat a token, so only its class is told.
    fn not_json(&self, cause: &serde_json::Error) -> Error {
        Error::new(
            ErrorKind::Transient,
            format!(
                "{} sent a damaged answer ({:?} error)",
                self.account.host(),
                cause.classify()
            ),
        )
    }
}

/// The header that shows a token. Tokens are checked when they arrive.
fn authorization(token: &SecretString) -> String {
    format!("Snowflake Token=\"{}\"", token.expose_secret())
}

fn cause_in_json(cause: &reqwest::Error) -> Option<&serde_json::Error> {
    std::error::Error::source(cause)?.downcast_ref()
}

/// Milliseconds since 1970, as the protocol counts time.
pub(crate) fn milliseconds(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// Locks what no code path can leave half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::script::{Answer, Script};
    use super::*;
    use crate::config::{AllowedHosts, Network};

    /// The crate that forms requests would make no address of `::1.snowflakecomputing.com`.
    #[tokio::test]
    async fn an_account_at_an_address_is_reached() {
        let allowed_hosts = AllowedHosts::parse("http://[::1]:9001").unwrap();
        let account = Account::parse("::1", &allowed_hosts).unwrap();
        let network = Network {
            allowed_hosts,
            ..Network::default()
        };
        let answer = Answer {
            body: b"{}".to_vec(),
            ..Answer::default()
        };
        let script = Arc::new(Script::new([answer]));
        let mut http = Http::new(&network).unwrap();
        http.script = Some(Arc::clone(&script));
        let transport = Transport::new(http, account);
        let call = Call::new(Purpose::Login, None);
        assert!(transport.call(&call, || Ok(Value::Null)).await.is_ok());
        let asked = script.asked();
        assert_eq!(asked[0].url.path(), "/session/v1/login-request");
        assert_eq!(asked[0].url.host_str(), Some("[::1]"));
    }
}

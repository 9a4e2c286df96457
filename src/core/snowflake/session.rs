//! A session: statements one after the other, renewal, and the end.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use super::abort::AbortOnDrop;
use super::errors::{self, Asked, Defaults, IN_PROGRESS, SESSION_EXPIRED};
use super::heartbeat::Heartbeat;
use super::login::SessionInfo;
use super::result::{self, QueryResult};
use super::tokens::Tokens;
use super::transport::{Call, Purpose, Transport, milliseconds};
use super::wire::{Envelope, ProgressData, QueryBody, QueryData};
use crate::{Error, ErrorKind, Result};

/// Waits between polls that come back at once, as drivers have them; the last repeats.
const POLL_WAITS: [Duration; 7] = [
    Duration::from_millis(500),
    Duration::from_millis(500),
    Duration::from_millis(1000),
    Duration::from_millis(1500),
    Duration::from_millis(2000),
    Duration::from_millis(4000),
    Duration::from_millis(5000),
];
/// A poll that took longer was parked by the server, and the next may follow at once.
const PARKED_POLL: Duration = Duration::from_secs(1);
/// A session that expires again right after it was renewed is not going to last.
const MAX_RENEWALS: u32 = 2;

/// A statement and the id under which Snowflake runs it once, however often it arrives.
#[derive(Debug, Clone)]
pub struct Statement {
    text: String,
    request_id: Uuid,
}

impl Statement {
    /// A statement with an id of its own.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            request_id: Uuid::new_v4(),
        }
    }

    /// The SQL.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The id.
    #[must_use]
    pub fn request_id(&self) -> Uuid {
        self.request_id
    }
}

/// What a caller may set for a session.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// Stands beside every statement in Snowflake's query history.
    pub query_tag: Option<String>,
    /// Whether only COMMIT commits, and DDL. What belongs to a transaction and arrives after that was aborted then changes
    /// nothing; it would otherwise be a transaction of its own. Counts at the login.
    pub explicit_commit: bool,
}

/// A session of one user. Statements run one after the other; a transaction belongs to its session.
pub struct Session {
    pub(crate) transport: Arc<Transport>,
    tokens: Tokens,
    info: SessionInfo,
    defaults: Arc<Defaults>,
    options: SessionOptions,
    sequence: u64,
    /// False while a statement runs, so that it stays false where one was dropped, and after the session ended.
    usable: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("info", &self.info)
            .field("usable", &self.usable)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// What a login has made.
    pub(crate) fn new(
        transport: Transport,
        tokens: Tokens,
        info: SessionInfo,
        options: SessionOptions,
    ) -> Self {
        Self {
            transport: Arc::new(transport),
            tokens,
            defaults: Arc::new(Defaults {
                role: info.role.clone(),
                warehouse: info.warehouse.clone(),
                database: info.database.clone(),
                schema: info.schema.clone(),
            }),
            info,
            options,
            sequence: 0,
            usable: true,
        }
    }

    /// What the login told.
    #[must_use]
    pub fn info(&self) -> &SessionInfo {
        &self.info
    }

    /// Sets what differs between the users of a session; it travels with each statement.
    pub(crate) fn set_options(&mut self, options: SessionOptions) {
        self.options = options;
    }

    /// Keeps the session alive until the heartbeat is dropped.
    pub(crate) fn heartbeat(&self, every: Option<Duration>) -> Heartbeat {
        Heartbeat::start(&self.transport, &self.tokens, &self.defaults, every)
    }

    /// Whether another statement may be tried: the session has not ended, and no statement was given up half-way.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.usable
    }

    /// Runs a statement and waits for its result, however long it takes. Dropping the future aborts the statement in
    /// Snowflake, as far as that can be reached, and leaves the session unusable.
    ///
    /// # Errors
    /// What Snowflake says about the statement, with its code, SQLSTATE and query id; or what kept it from answering,
    /// in which case it is not known whether the statement ran. The session can still be used then, to find out.
    pub async fn execute(&mut self, statement: &Statement) -> Result<QueryResult> {
        let data: QueryData = self.run(statement).await?;
        result::collect(&self.transport.http, data).await
    }

    /// Sends a statement, waits for its end, and reads what the answer holds.
    pub(crate) async fn run<T: DeserializeOwned>(&mut self, statement: &Statement) -> Result<T> {
        if !self.usable {
            return Err(Error::new(
                ErrorKind::SessionEnded,
                "the Snowflake session has ended",
            ));
        }
        self.usable = false;
        let abort = AbortOnDrop::new(&self.transport, &self.tokens, statement.request_id);
        let answer = self.answer(statement).await;
        let code = match &answer {
            Ok(envelope) => envelope.failure_code(),
            Err(error) => error.code().map(str::to_owned),
        };
        self.usable = if answer.is_ok() || code.is_some() {
            abort.disarm();
            !code.as_deref().is_some_and(errors::ends_session)
        } else {
            // Nobody knows whether the statement runs, or is about to. What comes next in this session must not meet it.
            abort.now().await
        };
        let envelope = answer?;
        if envelope.is_success() {
            return envelope.data();
        }
        Err(envelope.refused(Asked::Statement, &self.defaults))
    }

    /// The final answer to a statement: the request, polls while it runs, and renewals of the session as needed.
    async fn answer(&mut self, statement: &Statement) -> Result<Envelope> {
        self.sequence += 1;
        let body = || query_body(&statement.text, self.sequence, &self.options);
        let mut poll_path: Option<String> = None;
        let mut waits = POLL_WAITS
            .iter()
            .chain(std::iter::repeat(&POLL_WAITS[POLL_WAITS.len() - 1]));
        let mut renewals = 0;
        loop {
            let token = self.tokens.session();
            let asked = Instant::now();
            let envelope = match &poll_path {
                None => {
                    let mut call = Call::new(Purpose::Query, Some(&token));
                    call.request_id = statement.request_id;
                    self.transport.call(&call, body).await?
                }
                Some(path) => {
                    let call = Call::new(Purpose::Poll(path), Some(&token));
                    self.transport.call(&call, || Ok(Value::Null)).await?
                }
            };
            if envelope.has_code(&[SESSION_EXPIRED]) && renewals < MAX_RENEWALS {
                renewals += 1;
                self.tokens
                    .renew(&self.transport, token, &self.defaults)
                    .await?;
                continue;
            }
            renewals = 0;
            if !envelope.has_code(&IN_PROGRESS) {
                return Ok(envelope);
            }
            if asked.elapsed() < PARKED_POLL && poll_path.is_some() {
                tokio::time::sleep(*waits.next().unwrap_or(&POLL_WAITS[0])).await;
            }
            let progress: ProgressData = envelope.data_if_any()?;
            if let Some(path) = result_path(progress)? {
                poll_path = Some(path);
            } else if poll_path.is_none() {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "Snowflake does not say where the result of a long statement will be",
                ));
            }
        }
    }

    /// Ends the session; Snowflake rolls back what is not committed and drops its temporary objects. Best effort: a
    /// session that cannot be closed ends by itself.
    pub async fn close(self) {
        self.farewell().await;
    }

    /// The request that ends the session, which needs the session no more.
    pub(crate) fn farewell(&self) -> impl Future<Output = ()> + Send + use<> {
        let (transport, tokens) = (Arc::clone(&self.transport), self.tokens.clone());
        async move {
            let token = tokens.session();
            let mut call = Call::new(Purpose::Close, Some(&token));
            call.parameters.push(("delete", "true"));
            // Nothing can be done about a refusal, and nobody has to know.
            let _ = transport.call(&call, || Ok(Value::Null)).await;
        }
    }
}

fn query_body(text: &str, sequence: u64, options: &SessionOptions) -> Result<Value> {
    let mut parameters = HashMap::new();
    if let Some(tag) = options.query_tag.as_deref() {
        parameters.insert("QUERY_TAG", tag);
    }
    serde_json::to_value(QueryBody {
        sql_text: text,
        async_exec: false,
        sequence_id: sequence,
        query_submission_time: milliseconds(SystemTime::now()),
        describe_only: false,
        is_internal: false,
        parameters,
    })
    .map_err(|cause| Error::new(ErrorKind::Internal, "cannot write a request").with_source(cause))
}

/// Where the answer of a running statement will be: always on the account's own host, whatever the server wrote.
fn result_path(progress: ProgressData) -> Result<Option<String>> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let path = match (given(progress.get_result_url), given(progress.query_id)) {
        (Some(path), _) => path,
        (None, Some(id)) => format!("/queries/{id}/result"),
        (None, None) => return Ok(None),
    };
    let id = path
        .strip_prefix("/queries/")
        .and_then(|rest| rest.strip_suffix("/result"));
    match id {
        Some(id)
            if !id.is_empty()
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) =>
        {
            Ok(Some(path))
        }
        _ => Err(Error::new(
            ErrorKind::Internal,
            "Snowflake names a place for a result that is not one of its paths",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_fetched_from_result_paths_only() {
        let path = |url: Option<&str>, id: Option<&str>| {
            result_path(ProgressData {
                get_result_url: url.map(str::to_owned),
                query_id: id.map(str::to_owned),
            })
        };
        assert_eq!(
            path(Some("/queries/01a-b/result"), Some("x"))
                .unwrap()
                .as_deref(),
            Some("/queries/01a-b/result")
        );
        assert_eq!(
            path(None, Some("01a")).unwrap().as_deref(),
            Some("/queries/01a/result")
        );
        assert_eq!(
            path(Some(""), Some("01a")).unwrap().as_deref(),
            Some("/queries/01a/result")
        );
        assert_eq!(path(None, None).unwrap(), None);
        assert_eq!(path(Some(""), Some("")).unwrap(), None);
        for hostile in [
            "https://attacker.example/queries/a/result",
            "//attacker.example/queries/a/result",
            "/queries/../session/result",
            "/queries//result",
            "/queries/a/b/result",
            "/queries/a/result?x=y",
            "/queries/a%2f..%2f/result",
            "/session",
        ] {
            assert!(path(Some(hostile), None).is_err(), "{hostile}");
        }
        assert!(path(None, Some("a/../b")).is_err());
    }
}

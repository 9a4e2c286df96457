//! Sessions kept for the next upload of the same configuration, and closed when none comes.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::gate::Gate;
use super::heartbeat::Heartbeat;
use super::http::Http;
use super::transport::lock;
use super::{QueryResult, Session, SessionInfo, SessionOptions, Statement, Warehouse};
use crate::Result;
use crate::config::{ConnectionSettings, Network};

/// A session that nobody wants for so long is closed. Reports come in bursts; a login takes about a second.
const IDLE: Duration = Duration::from_secs(300);

/// Whose session: a configuration in one of its versions, so that a changed one is logged in anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The configuration.
    pub config: Uuid,
    /// Anything that changes with it.
    pub version: i64,
}

impl PoolKey {
    /// The key of a configuration in one of its versions.
    #[must_use]
    pub fn new(config: Uuid, version: i64) -> Self {
        Self { config, version }
    }
}

/// Sessions that are not in use, by configuration. Clones share them. Used within one tokio runtime.
#[derive(Clone)]
pub struct Pool {
    http: Http,
    idle: Arc<Idle>,
    gates: Arc<Mutex<HashMap<PoolKey, Arc<Gate>>>>,
    idle_limit: Duration,
    heartbeat: Option<Duration>,
}

type Idle = Mutex<HashMap<PoolKey, Vec<(Session, Instant)>>>;
type Farewell = Pin<Box<dyn Future<Output = ()> + Send>>;

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let idle: usize = lock(&self.idle).values().map(Vec::len).sum();
        f.debug_struct("Pool")
            .field("idle", &idle)
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// An empty pool whose sessions use the network in one way.
    ///
    /// # Errors
    /// `Configuration` if the file of trusted certificates cannot be used.
    pub fn new(network: Network) -> Result<Self> {
        Ok(Self {
            http: Http::new(&network)?,
            idle: Arc::default(),
            gates: Arc::default(),
            idle_limit: IDLE,
            heartbeat: None,
        })
    }

    /// The same pool, in which sessions in use send heartbeats at another interval than a quarter of their tokens' life.
    #[must_use]
    pub fn with_heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = Some(every);
        self
    }

    /// The same pool, in which sessions wait for another time than five minutes.
    #[must_use]
    pub fn with_idle_limit(mut self, limit: Duration) -> Self {
        self.idle_limit = limit;
        self
    }

    /// An idle session of the configuration, or else a new one. `read_at` is when the settings were read: credentials that
    /// were refused since are not tried again. `query_tag` stands beside its statements in Snowflake's query history.
    ///
    /// # Errors
    /// Those of [`Session::login`].
    pub async fn acquire(
        &self,
        key: &PoolKey,
        settings: &ConnectionSettings,
        read_at: Instant,
        query_tag: &str,
    ) -> Result<PooledSession> {
        self.close_where(|other, since| {
            (other.config == key.config && other.version != key.version)
                || since.elapsed() >= self.idle_limit
        });
        let idle = lock(&self.idle).get_mut(key).and_then(Vec::pop);
        let options = SessionOptions {
            query_tag: Some(query_tag.to_owned()),
        };
        let session = match idle {
            Some((mut session, _)) => {
                session.set_options(options);
                session
            }
            None => {
                let login = Session::login_over(self.http.clone(), settings, options);
                self.gate(key).pass(read_at, login).await?
            }
        };
        Ok(PooledSession {
            close: CloseOnDrop(Some(Box::pin(session.farewell()))),
            _heartbeat: session.heartbeat(self.heartbeat),
            session,
            pool: self.clone(),
            key: *key,
        })
    }

    /// What is known of the configuration's credentials; of its earlier versions, nothing is worth keeping.
    fn gate(&self, key: &PoolKey) -> Arc<Gate> {
        let mut gates = lock(&self.gates);
        gates.retain(|other, _| other.config != key.config || other.version == key.version);
        Arc::clone(gates.entry(*key).or_default())
    }

    /// Closes all idle sessions, and waits until Snowflake knows.
    pub async fn close_all(&self) {
        let sessions: Vec<_> = lock(&self.idle)
            .drain()
            .flat_map(|(_, sessions)| sessions)
            .collect();
        futures::future::join_all(sessions.into_iter().map(|(session, _)| session.close())).await;
    }

    /// Closes idle sessions in the background.
    fn close_where(&self, condemned: impl Fn(&PoolKey, Instant) -> bool) {
        let mut closing = Vec::new();
        lock(&self.idle).retain(|key, sessions| {
            closing.extend(
                sessions
                    .extract_if(.., |(_, since)| condemned(key, *since))
                    .map(|(session, _)| session),
            );
            !sessions.is_empty()
        });
        for session in closing {
            drop(CloseOnDrop(Some(Box::pin(session.farewell()))));
        }
    }

    fn keep(&self, key: PoolKey, session: Session) {
        lock(&self.idle)
            .entry(key)
            .or_default()
            .push((session, Instant::now()));
        let idle = Arc::downgrade(&self.idle);
        let (http, gates) = (self.http.clone(), Arc::clone(&self.gates));
        let (idle_limit, heartbeat) = (self.idle_limit, self.heartbeat);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(idle_limit).await;
                if let Some(idle) = Weak::upgrade(&idle) {
                    Self {
                        http,
                        idle,
                        gates,
                        idle_limit,
                        heartbeat,
                    }
                    .close_where(|_, since| since.elapsed() >= idle_limit);
                }
            });
        }
    }
}

/// A session in use. It goes back to its pool by [`PooledSession::release`] and only so: one that is dropped is closed,
/// which also undoes a transaction that somebody left open.
pub struct PooledSession {
    session: Session,
    close: CloseOnDrop,
    /// Only while in use: what lies idle may end.
    _heartbeat: Heartbeat,
    pool: Pool,
    key: PoolKey,
}

impl fmt::Debug for PooledSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PooledSession").field(&self.session).finish()
    }
}

impl PooledSession {
    /// What the login told.
    #[must_use]
    pub fn info(&self) -> &SessionInfo {
        self.session.info()
    }

    /// Gives the session back for others. There must be no open transaction and nothing temporary in it.
    pub fn release(self) {
        if self.session.is_usable() {
            self.close.disarm();
            self.pool.keep(self.key, self.session);
        }
    }
}

#[async_trait]
impl Warehouse for PooledSession {
    async fn execute(&mut self, statement: &Statement) -> Result<QueryResult> {
        self.session.execute(statement).await
    }

    async fn put(
        &mut self,
        local: &Path,
        stage_dir: &str,
        file_name: &str,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        self.session
            .put(local, stage_dir, file_name, progress)
            .await
    }
}

/// Closes a session in the background when it is dropped, unless [`CloseOnDrop::disarm`] came first.
struct CloseOnDrop(Option<Farewell>);

impl CloseOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and the server ends the session when it hears no more of it.
        if let (Some(farewell), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(farewell);
        }
    }
}

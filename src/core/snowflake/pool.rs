//! Sessions kept for the next upload of the same configuration, and closed when none comes.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::farewell;
use super::gate::Gate;
use super::heartbeat::Heartbeat;
use super::http::Http;
use super::transport::lock;
use super::{
    LocalFile, QueryResult, Session, SessionInfo, SessionOptions, Statement, Warehouse, sql,
};
use crate::config::{ConnectionSettings, Network};
use crate::{Error, ErrorKind, Result};

/// A session that nobody wants for so long is closed. Reports come in bursts, a login takes about a second, and the strictest
/// session policy of Snowflake ends a session after five minutes.
const IDLE: Duration = Duration::from_secs(240);

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
    /// Set at its end: what is released afterwards is closed.
    closed: Arc<AtomicBool>,
    /// A task waits for what lies idle to be too old.
    is_reaped: Arc<AtomicBool>,
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
            closed: Arc::default(),
            is_reaped: Arc::default(),
        })
    }

    /// The same pool, in which sessions in use send heartbeats at another interval than a quarter of their tokens' life.
    #[must_use]
    pub fn with_heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = Some(every);
        self
    }

    /// The same pool, in which sessions wait for another time than four minutes.
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
        close_where(&self.idle, |other, since| {
            (other.config == key.config && other.version != key.version)
                || since.elapsed() >= self.idle_limit
        });
        let idle = lock(&self.idle).get_mut(key).and_then(Vec::pop);
        let login = Login {
            settings: settings.clone(),
            read_at,
            options: SessionOptions {
                query_tag: Some(query_tag.to_owned()),
                explicit_commit: true,
            },
        };
        let (session, unproven) = match idle {
            Some((mut session, _)) => {
                session.set_options(login.options.clone());
                (session, Some(login))
            }
            None => (self.log_in(key, &login).await?, None),
        };
        Ok(PooledSession {
            close: CloseOnDrop::new(&session),
            heartbeat: session.heartbeat(self.heartbeat),
            session,
            unproven,
            pool: self.clone(),
            key: *key,
        })
    }

    async fn log_in(&self, key: &PoolKey, login: &Login) -> Result<Session> {
        let session =
            Session::login_over(self.http.clone(), &login.settings, login.options.clone());
        self.gate(key).pass(login.read_at, session).await
    }

    /// What is known of the configuration's credentials; of its earlier versions, nothing is worth keeping.
    fn gate(&self, key: &PoolKey) -> Arc<Gate> {
        let mut gates = lock(&self.gates);
        gates.retain(|other, _| other.config != key.config || other.version == key.version);
        Arc::clone(gates.entry(*key).or_default())
    }

    /// Ends the pool: closes all idle sessions, waits until Snowflake knows, and closes later whatever is released then.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let goodbyes: Vec<_> = lock(&self.idle)
            .drain()
            .flat_map(|(_, sessions)| sessions)
            .filter_map(|(session, _)| farewell::say(session.farewell()))
            .collect();
        futures::future::join_all(goodbyes).await;
    }

    fn keep(&self, key: PoolKey, session: Session) {
        if self.closed.load(Ordering::SeqCst) {
            drop(CloseOnDrop::new(&session));
            return;
        }
        let mut idle = lock(&self.idle);
        idle.entry(key).or_default().push((session, Instant::now()));
        if let Ok(runtime) = Handle::try_current()
            && !self.is_reaped.swap(true, Ordering::SeqCst)
        {
            runtime.spawn(reap(
                Arc::downgrade(&self.idle),
                Arc::clone(&self.is_reaped),
                self.idle_limit,
            ));
        }
    }
}

/// Closes each session that has lain idle for too long, until none is left. `is_reaped` changes only while `idle` is locked, so
/// that whoever puts the next one there knows whether somebody looks after it.
async fn reap(idle: Weak<Idle>, is_reaped: Arc<AtomicBool>, idle_limit: Duration) {
    let mut wait = idle_limit;
    loop {
        tokio::time::sleep(wait).await;
        let Some(idle) = idle.upgrade() else {
            return;
        };
        close_where(&idle, |_, since| since.elapsed() >= idle_limit);
        let sessions = lock(&idle);
        let oldest = sessions.values().flatten().map(|(_, since)| *since).min();
        let Some(oldest) = oldest else {
            is_reaped.store(false, Ordering::SeqCst);
            return;
        };
        wait = idle_limit.saturating_sub(oldest.elapsed());
    }
}

/// Closes idle sessions in the background.
fn close_where(idle: &Idle, condemned: impl Fn(&PoolKey, Instant) -> bool) {
    let mut closing = Vec::new();
    lock(idle).retain(|key, sessions| {
        closing.extend(
            sessions
                .extract_if(.., |(_, since)| condemned(key, *since))
                .map(|(session, _)| session),
        );
        !sessions.is_empty()
    });
    for session in closing {
        drop(CloseOnDrop::new(&session));
    }
}

/// What another login needs.
struct Login {
    settings: ConnectionSettings,
    read_at: Instant,
    options: SessionOptions,
}

/// A session in use. It goes back to its pool by [`PooledSession::release`] and only so: one that is dropped is closed,
/// which also undoes a transaction that somebody left open.
pub struct PooledSession {
    session: Session,
    close: CloseOnDrop,
    /// Only while in use: what lies idle may end.
    heartbeat: Heartbeat,
    /// How to log in again, until the first statement has shown that a session which lay idle still lives.
    unproven: Option<Login>,
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

    /// Whether Snowflake has answered in it since it was acquired.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.unproven.is_none()
    }

    /// Has Snowflake answer in it, unless it has since it was acquired. Takes no warehouse.
    ///
    /// # Errors
    /// As [`Warehouse::execute`].
    pub async fn prove(&mut self) -> Result<()> {
        if !self.is_proven() {
            self.execute(&Statement::new(sql::current_transaction()))
                .await?;
        }
        Ok(())
    }

    /// Ends the session, and waits until Snowflake knows.
    pub async fn close(self) {
        self.close.disarm();
        self.session.close().await;
    }

    /// Logs in once more where the first statement finds that the session has ended while it lay idle: nothing was in it.
    async fn revived(&mut self, ended: &Error) -> Result<bool> {
        let Some(login) = self.unproven.take() else {
            return Ok(false);
        };
        if ended.kind() != ErrorKind::SessionEnded {
            return Ok(false);
        }
        self.session = self.pool.log_in(&self.key, &login).await?;
        self.close = CloseOnDrop::new(&self.session);
        self.heartbeat = self.session.heartbeat(self.pool.heartbeat);
        Ok(true)
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
        let result = self.session.execute(statement).await;
        if let Err(ended) = &result
            && self.revived(ended).await?
        {
            return self.session.execute(statement).await;
        }
        self.unproven = None;
        result
    }

    async fn put(
        &mut self,
        directory: &str,
        files: &[LocalFile<'_>],
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let result = self.session.put_all(directory, files, progress).await;
        if let Err(ended) = &result
            && self.revived(ended).await?
        {
            return self.session.put_all(directory, files, progress).await;
        }
        self.unproven = None;
        result
    }
}

/// Closes a session in the background when it is dropped, unless [`CloseOnDrop::disarm`] came first.
struct CloseOnDrop(Option<Farewell>);

impl CloseOnDrop {
    fn new(session: &Session) -> Self {
        Self(Some(Box::pin(session.farewell())))
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(goodbye) = self.0.take() {
            farewell::say(goodbye);
        }
    }
}

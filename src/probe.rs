//! Seeing whether a connection works: a short session that asks Snowflake who and where it is, and wakes no warehouse.

use std::future::Future;
use std::time::{Duration, Instant};

use bridge_core::config::{ConnectionSettings, Credentials, Network};
use bridge_core::snowflake::{
    Pool, PoolKey, PooledSession, Statement, Warehouse, has_network_policy,
};
use bridge_core::{Error as CoreError, ErrorKind};
use futures::future::BoxFuture;
use pgrx::prelude::*;
use uuid::Uuid;

use crate::error::Result;
use crate::net;
use crate::sandbox::as_extension_owner;

/// Somebody is waiting: an address that does not answer must not cost the seconds that a load in the background may.
const CONNECT: Duration = Duration::from_secs(4);
/// Logins behind a busy identity service have been seen to take ten seconds.
pub const LONGEST: Duration = Duration::from_secs(30);
/// Left to report the outcome before the caller's own `statement_timeout` would swallow it.
const MARGIN: Duration = Duration::from_millis(500);
/// Whoever set a connection up a moment ago is the one to look for a mistake in it, whatever may pass by itself.
const UNREACHABLE: &str = "Check the account identifier, and that this server may reach that host and port through its firewall.";
/// What Snowflake's query history shows beside these statements.
const TAG: &str = r#"{"application":"snowflake_bridge"}"#;
/// Roles that may do everything in an account, or with all its data.
const OVERPOWERED: [&str; 4] = ["ACCOUNTADMIN", "SECURITYADMIN", "ORGADMIN", "SYSADMIN"];

/// A connection that works is not to be called slow, or worse, because of what is only asked for advice.
const ADVICE: Duration = Duration::from_secs(3);

/// Where a session finds itself.
pub struct Answer {
    pub version: Option<String>,
    pub account: Option<String>,
    pub username: Option<String>,
    pub role: Option<String>,
    pub warehouse: Option<String>,
    pub database: Option<String>,
    pub schema: Option<String>,
    /// From the first byte to the answer of the first statement.
    pub latency: Duration,
    /// Whether a network policy holds for the user, where that was asked and Snowflake told it.
    pub has_network_policy: Option<bool>,
}

impl Answer {
    /// Advice about a connection that works.
    pub fn advice(&self) -> Option<String> {
        let role = self
            .role
            .as_deref()
            .filter(|role| OVERPOWERED.contains(role))
            .map(|role| {
                format!(
                    "Role {role} can do far more than a load needs; a stolen secret could too. Use a role with USAGE on \
                     the warehouse, the database and the schema, and CREATE TABLE on the schema."
                )
            });
        let policy = (self.has_network_policy == Some(false)).then(|| {
            let user = self.username.as_deref().unwrap_or("this user");
            format!(
                "As far as {user} may see, no network policy holds for it, so a stolen secret serves from any address. Have an \
                 administrator attach one that lets in this server's address: ALTER USER … SET NETWORK_POLICY = …"
            )
        });
        let advice: Vec<String> = role.into_iter().chain(policy).collect();
        (!advice.is_empty()).then(|| advice.join(" "))
    }
}

/// Logs in, asks, and leaves. Interruptible; must not be called with raised rights or locks held.
///
/// # Errors
/// What keeps the connection from working, with what to do about it.
pub fn probe(settings: ConnectionSettings) -> Result<Answer> {
    let network = network()?;
    let limit = limit(LONGEST)?;
    within_limit(settings.account.to_string(), limit, async move {
        let started = Instant::now();
        let mut session = open(network, &settings).await?;
        let outcome = look_around(&mut session, &settings, started).await;
        session.close().await;
        outcome
    })
}

/// As [`probe`], and asks for what is worth an advice besides.
///
/// # Errors
/// As [`probe`].
pub fn examine(settings: ConnectionSettings) -> Result<Answer> {
    let network = network()?;
    let limit = limit(LONGEST)?;
    within_limit(settings.account.to_string(), limit, async move {
        let started = Instant::now();
        let mut session = open(network, &settings).await?;
        let mut outcome = look_around(&mut session, &settings, started).await;
        if let Ok(answer) = &mut outcome {
            // Half of what is left, so that the answer is still in time.
            let spare = limit.saturating_sub(started.elapsed()) / 2;
            let question = network_policy(&mut session, &settings, answer.username.as_deref());
            answer.has_network_policy = tokio::time::timeout(spare.min(ADVICE), question)
                .await
                .ok()
                .flatten();
        }
        session.close().await;
        outcome
    })
}

/// Whether a network policy holds for the user. With OAuth it may be the security integration's, which no user can ask for.
async fn network_policy(
    session: &mut PooledSession,
    settings: &ConnectionSettings,
    user: Option<&str>,
) -> Option<bool> {
    match settings.credentials {
        Credentials::OAuthToken(_) | Credentials::OAuthClient(_) => None,
        _ => has_network_policy(session, user?).await,
    }
}

/// Works in a session of its own, and waits for that no longer than `longest`.
///
/// # Errors
/// As [`probe`], and those of the work.
pub fn within_session<T: Send + 'static>(
    settings: ConnectionSettings,
    longest: Duration,
    work: impl for<'a> FnOnce(&'a mut PooledSession) -> BoxFuture<'a, bridge_core::Result<T>>
    + Send
    + 'static,
) -> Result<T> {
    let network = network()?;
    let limit = limit(longest)?;
    within_limit(settings.account.to_string(), limit, async move {
        let mut session = open(network, &settings).await?;
        let outcome = work(&mut session).await;
        session.close().await;
        outcome
    })
}

/// A session that is closed also where somebody stops waiting for it.
async fn open(
    network: Network,
    settings: &ConnectionSettings,
) -> bridge_core::Result<PooledSession> {
    let key = PoolKey::new(Uuid::nil(), 0);
    let pool = Pool::new(network)?;
    pool.acquire(&key, settings, Instant::now(), TAG).await
}

async fn look_around(
    session: &mut PooledSession,
    settings: &ConnectionSettings,
    started: Instant,
) -> bridge_core::Result<Answer> {
    // Context functions need no warehouse.
    const WHERE_AM_I: &str = "select current_version() as version, current_account() as account, \
         current_user() as username, current_role() as role, current_warehouse() as warehouse, \
         current_database() as database, current_schema() as schema";
    let result = session.execute(&Statement::new(WHERE_AM_I)).await?;
    let value = |column| result.value(0, column).map(str::to_owned);
    let answer = Answer {
        version: value("version"),
        account: value("account"),
        username: value("username"),
        role: value("role"),
        warehouse: value("warehouse"),
        database: value("database"),
        schema: value("schema"),
        latency: started.elapsed(),
        has_network_policy: None,
    };
    // Snowflake may let a session in that names what does not exist, and then just does not use it.
    for (what, wanted, found) in [
        ("warehouse", &settings.warehouse, &answer.warehouse),
        ("database", &settings.database, &answer.database),
        ("schema", &settings.schema, &answer.schema),
        ("role", &settings.role, &answer.role),
    ] {
        if let (Some(wanted), None) = (wanted, found) {
            let role = answer.role.as_deref().unwrap_or("PUBLIC");
            return Err(CoreError::new(
                ErrorKind::Configuration,
                format!("{what} {wanted} does not exist, or role {role} may not use it"),
            )
            .with_hint(format!(
                "Correct the name, or grant role {role} USAGE on it in Snowflake."
            )));
        }
    }
    Ok(answer)
}

/// The limits of the settings, with less patience.
fn network() -> Result<Network> {
    let limits = net::limits()?;
    Ok(Network {
        connect_timeout: limits.connect_timeout.min(CONNECT),
        tries: 1,
        ..limits
    })
}

/// How long the work may take: as long as given, if the caller has that long.
fn limit(longest: Duration) -> Result<Duration> {
    Ok(time_left()?.map_or(longest, |left| left.saturating_sub(MARGIN).min(longest)))
}

fn within_limit<T: Send + 'static>(
    account: String,
    limit: Duration,
    work: impl Future<Output = bridge_core::Result<T>> + Send + 'static,
) -> Result<T> {
    net::wait(async move {
        let outcome = tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            let message = format!("no answer from {account} within {limit:.1?}");
            Err(CoreError::new(ErrorKind::Transient, message))
        });
        outcome.map_err(|error| match (error.kind(), error.hint()) {
            (ErrorKind::Transient, None) => error.with_hint(UNREACHABLE),
            _ => error,
        })
    })
}

/// What the caller's `statement_timeout` leaves, if there is one.
fn time_left() -> Result<Option<Duration>> {
    const LEFT: &str = "
        select greatest(0, s.setting::float8 - 1000 * extract(epoch from
                   pg_catalog.clock_timestamp() - pg_catalog.statement_timestamp()))::float8
          from pg_catalog.pg_settings s
         where s.name = 'statement_timeout' and s.setting <> '0'";
    // Raised rights pin search_path, and with it what the operators above mean.
    let left = as_extension_owner(|| {
        Spi::connect(|client| {
            Ok(client
                .select(LEFT, None, &[])?
                .next()
                .map(|row| row.get::<f64>(1))
                .transpose()?)
        })
    })?;
    Ok(left
        .flatten()
        .map(|milliseconds| Duration::from_secs_f64(milliseconds / 1000.0)))
}

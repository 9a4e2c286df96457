//! What a case has of the stand-in: an account that no other case touches, on a host of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bridge_core::config::{Account, AllowedHosts, ConnectionSettings, Credentials, Network};
use bridge_core::retry::Backoff;
use bridge_core::snowflake::{QueryResult, Session, SessionOptions, Statement};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::process::{DEADLINE, Standin};

pub const PASSWORD: &str = "s3cret-pw";
pub const PASSCODE: &str = "271828";
pub const ACCESS_TOKEN: &str = "programmatic-token-1";
pub const CLIENT_ID: &str = "bridge-client";
pub const CLIENT_SECRET: &str = "client-s3cret";
pub const PUBLIC_KEY: &str = include_str!("../data/keys/rsa_2048.pub");
pub const PRIVATE_KEY: &str = include_str!("../data/keys/rsa_2048.p8");

/// The process that all cases share.
pub struct Shared {
    pub standin: Arc<Standin>,
    turns: Arc<RwLock<()>>,
    accounts: AtomicUsize,
}

impl Shared {
    pub async fn start() -> Self {
        Self {
            standin: Arc::new(Standin::start().await),
            turns: Arc::default(),
            accounts: AtomicUsize::new(0),
        }
    }
}

/// A turn, which ends with the case.
#[expect(dead_code, reason = "held, never read")]
enum Turn {
    Beside(OwnedRwLockReadGuard<()>),
    Alone(OwnedRwLockWriteGuard<()>),
}

/// A case's own account. Clones are the same.
#[derive(Clone)]
pub struct World {
    pub standin: Arc<Standin>,
    pub account: String,
    /// The requests before this one are somebody else's.
    begun: u64,
    _turn: Arc<Turn>,
}

impl World {
    pub async fn new(shared: &Shared, alone: bool) -> Self {
        let turns = Arc::clone(&shared.turns);
        let turn = match alone {
            true => Turn::Alone(turns.write_owned().await),
            false => Turn::Beside(turns.read_owned().await),
        };
        let number = shared.accounts.fetch_add(1, Ordering::Relaxed);
        let begun = shared.standin.audit(0).await.last().map_or(0, record_id);
        let world = Self {
            standin: Arc::clone(&shared.standin),
            account: format!("case{number}"),
            begun,
            _turn: Arc::new(turn),
        };
        world.set_account(json!({})).await;
        world
    }

    /// Takes back what a case that ran alone may have left.
    pub async fn back_to_normal(&self) {
        for call in ["faults", "parking", "chunks", "validity"] {
            self.admin(Method::DELETE, call, Value::Null).await;
        }
    }

    /// Makes the account with what `more` adds to it or replaces.
    pub async fn set_account(&self, more: Value) {
        let user = |name: &str| json!({"name": name, "default_role": "LOADER_ROLE", "roles": ["LOADER_ROLE"]});
        let with = |mut user: Value, key: &str, value: Value| {
            user[key] = value;
            user
        };
        let mut account = json!({
            "name": self.account,
            "users": [
                with(user("LOADER"), "password", json!(PASSWORD)),
                with(user("SERVICE"), "public_key", json!(PUBLIC_KEY)),
                with(user("ROBOT"), "programmatic_access_tokens", json!([{"token": ACCESS_TOKEN, "role": null, "state": "active"}])),
                with(with(user("HUMAN"), "password", json!(PASSWORD)), "passcode", json!(PASSCODE)),
            ],
            "roles": [], "warehouses": ["COMPUTE_WH", "\"small wh\""],
            "databases": {"ANALYTICS_DB": ["PUBLIC", "REPORTS"]},
            "oauth_clients": [{
                "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "user": "SERVICE",
                "scopes": ["session:role:LOADER_ROLE"], "expires_in": 600,
            }],
        });
        for (key, value) in more.as_object().unwrap() {
            account[key] = value.clone();
        }
        self.admin(Method::POST, "accounts", json!({"accounts": [account]}))
            .await;
    }

    pub fn host(&self) -> String {
        format!("{}.localhost", self.account)
    }

    pub fn network(&self) -> Network {
        let port = |name| self.standin.port(name);
        let hosts = format!(
            "https://*.localhost:{}, https://127.0.0.1:{}, https://127.0.0.1:{}, https://127.0.0.1:{}, \
             https://*.storage.localhost:{3}, https://*.blob.localhost:{}",
            port("port"),
            port("chunk_port"),
            port("s3_port"),
            port("gcs_port"),
            port("azure_port"),
        );
        Network {
            allowed_hosts: AllowedHosts::parse(&hosts).unwrap(),
            ca_file: Some(self.standin.ca_file()),
            connect_timeout: Duration::from_secs(5),
            stall_timeout: DEADLINE,
            backoff: Backoff {
                base: Duration::from_millis(10),
                max: Duration::from_millis(200),
            },
            ..Network::default()
        }
    }

    pub fn settings(&self) -> ConnectionSettings {
        ConnectionSettings {
            account: Account::parse(&self.host(), &self.network().allowed_hosts).unwrap(),
            username: "loader".to_owned(),
            credentials: Credentials::Password(PASSWORD.into()),
            warehouse: Some("COMPUTE_WH".to_owned()),
            database: Some("ANALYTICS_DB".to_owned()),
            schema: Some("REPORTS".to_owned()),
            role: Some("LOADER_ROLE".to_owned()),
        }
    }

    pub async fn try_login(&self, settings: &ConnectionSettings) -> bridge_core::Result<Session> {
        Session::login(settings, &self.network(), &SessionOptions::default()).await
    }

    pub async fn login(&self) -> Session {
        self.try_login(&self.settings()).await.expect("a session")
    }

    pub async fn admin(&self, method: Method, call: &str, body: Value) -> Value {
        self.standin.admin(method, call, &body).await
    }

    /// A fault for requests of this account's host. For storage, whose hosts all share, a case runs alone.
    pub async fn fault(&self, mut matching: Value, action: Value) {
        if matching["kind"] != "objectstore" && matching["kind"] != "chunk" {
            matching["host"] = json!(format!("^{}(:|$)", self.host()));
        }
        let fault = json!({"match": matching, "times": 1, "action": action});
        self.admin(Method::POST, "faults", fault).await;
    }

    /// The requests of this case that are wanted: those to its host, and those to storage since it began.
    pub async fn audit(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let host = self.host();
        let mine = |record: &Value| {
            let to = record["headers"]["host"].as_str().unwrap_or_default();
            to.split(':').next() == Some(host.as_str()) || record["kind"] == "objectstore"
        };
        let records = self.standin.audit(self.begun).await;
        records
            .into_iter()
            .filter(|record| mine(record) && wanted(record))
            .collect()
    }

    pub async fn requests(&self, kind: &str) -> Vec<Value> {
        self.audit(|record| record["kind"] == kind).await
    }

    /// Requests of statements that begin so.
    pub async fn statements(&self, begin: &str) -> Vec<Value> {
        self.audit(|record| {
            let sql = record["sql"].as_str().unwrap_or_default();
            sql.to_lowercase().starts_with(&begin.to_lowercase())
        })
        .await
    }

    /// Waits until a request was made.
    pub async fn wait_for(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            if let Some(record) = self.audit(&wanted).await.pop() {
                return record;
            }
            assert!(
                begun.elapsed() < DEADLINE,
                "{:#?}",
                self.audit(|_| true).await
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The account's sessions that are open.
    pub async fn sessions(&self) -> Vec<Value> {
        let mut answer = self.admin(Method::GET, "sessions", Value::Null).await;
        let mut sessions = answer["sessions"].as_array_mut().unwrap().split_off(0);
        sessions.retain(|session| {
            let account = session["account"].as_str().unwrap();
            account.eq_ignore_ascii_case(&self.account)
        });
        sessions
    }

    /// Lets the tokens of the account's sessions run out, or the master tokens with them.
    pub async fn expire_sessions(&self, what: &str) {
        for session in self.sessions().await {
            let call = json!({"id": session["id"], "expire": what});
            self.admin(Method::POST, "sessions", call).await;
        }
    }

    /// What the account's stage holds below a path.
    pub async fn staged(&self, location: &str) -> Vec<Value> {
        let call = json!({"account": self.account, "user": "LOADER", "location": location});
        let mut answer = self.admin(Method::POST, "stage", call).await;
        answer["files"].as_array_mut().unwrap().split_off(0)
    }
}

fn record_id(record: &Value) -> u64 {
    record["sequence"].as_u64().expect("records are numbered")
}

/// Runs a statement that must succeed.
pub async fn run(session: &mut Session, sql: impl Into<String>) -> QueryResult {
    let statement = Statement::new(sql);
    match session.execute(&statement).await {
        Ok(result) => result,
        Err(error) => panic!("{}: {error:?}", statement.text()),
    }
}

/// Runs a statement that must fail.
pub async fn refused(session: &mut Session, sql: &str) -> bridge_core::Error {
    let failed = session.execute(&Statement::new(sql)).await;
    failed.expect_err(sql)
}

/// A file that is removed with the directory it comes with, with content that does not repeat.
pub fn file(size: usize) -> (TempDir, PathBuf, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("part-00000.parquet");
    let content: Vec<u8> = (0..size).map(|i| (i * i / 7) as u8).collect();
    std::fs::write(&path, &content).unwrap();
    (directory, path, content)
}

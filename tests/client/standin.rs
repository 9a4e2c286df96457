//! The stand-in as a process of one test, and what is asked of it besides Snowflake's protocol.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bridge_core::config::{Account, AllowedHosts, ConnectionSettings, Credentials, Network};
use bridge_core::retry::Backoff;
use bridge_core::snowflake::{QueryResult, Session, SessionOptions, Statement};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A Python process with DuckDB and an S3 server takes seconds to start, and more where others start as well.
const START: Duration = Duration::from_secs(60);
/// Everything else that a test waits for.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub const PASSWORD: &str = "s3cret-pw";
pub const PUBLIC_KEY: &str = include_str!("../data/keys/rsa_2048.pub");
pub const PRIVATE_KEY: &str = include_str!("../data/keys/rsa_2048.p8");

/// A running stand-in. It ends, and its files go, with the test.
pub struct Standin {
    process: Child,
    state: TempDir,
    port: u16,
    s3_port: u16,
    admin_token: String,
    http: reqwest::Client,
}

impl Drop for Standin {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Standin {
    pub async fn start() -> Self {
        let python = std::env::var("STANDIN_PYTHON").expect(
            "STANDIN_PYTHON names a Python with the stand-in's requirements (make deps makes one)",
        );
        let state = tempfile::tempdir().unwrap();
        let accounts = state.path().join("accounts.json");
        fs::write(&accounts, accounts_file().to_string()).unwrap();
        let output = state.path().join("output.log");
        let process = Command::new(python)
            .args(["-m", "standin", "--exit-with-parent", "--state-dir"])
            .arg(state.path())
            .arg("--accounts")
            .arg(&accounts)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/standin"))
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .stderr(File::options().append(true).open(&output).unwrap())
            .spawn()
            .expect("the stand-in starts");
        let mut standin = Self {
            process,
            state,
            port: 0,
            s3_port: 0,
            admin_token: String::new(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        let ready = standin.ready().await;
        standin.port = u16::try_from(ready["port"].as_u64().unwrap()).unwrap();
        standin.s3_port = u16::try_from(ready["s3_port"].as_u64().unwrap()).unwrap();
        standin.admin_token = ready["admin_token"].as_str().unwrap().to_owned();
        standin
    }

    async fn ready(&mut self) -> Value {
        let (path, begun) = (self.state.path().join("ready.json"), Instant::now());
        loop {
            if let Ok(ready) = fs::read(&path) {
                return serde_json::from_slice(&ready).unwrap();
            }
            let ended = self.process.try_wait().unwrap();
            let output = || fs::read_to_string(self.state.path().join("output.log")).unwrap();
            assert!(ended.is_none(), "the stand-in ended: {}", output());
            assert!(
                begun.elapsed() < START,
                "the stand-in is not ready: {}",
                output()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn network(&self) -> Network {
        let hosts = format!(
            "http://acme-demo.localhost:{}, http://127.0.0.1:{}",
            self.port, self.s3_port
        );
        Network {
            allowed_hosts: AllowedHosts::parse(&hosts).unwrap(),
            backoff: Backoff {
                base: Duration::from_millis(10),
                max: Duration::from_millis(200),
            },
            ..Network::default()
        }
    }

    pub fn settings(&self) -> ConnectionSettings {
        ConnectionSettings {
            account: Account::parse("acme-demo.localhost", &self.network().allowed_hosts).unwrap(),
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

    /// The records of requests that an expression on them selects.
    pub async fn audit(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let answer = self
            .admin(reqwest::Method::GET, "audit?after=0", &Value::Null)
            .await;
        let records = answer["records"].as_array().unwrap();
        records
            .iter()
            .filter(|record| wanted(record))
            .cloned()
            .collect()
    }

    /// Waits until the audit has a record.
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

    pub async fn fault(&self, matching: Value, action: Value) {
        let fault = json!({"match": matching, "times": 1, "action": action});
        self.admin(reqwest::Method::POST, "faults", &fault).await;
    }

    pub async fn admin(&self, method: reqwest::Method, call: &str, body: &Value) -> Value {
        let request = self
            .http
            .request(
                method,
                format!("http://127.0.0.1:{}/admin/{call}", self.port),
            )
            .header("X-Admin-Token", &self.admin_token)
            .header("Content-Type", "application/json")
            .body(if body.is_null() {
                String::new()
            } else {
                body.to_string()
            });
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{call}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }
}

/// Two users, of whom the second has no password.
fn accounts_file() -> Value {
    let user = |name: &str, password: Value, public_key: Value| {
        json!({
            "name": name, "password": password, "public_key": public_key,
            "default_role": "LOADER_ROLE", "roles": ["LOADER_ROLE"],
        })
    };
    json!({"accounts": [{
        "name": "acme-demo",
        "users": [
            user("LOADER", json!(PASSWORD), Value::Null),
            user("SERVICE", Value::Null, json!(PUBLIC_KEY)),
        ],
        "roles": [], "warehouses": ["COMPUTE_WH"], "databases": {"ANALYTICS_DB": ["PUBLIC", "REPORTS"]},
    }]})
}

/// Runs a statement that must succeed.
pub async fn run(session: &mut Session, sql: impl Into<String>) -> QueryResult {
    let statement = Statement::new(sql);
    match session.execute(&statement).await {
        Ok(result) => result,
        Err(error) => panic!("{}: {error:?}", statement.text()),
    }
}

/// A file that is removed with the directory it comes with.
pub fn spool(name: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    (directory, path)
}

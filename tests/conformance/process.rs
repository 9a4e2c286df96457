//! The stand-in as a process, and what is asked of it besides Snowflake's protocol.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::{Certificate, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A Python process with DuckDB, an S3 server and Azurite takes seconds to start, and more where others start as well.
const START: Duration = Duration::from_secs(90);
/// Everything else that a case waits for.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct Standin {
    process: Mutex<Child>,
    state: TempDir,
    ready: Value,
    http: reqwest::Client,
}

impl Drop for Standin {
    fn drop(&mut self) {
        let mut process = self.process.lock().unwrap();
        let _ = process.kill();
        let _ = process.wait();
    }
}

impl Standin {
    /// Starts it over TLS. An account on Azure is there from the start, so that its store is.
    pub async fn start() -> Self {
        let python = std::env::var("STANDIN_PYTHON").expect(
            "STANDIN_PYTHON names a Python with the stand-in's requirements (make deps makes one)",
        );
        let state = tempfile::tempdir().unwrap();
        let accounts = state.path().join("accounts.json");
        let first = json!({"accounts": [
            {"name": "azure", "cloud": "azure", "users": [], "warehouses": [], "databases": {}},
            {"name": "google", "cloud": "gcs", "users": [], "warehouses": [], "databases": {}},
        ]});
        fs::write(&accounts, first.to_string()).unwrap();
        let output = state.path().join("output.log");
        let mut process = Command::new(python)
            .args([
                "-m",
                "standin",
                "--tls",
                "--exit-with-parent",
                "--state-dir",
            ])
            .arg(state.path())
            .arg("--accounts")
            .arg(&accounts)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/standin"))
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .stderr(File::options().append(true).open(&output).unwrap())
            .spawn()
            .expect("the stand-in starts");
        let ready = ready(state.path(), &mut process).await;
        let ca = fs::read(ready["ca_file"].as_str().unwrap()).unwrap();
        Self {
            process: Mutex::new(process),
            http: reqwest::Client::builder()
                .no_proxy()
                .add_root_certificate(Certificate::from_pem(&ca).unwrap())
                .build()
                .unwrap(),
            state,
            ready,
        }
    }

    /// Ends it before its drop would, which a process that exits does not reach.
    pub fn stop(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        fs::remove_dir_all(self.state.path()).unwrap();
    }

    pub fn port(&self, name: &str) -> u16 {
        let port = match name.split_once('/') {
            None => &self.ready[name],
            Some((group, name)) => &self.ready[group][name],
        };
        u16::try_from(
            port.as_u64()
                .unwrap_or_else(|| panic!("no {name}: {}", self.ready)),
        )
        .unwrap()
    }

    pub fn ca_file(&self) -> PathBuf {
        self.ready["ca_file"].as_str().unwrap().into()
    }

    pub async fn admin(&self, method: Method, call: &str, body: &Value) -> Value {
        let request = self
            .http
            .request(
                method,
                format!("https://127.0.0.1:{}/admin/{call}", self.port("port")),
            )
            .header("X-Admin-Token", self.ready["admin_token"].as_str().unwrap())
            .header("Content-Type", "application/json")
            .body(match body {
                Value::Null => String::new(),
                body => body.to_string(),
            });
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{call}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// The records of requests after number `after`.
    pub async fn audit(&self, after: u64) -> Vec<Value> {
        let call = format!("audit?after={after}");
        let mut answer = self.admin(Method::GET, &call, &Value::Null).await;
        match answer["records"].take() {
            Value::Array(records) => records,
            other => panic!("no records: {other}"),
        }
    }
}

async fn ready(state: &Path, process: &mut Child) -> Value {
    let (path, begun) = (state.join("ready.json"), Instant::now());
    loop {
        if let Ok(ready) = fs::read(&path) {
            return serde_json::from_slice(&ready).unwrap();
        }
        let output = || fs::read_to_string(state.join("output.log")).unwrap();
        let ended = process.try_wait().unwrap();
        assert!(ended.is_none(), "the stand-in ended: {}", output());
        assert!(
            begun.elapsed() < START,
            "the stand-in is not ready: {}",
            output()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

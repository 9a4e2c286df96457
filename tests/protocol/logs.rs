//! What libraries log, and that nothing of it is a secret that only the server knows: tokens, storage keys, addresses.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use bridge_core::snowflake::Statement;
use serde_json::{Value, json};
use tracing_subscriber::filter::LevelFilter;

use crate::server::{Reply, Request, Server};
use crate::setup::{LOGIN, QUERY, RENEW, logged_in, login, result};

static RECORDED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Recorder;

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        RECORDED
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn stage(request: &Request, number: usize) -> Value {
    let host = request.header("host").unwrap();
    let (here, port) = (
        host.replace("acme-demo.localhost", "127.0.0.1"),
        host.rsplit(':').next().unwrap(),
    );
    match number {
        0 => json!({"locationType": "S3", "location": "b/a/", "region": "r", "endPoint": here,
            "creds": {"AWS_KEY_ID": "hunter2-id", "AWS_SECRET_KEY": "hunter2-aws", "AWS_TOKEN": "hunter2-sts"}}),
        1 => json!({"locationType": "AZURE", "location": "b/a/", "storageAccount": "acme-demo",
            "endPoint": format!("blob.localhost:{port}"), "creds": {"AZURE_SAS_TOKEN": "?sv=1&sig=hunter2-sas"}}),
        2 => json!({"locationType": "GCS", "location": "b/a/", "region": "r", "endPoint": here,
            "creds": {"GCS_ACCESS_TOKEN": "hunter2-gcs"}}),
        _ => json!({"locationType": "GCS", "location": "b/a/", "creds": {},
            "presignedUrl": format!("http://{here}/b/a?Signature=hunter2-presigned")}),
    }
}

#[tokio::test]
async fn no_log_holds_what_the_server_entrusts() {
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(|| Recorder)
        .init();
    let server = Server::start(|request| match request.path.as_str() {
        LOGIN => {
            let mut answer = logged_in();
            answer["data"]["token"] = json!("hunter2-session");
            answer["data"]["masterToken"] = json!("hunter2-master");
            Reply::json(answer)
        }
        RENEW => Reply::json(json!({"success": true, "data": {
            "sessionToken": "hunter2-renewed", "masterToken": "hunter2-master-2",
        }})),
        QUERY if request.sql().starts_with("PUT") => Reply::json(json!({"success": true, "data": {
            "command": "UPLOAD", "stageInfo": stage(request, request.earlier % 4),
            "encryptionMaterial": {"queryStageMasterKey": "aHVudGVyMi1zdGFnZQ==", "queryId": "q", "smkId": 1},
        }})),
        QUERY if request.earlier == 4 => Reply::json(json!({"success": false, "code": "390112"})),
        QUERY if request.earlier == 5 => Reply::status(503, "later"),
        QUERY => Reply::json(result(&["N"], json!([["1"]]))),
        // Failures are what libraries like to log.
        _ if request.earlier == 0 => Reply::status(503, "later"),
        _ => Reply::status(200, "").with_header("etag", "\"e\""),
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("part");
    std::fs::write(&path, "content").unwrap();
    let mut session = login(&server).await;
    let mut failures = Vec::new();
    for _ in 0..4 {
        // Azure's host is not in the settings of these tests, and its refusal must not tell the signature either.
        failures.extend(session.put(&path, "~/a/", "part", &|_| {}).await.err());
    }
    failures.extend(session.execute(&Statement::new("select 1")).await.err());
    let recorded = RECORDED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let recorded = String::from_utf8_lossy(&recorded);
    assert!(recorded.contains("hyper_util::client") && recorded.contains("reqwest::connect"));
    let told: String = failures
        .iter()
        .map(|error| format!("{error:?} {:?}\n", error.hint()))
        .collect();
    for secret in ["hunter2", "aHVudGVyMi1zdGFnZQ"] {
        let line = recorded
            .lines()
            .chain(told.lines())
            .find(|line| line.contains(secret));
        assert!(line.is_none(), "{}", line.unwrap_or_default());
    }
}

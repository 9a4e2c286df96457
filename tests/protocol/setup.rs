//! Settings that lead to the scripted server, and the answers that most scripts share.

use std::time::Duration;

use bridge_core::config::{Account, AllowedHosts, ConnectionSettings, Credentials, Network};
use bridge_core::retry::Backoff;
use bridge_core::snowflake::{Session, SessionOptions};
use serde_json::{Value, json};

use crate::server::{Reply, Request, Server};

pub const LOGIN: &str = "/session/v1/login-request";
pub const QUERY: &str = "/queries/v1/query-request";
pub const RENEW: &str = "/session/token-request";
pub const HEARTBEAT: &str = "/session/heartbeat";
pub const ABORT: &str = "/queries/v1/abort-request";
pub const SESSION: &str = "/session";

pub const PASSWORD: &str = "correct horse battery staple";
/// Tries of one request, as [`network`] sets them.
pub const TRIES: usize = 3;

pub fn network(server: &Server) -> Network {
    network_at(server.port)
}

/// Allows this machine at one port, and is impatient.
pub fn network_at(port: u16) -> Network {
    let hosts = format!("http://acme-demo.localhost:{port}, http://127.0.0.1:{port}");
    Network {
        allowed_hosts: AllowedHosts::parse(&hosts).unwrap(),
        connect_timeout: Duration::from_secs(5),
        stall_timeout: Duration::from_secs(5),
        backoff: Backoff {
            base: Duration::from_millis(1),
            max: Duration::from_millis(20),
        },
        tries: TRIES as u32,
        ..Network::default()
    }
}

pub fn settings(network: &Network) -> ConnectionSettings {
    ConnectionSettings {
        account: Account::parse("acme-demo.localhost", &network.allowed_hosts).unwrap(),
        username: "Loader".to_owned(),
        credentials: Credentials::Password(PASSWORD.into()),
        warehouse: Some("wh one".to_owned()),
        database: Some("DB".to_owned()),
        schema: Some("\"lower\"".to_owned()),
        role: Some("LOADER".to_owned()),
    }
}

pub async fn try_login(server: &Server) -> bridge_core::Result<Session> {
    let network = network(server);
    Session::login(&settings(&network), &network, &SessionOptions::default()).await
}

pub async fn login(server: &Server) -> Session {
    try_login(server).await.expect("a session")
}

pub fn logged_in() -> Value {
    json!({
        "data": {
            "token": "session-token-1", "masterToken": "master-token-1", "validityInSeconds": 3600,
            "sessionId": 9_007_199_254_740_993_i64, "serverVersion": "9.1.0", "parameters": [],
            "sessionInfo": {"databaseName": "DB", "schemaName": "lower", "warehouseName": "WH ONE", "roleName": "LOADER"},
        },
        "code": null, "message": null, "success": true,
    })
}

pub fn result(columns: &[&str], rows: Value) -> Value {
    let rowtype: Vec<Value> = columns
        .iter()
        .map(|name| json!({"name": name, "type": "text"}))
        .collect();
    json!({
        "data": {"queryId": "01-query", "rowtype": rowtype, "rowset": rows, "queryResultFormat": "json", "finalRoleName": null},
        "code": null, "message": null, "success": true,
    })
}

/// Lets everybody in, and answers statements as `statement` says.
pub async fn serve(statement: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |request| match request.path.as_str() {
        LOGIN => Reply::json(logged_in()),
        SESSION | ABORT => {
            Reply::json(json!({"code": 200, "data": null, "message": null, "success": true}))
        }
        _ => statement(request),
    })
    .await
}

//! Redirects of whatever asks for something else than a login: none is followed, whatever its status. Where it leads to may be
//! spoken to, as storage and identity providers may, so that nothing but the redirect is refused.

use bridge_core::config::{AllowedHosts, ConnectionSettings, Credentials, Network, OAuthClient};
use bridge_core::snowflake::{Session, SessionOptions, Statement};
use serde_json::json;

use crate::server::{Reply, Request, Server};
use crate::setup::{QUERY, network, result, serve, settings};
use crate::uploads::{STAGE, put_answer};

const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

/// Gives whoever comes what they asked for.
async fn elsewhere() -> Server {
    Server::start(|request| {
        if request.path == "/token" {
            Reply::json(json!({"access_token": "t", "token_type": "Bearer", "expires_in": 600}))
        } else {
            Reply::status(200, "[\"2\"]").with_header("etag", "\"e\"")
        }
    })
    .await
}

fn network_to(server: &Server, elsewhere: &Server) -> Network {
    let hosts = [server.port, elsewhere.port]
        .map(|port| format!("http://acme-demo.localhost:{port}, http://127.0.0.1:{port}"));
    Network {
        allowed_hosts: AllowedHosts::parse(&hosts.join(", ")).unwrap(),
        tries: 2,
        ..network(server)
    }
}

async fn login(server: &Server, elsewhere: &Server) -> Session {
    let network = network_to(server, elsewhere);
    Session::login(&settings(&network), &network, &SessionOptions::default())
        .await
        .unwrap()
}

fn to(elsewhere: &Server, path: &str) -> String {
    format!("http://127.0.0.1:{}{path}", elsewhere.port)
}

fn redirect(status: u16, location: &str) -> Reply {
    Reply::status(status, "").with_header("location", location)
}

/// The name under which this server is storage.
fn storage(request: &Request) -> String {
    let host = request.header("host").unwrap();
    host.replace("acme-demo.localhost", "127.0.0.1")
}

#[tokio::test]
async fn storage_sends_no_file_elsewhere() {
    for size in [1000, 17 << 20] {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        for status in STATUSES {
            let elsewhere = elsewhere().await;
            let location = to(&elsewhere, "/bucket/k");
            let server = serve(move |request| match request.path.as_str() {
                QUERY => put_answer(request, true),
                _ => redirect(status, &location),
            })
            .await;
            let mut session = login(&server, &elsewhere).await;
            let put = session.put(file.path(), STAGE, "part-00000.parquet", &|_| {});
            put.await.unwrap_err();
            assert!(elsewhere.requests().is_empty(), "{status}, {size} bytes");
        }
    }
}

#[tokio::test]
async fn parts_of_a_result_are_not_fetched_elsewhere() {
    for status in STATUSES {
        let elsewhere = elsewhere().await;
        let location = to(&elsewhere, "/part");
        let server = serve(move |request| match request.path.as_str() {
            "/part" => redirect(status, &location),
            _ => {
                let mut answer = result(&["N"], json!([["1"]]));
                let url = format!("http://{}/part", storage(request));
                answer["data"]["chunks"] = json!([{"url": url, "rowCount": 1}]);
                Reply::json(answer)
            }
        })
        .await;
        let mut session = login(&server, &elsewhere).await;
        let statement = Statement::new("show tables");
        session.execute(&statement).await.unwrap_err();
        assert!(!server.requests_for("/part").is_empty());
        assert!(elsewhere.requests().is_empty(), "{status}");
    }
}

#[tokio::test]
async fn no_statement_goes_elsewhere() {
    for status in STATUSES {
        let elsewhere = elsewhere().await;
        let location = to(&elsewhere, QUERY);
        let server = serve(move |_| redirect(status, &location)).await;
        let mut session = login(&server, &elsewhere).await;
        let statement = Statement::new("select 1");
        session.execute(&statement).await.unwrap_err();
        assert!(elsewhere.requests().is_empty(), "{status}");
    }
}

#[tokio::test]
async fn no_client_secret_goes_elsewhere() {
    for status in STATUSES {
        let elsewhere = elsewhere().await;
        let location = to(&elsewhere, "/token");
        let server = Server::start(move |_| redirect(status, &location)).await;
        let network = network_to(&server, &elsewhere);
        let settings = ConnectionSettings {
            credentials: Credentials::OAuthClient(OAuthClient {
                client_id: "client".to_owned(),
                client_secret: "client-secret".into(),
                token_url: None,
                scope: None,
            }),
            ..settings(&network)
        };
        let login = Session::login(&settings, &network, &SessionOptions::default()).await;
        login.unwrap_err();
        assert!(elsewhere.requests().is_empty(), "{status}");
    }
}

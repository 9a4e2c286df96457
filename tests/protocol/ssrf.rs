//! Whoever names an account, and whatever a server answers: no connection goes where nobody allowed one.
//!
//! Each attack leads to a listener of this machine that only counts. The client here has no leave for it; afterwards the
//! same words are taken by a client without guards, which pastes them into addresses and follows redirects, to see that
//! they are attacks.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bridge_core::config::{
    Account, AllowedHosts, ConnectionSettings, Credentials, Network, OAuthClient,
};
use bridge_core::snowflake::{Session, SessionOptions, Statement};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::server::{DEADLINE, Reply, Server};
use crate::setup::{QUERY, login, network, result, serve, settings};

/// A place where nobody may go. It counts who came.
struct Sink {
    port: u16,
    came: Arc<AtomicUsize>,
    has_v6: bool,
}

impl Sink {
    async fn start() -> Self {
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = v4.local_addr().unwrap().port();
        // Not every machine has this one.
        let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await.ok();
        let sink = Self {
            port,
            came: Arc::default(),
            has_v6: v6.is_some(),
        };
        for listener in [Some(v4), v6].into_iter().flatten() {
            let came = Arc::clone(&sink.came);
            tokio::spawn(async move {
                while listener.accept().await.is_ok() {
                    came.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        sink
    }

    /// How many came until now. Connections are accepted in their order, so that one of ours, seen, proves all before it.
    async fn count(&self) -> usize {
        let addresses = [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ];
        let ours = addresses.iter().take(1 + usize::from(self.has_v6));
        let mut count = self.came.load(Ordering::SeqCst);
        for address in ours {
            let before = self.came.load(Ordering::SeqCst);
            drop(TcpStream::connect((*address, self.port)).await.unwrap());
            let seen = async {
                while self.came.load(Ordering::SeqCst) == before {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(DEADLINE, seen).await.unwrap();
            count = self.came.fetch_sub(1, Ordering::SeqCst) - 1;
        }
        count
    }

    /// Whether a client without guards that asks for this address comes here.
    async fn is_reached(&self, url: &str) -> bool {
        let before = self.count().await;
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let client = reqwest::Client::builder()
            .no_proxy()
            .resolve("attacker.localhost", here)
            .resolve("acme-demo.localhost", here)
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        let _ = client.post(url).body("secret").send().await;
        self.count().await > before
    }
}

/// What was tried, and how much of it led somewhere.
#[derive(Default)]
struct Tally {
    tried: usize,
    refused: usize,
    /// Reached the place through a client without guards.
    bites: usize,
    /// Could have only over IPv6, which this machine does not have.
    not_here: usize,
}

impl Tally {
    fn refused<T>(&mut self, attack: &str, outcome: bridge_core::Result<T>) {
        self.tried += 1;
        match outcome {
            Err(error) => {
                assert!(!error.message().contains("correct horse"), "{error}");
                self.refused += 1;
            }
            Ok(_) => eprintln!("accepted: {attack:?}"),
        }
    }

    async fn bites(&mut self, sink: &Sink, url: &str) {
        if !sink.has_v6 && url.contains("[::1]") {
            self.not_here += 1;
        } else if sink.is_reached(url).await {
            self.bites += 1;
        } else {
            eprintln!("no attack: {url:?}");
        }
    }
}

/// Hosts, of which each leads to the sink where it is pasted before the rest of an address.
fn hosts(port: u16) -> Vec<String> {
    [
        "127.0.0.1:P/",
        "127.0.0.1:P#",
        "127.0.0.1:P?",
        "127.0.0.1:P\\",
        "127.0.0.1:P/../",
        "127.0.0.1:P/%2e%2e/",
        "127.0.0.1:P/.snowflakecomputing.com#",
        "127.0.0.1:P?.amazonaws.com/",
        "user@127.0.0.1:P/",
        "user:password@127.0.0.1:P/",
        "myorg-myacct@127.0.0.1:P#",
        "x.snowflakecomputing.com@127.0.0.1:P?",
        "s3.amazonaws.com%40@127.0.0.1:P/",
        "localhost:P/",
        "LOCALHOST:P/",
        "attacker.localhost:P/",
        "attacker.localhost:P#",
        "0x7f.1:P/",
        "0x7f000001:P/",
        "2130706433:P/",
        "017700000001:P/",
        "127.1:P/",
        "0177.0.0.1:P#",
        "127.0.0.1.:P/",
        "0.0.0.0:P/",
        "0:P?",
        "[::1]:P/",
        "[0:0:0:0:0:0:0:1]:P#",
        "[::ffff:127.0.0.1]:P/",
        "[::ffff:7f00:1]:P/",
        "\t127.0.0.1:P/",
        "127.0.0.1:P\t/\r\nHost: x",
        "１２７.0.0.1:P/",
        "127。0。0。1:P/",
        "ⓛocalhost:P/",
        "127.0.0.1:P/\0",
    ]
    .iter()
    .map(|host| host.replace('P', &port.to_string()))
    .collect()
}

/// As account identifiers.
async fn identifiers(sink: &Sink, tally: &mut Tally) {
    for host in hosts(sink.port) {
        let network = Network {
            connect_timeout: Duration::from_secs(5),
            tries: 1,
            ..Network::default()
        };
        let login = async {
            let account = Account::parse(&host, &AllowedHosts::default())?;
            let settings = ConnectionSettings {
                account,
                ..settings(&crate::setup::network_at(sink.port))
            };
            Session::login(&settings, &network, &SessionOptions::default()).await
        };
        tally.refused(&host, login.await);
        tally
            .bites(
                sink,
                &format!("http://{host}.snowflakecomputing.com/session/v1/login-request"),
            )
            .await;
    }
}

/// As the token URLs of OAuth clients, whose secrets would go there.
async fn token_urls(sink: &Sink, tally: &mut Tally) {
    let server = serve(|_| Reply::Lost).await;
    let port = sink.port;
    for url in [
        format!("http://127.0.0.1:{port}/token"),
        format!("http://localhost:{port}/token"),
        format!("http://127.0.0.1:{}@127.0.0.1:{port}/token", server.port),
        format!("http://[::1]:{port}/token"),
        format!("http://2130706433:{port}/token"),
        format!("https://127.0.0.1:{port}/token"),
    ] {
        let network = network(&server);
        let settings = ConnectionSettings {
            credentials: Credentials::OAuthClient(OAuthClient {
                client_id: "client".to_owned(),
                client_secret: "secret".into(),
                token_url: Some(url.clone()),
                scope: None,
            }),
            ..settings(&network)
        };
        let login = Session::login(&settings, &network, &SessionOptions::default()).await;
        tally.refused(&url, login);
        tally.bites(sink, &url).await;
    }
}

/// As places that a server redirects a login to, of which the password would go along.
async fn redirects(sink: &Sink, tally: &mut Tally) {
    for status in [307, 308] {
        for place in [
            "http://127.0.0.1:P/",
            "//127.0.0.1:P/x",
            "http://acme-demo.localhost:P/",
            "https://localhost:P/",
        ] {
            let location = place.replace('P', &sink.port.to_string());
            let to = location.clone();
            let server =
                Server::start(move |_| Reply::status(status, "").with_header("location", &to))
                    .await;
            let network = Network {
                tries: 1,
                ..network(&server)
            };
            let login =
                Session::login(&settings(&network), &network, &SessionOptions::default()).await;
            tally.refused(&location, login);
            tally
                .bites(sink, &format!("http://127.0.0.1:{}/", server.port))
                .await;
        }
    }
}

/// As where the answer of a long statement lies, and where the parts of a result lie.
async fn results(sink: &Sink, tally: &mut Tally) {
    let port = sink.port;
    for path in [
        format!("http://127.0.0.1:{port}/queries/q/result"),
        format!("//127.0.0.1:{port}/queries/q/result"),
        format!("@127.0.0.1:{port}/queries/q/result"),
    ] {
        let told = path.clone();
        let server = serve(move |_| {
            Reply::json(json!({"success": true, "code": "333334", "data": {"queryId": "q", "getResultUrl": told}}))
        })
        .await;
        tally.refused(
            &path,
            login(&server)
                .await
                .execute(&Statement::new("select 1"))
                .await,
        );
        let base = url::Url::parse("http://acme-demo.localhost:1/").unwrap();
        let naive = match path.starts_with('@') {
            true => format!("http://acme-demo.localhost{path}"),
            false => base.join(&path).unwrap().to_string(),
        };
        tally.bites(sink, &naive).await;
    }
    for host in [
        "127.0.0.1:P",
        "localhost:P",
        "attacker.localhost:P",
        "user@127.0.0.1:P",
        "[::1]:P",
        "0x7f.1:P",
    ] {
        let part = format!("http://{}/part", host.replace('P', &port.to_string()));
        let told = part.clone();
        let server = serve(move |_| {
            let mut answer = result(&["N"], json!([]));
            answer["data"]["chunks"] = json!([{"url": told, "rowCount": 1}]);
            Reply::json(answer)
        })
        .await;
        tally.refused(
            &part,
            login(&server)
                .await
                .execute(&Statement::new("select 1"))
                .await,
        );
        tally.bites(sink, &part).await;
    }
}

/// What a server says about a stage with a place of its choice in it, and the address that pasting makes of that.
fn stages(host: &str) -> [(Value, String); 4] {
    let creds = json!({"AWS_KEY_ID": "a", "AWS_SECRET_KEY": "b", "AWS_TOKEN": "c", "AZURE_SAS_TOKEN": "?sig=s", "GCS_ACCESS_TOKEN": "g"});
    [
        (
            json!({"locationType": "S3", "location": "bucket/a/", "region": "us-west-2", "endPoint": host, "creds": creds}),
            format!("http://{host}/bucket/a/part-00000.parquet"),
        ),
        (
            json!({"locationType": "GCS", "location": "bucket/a/", "region": "us", "endPoint": host, "creds": creds}),
            format!("http://{host}/bucket/a/part-00000.parquet?alt=json"),
        ),
        (
            json!({"locationType": "GCS", "location": "bucket/a/", "presignedUrl": format!("http://{host}/o?sig=s"), "creds": {}}),
            format!("http://{host}/o?sig=s"),
        ),
        (
            json!({"locationType": "AZURE", "location": "container/a/", "storageAccount": format!("{host}/"), "endPoint": "blob.localhost", "creds": creds}),
            format!("http://{host}/.blob.localhost/container/a/part-00000.parquet"),
        ),
    ]
}

/// As the storage that a file goes to.
async fn storage(sink: &Sink, tally: &mut Tally) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"rows").unwrap();
    for host in [
        "127.0.0.1:P",
        "localhost:P",
        "attacker.localhost:P",
        "127.0.0.1:P/.amazonaws.com",
        "127.0.0.1:P#.amazonaws.com",
        "127.0.0.1:P?.blob.core.windows.net",
        "127.0.0.1:P\\.storage.googleapis.com",
        "s3.amazonaws.com@127.0.0.1:P",
        "0x7f.1:P",
        "[::1]:P",
    ] {
        let host = host.replace('P', &sink.port.to_string());
        for (stage, pasted) in stages(&host) {
            let told = stage.clone();
            let server = serve(move |request| match request.path.as_str() {
                QUERY => Reply::json(json!({"success": true, "code": null, "data": {"command": "UPLOAD", "stageInfo": told}})),
                _ => Reply::status(200, ""),
            })
            .await;
            let mut session = login(&server).await;
            let put = session
                .put(file.path(), "~/a/", "part-00000.parquet", &|_| {})
                .await;
            tally.refused(&stage.to_string(), put);
            tally.bites(sink, &pasted).await;
        }
    }
}

#[tokio::test]
async fn nobody_is_led_elsewhere() {
    let sink = Sink::start().await;
    let mut tally = Tally::default();
    identifiers(&sink, &mut tally).await;
    token_urls(&sink, &mut tally).await;
    redirects(&sink, &mut tally).await;
    results(&sink, &mut tally).await;
    storage(&sink, &mut tally).await;
    // Whoever came, came from the client without guards, once each.
    let connections = sink.count().await - tally.bites;
    writeln!(
        std::io::stdout(),
        "\nsecurity: suite=ssrf attacks={} refused={} connections={connections} reached_without_guard={} needing_ipv6={}",
        tally.tried, tally.refused, tally.bites, tally.not_here
    )
    .unwrap();
    assert!(tally.tried >= 60);
    assert_eq!(connections, 0);
    assert_eq!(tally.refused, tally.tried);
    assert_eq!(tally.bites + tally.not_here, tally.tried);
}

//! Logins: what they send, and what refusals of every shape become.

use std::time::Duration;

use bridge_core::ErrorKind::{self, Configuration, Credentials, Internal, Transient};
use bridge_core::config::{ConnectionSettings, Credentials as Proof, Network};
use bridge_core::snowflake::{Session, SessionOptions};
use serde_json::json;

use crate::server::{DEADLINE, Reply, Server};
use crate::setup::{LOGIN, PASSWORD, TRIES, logged_in, network, serve, settings, try_login};

#[tokio::test]
async fn a_password_login_sends_what_the_protocol_wants() {
    let server = serve(|_| Reply::Lost).await;
    let session = try_login(&server).await.unwrap();
    let info = session.info();
    assert_eq!(info.server_version.as_deref(), Some("9.1.0"));
    assert_eq!(info.warehouse.as_deref(), Some("WH ONE"));
    assert_eq!(info.schema.as_deref(), Some("lower"));

    let requests = server.requests();
    let [request] = requests.as_slice() else {
        panic!("{requests:#?}")
    };
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", LOGIN)
    );
    // Names travel as they were given; the server folds them.
    assert_eq!(request.parameter("warehouse"), Some("wh one"));
    assert_eq!(request.parameter("schemaName"), Some("\"lower\""));
    assert_eq!(request.parameter("databaseName"), Some("DB"));
    assert_eq!(request.parameter("roleName"), Some("LOADER"));
    assert!(
        request.parameter("requestId").is_some() && request.parameter("request_guid").is_some()
    );
    // Milliseconds, thirteen digits until the year 2286.
    assert_eq!(request.parameter("clientStartTime").unwrap().len(), 13);
    assert_eq!(request.parameter("retryCount"), None);
    assert!(request.was_gzip);
    assert!(
        request
            .header("user-agent")
            .unwrap()
            .starts_with("snowflake_bridge/")
    );
    assert_eq!(request.header("authorization"), None);
    assert_eq!(
        request.header("host"),
        Some(format!("acme-demo.localhost:{}", server.port).as_str())
    );

    let data = &request.json()["data"];
    assert_eq!(data["ACCOUNT_NAME"], "acme-demo");
    assert_eq!(data["LOGIN_NAME"], "Loader");
    assert_eq!(data["PASSWORD"], PASSWORD);
    assert_eq!(data["CLIENT_APP_ID"], "snowflake_bridge");
    assert_eq!(data["AUTHENTICATOR"], json!(null));
    let parameters = &data["SESSION_PARAMETERS"];
    assert_eq!(parameters["CLIENT_VALIDATE_DEFAULT_PARAMETERS"], true);
    assert_eq!(parameters["TIMEZONE"], "UTC");
    for kind in ["DATE", "TIME", "TIMESTAMP"] {
        assert_eq!(parameters[format!("{kind}_INPUT_FORMAT")], "AUTO");
    }
    assert_eq!(parameters["ABORT_DETACHED_QUERY"], true);
    assert_eq!(parameters["QUOTED_IDENTIFIERS_IGNORE_CASE"], false);
    assert_eq!(parameters["MULTI_STATEMENT_COUNT"], 1);
    assert_eq!(parameters["STATEMENT_TIMEOUT_IN_SECONDS"], 3600);
}

#[tokio::test]
async fn key_pairs_and_tokens_name_their_method() {
    let server = serve(|_| Reply::Lost).await;
    let network = network(&server);
    let mut settings = settings(&network);
    for (credentials, authenticator) in [
        (
            Proof::KeyPair {
                private_key_pem: include_str!("../data/keys/rsa_2048_aes256.p8").into(),
                passphrase: Some("test-passphrase".into()),
            },
            "SNOWFLAKE_JWT",
        ),
        (
            Proof::Token("pat-secret".into()),
            "PROGRAMMATIC_ACCESS_TOKEN",
        ),
    ] {
        settings.credentials = credentials;
        Session::login(&settings, &network, &SessionOptions::default())
            .await
            .unwrap();
        let request = server.requests().pop().unwrap();
        let data = &request.json()["data"];
        assert_eq!(data["AUTHENTICATOR"], authenticator);
        assert_eq!(data["PASSWORD"], json!(null));
        let token = data["TOKEN"].as_str().unwrap();
        assert_eq!(
            token.split('.').count(),
            if authenticator == "SNOWFLAKE_JWT" {
                3
            } else {
                1
            }
        );
    }
}

#[tokio::test]
async fn refusals_of_every_shape() {
    let html = "<!DOCTYPE html><html><body>Access denied</body></html>";
    let failure = |code: serde_json::Value| json!({"data": null, "code": code, "message": "no.", "success": false});
    for (reply, kind, code, tries) in [
        (
            Reply::json(failure(json!("390100"))),
            Credentials,
            Some("390100"),
            1,
        ),
        (
            Reply::json(failure(json!(390100))),
            Credentials,
            Some("390100"),
            1,
        ),
        (
            Reply::json(failure(json!("390201"))),
            Configuration,
            Some("390201"),
            1,
        ),
        (
            Reply::json(json!({"data": {"nextAction": "PWD_CHANGE"}, "success": false})),
            Credentials,
            None,
            1,
        ),
        (Reply::json(json!({"success": false})), Credentials, None, 1),
        (Reply::json(json!({"success": true})), Internal, None, 1),
        (
            Reply::json(json!({"success": true, "data": {"token": null}})),
            Internal,
            None,
            1,
        ),
        (
            Reply::json(json!({"success": true, "data": {"token": "a\r\nb"}})),
            Internal,
            None,
            1,
        ),
        (Reply::status(403, html), Configuration, None, 1),
        (Reply::status(404, "<Error/>"), Configuration, None, 1),
        (
            Reply::status(403, failure(json!("390144")).to_string()),
            Configuration,
            None,
            1,
        ),
        (
            Reply::json(failure(json!("390144"))),
            Credentials,
            Some("390144"),
            1,
        ),
        (
            Reply::status(403, failure(json!("390422")).to_string()),
            Configuration,
            Some("390422"),
            1,
        ),
        (
            Reply::status(401, failure(json!("390101")).to_string()),
            Internal,
            Some("390101"),
            1,
        ),
        (Reply::status(400, "bad"), Internal, None, 1),
        (Reply::status(503, html), Transient, None, TRIES),
        (
            Reply::status(429, failure(json!("000001")).to_string()),
            ErrorKind::Throttled,
            None,
            TRIES,
        ),
        (Reply::status(200, html), Transient, None, TRIES),
        (Reply::status(200, ""), Transient, None, TRIES),
        (
            Reply::status(200, "{\"data\": {\"token\": \"abc\""),
            Transient,
            None,
            TRIES,
        ),
        (Reply::status(200, "{\"data\": }"), Transient, None, TRIES),
        (Reply::Cut(b"{\"data\": {".to_vec()), Transient, None, TRIES),
        (Reply::Lost, Transient, None, TRIES),
    ] {
        let script = reply.clone();
        let server = Server::start(move |_| script.clone()).await;
        let error = try_login(&server).await.expect_err("a refusal");
        let shape = match &reply {
            Reply::Answer { status, body, .. } => {
                format!("{status} {}", String::from_utf8_lossy(body))
            }
            _ => "no whole answer".to_owned(),
        };
        assert_eq!(error.kind(), kind, "{shape}: {error}");
        assert_eq!(error.code(), code, "{shape}");
        assert_eq!(server.requests().len(), tries, "{shape}");
        assert!(!error.message().contains(['\n', '\r']), "{error}");
    }
}

#[tokio::test]
async fn a_password_that_the_server_repeats_is_not_repeated_by_us() {
    let server = Server::start(|_| {
        Reply::json(json!({"code": "390100", "success": false, "message": format!("bad password {PASSWORD}\u{1b}[2J")}))
    })
    .await;
    let error = try_login(&server).await.unwrap_err();
    assert!(!format!("{error:?}").contains(PASSWORD), "{error}");
    assert!(
        error.message().contains("[REDACTED]") && !error.message().contains('\u{1b}'),
        "{error}"
    );
}

#[tokio::test]
async fn tries_keep_the_request_and_tell_what_happened() {
    let server = Server::start(|request| match request.earlier {
        0 => Reply::status(503, "busy"),
        1 => Reply::Lost,
        _ => Reply::json(logged_in()),
    })
    .await;
    try_login(&server).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    for request in &requests {
        assert_eq!(
            request.parameter("requestId"),
            requests[0].parameter("requestId")
        );
        assert_eq!(
            request.parameter("clientStartTime"),
            requests[0].parameter("clientStartTime")
        );
    }
    let reasons: Vec<_> = requests
        .iter()
        .map(|request| {
            (
                request.parameter("retryCount"),
                request.parameter("retryReason"),
            )
        })
        .collect();
    assert_eq!(
        reasons,
        [
            (None, None),
            (Some("1"), Some("503")),
            (Some("2"), Some("0"))
        ]
    );
    let guids: std::collections::HashSet<_> = requests
        .iter()
        .map(|request| request.parameter("request_guid"))
        .collect();
    assert_eq!(guids.len(), 3);
}

#[tokio::test]
async fn a_login_that_came_too_late_is_signed_anew_once() {
    for (refused, success) in [(1, true), (2, false)] {
        let server = Server::start(move |request| {
            if request.earlier < refused {
                Reply::json(
                    json!({"code": "394302", "success": false, "data": null, "message": "iat"}),
                )
            } else {
                Reply::json(logged_in())
            }
        })
        .await;
        let network = network(&server);
        let settings = ConnectionSettings {
            credentials: Proof::KeyPair {
                private_key_pem: include_str!("../data/keys/rsa_2048.p8").into(),
                passphrase: None,
            },
            ..settings(&network)
        };
        let login = Session::login(&settings, &network, &SessionOptions::default()).await;
        assert_eq!(login.is_ok(), success);
        assert_eq!(server.requests().len(), 2);
        if let Err(error) = login {
            assert!(error.hint().unwrap().contains("clock"), "{error}");
        }
    }
}

#[tokio::test]
async fn redirects_lead_only_where_requests_may_go() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = Server::start(|_| Reply::json(logged_in())).await;
        let to = format!("http://127.0.0.1:{}/", elsewhere.port);
        let server =
            Server::start(move |_| Reply::status(status, "").with_header("location", &to)).await;
        // Listed, as storage and identity providers are: a password has no business there either.
        let mut network = network(&server);
        let hosts = format!(
            "http://acme-demo.localhost:{}, http://127.0.0.1:{}",
            server.port, elsewhere.port
        );
        network.allowed_hosts = bridge_core::config::AllowedHosts::parse(&hosts).unwrap();
        let error = login_with(&network).await.unwrap_err();
        assert_eq!(error.kind(), Configuration, "{status}");
        assert_eq!(elsewhere.requests().len(), 0);
    }
    // To the same place, as somebody of the server's choice.
    for user in ["user@", ":password@"] {
        let server = Server::start(move |request| match request.path.as_str() {
            LOGIN => {
                let host = request.header("host").unwrap_or_default();
                let to = format!("http://{user}{host}/again");
                Reply::status(307, "").with_header("location", &to)
            }
            _ => Reply::json(logged_in()),
        })
        .await;
        let error = try_login(&server).await.unwrap_err();
        assert_eq!(error.kind(), Configuration, "{user}");
        assert!(server.requests_for("/again").is_empty(), "{user}");
    }
    for status in [307, 308] {
        // To nowhere: a front end in trouble.
        let server = Server::start(move |request| match request.earlier {
            0 => Reply::status(status, ""),
            _ => Reply::json(logged_in()),
        })
        .await;
        try_login(&server).await.unwrap();
    }
}

#[tokio::test]
async fn a_redirect_repeats_the_request_elsewhere_and_retries_begin_anew() {
    for status in [307, 308] {
        let server = Server::start(
            move |request| match (request.path.as_str(), request.earlier) {
                (LOGIN, 0) => Reply::status(status, "").with_header("location", "/elsewhere?a=b"),
                ("/elsewhere", 0) => Reply::status(503, ""),
                _ => Reply::json(logged_in()),
            },
        )
        .await;
        try_login(&server).await.unwrap();
        let requests = server.requests();
        let paths: Vec<_> = requests
            .iter()
            .map(|request| request.path.as_str())
            .collect();
        assert_eq!(paths, [LOGIN, "/elsewhere", LOGIN]);
        assert_eq!(requests[1].method, "POST");
        assert_eq!(requests[1].json(), requests[0].json());
        assert_eq!(requests[1].query, [("a".to_owned(), "b".to_owned())]);
        assert_eq!(requests[2].parameter("retryReason"), Some("503"));
    }
}

#[tokio::test]
async fn a_circle_of_redirects_ends() {
    let server = Server::start(|_| Reply::status(307, "").with_header("location", "/again")).await;
    let error = try_login(&server).await.unwrap_err();
    assert_eq!(error.kind(), Configuration);
    assert!(error.message().contains("circle"), "{error}");
    assert_eq!(server.requests().len(), 6);
}

#[tokio::test]
async fn a_passcode_comes_with_its_password() {
    let server = serve(|_| Reply::Lost).await;
    let network = network(&server);
    let settings = ConnectionSettings {
        credentials: Proof::Passcode {
            password: PASSWORD.into(),
            passcode: "123456".into(),
        },
        ..settings(&network)
    };
    Session::login(&settings, &network, &SessionOptions::default())
        .await
        .unwrap();
    let data = server.requests().pop().unwrap().json()["data"].clone();
    assert_eq!(data["PASSWORD"], PASSWORD);
    assert_eq!(data["PASSCODE"], "123456");
    assert_eq!(data["EXT_AUTHN_DUO_METHOD"], "passcode");
}

#[tokio::test]
async fn a_pause_that_is_too_long_is_left_to_the_caller() {
    let server = Server::start(|_| Reply::status(429, "").with_header("retry-after", "120")).await;
    let error = try_login(&server).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(120)));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn hosts_that_do_not_answer() {
    let server = Server::start(|_| Reply::Silence).await;
    let mut silent = network(&server);
    silent.stall_timeout = Duration::from_millis(50);
    let closed = {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        listener.local_addr().unwrap().port()
    };
    let mut unreachable = network(&server);
    unreachable.allowed_hosts =
        bridge_core::config::AllowedHosts::parse(&format!("http://acme-demo.localhost:{closed}"))
            .unwrap();
    for network in [silent, unreachable] {
        let login = login_with(&network);
        let error = tokio::time::timeout(DEADLINE, login)
            .await
            .expect("an end")
            .unwrap_err();
        assert_eq!(error.kind(), Transient, "{error}");
        assert!(error.message().contains("acme-demo.localhost"), "{error}");
    }
}

#[tokio::test]
async fn an_account_needs_no_server_to_be_refused() {
    let server = Server::start(|_| Reply::Lost).await;
    let mut network = network(&server);
    let settings = settings(&network);
    // The name still leads to this machine, but nobody allows it any more.
    network.allowed_hosts = bridge_core::config::AllowedHosts::default();
    let error = Session::login(&settings, &network, &SessionOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Configuration);
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn an_answer_that_trickles_is_given_up() {
    let server = Server::start(|_| Reply::Trickle(logged_in().to_string().into_bytes())).await;
    let network = Network {
        stall_timeout: Duration::from_millis(200),
        tries: 1,
        ..network(&server)
    };
    let login = tokio::time::timeout(DEADLINE, login_with(&network));
    let error = login.await.expect("an end").unwrap_err();
    assert_eq!(error.kind(), Transient, "{error}");
}

#[tokio::test]
async fn answers_without_end_are_refused() {
    let bomb = vec![b' '; 40 << 20];
    for packed in [true, false] {
        let body = bomb.clone();
        let server = Server::start(move |_| {
            if packed {
                Reply::gzip(&body)
            } else {
                Reply::status(200, body.clone())
            }
        })
        .await;
        let error = try_login(&server).await.unwrap_err();
        assert_eq!(error.kind(), Internal, "{error}");
        assert!(error.message().contains("more than"), "{error}");
    }
}

async fn login_with(network: &Network) -> Result<Session, bridge_core::Error> {
    Session::login(&settings(network), network, &SessionOptions::default()).await
}

/// Kinds are part of the contract with whoever decides about retries.
#[test]
fn only_transient_is_retried() {
    let kinds: [ErrorKind; 4] = [Configuration, Credentials, Internal, Transient];
    assert_eq!(
        kinds.map(ErrorKind::is_retryable),
        [false, false, false, true]
    );
}

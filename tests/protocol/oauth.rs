//! Logins with OAuth: tokens that are given, and tokens that a client fetches.

use bridge_core::ErrorKind::{Configuration, Credentials, Transient};
use bridge_core::config::{ConnectionSettings, Credentials as Proof, OAuthClient};
use bridge_core::snowflake::{Session, SessionOptions};
use serde_json::{Value, json};

use crate::server::{Reply, Request, Server};
use crate::setup::{LOGIN, TRIES, logged_in, network, settings};

const TOKEN: &str = "/oauth/token-request";
const SECRET: &str = "client-secret-1";

fn client() -> OAuthClient {
    OAuthClient {
        client_id: "client-1".to_owned(),
        client_secret: SECRET.into(),
        token_url: None,
        scope: None,
    }
}

fn token_answer(request: &Request) -> Value {
    json!({
        "access_token": format!("access-token-{}", request.earlier), "token_type": "Bearer", "expires_in": 600,
        "refresh_token": "unused", "idpInitiated": false,
    })
}

async fn login(server: &Server, credentials: Proof) -> bridge_core::Result<Session> {
    let network = network(server);
    let settings = ConnectionSettings {
        credentials,
        username: String::new(),
        ..settings(&network)
    };
    Session::login(&settings, &network, &SessionOptions::default()).await
}

fn form(request: &Request) -> Vec<(String, String)> {
    url::form_urlencoded::parse(&request.body)
        .into_owned()
        .collect()
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[tokio::test]
async fn a_given_token_is_shown_as_it_is_and_never_replaced() {
    let server = Server::start(|request| match request.earlier {
        0 => Reply::json(logged_in()),
        _ => Reply::json(
            json!({"success": false, "code": "390318", "message": "expired", "data": null}),
        ),
    })
    .await;
    let proof = || Proof::OAuthToken("given-token".into());
    login(&server, proof()).await.unwrap();
    let data = server.requests()[0].json()["data"].clone();
    assert_eq!(data["AUTHENTICATOR"], "OAUTH");
    assert_eq!(data["TOKEN"], "given-token");
    assert_eq!(data["LOGIN_NAME"], Value::Null);
    assert_eq!(data["CLIENT_ENVIRONMENT"]["OAUTH_TYPE"], Value::Null);
    let error = login(&server, proof()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Credentials, Some("390318")));
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_client_fetches_its_token() {
    let server = Server::start(|request| match request.path.as_str() {
        TOKEN => Reply::json(token_answer(request)),
        _ => Reply::json(logged_in()),
    })
    .await;
    login(&server, Proof::OAuthClient(client())).await.unwrap();
    let asked = &server.requests_for(TOKEN)[0];
    assert_eq!(asked.method, "POST");
    // RFC 6749, 2.3.1: base64 of client-1:client-secret-1.
    assert_eq!(
        asked.header("authorization"),
        Some("Basic Y2xpZW50LTE6Y2xpZW50LXNlY3JldC0x")
    );
    assert_eq!(asked.header("accept"), Some("application/json"));
    assert_eq!(
        asked.header("content-type"),
        Some("application/x-www-form-urlencoded; charset=UTF-8")
    );
    assert_eq!(
        form(asked),
        [
            pair("grant_type", "client_credentials"),
            pair("scope", "session:role:LOADER")
        ]
    );
    let data = server.requests_for(LOGIN)[0].json()["data"].clone();
    assert_eq!(data["AUTHENTICATOR"], "OAUTH");
    assert_eq!(data["TOKEN"], "access-token-0");
    assert_eq!(
        data["CLIENT_ENVIRONMENT"]["OAUTH_TYPE"],
        "oauth_client_credentials"
    );

    let scoped = OAuthClient {
        scope: Some("a b".to_owned()),
        ..client()
    };
    login(&server, Proof::OAuthClient(scoped)).await.unwrap();
    assert!(form(&server.requests_for(TOKEN)[1]).contains(&pair("scope", "a b")));
}

#[tokio::test]
async fn a_stale_token_is_replaced_once() {
    for (stale, code, works) in [
        (1, "390303", true),
        (1, "390318", true),
        (2, "390318", false),
    ] {
        let server = Server::start(move |request| match request.path.as_str() {
            TOKEN => Reply::json(token_answer(request)),
            _ if request.earlier < stale => Reply::json(
                json!({"success": false, "code": code, "message": "stale", "data": {"nextAction": "RETRY_LOGIN"}}),
            ),
            _ => Reply::json(logged_in()),
        })
        .await;
        let result = login(&server, Proof::OAuthClient(client())).await;
        assert_eq!(result.is_ok(), works, "{code}");
        let shown: Vec<_> = server
            .requests_for(LOGIN)
            .iter()
            .map(|request| request.json()["data"]["TOKEN"].clone())
            .collect();
        assert_eq!(shown, ["access-token-0", "access-token-1"]);
    }
}

#[tokio::test]
async fn what_token_servers_say() {
    let told = |status: u16, body: Value| Reply::status(status, body.to_string());
    let wrong = format!("secret {SECRET} is wrong");
    for (reply, kind, tries, words) in [
        (
            told(
                401,
                json!({"error": "invalid_client", "error_description": wrong}),
            ),
            Credentials,
            1,
            "invalid_client",
        ),
        (
            told(400, json!({"error": "unauthorized_client"})),
            Credentials,
            1,
            "unauthorized_client",
        ),
        (
            told(400, json!({"error": "invalid_scope"})),
            Configuration,
            1,
            "invalid_scope",
        ),
        (
            told(400, json!({"error": "temporarily_unavailable"})),
            Transient,
            TRIES,
            "temporarily",
        ),
        (
            told(200, json!({"token_type": "Bearer"})),
            Configuration,
            1,
            "without an OAuth token",
        ),
        (
            Reply::status(200, "<html>"),
            Configuration,
            1,
            "without an OAuth token",
        ),
        (Reply::status(404, "<html>"), Configuration, 1, "404"),
        (Reply::status(400, ""), Credentials, 1, "400"),
        (Reply::status(401, "<html>"), Credentials, 1, "401"),
        (Reply::status(503, "busy"), Transient, TRIES, "503"),
        (Reply::Lost, Transient, TRIES, "127.0.0.1"),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let elsewhere = OAuthClient {
            token_url: Some(format!("http://127.0.0.1:{}/token", server.port)),
            ..client()
        };
        let error = login(&server, Proof::OAuthClient(elsewhere))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(words), "{error}");
        assert!(
            !format!("{error:?} {:?}", error.hint()).contains(SECRET),
            "{error}"
        );
        assert_eq!(server.requests_for("/token").len(), tries, "{error}");
        assert_eq!(server.requests_for(LOGIN).len(), 0);
    }
}

#[tokio::test]
async fn a_secret_goes_to_listed_hosts_only() {
    let server = Server::start(|request| Reply::json(token_answer(request))).await;
    for url in [
        "https://idp.example.com/token",
        "http://127.0.0.1:1/token",
        &format!("https://127.0.0.1:{}/token", server.port),
        "file:///etc/passwd",
        "not an address",
        &format!("http://somebody@127.0.0.1:{}/token", server.port),
        &format!("http://:password@127.0.0.1:{}/token", server.port),
        &format!("http://127.0.0.1:{}/token#fragment", server.port),
    ] {
        let elsewhere = OAuthClient {
            token_url: Some(url.to_owned()),
            ..client()
        };
        let error = login(&server, Proof::OAuthClient(elsewhere))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Configuration, "{url}: {error}");
    }
    assert_eq!(server.requests().len(), 0);
}

//! Who gets in, with what, and what the others are told.

use bridge_core::ErrorKind::{self, Configuration, Credentials};
use bridge_core::config::{ConnectionSettings, Credentials as Proof, OAuthClient};
use bridge_core::snowflake::{Session, has_network_policy};
use reqwest::Method;
use serde_json::{Value, json};

use crate::case::{Case, case};
use crate::world::{
    ACCESS_TOKEN, CLIENT_ID, CLIENT_SECRET, PASSCODE, PASSWORD, PRIVATE_KEY, World, run,
};

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "login_by_password",
            &["login.password", "login.application"],
            by_password,
        ),
        case(
            "login_with_a_passcode",
            &["login.passcode"],
            with_a_passcode,
        ),
        case(
            "login_by_key_pair",
            &["login.key-pair", "login.key-pair-encrypted"],
            by_key_pair,
        ),
        case(
            "login_by_access_token",
            &["login.access-token"],
            by_access_token,
        ),
        case(
            "login_by_oauth_token",
            &["login.oauth-token"],
            by_oauth_token,
        ),
        case(
            "login_by_oauth_client",
            &["login.oauth-client"],
            by_oauth_client,
        ),
        case(
            "login_renews_a_stale_oauth_token",
            &["login.oauth-renewal"],
            stale_oauth_token,
        ),
        case(
            "login_sends_names_as_given",
            &["login.names-as-given"],
            names_as_given,
        ),
        case(
            "login_validates_defaults",
            &["login.defaults-validated"],
            validated_defaults,
        ),
        case("login_sets_parameters", &["login.parameters"], parameters),
        case("login_refusals", &["login.refusals"], refusals),
        case("login_next_actions", &["login.next-action"], next_actions),
        case(
            "login_of_locked_and_disabled_users",
            &["login.locked"],
            locked_and_disabled,
        ),
        case(
            "login_from_a_refused_address",
            &["login.network-policy"],
            network_policies,
        ),
        case(
            "login_knows_its_network_policy",
            &["login.network-policy-known"],
            known_network_policies,
        ),
        case(
            "login_to_no_account",
            &["login.unknown-account"],
            no_account,
        ),
        case(
            "login_is_tried_again",
            &["login.retries", "network.throttled"],
            tried_again,
        ),
        case("login_follows_redirects", &["login.redirects"], redirects),
    ]
}

fn with(world: &World, username: &str, credentials: Proof) -> ConnectionSettings {
    ConnectionSettings {
        username: username.to_owned(),
        credentials,
        ..world.settings()
    }
}

fn key_pair(pem: &str, passphrase: Option<&str>) -> Proof {
    Proof::KeyPair {
        private_key_pem: pem.into(),
        passphrase: passphrase.map(Into::into),
    }
}

fn client() -> OAuthClient {
    OAuthClient {
        client_id: CLIENT_ID.to_owned(),
        client_secret: CLIENT_SECRET.into(),
        token_url: None,
        scope: None,
    }
}

async fn user_of(session: &mut Session) -> String {
    let result = run(session, "select current_user()").await;
    result.first_value().unwrap().to_owned()
}

async fn by_password(world: World) {
    let mut session = world.login().await;
    let info = session.info().clone();
    assert_eq!(info.role.as_deref(), Some("LOADER_ROLE"));
    assert_eq!(info.warehouse.as_deref(), Some("COMPUTE_WH"));
    assert_eq!(info.database.as_deref(), Some("ANALYTICS_DB"));
    assert_eq!(info.schema.as_deref(), Some("REPORTS"));
    assert!(info.server_version.is_some());
    assert_eq!(user_of(&mut session).await, "LOADER");
    let request = &world.requests("login").await[0];
    assert!(
        request["headers"]["user-agent"]
            .as_str()
            .unwrap()
            .starts_with("snowflake_bridge/"),
        "{request}"
    );
    assert_eq!(world.sessions().await[0]["client"], "snowflake_bridge");
}

async fn with_a_passcode(world: World) {
    let proof = Proof::Passcode {
        password: PASSWORD.into(),
        passcode: PASSCODE.into(),
    };
    world
        .try_login(&with(&world, "human", proof))
        .await
        .unwrap();
    let alone = with(&world, "human", Proof::Password(PASSWORD.into()));
    let error = world.try_login(&alone).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Credentials, Some("394508")));
    assert!(error.hint().unwrap().contains("key pair"));
}

async fn by_key_pair(world: World) {
    let encrypted = [
        include_str!("../data/keys/rsa_2048_aes256.p8"),
        include_str!("../data/keys/rsa_2048_3des.p8"),
    ];
    let mut proofs = vec![key_pair(PRIVATE_KEY, None)];
    proofs.extend(encrypted.map(|pem| key_pair(pem, Some("test-passphrase"))));
    for proof in proofs {
        let mut session = world
            .try_login(&with(&world, "service", proof))
            .await
            .unwrap();
        assert_eq!(user_of(&mut session).await, "SERVICE");
    }
    // A token that was seen too late is made anew, once.
    let stale = json!({"error": {"code": "394302", "message": "JWT token is invalid."}});
    world.fault(json!({"kind": "login"}), stale).await;
    let proof = key_pair(PRIVATE_KEY, None);
    world
        .try_login(&with(&world, "service", proof))
        .await
        .unwrap();
}

async fn by_access_token(world: World) {
    let token = |text: &str| with(&world, "robot", Proof::Token(text.into()));
    let mut session = world.try_login(&token(ACCESS_TOKEN)).await.unwrap();
    assert_eq!(user_of(&mut session).await, "ROBOT");
    let states = ["active", "expired", "disabled"];
    let tokens: Vec<_> = states
        .iter()
        .map(|state| json!({"token": format!("token-{state}"), "role": "LOADER_ROLE", "state": state}))
        .collect();
    world
        .set_account(json!({"users": [{
            "name": "ROBOT", "default_role": "LOADER_ROLE", "roles": ["LOADER_ROLE", "OTHER"],
            "programmatic_access_tokens": tokens,
        }]}))
        .await;
    world.try_login(&token("token-active")).await.unwrap();
    for refused in ["token-expired", "token-disabled", "token-unknown"] {
        let error = world.try_login(&token(refused)).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (Credentials, Some("394400")),
            "{refused}"
        );
    }
    // A token that is limited to a role opens no other.
    let other_role = ConnectionSettings {
        role: Some("OTHER".to_owned()),
        ..token("token-active")
    };
    let error = world.try_login(&other_role).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (Configuration, Some("390189"))
    );
}

async fn issue_oauth_token(world: &World) -> String {
    let call = json!({"account": world.account, "user": "SERVICE", "role": null});
    let answer = world.admin(Method::POST, "oauth", call).await;
    answer["access_token"].as_str().unwrap().to_owned()
}

async fn by_oauth_token(world: World) {
    let token = issue_oauth_token(&world).await;
    // The token names the user.
    let settings = with(&world, "", Proof::OAuthToken(token.into()));
    let mut session = world.try_login(&settings).await.unwrap();
    assert_eq!(user_of(&mut session).await, "SERVICE");
    let call = json!({"account": world.account});
    world.admin(Method::POST, "oauth/expire", call).await;
    let error = world.try_login(&settings).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Credentials, Some("390318")));
    let unknown = with(&world, "", Proof::OAuthToken("nobody's".into()));
    let error = world.try_login(&unknown).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (Credentials, Some("390303")));
    assert_eq!(world.requests("login").await.len(), 3);
}

async fn by_oauth_client(world: World) {
    let settings = with(&world, "", Proof::OAuthClient(client()));
    let mut session = world.try_login(&settings).await.unwrap();
    assert_eq!(user_of(&mut session).await, "SERVICE");
    assert_eq!(world.requests("oauth").await.len(), 1);
    for (client, kind) in [
        (
            OAuthClient {
                client_secret: "wrong".into(),
                ..client()
            },
            Credentials,
        ),
        (
            OAuthClient {
                client_id: "nobody".to_owned(),
                ..client()
            },
            Credentials,
        ),
        (
            OAuthClient {
                scope: Some("session:role:ADMIN".to_owned()),
                ..client()
            },
            Configuration,
        ),
    ] {
        let settings = with(&world, "", Proof::OAuthClient(client));
        let error = world.try_login(&settings).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.hint().is_some());
    }
    assert_eq!(world.requests("login").await.len(), 1);
}

async fn stale_oauth_token(world: World) {
    for code in ["390303", "390318"] {
        let stale = json!({"error": {"code": code, "message": "Invalid OAuth access token. "}});
        world.fault(json!({"kind": "login"}), stale).await;
        let settings = with(&world, "", Proof::OAuthClient(client()));
        world.try_login(&settings).await.unwrap();
    }
    assert_eq!(world.requests("oauth").await.len(), 4);
    assert_eq!(world.requests("login").await.len(), 4);
}

async fn names_as_given(world: World) {
    let settings = ConnectionSettings {
        warehouse: Some("\"small wh\"".to_owned()),
        database: Some("analytics_db".to_owned()),
        schema: Some("reports".to_owned()),
        role: Some("loader_role".to_owned()),
        ..world.settings()
    };
    let session = world.try_login(&settings).await.unwrap();
    let info = session.info();
    assert_eq!(info.warehouse.as_deref(), Some("small wh"));
    assert_eq!(info.role.as_deref(), Some("LOADER_ROLE"));
    assert_eq!(info.schema.as_deref(), Some("REPORTS"));
    let query = &world.requests("login").await[0]["query"];
    assert_eq!(query["warehouse"], "\"small wh\"");
    assert_eq!(query["databaseName"], "analytics_db");
    assert_eq!(query["schemaName"], "reports");
    assert_eq!(query["roleName"], "loader_role");
}

async fn validated_defaults(world: World) {
    let change = |change: fn(&mut ConnectionSettings)| {
        let mut settings = world.settings();
        change(&mut settings);
        settings
    };
    for (settings, code, named) in [
        (
            change(|settings| settings.warehouse = Some("NO_WH".into())),
            "390201",
            "warehouse \"NO_WH\"",
        ),
        (
            change(|settings| settings.database = Some("NO_DB".into())),
            "390201",
            "database \"NO_DB\"",
        ),
        (
            change(|settings| settings.schema = Some("NO_SCHEMA".into())),
            "390201",
            "schema \"NO_SCHEMA\"",
        ),
        (
            change(|settings| settings.role = Some("NO_ROLE".into())),
            "390189",
            "role \"NO_ROLE\"",
        ),
    ] {
        let error = world.try_login(&settings).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (Configuration, Some(code)),
            "{error}"
        );
        assert!(error.message().starts_with(named), "{error}");
        assert!(error.hint().is_some());
    }
}

async fn parameters(world: World) {
    let _session = world.login().await;
    let parameters = &world.sessions().await[0]["parameters"];
    for (name, value) in [
        ("CLIENT_VALIDATE_DEFAULT_PARAMETERS", json!(true)),
        ("TIMEZONE", json!("UTC")),
        ("QUOTED_IDENTIFIERS_IGNORE_CASE", json!(false)),
        ("ABORT_DETACHED_QUERY", json!(true)),
        ("MULTI_STATEMENT_COUNT", json!(1)),
        ("STATEMENT_TIMEOUT_IN_SECONDS", json!(3600)),
        ("LOCK_TIMEOUT", json!(3600)),
        ("AUTOCOMMIT", json!(true)),
    ] {
        assert_eq!(parameters[name], value, "{name}");
    }
}

async fn refusals(world: World) {
    for (username, credentials, code) in [
        ("loader", Proof::Password("wrong".into()), "390100"),
        ("nobody", Proof::Password("wrong".into()), "390100"),
        ("service", key_pair(&another_key(), None), "394304"),
        ("loader", key_pair(PRIVATE_KEY, None), "394304"),
    ] {
        let before = world.requests("login").await.len();
        let settings = with(&world, username, credentials);
        let error = world.try_login(&settings).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (Credentials, Some(code)),
            "{username}: {error}"
        );
        assert!(error.hint().is_some());
        assert_eq!(
            world.requests("login").await.len() - before,
            1,
            "{username}"
        );
    }
}

/// An RSA key that the stand-in has never seen.
fn another_key() -> String {
    use rsa::pkcs8::{EncodePrivateKey, LineEnding};
    let key = rsa::RsaPrivateKey::new(&mut rand::thread_rng(), 2048).unwrap();
    key.to_pkcs8_pem(LineEnding::LF).unwrap().to_string()
}

async fn set_user(world: &World, more: Value) {
    let mut user =
        json!({"name": "LOADER", "password": PASSWORD, "default_role": "LOADER_ROLE", "roles": []});
    for (key, value) in more.as_object().unwrap() {
        user[key] = value.clone();
    }
    world.set_account(json!({"users": [user]})).await;
}

async fn next_actions(world: World) {
    for (action, words) in [
        ("PWD_CHANGE", "change the password"),
        ("EXT_AUTHN_DUO_ALL", "second factor"),
    ] {
        set_user(&world, json!({"next_action": action})).await;
        let error = world.try_login(&world.settings()).await.unwrap_err();
        assert_eq!(error.kind(), Credentials, "{error}");
        let told = format!("{error} {}", error.hint().unwrap());
        assert!(told.contains(words), "{told}");
    }
}

async fn locked_and_disabled(world: World) {
    let wrong = with(&world, "loader", Proof::Password("wrong".into()));
    for _ in 0..5 {
        world.try_login(&wrong).await.unwrap_err();
    }
    let error = world.try_login(&world.settings()).await.unwrap_err();
    assert_eq!(error.kind(), Credentials);
    assert!(error.message().contains("locked"), "{error}");
    assert!(error.hint().unwrap().contains("15 minutes"), "{error}");
    let call = json!({"account": world.account, "user": "LOADER"});
    world.admin(Method::POST, "unlock", call).await;
    world.login().await;
    set_user(&world, json!({"disabled": true})).await;
    let error = world.try_login(&world.settings()).await.unwrap_err();
    assert_eq!(error.kind(), Credentials);
    assert!(error.message().contains("disabled"), "{error}");
}

async fn network_policies(world: World) {
    for (policy, code) in [("blocked", "390422"), ("missing", "390432")] {
        set_user(&world, json!({"network_policy": policy})).await;
        let error = world.try_login(&world.settings()).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (Configuration, Some(code)),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("network policy"));
    }
}

async fn known_network_policies(world: World) {
    let mut session = world.login().await;
    assert_eq!(
        has_network_policy(&mut session, "LOADER").await,
        Some(false)
    );
    // Where Snowflake says nothing of the account, or refuses to, there may be a policy.
    let of_account = json!({"kind": "query", "sql": "(?i)NETWORK_POLICY.*ACCOUNT"});
    let refusal = json!({"error": {"code": "003001", "sqlState": "42501", "message": "Insufficient privileges"}});
    world.fault(of_account.clone(), refusal).await;
    assert_eq!(has_network_policy(&mut session, "LOADER").await, None);
    let nothing = json!({"status": 200, "headers": {"Content-Type": "application/json"}, "body": json!({
        "success": true, "code": null, "message": null,
        "data": {"queryId": "q", "queryResultFormat": "json", "rowset": [], "total": 0, "returned": 0,
            "rowtype": [{"name": "key", "type": "text"}, {"name": "value", "type": "text"}]}}).to_string()});
    world.fault(of_account, nothing).await;
    assert_eq!(has_network_policy(&mut session, "LOADER").await, None);
    assert_eq!(has_network_policy(&mut session, "SOMEBODY").await, None);
    world
        .set_account(json!({"network_policy": "allowed"}))
        .await;
    assert_eq!(has_network_policy(&mut session, "LOADER").await, Some(true));
    world.set_account(json!({"network_policy": null})).await;
    assert_eq!(
        has_network_policy(&mut session, "LOADER").await,
        Some(false)
    );
    set_user(&world, json!({"network_policy": "allowed"})).await;
    assert_eq!(has_network_policy(&mut session, "LOADER").await, Some(true));
}

async fn no_account(world: World) {
    let page = json!({"status": 403, "body": "<html>Forbidden</html>", "headers": {"Content-Type": "text/html"}});
    world.fault(json!({"kind": "login"}), page).await;
    let error = world.try_login(&world.settings()).await.unwrap_err();
    assert_eq!(error.kind(), Configuration, "{error}");
    assert!(error.hint().unwrap().contains("account identifier"));
    assert_eq!(world.requests("login").await.len(), 1);
}

async fn tried_again(world: World) {
    for action in [
        json!({"status": 429, "headers": {"Retry-After": "0"}}),
        json!({"status": 503, "body": "busy"}),
        json!({"status": 502, "body": "<html>"}),
        json!({"status": 408}),
        json!({"cut_after": 10}),
        json!({"lose_answer": true}),
    ] {
        let before = world.requests("login").await.len();
        world.fault(json!({"kind": "login"}), action.clone()).await;
        world.login().await;
        let requests = world.requests("login").await.split_off(before);
        let [first, second] = requests.as_slice() else {
            panic!("{action}: {requests:#?}")
        };
        assert_eq!(first["query"]["requestId"], second["query"]["requestId"]);
        assert_ne!(
            first["query"]["request_guid"],
            second["query"]["request_guid"]
        );
        let number = |name: &str| -> u64 {
            let text = second["query"][name].as_str().unwrap();
            text.parse().unwrap()
        };
        // One over a connection that was just closed is tried as well, and never arrives.
        let retries = number("retryCount");
        assert!((1..=2).contains(&retries), "{action}: {retries} retries");
        let reason = action["status"].as_u64().unwrap_or(0);
        let told = number("retryReason");
        // An answer that was cut off had a status as well.
        assert!(
            told == reason || retries > 1 || action["cut_after"].is_number() && told == 200,
            "{second}"
        );
    }
    let long = json!({"status": 429, "headers": {"Retry-After": "3600"}});
    world.fault(json!({"kind": "login"}), long).await;
    let error = world.try_login(&world.settings()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled);
    assert_eq!(error.retry_after().map(|pause| pause.as_secs()), Some(3600));
}

async fn redirects(world: World) {
    let port = world.standin.port("port");
    for status in [307, 308] {
        let before = world.requests("login").await.len();
        // To another name of the same service, as when an account moves.
        let to = format!("https://localhost:{port}/session/v1/login-request?requestId=1");
        let action =
            json!({"status": status, "headers": {"Location": "/session/v1/login-request?again=1"}});
        world.fault(json!({"kind": "login"}), action).await;
        world.login().await;
        assert_eq!(world.requests("login").await.len() - before, 2);
        let action = json!({"status": status, "headers": {"Location": to}});
        world.fault(json!({"kind": "login"}), action).await;
        let error = world.try_login(&world.settings()).await.unwrap_err();
        // `localhost` itself is not among the allowed hosts.
        assert_eq!(error.kind(), Configuration, "{error}");
    }
    for status in [301, 302, 303] {
        let action = json!({"status": status, "headers": {"Location": "/elsewhere"}});
        world.fault(json!({"kind": "login"}), action).await;
        let error = world.try_login(&world.settings()).await.unwrap_err();
        assert_eq!(error.kind(), Configuration, "{error}");
    }
}

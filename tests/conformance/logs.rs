//! Everything that any library logs at any level, and that no secret is in it.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use bridge_core::config::{ConnectionSettings, Credentials as Proof, OAuthClient};
use bridge_core::snowflake::Statement;
use serde_json::json;
use tracing_subscriber::filter::LevelFilter;

use crate::case::{Case, case};
use crate::world::{
    ACCESS_TOKEN, CLIENT_ID, CLIENT_SECRET, PASSCODE, PASSWORD, PRIVATE_KEY, World, file, run,
};

static RECORDED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

pub fn cases() -> Vec<Case> {
    vec![case("no_secret_in_any_log", &["secrets.logs"], no_secret)]
}

/// Begins to record what is logged in this process, by `log` and by `tracing`.
pub fn record_everything() {
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(|| Recorder)
        .init();
}

struct Recorder;

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut recorded = RECORDED.lock().unwrap_or_else(PoisonError::into_inner);
        // What is remembered is bounded; the case that reads it empties it first.
        if recorded.len() < 256 << 20 {
            recorded.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn no_secret(world: World) {
    RECORDED.lock().unwrap().clear();
    let proofs = [
        ("loader", Proof::Password(PASSWORD.into())),
        (
            "human",
            Proof::Passcode {
                password: PASSWORD.into(),
                passcode: PASSCODE.into(),
            },
        ),
        ("robot", Proof::Token(ACCESS_TOKEN.into())),
        (
            "service",
            Proof::KeyPair {
                private_key_pem: PRIVATE_KEY.into(),
                passphrase: None,
            },
        ),
        (
            "",
            Proof::OAuthClient(OAuthClient {
                client_id: CLIENT_ID.into(),
                client_secret: CLIENT_SECRET.into(),
                token_url: None,
                scope: None,
            }),
        ),
    ];
    for (username, credentials) in proofs {
        let settings = ConnectionSettings {
            username: username.to_owned(),
            credentials,
            ..world.settings()
        };
        world.try_login(&settings).await.unwrap().close().await;
    }
    let (_directory, path, _) = file(100_000);
    for cloud in ["s3", "azure", "gcs", "gcs_presigned"] {
        world.set_account(json!({"cloud": cloud})).await;
        let mut session = world.login().await;
        session
            .put(&path, "~/logs/", "part-00000.parquet", &|_| {})
            .await
            .unwrap();
        // Failures are what libraries like to log.
        world
            .fault(json!({"sql": "select 1"}), json!({"status": 503}))
            .await;
        world
            .fault(json!({"sql": "select 2"}), json!({"lose_answer": true}))
            .await;
        run(&mut session, "select 1").await;
        run(&mut session, "select 2").await;
        session.execute(&Statement::new("selec")).await.unwrap_err();
        session.close().await;
    }
    let recorded = RECORDED.lock().unwrap().clone();
    let recorded = String::from_utf8_lossy(&recorded);
    // Proof that something was recorded, of both kinds.
    assert!(
        recorded.contains("hyper_util::client"),
        "nothing of hyper's was recorded"
    );
    assert!(
        recorded.contains("reqwest::connect"),
        "nothing of reqwest's was recorded"
    );
    let key = PRIVATE_KEY.lines().nth(1).unwrap();
    for secret in [
        PASSWORD,
        ACCESS_TOKEN,
        CLIENT_SECRET,
        key,
        "Snowflake Token=",
        "Bearer ",
        "Basic ",
        "sig=",
        "X-Goog-Signature=",
        "AWS4-HMAC",
    ] {
        let line = recorded.lines().find(|line| line.contains(secret));
        assert!(
            line.is_none(),
            "a log holds {secret:?}: {}",
            line.unwrap_or_default()
        );
    }
}

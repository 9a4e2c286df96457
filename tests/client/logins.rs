//! Who gets in, and what the others are told.

use bridge_core::ErrorKind::{Configuration, Credentials};
use bridge_core::config::Credentials as Proof;

use crate::standin::{PRIVATE_KEY, Standin, run};

#[tokio::test]
async fn by_password_and_by_key_pair() {
    let standin = Standin::start().await;
    let mut session = standin.login().await;
    let info = session.info().clone();
    assert_eq!(info.role.as_deref(), Some("LOADER_ROLE"));
    assert_eq!(info.warehouse.as_deref(), Some("COMPUTE_WH"));
    assert_eq!(info.database.as_deref(), Some("ANALYTICS_DB"));
    assert_eq!(info.schema.as_deref(), Some("REPORTS"));
    assert!(info.server_version.is_some());
    assert_eq!(
        run(&mut session, "select current_user()")
            .await
            .first_value(),
        Some("LOADER")
    );
    session.close().await;

    let mut settings = standin.settings();
    settings.username = "service".to_owned();
    settings.credentials = Proof::KeyPair {
        private_key_pem: PRIVATE_KEY.into(),
        passphrase: None,
    };
    let mut session = standin.try_login(&settings).await.expect("a session");
    assert_eq!(
        run(&mut session, "select current_user()")
            .await
            .first_value(),
        Some("SERVICE")
    );
    session.close().await;
    standin
        .wait_for(|record| record["query"]["delete"] == "true")
        .await;
}

#[tokio::test]
async fn the_wrong_ones_are_refused_at_the_first_try() {
    let standin = Standin::start().await;
    // Belongs to nobody there: the user's public key is that of another private key.
    let other_key = rsa_key();
    let pair = |pem: &str| Proof::KeyPair {
        private_key_pem: pem.into(),
        passphrase: None,
    };
    for (username, credentials, code) in [
        ("loader", Proof::Password("wrong".into()), "390100"),
        ("nobody", Proof::Password("wrong".into()), "390100"),
        ("service", pair(&other_key), "394304"),
        ("loader", pair(PRIVATE_KEY), "394304"),
    ] {
        let before = standin
            .audit(|record| record["kind"] == "login")
            .await
            .len();
        let mut settings = standin.settings();
        settings.username = username.to_owned();
        settings.credentials = credentials;
        let error = standin.try_login(&settings).await.expect_err(username);
        assert_eq!(
            (error.kind(), error.code()),
            (Credentials, Some(code)),
            "{username}: {error}"
        );
        assert!(error.hint().is_some());
        let after = standin
            .audit(|record| record["kind"] == "login")
            .await
            .len();
        assert_eq!(after - before, 1, "{username}");
    }
}

#[tokio::test]
async fn names_that_do_not_exist_fail_the_login() {
    let standin = Standin::start().await;
    let with = |change: fn(&mut bridge_core::config::ConnectionSettings)| {
        let mut settings = standin.settings();
        change(&mut settings);
        settings
    };
    for (settings, code) in [
        (
            with(|settings| settings.warehouse = Some("NO_WH".into())),
            "390201",
        ),
        (
            with(|settings| settings.database = Some("NO_DB".into())),
            "390201",
        ),
        (
            with(|settings| settings.schema = Some("NO_SCHEMA".into())),
            "390201",
        ),
        (
            with(|settings| settings.role = Some("NO_ROLE".into())),
            "390189",
        ),
    ] {
        let error = standin.try_login(&settings).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (Configuration, Some(code)),
            "{error}"
        );
    }
}

/// An RSA key that the stand-in has never seen.
fn rsa_key() -> String {
    use rsa::pkcs8::{EncodePrivateKey, LineEnding};
    let key = rsa::RsaPrivateKey::new(&mut rand::thread_rng(), 2048).unwrap();
    key.to_pkcs8_pem(LineEnding::LF).unwrap().to_string()
}

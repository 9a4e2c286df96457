//! Whom a connection trusts.

use bridge_core::ErrorKind::Configuration;
use bridge_core::config::{Account, AllowedHosts, ConnectionSettings, Network};
use bridge_core::snowflake::{Session, SessionOptions};

use crate::case::{Case, case};
use crate::world::World;

pub fn cases() -> Vec<Case> {
    vec![
        case("tls_of_the_given_authority", &["tls.trusted"], trusted),
        case("tls_that_is_wrong", &["tls.refused"], refused),
        case("tls_is_not_left_out", &["tls.plain"], plain),
    ]
}

async fn login(world: &World, network: &Network, host: &str) -> bridge_core::Result<Session> {
    let settings = ConnectionSettings {
        account: Account::parse(host, &network.allowed_hosts).unwrap(),
        ..world.settings()
    };
    Session::login(&settings, network, &SessionOptions::default()).await
}

async fn trusted(world: World) {
    world.login().await;
    let nobody = Network {
        ca_file: None,
        ..world.network()
    };
    let error = login(&world, &nobody, &world.host()).await.unwrap_err();
    assert_eq!(error.kind(), Configuration, "{error}");
    assert!(error.message().contains("certificate"), "{error}");
    assert_eq!(world.requests("login").await.len(), 1);
}

async fn refused(world: World) {
    for (defect, words) in [
        ("expired", "certificate"),
        ("self_signed", "certificate"),
        ("wrong_host", "certificate"),
        ("tls_1_1", "TLS"),
    ] {
        let port = world.standin.port(&format!("bad_tls/{defect}"));
        let network = Network {
            allowed_hosts: AllowedHosts::parse(&format!("https://{}:{port}", world.host()))
                .unwrap(),
            tries: 2,
            ..world.network()
        };
        let error = login(&world, &network, &world.host()).await.unwrap_err();
        assert_eq!(error.kind(), Configuration, "{defect}: {error:?}");
        assert!(error.message().contains(words), "{defect}: {error}");
    }
    assert!(world.requests("login").await.is_empty());
}

async fn plain(world: World) {
    let hosts = format!("http://{}:{}", world.host(), world.standin.port("port"));
    let network = Network {
        allowed_hosts: AllowedHosts::parse(&hosts).unwrap(),
        tries: 1,
        ..world.network()
    };
    // A server that speaks TLS only does not understand a client without, which the client survives.
    login(&world, &network, &world.host()).await.unwrap_err();
    assert!(AllowedHosts::parse("http://snowflake.example").is_err());
    assert!(world.requests("login").await.is_empty());
}

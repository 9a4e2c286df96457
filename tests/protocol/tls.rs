//! Whom a connection trusts: only those with a certificate for their name, and never a server without TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bridge_core::ErrorKind;
use bridge_core::config::{Account, AllowedHosts, ConnectionSettings, Network};
use bridge_core::snowflake::{Session, SessionOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::setup::{logged_in, network_at, settings};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data/tls")
        .join(name)
}

/// A server that has a certificate for `acme-demo.localhost` and lets everybody in.
async fn secure_server() -> u16 {
    let certificate = CertificateDer::from_pem_file(data("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(data("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    listen(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            // A client that does not trust the certificate hangs up here.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut request = vec![0; 64 * 1024];
            let _ = stream.read(&mut request).await;
            let body = logged_in().to_string();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    })
    .await
}

async fn listen<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

async fn login(host: &str, port: u16, ca_file: Option<PathBuf>) -> bridge_core::Result<Session> {
    let network = Network {
        allowed_hosts: AllowedHosts::parse(&format!("https://{host}:{port}")).unwrap(),
        ca_file,
        ..network_at(port)
    };
    let settings = ConnectionSettings {
        account: Account::parse(host, &network.allowed_hosts).unwrap(),
        ..settings(&network_at(port))
    };
    Session::login(&settings, &network, &SessionOptions::default()).await
}

#[tokio::test]
async fn a_certificate_of_the_given_authority_is_trusted() {
    let port = secure_server().await;
    assert!(
        login("acme-demo.localhost", port, Some(data("ca.pem")))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn others_are_not() {
    let port = secure_server().await;
    for (host, ca_file) in [
        // Signed by nobody that is known.
        ("acme-demo.localhost", None),
        // Signed, but for another name.
        ("other.localhost", Some(data("ca.pem"))),
    ] {
        let error = login(host, port, ca_file).await.expect_err(host);
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error:?}");
        assert!(error.message().contains("certificate"), "{error}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to() {
    let port = listen(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.shutdown().await;
    })
    .await;
    let error = login("acme-demo.localhost", port, None).await.unwrap_err();
    assert!(error.message().contains("TLS"), "{error:?}");
}

#[tokio::test]
async fn files_that_hold_no_certificate() {
    for file in [data("server.key"), data("missing.pem")] {
        let error = login("acme-demo.localhost", 1, Some(file))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.hint().unwrap().contains("ca_file"), "{error}");
    }
}

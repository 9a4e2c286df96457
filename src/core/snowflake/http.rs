//! The HTTP client below everything that goes out: where it may connect, whom it trusts, and what its failures mean.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::redirect;
use reqwest::tls::{Certificate, Version};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use rustls::AlertDescription;
use tokio::time::timeout;

use super::resolver::FilteringResolver;
use super::route::Route;
#[cfg(any(fuzzing, test))]
use super::script::Script;
use crate::config::Network;
use crate::{Error, ErrorKind, Result};

/// What this program calls itself; not the name of a driver, whose special treatment by the server would not fit.
pub(crate) const APPLICATION: &str = "snowflake_bridge";
/// The version that goes with it.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Connections that nobody used for so long are closed before a firewall forgets them.
const IDLE_CONNECTION: Duration = Duration::from_secs(60);

/// A client for all hosts, with the rules it was made from. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    pub(crate) client: reqwest::Client,
    pub(crate) network: Arc<Network>,
    /// What answers in place of the network.
    #[cfg(any(fuzzing, test))]
    pub(crate) script: Option<Arc<Script>>,
}

impl Http {
    /// # Errors
    /// `Configuration` if the file of trusted certificates cannot be used.
    pub(crate) fn new(network: &Network) -> Result<Self> {
        Self::with_resolver(network, FilteringResolver::new(network))
    }

    /// As [`Http::new`].
    pub(super) fn with_resolver(network: &Network, resolver: FilteringResolver) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .user_agent(format!("{APPLICATION}/{VERSION}"))
            .dns_resolver(Arc::new(resolver))
            // A redirect carries secrets along: only `route` follows some, after a look at where they lead.
            .redirect(redirect::Policy::none())
            // The server process's environment is not a setting of this program.
            .no_proxy()
            .referer(false)
            .min_tls_version(Version::TLS_1_2)
            .connect_timeout(network.connect_timeout)
            .pool_idle_timeout(IDLE_CONNECTION)
            // The kernel knows what nobody above can see: whether the peer still takes what lies in its buffers.
            .tcp_user_timeout(network.stall_timeout)
            .gzip(true);
        for certificate in trusted_certificates(network)? {
            builder = builder.add_root_certificate(certificate);
        }
        let client = builder.build().map_err(|cause| {
            Error::new(ErrorKind::Internal, "cannot set up the network client").with_source(cause)
        })?;
        Ok(Self {
            client,
            network: Arc::new(network.clone()),
            #[cfg(any(fuzzing, test))]
            script: None,
        })
    }

    /// Sends a request to where it says.
    pub(crate) async fn execute(
        &self,
        request: reqwest::Request,
    ) -> reqwest::Result<reqwest::Response> {
        #[cfg(any(fuzzing, test))]
        if let Some(script) = &self.script {
            return Ok(script.answer(request).await);
        }
        self.client.execute(request).await
    }

    /// A client whose requests all take a route; it shares the connections of all others.
    pub(crate) fn on(&self, route: Route) -> ClientWithMiddleware {
        let builder = ClientBuilder::new(self.client.clone()).with(route);
        #[cfg(any(fuzzing, test))]
        let builder = match &self.script {
            Some(script) => builder.with_arc(Arc::clone(script) as _),
            None => builder,
        };
        builder.build()
    }
}

fn trusted_certificates(network: &Network) -> Result<Vec<Certificate>> {
    let Some(path) = &network.ca_file else {
        return Ok(Vec::new());
    };
    let unusable = |cause: Box<dyn StdError + Send + Sync>| {
        Error::new(
            ErrorKind::Configuration,
            format!("cannot use the certificates in {}", path.display()),
        )
        .with_hint("Set snowflake_bridge.ca_file to a readable file of certificates in PEM.")
        .with_source(cause)
    };
    let pem = std::fs::read(path).map_err(|cause| unusable(cause.into()))?;
    let certificates =
        Certificate::from_pem_bundle(&pem).map_err(|cause| unusable(cause.into()))?;
    if certificates.is_empty() {
        return Err(unusable("no certificate found".into()));
    }
    Ok(certificates)
}

/// A body that comes more slowly than this many bytes a second, after the stall timeout, is given up: no network is that
/// slow, and a peer that sends a byte now and then could hold a session for ever.
const SLOWEST: f64 = 256.0;

/// Whether a body of which `bytes` have come since `begun` is given up.
pub(crate) fn trickles(bytes: usize, begun: Instant, stall_timeout: Duration) -> bool {
    let elapsed = begun.elapsed();
    elapsed > stall_timeout && (bytes as f64) < elapsed.as_secs_f64() * SLOWEST
}

/// Reads a body whole, as long as it keeps coming and stays within `limit` bytes.
///
/// # Errors
/// `Transient` if it stops, trickles or is cut off, `Internal` if it is too long.
pub(crate) async fn read_body(
    mut answer: reqwest::Response,
    host: &str,
    stall_timeout: Duration,
    limit: usize,
) -> Result<Bytes> {
    let mut body = BytesMut::new();
    let begun = Instant::now();
    loop {
        if trickles(body.len(), begun, stall_timeout) {
            return Err(late(host));
        }
        let piece = match timeout(stall_timeout, answer.chunk()).await {
            Ok(Ok(Some(piece))) => piece,
            Ok(Ok(None)) => return Ok(body.freeze()),
            Ok(Err(cause)) => return Err(failure(cause, host)),
            Err(_) => return Err(late(host)),
        };
        if body.len() + piece.len() > limit {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("{host} sent an answer of more than {limit} bytes"),
            ));
        }
        body.extend_from_slice(&piece);
    }
}

/// Tries something until it works or fails for good, as often and with such pauses as the network's settings have it. A
/// server that wants a longer pause gets it from the caller, who does not hold anything meanwhile.
///
/// # Errors
/// Those of the last try.
pub(crate) async fn retried<T, F: Future<Output = Result<T>>>(
    network: &Network,
    mut once: impl FnMut() -> F,
) -> Result<T> {
    let (mut wait, mut attempt) = (Duration::ZERO, 1);
    loop {
        let error = match once().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let asked = error.retry_after().unwrap_or_default();
        if !error.kind().is_retryable() || attempt >= network.tries || asked > network.backoff.max {
            return Err(error);
        }
        attempt += 1;
        wait = network.backoff.delay(wait, &mut rand::thread_rng());
        tokio::time::sleep(wait.max(asked)).await;
    }
}

/// What it means that nothing came.
pub(crate) fn late(host: &str) -> Error {
    Error::new(
        ErrorKind::Transient,
        format!("no answer from {host} in time"),
    )
}

/// What it means that a request to `host` got no answer.
pub(crate) fn failure(cause: reqwest::Error, host: &str) -> Error {
    let cause = cause.without_url();
    for inner in causes(&cause) {
        if let Some(error) = inner.downcast_ref::<Error>() {
            let copy = Error::new(error.kind(), error.message());
            return match error.hint() {
                Some(hint) => copy.with_hint(hint),
                None => copy,
            };
        }
        if let Some(error) = inner.downcast_ref::<rustls::Error>() {
            return tls_failure(error, host);
        }
    }
    let what = if cause.is_connect() && cause.is_timeout() {
        format!("no connection to {host} in time")
    } else if cause.is_connect() {
        format!("cannot connect to {host}")
    } else if cause.is_timeout() {
        return late(host).with_source(cause);
    } else {
        format!("the connection to {host} was lost")
    };
    Error::new(ErrorKind::Transient, what).with_source(cause)
}

fn tls_failure(cause: &rustls::Error, host: &str) -> Error {
    let (kind, what) = match cause {
        rustls::Error::InvalidCertificate(_) => (
            ErrorKind::Configuration,
            "does not have a valid certificate",
        ),
        rustls::Error::PeerIncompatible(_)
        | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            (ErrorKind::Configuration, "does not speak TLS 1.2 or later")
        }
        _ => (ErrorKind::Transient, "broke off the TLS handshake"),
    };
    Error::new(kind, format!("{host} {what}"))
        .with_hint(
            "Check the account identifier; a certificate that your organisation signed belongs in snowflake_bridge.ca_file.",
        )
        .with_source(cause.clone())
}

/// All causes of an error. An I/O error hides the one it was made from, which is where TLS errors sit.
fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    fn cause<'a>(error: &&'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
        match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => (*error).source(),
        }
    }
    std::iter::successors(Some(error), cause)
}

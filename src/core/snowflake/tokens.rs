//! The tokens of a session: the one that its requests show, and the master token that renews it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::errors::{Asked, Defaults, SESSION_EXPIRED};
use super::transport::{Call, Purpose, Transport, lock};
use super::wire::RenewData;
use crate::{Error, ErrorKind, Result};

/// How long a master token lives where the login does not say; what recorded logins say.
const MASTER_LIFE: Duration = Duration::from_secs(14_400);

/// The tokens of one session, shared by its statements, their aborts and its heartbeats. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Tokens(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pair: Mutex<Pair>,
    /// Held while a renewal is under way, so that there is one at a time.
    renewal: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Pair {
    session: SecretString,
    master: Option<SecretString>,
    master_life: Duration,
}

impl Tokens {
    /// # Errors
    /// `Internal` for a token that does not fit into a header.
    pub(crate) fn new(
        session: SecretString,
        master: Option<SecretString>,
        master_seconds: Option<u64>,
    ) -> Result<Self> {
        Ok(Self(Arc::new(Shared {
            pair: Mutex::new(Pair {
                session: usable(session)?,
                master: master.map(usable).transpose()?,
                master_life: master_seconds.map_or(MASTER_LIFE, Duration::from_secs),
            }),
            renewal: tokio::sync::Mutex::default(),
        })))
    }

    /// The token to show now.
    pub(crate) fn session(&self) -> SecretString {
        lock(&self.0.pair).session.clone()
    }

    /// How long the session lives without a sign of life.
    pub(crate) fn master_life(&self) -> Duration {
        lock(&self.0.pair).master_life
    }

    /// Gets a new session token in place of `expired`, unless somebody else has done so meanwhile. Temporary objects and
    /// the open transaction live on.
    ///
    /// # Errors
    /// `SessionEnded` if there is no master token, or it is of no use any more; what kept Snowflake from answering.
    pub(crate) async fn renew(
        &self,
        transport: &Arc<Transport>,
        expired: SecretString,
        defaults: &Arc<Defaults>,
    ) -> Result<()> {
        let (tokens, transport, defaults) =
            (self.clone(), Arc::clone(transport), Arc::clone(defaults));
        // A task of its own: whoever asked may be dropped, and the new master token must not be lost with him.
        let task =
            tokio::spawn(async move { tokens.renew_once(&transport, &expired, &defaults).await });
        task.await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Internal,
                "the renewal of a session panicked",
            ))
        })
    }

    async fn renew_once(
        &self,
        transport: &Transport,
        expired: &SecretString,
        defaults: &Defaults,
    ) -> Result<()> {
        let _turn = self.0.renewal.lock().await;
        let master = {
            let pair = lock(&self.0.pair);
            if pair.session.expose_secret() != expired.expose_secret() {
                return Ok(());
            }
            pair.master.clone()
        };
        let Some(master) = master else {
            return Err(
                Error::new(ErrorKind::SessionEnded, "the Snowflake session has expired")
                    .with_code(SESSION_EXPIRED),
            );
        };
        let mut call = Call::new(Purpose::Renew, Some(&master));
        call.secrets.push(expired);
        let body =
            || Ok(json!({"oldSessionToken": expired.expose_secret(), "requestType": "RENEW"}));
        let envelope = transport.call(&call, body).await?;
        if !envelope.is_success() {
            return Err(envelope.refused(Asked::Statement, defaults));
        }
        let renewed: RenewData = envelope.data()?;
        let session = usable(renewed.session_token)?;
        let master = renewed.master_token.map_or(Ok(master), usable)?;
        let mut pair = lock(&self.0.pair);
        pair.session = session;
        pair.master = Some(master);
        if let Some(seconds) = renewed.validity_in_seconds_mt {
            pair.master_life = Duration::from_secs(seconds);
        }
        Ok(())
    }
}

/// A token that can stand in a header, between quotes.
fn usable(token: SecretString) -> Result<SecretString> {
    let bytes = token.expose_secret().as_bytes();
    let fits = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'"';
    if bytes.is_empty() || !bytes.iter().all(fits) {
        return Err(Error::new(
            ErrorKind::Internal,
            "Snowflake sent a session token that cannot be one",
        ));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_must_fit_into_a_header() {
        for (token, fits) in [
            ("ver:1-abc==", true),
            ("session token", true),
            ("", false),
            ("a\r\nb", false),
            ("a\"b", false),
            ("ä", false),
        ] {
            assert_eq!(usable(token.into()).is_ok(), fits, "{token:?}");
        }
    }

    #[test]
    fn debug_never_shows_a_token() {
        let tokens = Tokens::new("hunter2".into(), Some("hunter2".into()), None).unwrap();
        assert!(!format!("{tokens:?}").contains("hunter2"));
    }
}

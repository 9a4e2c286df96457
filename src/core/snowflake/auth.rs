//! The proof of who logs in, as the fields of a login request.

use std::time::SystemTime;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::http::Http;
use super::key_pair::KeyPair;
use super::{errors, oauth};
use crate::config::{ConnectionSettings, Credentials};
use crate::{Error, ErrorKind, Result};

/// Credentials that are ready to be shown, as often as tries need it.
#[derive(Debug)]
pub(crate) enum Proof {
    Password(SecretString),
    KeyPair {
        key: Box<KeyPair>,
        account: String,
        user: String,
    },
    Passcode {
        password: SecretString,
        passcode: SecretString,
    },
    Token(SecretString),
    /// An access token, and the grant it came from if we fetched it.
    OAuth {
        token: SecretString,
        grant: Option<&'static str>,
    },
}

impl Proof {
    /// Makes the proof ready; for an OAuth client that means to fetch a token.
    ///
    /// # Errors
    /// `Credentials` if the private key cannot be read, or the secret is empty; those of [`oauth::access_token`].
    pub(crate) async fn new(http: &Http, settings: &ConnectionSettings) -> Result<Self> {
        let not_empty = |secret: &SecretString, what| match secret.expose_secret() {
            "" => Err(Error::new(
                ErrorKind::Credentials,
                format!("the {what} is empty"),
            )),
            _ => Ok(secret.clone()),
        };
        Ok(match &settings.credentials {
            Credentials::Password(password) => Self::Password(not_empty(password, "password")?),
            Credentials::Token(token) => {
                Self::Token(not_empty(token, "programmatic access token")?)
            }
            Credentials::KeyPair {
                private_key_pem,
                passphrase,
            } => Self::KeyPair {
                key: Box::new(open(private_key_pem, passphrase.as_ref()).await?),
                account: settings.account.jwt_name(),
                user: settings.username.to_uppercase(),
            },
            Credentials::Passcode { password, passcode } => Self::Passcode {
                password: not_empty(password, "password")?,
                passcode: not_empty(passcode, "passcode")?,
            },
            Credentials::OAuthToken(token) => Self::OAuth {
                token: not_empty(token, "OAuth access token")?,
                grant: None,
            },
            Credentials::OAuthClient(client) => Self::OAuth {
                token: oauth::access_token(http, settings, client).await?,
                grant: Some(oauth::GRANT),
            },
        })
    }

    /// The fields that prove the user at this moment.
    ///
    /// # Errors
    /// `Internal` if signing fails.
    pub(crate) fn fields(&self, now: SystemTime) -> Result<Map<String, Value>> {
        let mut fields = Map::new();
        let mut set = |name: &str, value: &str| fields.insert(name.to_owned(), Value::from(value));
        match self {
            Self::Password(password) => {
                set("PASSWORD", password.expose_secret());
            }
            Self::KeyPair { key, account, user } => {
                set("AUTHENTICATOR", "SNOWFLAKE_JWT");
                set(
                    "TOKEN",
                    key.login_token(account, user, now)?.expose_secret(),
                );
            }
            Self::Token(token) => {
                set("AUTHENTICATOR", "PROGRAMMATIC_ACCESS_TOKEN");
                set("TOKEN", token.expose_secret());
            }
            Self::Passcode { password, passcode } => {
                set("PASSWORD", password.expose_secret());
                set("EXT_AUTHN_DUO_METHOD", "passcode");
                set("PASSCODE", passcode.expose_secret());
            }
            Self::OAuth { token, .. } => {
                set("AUTHENTICATOR", "OAUTH");
                set("TOKEN", token.expose_secret());
            }
        }
        Ok(fields)
    }

    /// How the environment of the client names the OAuth grant, if there was one.
    pub(crate) fn oauth_grant(&self) -> Option<&'static str> {
        match self {
            Self::OAuth { grant, .. } => *grant,
            _ => None,
        }
    }

    /// Whether another login may succeed where one ended with `code`: with a signature of the current time, or with a
    /// fresh access token.
    pub(crate) fn can_be_renewed(&self, code: &str) -> bool {
        match self {
            Self::KeyPair { .. } => errors::is_stale_jwt(code),
            Self::OAuth { grant, .. } => grant.is_some() && errors::is_stale_oauth_token(code),
            _ => false,
        }
    }

    /// What must not come back in any text. A login token is made for one try and dies within a minute.
    pub(crate) fn secrets(&self) -> Vec<&SecretString> {
        match self {
            Self::Password(secret) | Self::Token(secret) | Self::OAuth { token: secret, .. } => {
                vec![secret]
            }
            Self::Passcode { password, passcode } => vec![password, passcode],
            Self::KeyPair { .. } => Vec::new(),
        }
    }
}

/// Opening an encrypted key takes a processor for as long as whoever encrypted it chose, and nobody else shall wait.
async fn open(pem: &SecretString, passphrase: Option<&SecretString>) -> Result<KeyPair> {
    let (pem, passphrase) = (pem.clone(), passphrase.cloned());
    tokio::task::spawn_blocking(move || KeyPair::from_pem(&pem, passphrase.as_ref()))
        .await
        .unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Internal,
                "reading the private key panicked",
            ))
        })
}

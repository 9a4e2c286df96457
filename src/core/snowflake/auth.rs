//! The proof of who logs in, as the fields of a login request.

use std::time::SystemTime;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::key_pair::KeyPair;
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
    Token(SecretString),
}

impl Proof {
    /// # Errors
    /// `Credentials` if the private key cannot be read, or the secret is empty.
    pub(crate) fn new(settings: &ConnectionSettings) -> Result<Self> {
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
                key: Box::new(KeyPair::from_pem(private_key_pem, passphrase.as_ref())?),
                account: settings.account.jwt_name(),
                user: settings.username.to_uppercase(),
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
        }
        Ok(fields)
    }

    /// What must not come back in any text. A login token is made for one try and dies within a minute.
    pub(crate) fn secret(&self) -> Option<&SecretString> {
        match self {
            Self::Password(secret) | Self::Token(secret) => Some(secret),
            Self::KeyPair { .. } => None,
        }
    }
}

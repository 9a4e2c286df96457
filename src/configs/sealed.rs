//! Secrets at rest: how a configuration's credential becomes the encrypted columns of its row, and back.
//!
//! What a secret may be used for is sealed in with it. Whoever changes the account, the user name or the owner in the
//! table makes the secret unreadable, instead of having it sent somewhere else.

use bridge_core::config::Credentials;
use bridge_core::crypto::{self, Binding};
use bridge_core::keyring::Keyring;
use bridge_core::{Error as CoreError, ErrorKind};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use crate::error::Result;
use crate::owner::Owner;

/// What a secret belongs to.
pub struct Purpose<'a> {
    pub config_id: Uuid,
    pub owner: &'a Owner,
    pub account_host: &'a str,
    pub username: &'a str,
    pub auth_method: &'a str,
}

/// The encrypted columns of one row.
#[derive(Default)]
pub struct Sealed {
    pub password: Option<Vec<u8>>,
    pub private_key: Option<Vec<u8>>,
    pub private_key_passphrase: Option<Vec<u8>>,
    pub token: Option<Vec<u8>>,
}

/// How `auth_method` calls a credential.
pub fn auth_method(credentials: &Credentials) -> &'static str {
    match credentials {
        Credentials::Password(_) => "password",
        Credentials::KeyPair { .. } => "key_pair",
        Credentials::Token(_) => "token",
    }
}

impl Purpose<'_> {
    /// Encrypts a credential.
    ///
    /// # Errors
    /// If the keyring has no active key.
    pub fn seal(&self, keys: &Keyring, credentials: &Credentials) -> Result<Sealed> {
        let owner = identity(self.owner);
        let seal = |field, secret: &SecretString| -> Result<Option<Vec<u8>>> {
            let bytes = secret.expose_secret().as_bytes();
            Ok(Some(crypto::seal(
                keys,
                &self.binding(field, &owner),
                bytes,
            )?))
        };
        let mut sealed = Sealed::default();
        match credentials {
            Credentials::Password(password) => sealed.password = seal("password", password)?,
            Credentials::Token(token) => sealed.token = seal("token", token)?,
            Credentials::KeyPair {
                private_key_pem,
                passphrase,
            } => {
                sealed.private_key = seal("private_key", private_key_pem)?;
                if let Some(passphrase) = passphrase {
                    sealed.private_key_passphrase = seal("private_key_passphrase", passphrase)?;
                }
            }
        }
        Ok(sealed)
    }

    /// Decrypts it again.
    ///
    /// # Errors
    /// If the key is missing or another one, if the row was changed by hand, or if it holds no secret of its method.
    pub fn open(&self, keys: &Keyring, sealed: &Sealed) -> Result<Credentials> {
        let owner = identity(self.owner);
        let open = |field, secret: &Option<Vec<u8>>| -> Result<Option<SecretString>> {
            let Some(secret) = secret else {
                return Ok(None);
            };
            let plain = crypto::open(keys, &self.binding(field, &owner), secret)?;
            // The bytes are not kept as the cause: they are the secret.
            let text = std::str::from_utf8(&plain)
                .map_err(|_| unreadable("a decrypted secret is not text"))?;
            Ok(Some(SecretString::from(text)))
        };
        let credentials = match self.auth_method {
            "password" => open("password", &sealed.password)?.map(Credentials::Password),
            "token" => open("token", &sealed.token)?.map(Credentials::Token),
            "key_pair" => {
                let passphrase = open("private_key_passphrase", &sealed.private_key_passphrase)?;
                open("private_key", &sealed.private_key)?.map(|private_key_pem| {
                    Credentials::KeyPair {
                        private_key_pem,
                        passphrase,
                    }
                })
            }
            _ => None,
        };
        Ok(credentials.ok_or_else(|| {
            unreadable("the configuration holds no secret for its method of authentication")
        })?)
    }

    fn binding<'a>(&'a self, field: &'a str, owner: &'a str) -> Binding<'a> {
        Binding {
            config_id: self.config_id,
            owner_kind: self.owner.kind(),
            owner,
            account_host: self.account_host,
            username: self.username,
            auth_method: self.auth_method,
            field,
        }
    }
}

/// A role made again under an old name is somebody else, so its OID is part of who it is.
fn identity(owner: &Owner) -> String {
    format!("{}:{}", owner.oid(), owner.user_id())
}

fn unreadable(message: &str) -> CoreError {
    CoreError::new(ErrorKind::Credentials, message)
        .with_hint("Bring the secret again with snowflake_bridge.update_config().")
}

//! Secrets at rest: how a configuration's credential becomes the encrypted columns of its row, and back.
//!
//! What a secret may be used for is sealed in with it. Whoever changes the account, the user name or the owner in the
//! table makes the secret unreadable, instead of having it sent somewhere else; so does whoever changes the name or the
//! token URL of an OAuth client.

use bridge_core::config::Credentials;
use bridge_core::crypto::{self, Binding};
use bridge_core::keyring::Keyring;
use bridge_core::{Error as CoreError, ErrorKind};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::credential::ClientDetails;
use crate::error::{Error, Result};
use crate::owner::Owner;

/// How `auth_method` calls OAuth, whoever gets the tokens.
pub const OAUTH: &str = "oauth";

/// What a secret belongs to.
pub struct Purpose<'a> {
    pub config_id: Uuid,
    pub owner: &'a Owner,
    pub account_host: &'a str,
    pub username: &'a str,
    pub auth_method: &'a str,
}

/// The encrypted columns of one row.
#[derive(Default, Clone)]
pub struct Sealed {
    pub password: Option<Vec<u8>>,
    pub private_key: Option<Vec<u8>>,
    pub private_key_passphrase: Option<Vec<u8>>,
    pub token: Option<Vec<u8>>,
    pub oauth_token: Option<Vec<u8>>,
    pub oauth_client_secret: Option<Vec<u8>>,
}

/// How `auth_method` calls a credential.
pub fn auth_method(credentials: &Credentials) -> &'static str {
    match credentials {
        Credentials::Password(_) | Credentials::Passcode { .. } => "password",
        Credentials::KeyPair { .. } => "key_pair",
        Credentials::Token(_) => "token",
        Credentials::OAuthToken(_) | Credentials::OAuthClient(_) => OAUTH,
    }
}

impl Purpose<'_> {
    /// Encrypts a credential.
    ///
    /// # Errors
    /// If the keyring has no active key; `22023` for a one-time code.
    pub fn seal(&self, keys: &Keyring, credentials: &Credentials) -> Result<Sealed> {
        let owner = identity(self.owner);
        let seal_for = |audience: &[&str], field, secret: &SecretString| {
            let binding = self.binding(field, &owner, audience);
            crypto::seal(keys, &binding, secret.expose_secret().as_bytes()).map(Some)
        };
        let seal = |field, secret| seal_for(&[], field, secret);
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
            Credentials::OAuthToken(token) => sealed.oauth_token = seal("oauth_token", token)?,
            Credentials::OAuthClient(client) => {
                let audience = audience(&client.client_id, client.token_url.as_deref());
                sealed.oauth_client_secret =
                    seal_for(&audience, "oauth_client_secret", &client.client_secret)?;
            }
            Credentials::Passcode { .. } => {
                return Err(Error::invalid("a one-time code cannot be stored"));
            }
        }
        Ok(sealed)
    }

    /// Decrypts it again; `client` is the OAuth client of the row, if there is one.
    ///
    /// # Errors
    /// If the key is missing or another one, if the row was changed by hand, or if it holds no secret of its method.
    pub fn open(
        &self,
        keys: &Keyring,
        sealed: &Sealed,
        client: Option<&ClientDetails>,
    ) -> Result<Credentials> {
        let owner = identity(self.owner);
        let open_for = |audience: &[&str], field, secret: &Option<Vec<u8>>| {
            let Some(secret) = secret else {
                return Ok(None);
            };
            let plain = crypto::open(keys, &self.binding(field, &owner, audience), secret)?;
            // The bytes are not kept as the cause: they are the secret.
            let text = std::str::from_utf8(&plain)
                .map_err(|_| unreadable("a decrypted secret is not text"))?;
            Ok::<_, Error>(Some(SecretString::from(text)))
        };
        let open = |field, secret| open_for(&[], field, secret);
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
            OAUTH => match client {
                Some(client) => {
                    let audience = audience(&client.client_id, client.token_url.as_deref());
                    open_for(
                        &audience,
                        "oauth_client_secret",
                        &sealed.oauth_client_secret,
                    )?
                    .map(|secret| client.clone().with_secret(secret))
                }
                None => open("oauth_token", &sealed.oauth_token)?.map(Credentials::OAuthToken),
            },
            _ => None,
        };
        Ok(credentials.ok_or_else(|| {
            unreadable("the configuration holds no secret for its method of authentication")
        })?)
    }

    /// The secrets encrypted anew with the active key, or `None` if all of them are with it already; `client` as in
    /// [`open`](Self::open).
    ///
    /// # Errors
    /// If one cannot be decrypted.
    pub fn reseal(
        &self,
        keys: &Keyring,
        sealed: &Sealed,
        client: Option<&ClientDetails>,
    ) -> Result<Option<Sealed>> {
        let owner = identity(self.owner);
        let client = client.map(|client| audience(&client.client_id, client.token_url.as_deref()));
        let mut anew = sealed.clone();
        let mut changed = false;
        for (field, secret, audience) in [
            ("password", &mut anew.password, &[][..]),
            ("private_key", &mut anew.private_key, &[]),
            (
                "private_key_passphrase",
                &mut anew.private_key_passphrase,
                &[],
            ),
            ("token", &mut anew.token, &[]),
            ("oauth_token", &mut anew.oauth_token, &[]),
            (
                "oauth_client_secret",
                &mut anew.oauth_client_secret,
                client.as_ref().map_or(&[][..], |audience| audience),
            ),
        ] {
            let Some(old) = secret else { continue };
            let binding = self.binding(field, &owner, audience);
            if let Some(new) = crypto::reseal(keys, &binding, old)? {
                *old = new;
                changed = true;
            }
        }
        Ok(changed.then_some(anew))
    }

    fn binding<'a>(
        &'a self,
        field: &'a str,
        owner: &'a str,
        audience: &'a [&'a str],
    ) -> Binding<'a> {
        Binding {
            config_id: self.config_id,
            owner_kind: self.owner.kind(),
            owner,
            account_host: self.account_host,
            username: self.username,
            auth_method: self.auth_method,
            field,
            audience,
        }
    }
}

/// Whom an OAuth client's secret is for. An absent token URL means the account, which every secret is bound to.
fn audience<'a>(client_id: &'a str, token_url: Option<&'a str>) -> [&'a str; 2] {
    [client_id, token_url.unwrap_or_default()]
}

/// A role made again under an old name is somebody else, so its OID is part of who it is.
fn identity(owner: &Owner) -> String {
    format!("{}:{}", owner.oid(), owner.user_id())
}

fn unreadable(message: &str) -> CoreError {
    CoreError::new(ErrorKind::Credentials, message)
        .with_hint("Bring the secret again with snowflake_bridge.update_config().")
}

//! What a user says about a credential: which one is meant, and whether its parts belong together.

use bridge_core::config::{Credentials, OAuthClient};
use secrecy::{ExposeSecret, SecretString};

use super::draft;
use crate::error::{Error, Result};

/// Room for an encrypted RSA key of 16384 bits in PEM, the longest of the secrets, which has about 13 KB.
const MAX_SECRET: usize = 16 << 10;
/// The length of an address that every server and browser takes; a list of scopes is shorter.
const MAX_ADDRESS: usize = 2048;
const ONE_CREDENTIAL: &str = "Pass exactly one of password, private_key (with private_key_passphrase if it is encrypted), \
     token, oauth_token, or oauth_client_id with oauth_client_secret.";

/// The parts of a credential as they were given; `None` and an empty string for what was not: forms send empty strings
/// for what was left blank.
#[derive(Default)]
pub struct GivenCredential {
    pub password: Option<SecretString>,
    /// Together with the password, for a test: it serves a single login, so it is never stored.
    pub passcode: Option<SecretString>,
    pub private_key: Option<SecretString>,
    pub private_key_passphrase: Option<SecretString>,
    pub token: Option<SecretString>,
    pub oauth_token: Option<SecretString>,
    pub oauth_client_id: Option<String>,
    pub oauth_client_secret: Option<SecretString>,
    pub oauth_token_url: Option<String>,
    pub oauth_scope: Option<String>,
}

/// What of an OAuth client is no secret.
#[derive(Clone)]
pub struct ClientDetails {
    pub client_id: String,
    pub token_url: Option<String>,
    pub scope: Option<String>,
}

/// Which credential a connection is to have.
pub enum Wanted {
    Given(Credentials),
    /// The stored one; of an OAuth client with these details around its secret.
    Stored(Option<ClientDetails>),
}

impl GivenCredential {
    /// The one credential that was given.
    ///
    /// # Errors
    /// `22023` for none, and as [`GivenCredential::read`].
    pub fn require(self) -> Result<Credentials> {
        match self.read(None)? {
            Wanted::Given(credentials) => Ok(credentials),
            Wanted::Stored(_) => Err(Error::invalid("no credential given").hint(ONE_CREDENTIAL)),
        }
    }

    /// The one credential that was given, or the stored one. What is not said of a `stored` OAuth client stays, unless
    /// another credential takes its place.
    ///
    /// # Errors
    /// `22023` for more than one, a part without the rest, or a text that is no secret's length.
    pub fn read(self, stored: Option<&ClientDetails>) -> Result<Wanted> {
        let password = secret("password", self.password)?;
        let passcode = secret("passcode", self.passcode)?;
        let private_key = secret("private_key", self.private_key)?;
        let passphrase = secret("private_key_passphrase", self.private_key_passphrase)?;
        let token = secret("token", self.token)?;
        let oauth_token = secret("oauth_token", self.oauth_token)?;
        let client_secret = secret("oauth_client_secret", self.oauth_client_secret)?;

        if passphrase.is_some() && private_key.is_none() {
            return Err(
                Error::invalid("private_key_passphrase given without private_key")
                    .hint("Pass the key together with its passphrase."),
            );
        }
        if passcode.is_some() && password.is_none() {
            return Err(Error::invalid("passcode given without password")
                .hint("Pass the password together with the code of its second factor."));
        }
        let mut given: Vec<&str> = [
            ("password", &password),
            ("private_key", &private_key),
            ("token", &token),
            ("oauth_token", &oauth_token),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.as_ref().map(|_| name))
        .collect();
        let client = client_details(
            draft::optional("oauth_client_id", self.oauth_client_id)?,
            self.oauth_token_url,
            self.oauth_scope,
            stored.filter(|_| given.is_empty()),
        )?;
        if client.is_none() && client_secret.is_some() {
            return Err(without("oauth_client_secret", "oauth_client_id"));
        }
        if client.is_some() {
            given.push("oauth_client_id");
        }
        if given.len() > 1 {
            return Err(Error::invalid(format!(
                "more than one credential given: {}",
                given.join(" and ")
            ))
            .hint(ONE_CREDENTIAL));
        }
        if let Some(details) = client {
            return match client_secret {
                Some(secret) => Ok(Wanted::Given(details.with_secret(secret))),
                None if stored.is_some() => Ok(Wanted::Stored(Some(details))),
                None => Err(without("oauth_client_id", "oauth_client_secret")),
            };
        }
        let credentials = match (password, passcode) {
            (Some(password), Some(passcode)) => Some(Credentials::Passcode { password, passcode }),
            (password, _) => password.map(Credentials::Password),
        };
        Ok(credentials
            .or(token.map(Credentials::Token))
            .or(oauth_token.map(Credentials::OAuthToken))
            .or(private_key.map(|private_key_pem| Credentials::KeyPair {
                private_key_pem,
                passphrase,
            }))
            .map_or(Wanted::Stored(None), Wanted::Given))
    }
}

impl ClientDetails {
    /// Whether a secret for the one is a secret for the other: it is shown under this name, at this address.
    pub fn has_same_secret(&self, other: &Self) -> bool {
        self.client_id == other.client_id && self.token_url == other.token_url
    }

    /// The whole client.
    pub fn with_secret(self, client_secret: SecretString) -> Credentials {
        Credentials::OAuthClient(OAuthClient {
            client_id: self.client_id,
            client_secret,
            token_url: self.token_url,
            scope: self.scope,
        })
    }
}

/// What was said of an OAuth client over what is `stored` of it; `None` if there is none.
fn client_details(
    client_id: Option<String>,
    token_url: Option<String>,
    scope: Option<String>,
    stored: Option<&ClientDetails>,
) -> Result<Option<ClientDetails>> {
    let over = |what, given: Option<String>, stored: Option<&String>| match given {
        Some(given) => draft::optional_up_to(MAX_ADDRESS, what, Some(given)),
        None => Ok(stored.cloned()),
    };
    let token_url = over(
        "oauth_token_url",
        token_url,
        stored.and_then(|stored| stored.token_url.as_ref()),
    )?;
    let scope = over(
        "oauth_scope",
        scope,
        stored.and_then(|stored| stored.scope.as_ref()),
    )?;
    let client_id = client_id.or(stored.map(|stored| stored.client_id.clone()));
    match (client_id, token_url, scope) {
        (Some(client_id), token_url, scope) => Ok(Some(ClientDetails {
            client_id,
            token_url,
            scope,
        })),
        (None, Some(_), _) => Err(without("oauth_token_url", "oauth_client_id")),
        (None, None, Some(_)) => Err(without("oauth_scope", "oauth_client_id")),
        (None, None, None) => Ok(None),
    }
}

fn without(given: &str, missing: &str) -> Error {
    Error::invalid(format!("{given} given without {missing}")).hint(
        "An OAuth client needs oauth_client_id and oauth_client_secret; oauth_token_url and oauth_scope go with them.",
    )
}

fn secret(what: &str, value: Option<SecretString>) -> Result<Option<SecretString>> {
    let value = value.filter(|value| !value.expose_secret().is_empty());
    match &value {
        Some(value) if value.expose_secret().len() > MAX_SECRET => Err(Error::invalid(format!(
            "{what} is longer than {MAX_SECRET} bytes"
        ))),
        _ => Ok(value),
    }
}

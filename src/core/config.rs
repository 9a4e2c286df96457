//! What is needed to reach Snowflake as somebody: the account, the credentials, and how to use the network.

mod account;
mod hosts;

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

pub use account::Account;
pub use hosts::{AllowedHosts, Scheme};
pub(crate) use hosts::{bracketed, canonical, is_loopback, split_port};

use crate::memory::SendMemory;
use crate::retry::Backoff;

/// How a user proves who he is. `Debug` shows the method and never the secret.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// A password.
    Password(SecretString),
    /// A password together with the one-time code of a second factor, which serves a single login.
    Passcode {
        /// The password.
        password: SecretString,
        /// The code, as the user's device shows it now.
        passcode: SecretString,
    },
    /// An RSA private key whose public half is set on the Snowflake user.
    KeyPair {
        /// PKCS#8 in PEM, encrypted or not.
        private_key_pem: SecretString,
        /// Opens an encrypted key.
        passphrase: Option<SecretString>,
    },
    /// A programmatic access token.
    Token(SecretString),
    /// An access token that somebody got from an OAuth server. It is used as it is until it expires.
    OAuthToken(SecretString),
    /// A client that fetches its own access tokens from an OAuth server.
    OAuthClient(OAuthClient),
}

/// A client as an OAuth server knows it, for the grant `client_credentials` of RFC 6749.
#[derive(Debug, Clone)]
pub struct OAuthClient {
    /// The client's name.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretString,
    /// Where tokens are given out; absent for the account's own `/oauth/token-request`. Any other host has to be in
    /// [`Network::allowed_hosts`].
    pub token_url: Option<String>,
    /// The scope to ask for; absent for `session:role:ROLE` where the settings name a role, and none otherwise.
    pub scope: Option<String>,
}

/// Everything a login needs. Names are sent exactly as they are here: Snowflake folds those that are not quoted.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// Where to log in.
    pub account: Account,
    /// The user's `LOGIN_NAME`. May be empty with OAuth, where the token names the user.
    pub username: String,
    /// The proof.
    pub credentials: Credentials,
    /// The warehouse that runs statements; the user's default if absent.
    pub warehouse: Option<String>,
    /// The current database of the session.
    pub database: Option<String>,
    /// The current schema of the session.
    pub schema: Option<String>,
    /// The primary role; the user's default if absent.
    pub role: Option<String>,
}

/// How to use the network; the same for all sessions.
#[derive(Debug, Clone)]
pub struct Network {
    /// Hosts beyond Snowflake's own, and loopback hosts that may be spoken to without TLS.
    pub allowed_hosts: AllowedHosts,
    /// Whether names may lead to private addresses, as they do with private links into a cloud.
    pub allow_private_endpoints: bool,
    /// Certificates in PEM that are trusted besides the public ones.
    pub ca_file: Option<PathBuf>,
    /// For one connection, TLS included.
    pub connect_timeout: Duration,
    /// The longest time without any progress on a connection.
    pub stall_timeout: Duration,
    /// Given to Snowflake, which ends statements that take longer.
    pub statement_timeout: Duration,
    /// Waits between the tries of one request.
    pub backoff: Backoff,
    /// Tries of one request, the first included. Whoever called tries again later, so this only spans short trouble.
    pub tries: u32,
    /// For files on their way to a stage.
    pub send_memory: SendMemory,
}

impl Default for Network {
    /// What drivers do: up to 7 tries, 1 to 16 s apart. An upload has its own, longer patience around this.
    fn default() -> Self {
        Self {
            allowed_hosts: AllowedHosts::default(),
            allow_private_endpoints: false,
            ca_file: None,
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            statement_timeout: Duration::from_secs(3600),
            backoff: Backoff {
                base: Duration::from_secs(1),
                max: Duration::from_secs(16),
            },
            tries: 7,
            send_memory: SendMemory::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_a_secret() {
        let account = Account::parse("acme-demo", &AllowedHosts::default()).unwrap();
        let settings = |credentials| ConnectionSettings {
            account: account.clone(),
            username: "U".into(),
            credentials,
            warehouse: None,
            database: None,
            schema: None,
            role: None,
        };
        for credentials in [
            Credentials::Password("hunter2".into()),
            Credentials::KeyPair {
                private_key_pem: "hunter2".into(),
                passphrase: Some("hunter2".into()),
            },
            Credentials::Token("hunter2".into()),
            Credentials::Passcode {
                password: "hunter2".into(),
                passcode: "hunter2".into(),
            },
            Credentials::OAuthToken("hunter2".into()),
            Credentials::OAuthClient(OAuthClient {
                client_id: "client".into(),
                client_secret: "hunter2".into(),
                token_url: None,
                scope: None,
            }),
        ] {
            let shown = format!("{:?}", settings(credentials));
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("REDACTED"), "{shown}");
        }
    }
}

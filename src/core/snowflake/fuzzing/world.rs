//! The client of one input: everything as it is, with a script in place of the network. Waits take no time.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{Instant, sleep};

use super::answers::Answers;
use super::{Session, SessionOptions, expect};
use crate::config::{Account, AllowedHosts, ConnectionSettings, Credentials, Network, OAuthClient};
use crate::retry::Backoff;
use crate::snowflake::http::Http;
use crate::snowflake::login::SessionInfo;
use crate::snowflake::script::{Answer, Script};
use crate::snowflake::tokens::Tokens;
use crate::snowflake::transport::Transport;
use crate::{ErrorKind, Result};

pub(super) const PASSWORD: &str = "hunter2-password";
pub(super) const PASSCODE: &str = "hunter2-passcode";
pub(super) const TOKEN: &str = "hunter2-access-token";
pub(super) const SESSION_TOKEN: &str = "hunter2-session-token";
pub(super) const MASTER_TOKEN: &str = "hunter2-master-token";

/// Where the account of all targets is served.
pub(super) const ACCOUNT_HOST: &str = "acme-demo.snowflakecomputing.com";
/// What a superuser has listed.
pub(super) const ALLOWED: &str = "http://127.0.0.1:9000, http://s3.localhost:9001, http://*.blob.localhost:10000, \
     http://storage.localhost:4443, https://snow.corp:8443, https://idp.corp";
const TOKEN_URL: &str = "https://idp.corp/oauth/token";

/// How long a client may wait for each request that it makes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who logs in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Login {
    Password,
    Passcode,
    Token,
    OAuthToken,
    OAuthClient,
}

impl Login {
    /// Reads a first line that says it; a password logs in without one.
    pub(super) fn read(input: &[u8]) -> (Self, &[u8]) {
        for (line, login) in [
            (&b"as password\n"[..], Self::Password),
            (b"as passcode\n", Self::Passcode),
            (b"as token\n", Self::Token),
            (b"as oauth_token\n", Self::OAuthToken),
            (b"as oauth_client\n", Self::OAuthClient),
        ] {
            if let Some(rest) = input.strip_prefix(line) {
                return (login, rest);
            }
        }
        (Self::Password, input)
    }

    /// What the client sends, and no server's words may bring back.
    pub(super) fn secrets(self, answers: &Answers) -> &'static [&'static str] {
        match self {
            // The OAuth client's secret is for the server that gives out tokens; with a token the next server is asked.
            Self::OAuthClient if answers.mention("access_token") => &[],
            Self::Password | Self::OAuthClient => &[PASSWORD],
            Self::Passcode => &[PASSWORD, PASSCODE],
            Self::Token | Self::OAuthToken => &[TOKEN],
        }
    }

    fn credentials(self) -> Credentials {
        match self {
            Self::Password => Credentials::Password(PASSWORD.into()),
            Self::Passcode => Credentials::Passcode {
                password: PASSWORD.into(),
                passcode: PASSCODE.into(),
            },
            Self::Token => Credentials::Token(TOKEN.into()),
            Self::OAuthToken => Credentials::OAuthToken(TOKEN.into()),
            Self::OAuthClient => Credentials::OAuthClient(OAuthClient {
                client_id: "client".to_owned(),
                client_secret: PASSWORD.into(),
                token_url: Some(TOKEN_URL.to_owned()),
                scope: None,
            }),
        }
    }
}

/// A client and the answers that it will get.
pub(super) struct World {
    pub(super) http: Http,
    script: Arc<Script>,
}

impl World {
    /// A client that makes a second try where one may help.
    pub(super) fn new(answers: &Answers) -> Self {
        Self::with_tries(answers, 2)
    }

    /// A client whose errors are those of the first try.
    pub(super) fn without_patience(answers: &Answers) -> Self {
        Self::with_tries(answers, 1)
    }

    fn with_tries(answers: &Answers, tries: u32) -> Self {
        // What takes time to set up is the same for all inputs.
        static HTTP: OnceLock<Http> = OnceLock::new();
        let script = Arc::new(Script::new(answers.0.iter().cloned()));
        let mut http = HTTP.get_or_init(http).clone();
        http.script = Some(Arc::clone(&script));
        http.network = Arc::new(Network {
            tries,
            ..(*http.network).clone()
        });
        Self { http, script }
    }

    /// Logs in.
    pub(super) async fn login(&self, login: Login) -> Result<Session> {
        let settings = ConnectionSettings {
            account: account(),
            username: "LOADER".to_owned(),
            credentials: login.credentials(),
            warehouse: Some("WH".to_owned()),
            database: Some("DB".to_owned()),
            schema: None,
            role: Some("LOADER_ROLE".to_owned()),
        };
        Session::login_over(self.http.clone(), &settings, SessionOptions::default()).await
    }

    /// A session that has logged in before.
    pub(super) fn session(&self) -> Session {
        let tokens = Tokens::new(SESSION_TOKEN.into(), Some(MASTER_TOKEN.into()), None);
        Session::new(
            Transport::new(self.http.clone(), account()),
            tokens.expect("tokens"),
            SessionInfo::default(),
            SessionOptions::default(),
        )
    }

    /// Runs the client, and all that it leaves behind, to the end.
    pub(super) fn run<T>(&self, client: impl Future<Output = T>) -> T {
        thread_local!(static RUNTIME: Runtime = runtime());
        RUNTIME.with(|runtime| {
            runtime.block_on(async {
                let begun = Instant::now();
                let outcome = client.await;
                let waited = begun.elapsed();
                let asked = self.script.count();
                assert!(
                    waited <= PATIENCE * (asked + 1),
                    "{waited:?} went by with {asked} requests"
                );
                for _ in 0..1000 {
                    if Handle::current().metrics().num_alive_tasks() == 0 {
                        return outcome;
                    }
                    sleep(Duration::from_secs(1)).await;
                }
                panic!("a task outlives its session")
            })
        })
    }

    /// Fails unless the requests went where they may go, and an error is fit to be shown. `sent` are secrets that the
    /// servers know, and may repeat.
    pub(super) fn expect_outcome(&self, answers: &Answers, sent: &[&str], outcome: Result<()>) {
        let asked = self.script.asked();
        expect::requests(&asked, answers);
        let Err(error) = outcome else { return };
        expect::error(&error);
        // Of a task that ran on its own, only this is left, unless it is what a server says.
        assert!(
            !error.message().ends_with(" panicked") || answers.mention("panicked"),
            "{error}"
        );
        let shown = format!("{error} {error:?} {:?}", error.hint());
        for secret in sent {
            assert!(!shown.contains(*secret), "a secret is shown: {shown}");
        }
        answers.expect_no_secret_in(&shown);
        // Credentials are not tried again, so only a server that understood the request may refuse them: in words of the
        // protocol, or with a status of HTTP that says nothing else.
        if error.kind() == ErrorKind::Credentials {
            let understood = |answer: &Answer| {
                matches!(answer.status.as_u16(), 400 | 401 | 403)
                    || matches!(answer.body.trim_ascii_start().first(), Some(b'{' | b'['))
            };
            assert!(
                answers.0.iter().any(understood),
                "refused by a page: {error}"
            );
        }
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

fn http() -> Http {
    let network = Network {
        allowed_hosts: AllowedHosts::parse(ALLOWED).expect("hosts"),
        backoff: Backoff {
            base: Duration::from_millis(100),
            max: Duration::from_secs(16),
        },
        ..Network::default()
    };
    Http::new(&network).expect("a client")
}

fn account() -> Account {
    Account::parse("acme-demo", &AllowedHosts::default()).expect("an account")
}

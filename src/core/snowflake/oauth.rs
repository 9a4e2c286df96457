//! Access tokens from an OAuth server, for the grant `client_credentials` of RFC 6749.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::timeout;
use url::{Position, Url, form_urlencoded};

use super::http::{self as client, Http};
use super::{errors, storage, text};
use crate::config::{Account, AllowedHosts, ConnectionSettings, OAuthClient};
use crate::{Error, ErrorKind, Result};

/// What a login calls the grant, as the Python driver does.
pub(crate) const GRANT: &str = "oauth_client_credentials";
/// Where an account gives out tokens itself.
const OWN_PATH: &str = "/oauth/token-request";
const CHECK_CLIENT: &str =
    "Correct the client's id and secret, and check that it may use the grant client_credentials.";
/// A token and what surrounds it have a few kilobytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// What the server answers, either way. All other fields are of no use here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenAnswer {
    access_token: Option<SecretString>,
    error: Option<String>,
    error_description: Option<String>,
}

/// Fetches a token for `client`.
///
/// # Errors
/// `Credentials` if the server refuses the client; `Configuration` for an address that is not allowed, or that serves
/// something else; `Transient` if it cannot be reached.
pub(crate) async fn access_token(
    http: &Http,
    settings: &ConnectionSettings,
    client: &OAuthClient,
) -> Result<SecretString> {
    let url = client.resolve_token_url(&settings.account, &http.network.allowed_hosts)?;
    client::retried(&http.network, || request(http, settings, client, &url)).await
}

impl OAuthClient {
    /// Where the client gets its tokens: at the account itself, or at a host that a superuser listed. A secret goes there.
    ///
    /// # Errors
    /// `Configuration` for a token URL that is none, holds a user name or password, or leads to any other host.
    pub fn resolve_token_url(&self, account: &Account, allowed: &AllowedHosts) -> Result<Url> {
        let own = account.url()?;
        let Some(given) = self.token_url.as_deref().filter(|url| !url.is_empty()) else {
            let mut url = own;
            url.set_path(OWN_PATH);
            return Ok(url);
        };
        // Not repeated: it may hold a password.
        let unusable = || {
            Error::new(ErrorKind::Configuration, "the OAuth token URL is not valid")
                .with_hint("Write it as in https://idp.example.com/oauth/token.")
        };
        let url = Url::parse(given).map_err(|_| unusable())?;
        let names_somebody = !url.username().is_empty() || url.password().is_some();
        if url.host_str().is_none() || url.fragment().is_some() || names_somebody {
            return Err(unusable());
        }
        if url.origin() == own.origin() || storage::is_listed(allowed, &url) {
            return Ok(url);
        }
        Err(Error::new(
            ErrorKind::Configuration,
            format!(
                "the OAuth server is at a host that is not allowed: {}",
                text::clean(&url[..Position::BeforePath])
            ),
        )
        .with_hint("Ask a superuser to add it to snowflake_bridge.allowed_hosts."))
    }
}

async fn request(
    http: &Http,
    settings: &ConnectionSettings,
    client: &OAuthClient,
    url: &Url,
) -> Result<SecretString> {
    let host = url.host_str().unwrap_or_default();
    let mut basic = HeaderValue::try_from(format!(
        "Basic {}",
        STANDARD.encode(format!(
            "{}:{}",
            client.client_id,
            client.client_secret.expose_secret()
        ))
    ))
    .map_err(|_| Error::new(ErrorKind::Internal, "the OAuth client makes no header"))?;
    basic.set_sensitive(true);
    let asked = http
        .client
        .post(url.clone())
        .header(AUTHORIZATION, basic)
        .header(ACCEPT, "application/json")
        .header(
            CONTENT_TYPE,
            "application/x-www-form-urlencoded; charset=UTF-8",
        )
        .body(form(settings, client))
        .build()
        .map_err(|cause| client::failure(cause, host))?;
    let stall = http.network.stall_timeout;
    let answer = timeout(stall, http.execute(asked))
        .await
        .map_err(|_| client::late(host))?
        .map_err(|cause| client::failure(cause, host))?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = client::read_body(answer, host, stall, MAX_ANSWER).await?;
    let told: TokenAnswer = serde_json::from_slice(&body).unwrap_or_default();
    match told {
        TokenAnswer {
            access_token: Some(token),
            ..
        } if status.is_success() && !token.expose_secret().is_empty() => Ok(token),
        TokenAnswer {
            error: Some(error),
            error_description,
            ..
        } if status.is_client_error() || status.is_success() => {
            Err(refused(client, &error, error_description.as_deref()))
        }
        _ if status.is_success() => Err(Error::new(
            ErrorKind::Configuration,
            format!("{host} answered without an OAuth token"),
        )
        .with_hint("Check the token URL: it has to be the token endpoint of an OAuth server.")),
        _ => Err(errors::with_retry_after(
            without_words(status, host),
            &headers,
        )),
    }
}

/// What a status means that came without the words of RFC 6749.
fn without_words(status: StatusCode, host: &str) -> Error {
    let number = status.as_u16();
    match number {
        400 | 401 | 403 => Error::new(
            ErrorKind::Credentials,
            format!("the OAuth server at {host} refused the client (HTTP {number})"),
        )
        .with_hint(CHECK_CLIENT),
        429 => errors::http_status(status, host),
        408 | 500..=599 => Error::new(
            ErrorKind::Transient,
            format!("the OAuth server at {host} is not available (HTTP {number})"),
        ),
        _ => Error::new(
            ErrorKind::Configuration,
            format!("the OAuth server at {host} gives no token (HTTP {number})"),
        )
        .with_hint("Check the token URL: it has to be the token endpoint of an OAuth server."),
    }
}

fn form(settings: &ConnectionSettings, client: &OAuthClient) -> String {
    let scope = match client.scope.as_deref().filter(|scope| !scope.is_empty()) {
        Some(scope) => Some(scope.to_owned()),
        None => settings
            .role
            .as_deref()
            .filter(|role| !role.is_empty())
            .map(|role| format!("session:role:{role}")),
    };
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    if let Some(scope) = scope {
        form.append_pair("scope", &scope);
    }
    form.finish()
}

/// A refusal in the words of RFC 6749, section 5.2. The secret is taken out, should the server repeat it.
fn refused(client: &OAuthClient, error: &str, description: Option<&str>) -> Error {
    let secret = [&client.client_secret];
    let words = [
        Some("the OAuth server refused the client"),
        Some(error),
        description,
    ];
    let message: Vec<String> = words
        .into_iter()
        .flatten()
        .map(|words| text::clean(&text::mask(words.to_owned(), secret)))
        .filter(|words| !words.is_empty())
        .collect();
    let message = message.join(": ");
    match error {
        // RFC 6749, 4.1.2.1: for servers that cannot answer 503 here.
        "temporarily_unavailable" | "server_error" => Error::new(ErrorKind::Transient, message),
        "invalid_scope" => Error::new(ErrorKind::Configuration, message)
            .with_hint("Correct the scope, or the role it is made from."),
        _ => Error::new(ErrorKind::Credentials, message).with_hint(CHECK_CLIENT),
    }
}

//! The login, which makes a session: who, where, and under which rules its statements run.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::auth::Proof;
use super::errors::{Asked, Defaults};
use super::http::{APPLICATION, Http, VERSION};
use super::session::{Session, SessionOptions};
use super::text;
use super::tokens::Tokens;
use super::transport::{Call, Purpose, Transport};
use super::wire::LoginData;
use crate::config::{ConnectionSettings, Network};
use crate::{Error, Result};

/// What a login tells about the session. Absent where Snowflake did not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionInfo {
    /// The account's name as the login gave it.
    pub account: Option<String>,
    /// The user as the login gave it.
    pub username: Option<String>,
    /// The role in use.
    pub role: Option<String>,
    /// The warehouse in use.
    pub warehouse: Option<String>,
    /// The current database.
    pub database: Option<String>,
    /// The current schema.
    pub schema: Option<String>,
    /// The version of the service.
    pub server_version: Option<String>,
}

impl Session {
    /// Logs in.
    ///
    /// # Errors
    /// `Credentials` if Snowflake refuses the user; `Configuration` if the account does not exist, or the user may not
    /// use the warehouse, database, schema or role; `Transient` if Snowflake cannot be reached.
    pub async fn login(
        settings: &ConnectionSettings,
        network: &Network,
        options: &SessionOptions,
    ) -> Result<Self> {
        Self::login_over(Http::new(network)?, settings, options.clone()).await
    }

    pub(crate) async fn login_over(
        http: Http,
        settings: &ConnectionSettings,
        options: SessionOptions,
    ) -> Result<Self> {
        let statement_timeout = http.network.statement_timeout;
        let transport = Transport::new(http, settings.account.clone());
        let attempt = async || {
            let proof = Proof::new(&transport.http, settings).await?;
            let body = || login_body(settings, &proof, statement_timeout, options.explicit_commit);
            let envelope = transport.call(&login_call(settings, &proof), body).await?;
            Ok::<_, Error>((proof, envelope))
        };
        let (proof, mut envelope) = attempt().await?;
        if envelope
            .code
            .as_deref()
            .is_some_and(|code| proof.can_be_renewed(code))
        {
            (_, envelope) = attempt().await?;
        }
        if !envelope.is_success() {
            return Err(envelope.refused(Asked::Login, &Defaults::from(settings)));
        }
        let data: LoginData = envelope.data()?;
        let granted = data.session_info.unwrap_or_default();
        let tokens = Tokens::new(
            data.token,
            data.master_token,
            data.master_validity_in_seconds,
        )?;
        let info = SessionInfo {
            account: Some(settings.account.name().to_owned()),
            username: Some(settings.username.clone()),
            role: name(granted.role_name),
            warehouse: name(granted.warehouse_name),
            database: name(granted.database_name),
            schema: name(granted.schema_name),
            server_version: data.server_version.as_deref().map(text::clean),
        };
        Ok(Self::new(transport, tokens, info, options))
    }
}

/// A name that the answer gives, unless it can be none: users see it, and later statements name it.
fn name(given: Option<String>) -> Option<String> {
    given.filter(|name| text::is_name(name))
}

/// Names as the user gave them: Snowflake folds what is not quoted.
fn login_call<'a>(settings: &'a ConnectionSettings, proof: &'a Proof) -> Call<'a> {
    let mut call = Call::new(Purpose::Login, None);
    for (key, name) in [
        ("databaseName", &settings.database),
        ("schemaName", &settings.schema),
        ("warehouse", &settings.warehouse),
        ("roleName", &settings.role),
    ] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            call.parameters.push((key, name));
        }
    }
    call.secrets.extend(proof.secrets());
    call
}

fn login_body(
    settings: &ConnectionSettings,
    proof: &Proof,
    statement_timeout: Duration,
    explicit_commit: bool,
) -> Result<Value> {
    let parameters = json!({
        // Without it a wrong warehouse, database, schema or role is silently ignored.
        "CLIENT_VALIDATE_DEFAULT_PARAMETERS": true,
        "AUTOCOMMIT": !explicit_commit,
        // TIMESTAMP_LTZ becomes TIMESTAMP_TZ with the offset of the session.
        "TIMEZONE": "UTC",
        // What we write is ISO 8601 and hexadecimal, whatever an account's own formats are.
        "DATE_INPUT_FORMAT": "AUTO",
        "TIME_INPUT_FORMAT": "AUTO",
        "TIMESTAMP_INPUT_FORMAT": "AUTO",
        "BINARY_INPUT_FORMAT": "HEX",
        // An account that folds quoted names would make "a" and "A" one column.
        "QUOTED_IDENTIFIERS_IGNORE_CASE": false,
        "MULTI_STATEMENT_COUNT": 1,
        // A worker that was killed leaves no statement running for long.
        "ABORT_DETACHED_QUERY": true,
        "ERROR_ON_NONDETERMINISTIC_MERGE": true,
        "STATEMENT_TIMEOUT_IN_SECONDS": statement_timeout.as_secs(),
        "LOCK_TIMEOUT": statement_timeout.as_secs(),
    });
    let mut environment = json!({"APPLICATION": APPLICATION, "OS": std::env::consts::OS});
    if let Some(grant) = proof.oauth_grant() {
        environment["OAUTH_TYPE"] = Value::from(grant);
    }
    let mut data = proof.fields(SystemTime::now())?;
    if !settings.username.is_empty() {
        data.insert(
            "LOGIN_NAME".to_owned(),
            Value::from(settings.username.as_str()),
        );
    }
    data.extend([
        ("CLIENT_APP_ID".to_owned(), Value::from(APPLICATION)),
        ("CLIENT_APP_VERSION".to_owned(), Value::from(VERSION)),
        (
            "ACCOUNT_NAME".to_owned(),
            Value::from(settings.account.name()),
        ),
        ("SESSION_PARAMETERS".to_owned(), parameters),
        ("CLIENT_ENVIRONMENT".to_owned(), environment),
    ]);
    Ok(json!({ "data": data }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_can_be_none_count_as_absent() {
        let kept = |given: &str| name(Some(given.to_owned())).is_some();
        assert!(kept("LOADER") && kept("a b.c \"d\"") && kept(&"ä".repeat(255)));
        for odd in ["", "a\nb", "a\u{202e}b", "a\0", &"x".repeat(256)] {
            assert!(!kept(odd), "{odd:?}");
        }
        assert_eq!(name(None), None);
    }
}

//! What a user says about a connection, and whether it makes sense together.

use bridge_core::config::{Account, AllowedHosts, ConnectionSettings, Credentials};
use bridge_core::snowflake::public_key_statement;
use serde_json::Value;

use super::credential::GivenCredential;
use super::sealed::{self, OAUTH};
use crate::error::{Error, Result};

/// Snowflake's own limit of an identifier.
const MAX_NAME: usize = 255;
/// What `create_config` assumes where no schema is given.
const DEFAULT_SCHEMA: &str = "PUBLIC";
/// Snowflake's codes for a token that is signed with another key than the user's, or whose user has none.
const UNKNOWN_KEY: [&str; 2] = ["390144", "394304"];

/// Values as they were given; `None` for what was not. In an update an empty string takes a value away.
#[derive(Default)]
pub struct Given {
    pub account_identifier: Option<String>,
    pub warehouse: Option<String>,
    pub database: Option<String>,
    pub schema: Option<String>,
    pub role: Option<String>,
    pub username: Option<String>,
    pub credential: GivenCredential,
}

/// A complete description of a connection, in the user's words.
pub struct Draft {
    pub account_identifier: String,
    pub warehouse: Option<String>,
    pub database: Option<String>,
    pub schema: Option<String>,
    pub role: Option<String>,
    /// Absent only with OAuth, where the token names the user.
    pub username: Option<String>,
    pub credentials: Credentials,
}

impl Given {
    /// Reads the settings of a form: an object of strings.
    ///
    /// # Errors
    /// `22023` if it is no object, or holds an unknown key or a value that is no string.
    pub fn from_json(settings: Value) -> Result<Self> {
        let Value::Object(settings) = settings else {
            return Err(Error::invalid("settings must be a JSON object"));
        };
        let mut given = Self::default();
        let mut unknown = Vec::new();
        for (key, value) in settings {
            let value = match value {
                Value::Null => continue,
                Value::String(text) => text,
                _ => {
                    return Err(Error::invalid(format!(
                        "settings: the value of \"{key}\" must be a string"
                    )));
                }
            };
            let credential = &mut given.credential;
            match key.as_str() {
                "account_identifier" => given.account_identifier = Some(value),
                "warehouse" => given.warehouse = Some(value),
                "database" => given.database = Some(value),
                "schema" => given.schema = Some(value),
                "role" => given.role = Some(value),
                "username" => given.username = Some(value),
                "password" => credential.password = Some(value.into()),
                "passcode" => credential.passcode = Some(value.into()),
                "private_key" => credential.private_key = Some(value.into()),
                "private_key_passphrase" => credential.private_key_passphrase = Some(value.into()),
                "token" => credential.token = Some(value.into()),
                "oauth_token" => credential.oauth_token = Some(value.into()),
                "oauth_client_id" => credential.oauth_client_id = Some(value),
                "oauth_client_secret" => credential.oauth_client_secret = Some(value.into()),
                "oauth_token_url" => credential.oauth_token_url = Some(value),
                "oauth_scope" => credential.oauth_scope = Some(value),
                _ => unknown.push(format!("\"{key}\"")),
            }
        }
        if unknown.is_empty() {
            return Ok(given);
        }
        Err(Error::invalid(format!("settings: unknown key {}", unknown.join(", "))).hint(
            "Known keys are account_identifier, warehouse, database, schema, role, username, password, passcode, \
             private_key, private_key_passphrase, token, oauth_token, oauth_client_id, oauth_client_secret, \
             oauth_token_url and oauth_scope.",
        ))
    }

    /// The draft of a connection that does not exist yet.
    ///
    /// # Errors
    /// `22023` for what is missing, too long, or given twice.
    pub fn complete(self) -> Result<Draft> {
        let credentials = self.credential.require()?;
        let database = optional("database", self.database)?;
        // The default of an argument is nobody's wish: without a database the user's own defaults count, schema and all.
        let schema = optional("schema", self.schema)?
            .filter(|schema| database.is_some() || schema != DEFAULT_SCHEMA);
        Ok(Draft {
            account_identifier: required("account_identifier", self.account_identifier)?,
            warehouse: optional("warehouse", self.warehouse)?,
            database,
            schema,
            role: optional("role", self.role)?,
            username: username(optional("username", self.username)?, &credentials)?,
            credentials,
        })
    }
}

impl Draft {
    /// The user name as a login sends it: empty if there is none.
    pub fn username(&self) -> &str {
        self.username.as_deref().unwrap_or_default()
    }

    /// Puts the cure into what a login said: a key that Snowflake does not know yet is made known by one statement.
    pub fn with_cure(&self, error: Error) -> Error {
        match (error, &self.credentials) {
            (
                Error::Core(error),
                Credentials::KeyPair {
                    private_key_pem,
                    passphrase,
                },
            ) if error.code().is_some_and(|code| UNKNOWN_KEY.contains(&code)) => {
                match public_key_statement(self.username(), private_key_pem, passphrase.as_ref()) {
                    Ok(statement) => error
                        .with_hint(format!("Run this in Snowflake first: {statement}"))
                        .into(),
                    Err(unreadable) => unreadable.into(),
                }
            }
            (error, _) => error,
        }
    }

    /// What a login needs.
    ///
    /// # Errors
    /// `22023` for an account identifier that is none, a private key that cannot be read, with the reason, or a token
    /// URL where no secret may go.
    pub fn settings(&self, hosts: &AllowedHosts) -> Result<ConnectionSettings> {
        let account = Account::parse(&self.account_identifier, hosts)?;
        match &self.credentials {
            Credentials::KeyPair {
                private_key_pem,
                passphrase,
            } => {
                public_key_statement(self.username(), private_key_pem, passphrase.as_ref())?;
            }
            Credentials::OAuthClient(client) => {
                client.resolve_token_url(&account, hosts)?;
            }
            _ => {}
        }
        Ok(ConnectionSettings {
            account,
            username: self.username().to_owned(),
            credentials: self.credentials.clone(),
            warehouse: self.warehouse.clone(),
            database: self.database.clone(),
            schema: self.schema.clone(),
            role: self.role.clone(),
        })
    }
}

/// The name of a configuration.
///
/// # Errors
/// `22023` if it is empty or too long.
pub fn config_name(name: Option<&str>) -> Result<String> {
    required("name", Some(name.unwrap_or(super::DEFAULT_NAME).to_owned()))
}

/// A value that has to be there.
pub(super) fn required(what: &str, value: Option<String>) -> Result<String> {
    optional(what, value)?.ok_or_else(|| Error::invalid(format!("{what} must not be empty")))
}

/// The user name, which only a token can stand in for.
pub(super) fn username(
    username: Option<String>,
    credentials: &Credentials,
) -> Result<Option<String>> {
    match username {
        None if sealed::auth_method(credentials) != OAUTH => required("username", None).map(Some),
        username => Ok(username),
    }
}

/// A value that may be absent, which an empty string says too.
pub(super) fn optional(what: &str, value: Option<String>) -> Result<Option<String>> {
    optional_up_to(MAX_NAME, what, value)
}

/// As [`optional`], with a limit of its own.
pub(super) fn optional_up_to(
    limit: usize,
    what: &str,
    value: Option<String>,
) -> Result<Option<String>> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    if value.chars().count() > limit {
        return Err(Error::invalid(format!(
            "{what} is longer than {limit} characters"
        )));
    }
    if value.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "{what} must not hold control characters"
        )));
    }
    Ok(Some(value))
}

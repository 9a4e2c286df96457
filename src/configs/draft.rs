//! What a user says about a connection: which values and which secret, and whether they make sense together.

use bridge_core::config::{Account, AllowedHosts, ConnectionSettings, Credentials};
use bridge_core::snowflake::public_key_statement;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::error::{Error, Result};

/// Snowflake's own limit of an identifier.
const MAX_NAME: usize = 255;
/// What `create_config` assumes where no schema is given.
const DEFAULT_SCHEMA: &str = "PUBLIC";
/// Room for an encrypted RSA key of 16384 bits in PEM, the longest of the secrets, which has about 13 KB.
const MAX_SECRET: usize = 16 << 10;
/// Snowflake's codes for a token that is signed with another key than the user's, or whose user has none.
const UNKNOWN_KEY: [&str; 2] = ["390144", "394304"];
const ONE_CREDENTIAL: &str = "Pass exactly one of password, private_key (with private_key_passphrase if it is encrypted) or token.";

/// Values as they were given; `None` for what was not. In an update an empty string takes a value away.
#[derive(Default)]
pub struct Given {
    pub account_identifier: Option<String>,
    pub warehouse: Option<String>,
    pub database: Option<String>,
    pub schema: Option<String>,
    pub role: Option<String>,
    pub username: Option<String>,
    pub secrets: GivenSecrets,
}

/// The secrets among them.
#[derive(Default)]
pub struct GivenSecrets {
    pub password: Option<SecretString>,
    pub private_key: Option<SecretString>,
    pub private_key_passphrase: Option<SecretString>,
    pub token: Option<SecretString>,
}

/// A complete description of a connection, in the user's words.
pub struct Draft {
    pub account_identifier: String,
    pub warehouse: Option<String>,
    pub database: Option<String>,
    pub schema: Option<String>,
    pub role: Option<String>,
    pub username: String,
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
            match key.as_str() {
                "account_identifier" => given.account_identifier = Some(value),
                "warehouse" => given.warehouse = Some(value),
                "database" => given.database = Some(value),
                "schema" => given.schema = Some(value),
                "role" => given.role = Some(value),
                "username" => given.username = Some(value),
                "password" => given.secrets.password = Some(value.into()),
                "private_key" => given.secrets.private_key = Some(value.into()),
                "private_key_passphrase" => {
                    given.secrets.private_key_passphrase = Some(value.into())
                }
                "token" => given.secrets.token = Some(value.into()),
                _ => unknown.push(format!("\"{key}\"")),
            }
        }
        if unknown.is_empty() {
            return Ok(given);
        }
        Err(Error::invalid(format!("settings: unknown key {}", unknown.join(", "))).hint(
            "Known keys are account_identifier, warehouse, database, schema, role, username, password, private_key, \
             private_key_passphrase and token.",
        ))
    }

    /// The draft of a connection that does not exist yet.
    ///
    /// # Errors
    /// `22023` for what is missing, too long, or given twice.
    pub fn complete(self) -> Result<Draft> {
        let credentials = self
            .secrets
            .credential()?
            .ok_or_else(|| Error::invalid("no credential given").hint(ONE_CREDENTIAL))?;
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
            username: required("username", self.username)?,
            credentials,
        })
    }
}

impl GivenSecrets {
    /// The one credential, if any was given. Forms send empty strings for what was left blank.
    ///
    /// # Errors
    /// `22023` for more than one, a passphrase without its key, or a text that is no secret's length.
    pub fn credential(self) -> Result<Option<Credentials>> {
        let password = secret("password", self.password)?;
        let private_key = secret("private_key", self.private_key)?;
        let passphrase = secret("private_key_passphrase", self.private_key_passphrase)?;
        let token = secret("token", self.token)?;

        if passphrase.is_some() && private_key.is_none() {
            return Err(
                Error::invalid("private_key_passphrase given without private_key")
                    .hint("Pass the key together with its passphrase."),
            );
        }
        let given: Vec<&str> = [
            ("password", &password),
            ("private_key", &private_key),
            ("token", &token),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.as_ref().map(|_| name))
        .collect();
        if given.len() > 1 {
            return Err(Error::invalid(format!(
                "more than one credential given: {}",
                given.join(" and ")
            ))
            .hint(ONE_CREDENTIAL));
        }
        Ok(password
            .map(Credentials::Password)
            .or(token.map(Credentials::Token))
            .or(private_key.map(|private_key_pem| Credentials::KeyPair {
                private_key_pem,
                passphrase,
            })))
    }
}

impl Draft {
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
                match public_key_statement(&self.username, private_key_pem, passphrase.as_ref()) {
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
    /// `22023` for an account identifier that is none, or a private key that cannot be read, with the reason.
    pub fn settings(&self, hosts: &AllowedHosts) -> Result<ConnectionSettings> {
        let account = Account::parse(&self.account_identifier, hosts)?;
        if let Credentials::KeyPair {
            private_key_pem,
            passphrase,
        } = &self.credentials
        {
            public_key_statement(&self.username, private_key_pem, passphrase.as_ref())?;
        }
        Ok(ConnectionSettings {
            account,
            username: self.username.clone(),
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

/// A value that may be absent, which an empty string says too.
pub(super) fn optional(what: &str, value: Option<String>) -> Result<Option<String>> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    if value.chars().count() > MAX_NAME {
        return Err(Error::invalid(format!(
            "{what} is longer than {MAX_NAME} characters"
        )));
    }
    if value.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "{what} must not hold control characters"
        )));
    }
    Ok(Some(value))
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

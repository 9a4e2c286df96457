//! Rows of `snowflake_configurations`: how one is found and opened. [`changes`] writes them.
//!
//! Nobody may write the table directly, and readers see no secrets: every function here expects that the caller's rights
//! were raised (`sandbox::as_extension_owner`; the worker has them), and takes the owner whose rows it may touch. The
//! owner must have been found out before.

mod changes;
mod draft;
mod sealed;
mod waiting;

use bridge_core::config::{Account, AllowedHosts, ConnectionSettings, Credentials};
use bridge_core::snowflake::public_key_statement;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::SpiHeapTupleData;
use uuid::Uuid;

pub use changes::{delete, insert, mark_failed, mark_refused, mark_tested, require_free, update};
pub use draft::{Draft, Given, GivenSecrets, config_name};
use sealed::{Purpose, Sealed};

use crate::error::{Error, Result};
use crate::owner::Owner;
use crate::{keys, net};

/// The configuration that is meant where none is named.
pub const DEFAULT_NAME: &str = "default";

/// A saved configuration. Its secrets are encrypted until [`StoredConfig::open`].
pub struct StoredConfig {
    pub id: Uuid,
    pub owner: Owner,
    pub name: String,
    pub account_identifier: String,
    pub warehouse: Option<String>,
    pub database: Option<String>,
    pub schema: Option<String>,
    pub role: Option<String>,
    pub username: String,
    pub auth_method: String,
    /// False once Snowflake refused the credentials.
    pub is_active: bool,
    pub version: i64,
    pub last_tested_at: Option<TimestampWithTimeZone>,
    pub last_test_error: Option<String>,
    pub created_at: TimestampWithTimeZone,
    pub updated_at: TimestampWithTimeZone,
    sealed: Sealed,
}

/// The owner's configuration of that name.
///
/// # Errors
/// If the query fails.
pub fn resolve(owner: &Owner, name: &str) -> Result<Option<StoredConfig>> {
    Ok(list(owner, Some(name))?.into_iter().next())
}

/// As [`resolve`], where there has to be one, `default` if none is named. Whether it exists for somebody else makes no
/// difference.
///
/// # Errors
/// `42704` if there is none.
pub fn require(owner: &Owner, name: Option<&str>) -> Result<StoredConfig> {
    let name = name.unwrap_or(DEFAULT_NAME);
    resolve(owner, name)?.ok_or_else(|| {
        Error::missing(format!(
            "no Snowflake configuration \"{name}\" for user \"{}\"",
            owner.user_id()
        ))
        .hint("Make one with snowflake_bridge.create_config().")
    })
}

/// Refuses to go on without keys to encrypt with, before anything slow is done.
///
/// # Errors
/// As [`keys::load_or_create`].
pub fn require_keys() -> Result<()> {
    keys::load_or_create().map(drop)
}

/// An owner's configurations by name, or the one of that name.
///
/// # Errors
/// If the query fails.
pub fn list(owner: &Owner, name: Option<&str>) -> Result<Vec<StoredConfig>> {
    const LIST: &str = "
        select c.id, c.owner_kind, c.user_id, c.owner_oid, c.name, c.account_identifier, c.warehouse, c.database,
               c.schema, c.role, c.username, c.auth_method, c.is_active, c.version, c.last_tested_at,
               c.last_test_error, c.created_at, c.updated_at, c.password_encrypted, c.private_key_encrypted,
               c.private_key_passphrase_encrypted, c.token_encrypted
          from snowflake_bridge.snowflake_configurations c
         where c.owner_kind = $1 and c.user_id = $2 and c.owner_oid = $3 and ($4 is null or c.name = $4)
         order by c.name";
    Spi::connect(|client| {
        client
            .select(
                LIST,
                None,
                &[
                    owner.kind().into(),
                    owner.user_id().into(),
                    owner.oid_argument(),
                    name.into(),
                ],
            )?
            .map(|row| StoredConfig::from_row(&row))
            .collect()
    })
}

impl StoredConfig {
    /// Decrypts what a login needs.
    ///
    /// # Errors
    /// If the key file cannot be read, holds other keys, or the row was changed by hand.
    pub fn open(&self) -> Result<ConnectionSettings> {
        let account = account(&self.account_identifier)?;
        let purpose = Purpose {
            config_id: self.id,
            owner: &self.owner,
            account_host: account.host(),
            username: &self.username,
            auth_method: &self.auth_method,
        };
        let credentials = purpose.open(&keys::load()?, &self.sealed)?;
        Ok(ConnectionSettings {
            account,
            username: self.username.clone(),
            credentials,
            warehouse: self.warehouse.clone(),
            database: self.database.clone(),
            schema: self.schema.clone(),
            role: self.role.clone(),
        })
    }

    /// The statement with which Snowflake learns the public half of the stored private key.
    ///
    /// # Errors
    /// `22023` if the configuration has no private key; as [`StoredConfig::open`].
    pub fn public_key(&self) -> Result<String> {
        match self.open()?.credentials {
            Credentials::KeyPair {
                private_key_pem,
                passphrase,
            } => Ok(public_key_statement(&self.username, &private_key_pem, passphrase.as_ref())?),
            _ => Err(Error::invalid(format!("Snowflake configuration \"{}\" has no private key", self.name))
                .hint("It authenticates by other means: see auth_method in snowflake_bridge.get_config().")),
        }
    }

    /// What the configuration will say with `given` in place of what it says now.
    ///
    /// # Errors
    /// `22023` if the secret is missing although it was given for another account or user; what
    /// [`GivenSecrets::credential`] refuses; what [`StoredConfig::open`] says if the secret stays.
    pub fn revised(&self, given: Given, hosts: &AllowedHosts) -> Result<Draft> {
        let mandatory = |what, new: Option<String>, old: &str| match new {
            Some(new) => draft::required(what, Some(new)),
            None => Ok(old.to_owned()),
        };
        let or_absent = |what, new: Option<String>, old: &Option<String>| match new {
            Some(new) => draft::optional(what, Some(new)),
            None => Ok(old.clone()),
        };
        let account_identifier = mandatory(
            "account_identifier",
            given.account_identifier,
            &self.account_identifier,
        )?;
        let username = mandatory("username", given.username, &self.username)?;
        let credentials = match given.secrets.credential()? {
            Some(credentials) => credentials,
            None => {
                let old_host = Account::parse(&self.account_identifier, hosts).ok();
                let new_host = Account::parse(&account_identifier, hosts)?;
                if old_host.as_ref().map(Account::host) != Some(new_host.host())
                    || username != self.username
                {
                    return Err(Error::invalid("a change of account or user name needs the secret again").hint(
                        "Pass password, private_key or token too: a stored secret is only ever sent to the account and \
                         user it was given for.",
                    ));
                }
                self.open()?.credentials
            }
        };
        Ok(Draft {
            account_identifier,
            warehouse: or_absent("warehouse", given.warehouse, &self.warehouse)?,
            database: or_absent("database", given.database, &self.database)?,
            schema: or_absent("schema", given.schema, &self.schema)?,
            role: or_absent("role", given.role, &self.role)?,
            username,
            credentials,
        })
    }

    fn from_row(row: &SpiHeapTupleData) -> Result<Self> {
        Ok(Self {
            id: Uuid::from_bytes(*column::<pgrx::Uuid>(row, "id")?.as_bytes()),
            owner: Owner::from_columns(
                &column::<String>(row, "owner_kind")?,
                column(row, "user_id")?,
                column::<pg_sys::Oid>(row, "owner_oid")?,
            ),
            name: column(row, "name")?,
            account_identifier: column(row, "account_identifier")?,
            warehouse: row.get_by_name("warehouse")?,
            database: row.get_by_name("database")?,
            schema: row.get_by_name("schema")?,
            role: row.get_by_name("role")?,
            username: column(row, "username")?,
            auth_method: column(row, "auth_method")?,
            is_active: column(row, "is_active")?,
            version: column(row, "version")?,
            last_tested_at: row.get_by_name("last_tested_at")?,
            last_test_error: row.get_by_name("last_test_error")?,
            created_at: column(row, "created_at")?,
            updated_at: column(row, "updated_at")?,
            sealed: Sealed {
                password: row.get_by_name("password_encrypted")?,
                private_key: row.get_by_name("private_key_encrypted")?,
                private_key_passphrase: row.get_by_name("private_key_passphrase_encrypted")?,
                token: row.get_by_name("token_encrypted")?,
            },
        })
    }
}

fn account(identifier: &str) -> Result<Account> {
    Ok(Account::parse(identifier, &net::limits()?.allowed_hosts)?)
}

/// A column that the table declares NOT NULL.
fn column<T: FromDatum + IntoDatum>(row: &SpiHeapTupleData, name: &str) -> Result<T> {
    Ok(row
        .get_by_name(name)?
        .ok_or(pgrx::spi::Error::InvalidPosition)?)
}

//! Rows of `snowflake_configurations`: how one is found and opened. [`changes`] writes them.
//!
//! Nobody may write the table directly, and readers see no secrets: every function here expects that the caller's rights
//! were raised (`sandbox::as_extension_owner`; the worker has them), and takes the owner whose rows it may touch. The
//! owner must have been found out before.

mod changes;
mod credential;
mod draft;
mod revision;
mod rotation;
mod sealed;
mod waiting;

use std::sync::LazyLock;

use bridge_core::config::{Account, ConnectionSettings, Credentials};
use bridge_core::keyring::Keyring;
use bridge_core::snowflake::public_key_statement;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::SpiHeapTupleData;
use uuid::Uuid;

pub use changes::{
    delete, insert, mark_failed, mark_let_in, mark_refused, mark_tested, require_free, update,
};
use credential::ClientDetails;
pub use credential::GivenCredential;
pub use draft::{Draft, Given, config_name};
pub use rotation::{Resealed, ids, reseal};
use sealed::{Purpose, Sealed};

use crate::error::{Error, Result};
use crate::owner::Owner;
use crate::statement::kept;
use crate::{keys, net, tx};

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
    /// Absent only with OAuth, where the token names the user.
    pub username: Option<String>,
    pub auth_method: String,
    /// For OAuth with a client of its own; a given access token has none.
    pub oauth_client: Option<ClientDetails>,
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

/// What [`StoredConfig::from_row`] reads.
const SELECT: &str = "
        select c.id, c.owner_kind, c.user_id, c.owner_oid, c.name, c.account_identifier, c.warehouse, c.database,
               c.schema, c.role, c.username, c.auth_method, c.oauth_client_id, c.oauth_token_url, c.oauth_scope,
               c.is_active, c.version, c.last_tested_at, c.last_test_error, c.created_at, c.updated_at,
               c.password_encrypted, c.private_key_encrypted, c.private_key_passphrase_encrypted, c.token_encrypted,
               c.oauth_token_encrypted, c.oauth_client_secret_encrypted
          from snowflake_bridge.snowflake_configurations c";

/// The configuration with this id, whosever it is.
///
/// # Errors
/// If the query fails.
pub fn by_id(id: Uuid) -> Result<Option<StoredConfig>> {
    Spi::connect(|client| {
        client
            .select(
                &format!("{SELECT} where c.id = $1"),
                Some(1),
                &[pgrx::Uuid::from_bytes(*id.as_bytes()).into()],
            )?
            .next()
            .map(|row| StoredConfig::from_row(&row))
            .transpose()
    })
}

/// An owner's configurations by name, or the one of that name.
///
/// # Errors
/// If the query fails.
pub fn list(owner: &Owner, name: Option<&str>) -> Result<Vec<StoredConfig>> {
    static LIST: LazyLock<String> = LazyLock::new(|| {
        format!(
            "{SELECT} where c.owner_kind = $1 and c.user_id = $2 and c.owner_oid = $3 and ($4 is null or c.name = $4) \
             order by c.name"
        )
    });
    let args = [
        owner.kind().into(),
        owner.user_id().into(),
        owner.oid_argument(),
        name.into(),
    ];
    Spi::connect(|client| {
        client
            .select(kept(client, &LIST, &args)?, None, &args)?
            .map(|row| StoredConfig::from_row(&row))
            .collect()
    })
}

/// Whether others than this owner may have uploads: somebody else has a configuration, or a watch sends for others.
///
/// # Errors
/// If the query fails.
pub fn others_may_upload(owner: &Owner) -> Result<bool> {
    tx::read(
        "select exists (select from snowflake_bridge.snowflake_configurations c \
                 where (c.owner_kind, c.user_id, c.owner_oid) <> ($1, $2, $3)) \
             or exists (select from snowflake_bridge.watches w where w.act_for_users and w.is_active)",
        &[
            owner.kind().into(),
            owner.user_id().into(),
            owner.oid_argument(),
        ],
    )
    .map(|found| found.unwrap_or(true))
}

impl StoredConfig {
    /// Decrypts what a login needs.
    ///
    /// # Errors
    /// If the key file cannot be read, holds other keys, or the row was changed by hand.
    pub fn open(&self) -> Result<ConnectionSettings> {
        let account = account(&self.account_identifier)?;
        let purpose = self.purpose(&account);
        let open = || purpose.open(&*keys::load()?, &self.sealed, self.oauth_client.as_ref());
        let credentials = open().or_else(|error| match keys::forget() {
            true => open(),
            false => Err(error),
        })?;
        Ok(ConnectionSettings {
            account,
            username: self.username.clone().unwrap_or_default(),
            credentials,
            warehouse: self.warehouse.clone(),
            database: self.database.clone(),
            schema: self.schema.clone(),
            role: self.role.clone(),
        })
    }

    /// The secrets encrypted anew, if they are not yet with the active key.
    fn resealed(&self, keys: &Keyring) -> Result<Option<Sealed>> {
        let account = account(&self.account_identifier)?;
        self.purpose(&account)
            .reseal(keys, &self.sealed, self.oauth_client.as_ref())
    }

    fn purpose<'a>(&'a self, account: &'a Account) -> Purpose<'a> {
        Purpose {
            config_id: self.id,
            owner: &self.owner,
            account_host: account.host(),
            username: self.username.as_deref().unwrap_or_default(),
            auth_method: &self.auth_method,
        }
    }

    /// Whose stage uploads travel through. Where only the token names the user, each version of the configuration may
    /// mean another one.
    pub fn stage_owner(&self, account: &Account) -> String {
        match &self.username {
            Some(username) => format!("{}/{username}", account.host()),
            None => format!("{}/{}:{}", account.host(), self.id, self.version),
        }
    }

    /// The statement with which Snowflake learns the public half of the stored private key.
    ///
    /// # Errors
    /// `22023` if the configuration has no private key; as [`StoredConfig::open`].
    pub fn public_key(&self) -> Result<String> {
        let settings = self.open()?;
        match settings.credentials {
            Credentials::KeyPair {
                private_key_pem,
                passphrase,
            } => Ok(public_key_statement(&settings.username, &private_key_pem, passphrase.as_ref())?),
            _ => Err(Error::invalid(format!("Snowflake configuration \"{}\" has no private key", self.name))
                .hint("It authenticates by other means: see auth_method in snowflake_bridge.get_config().")),
        }
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
            username: row.get_by_name("username")?,
            auth_method: column(row, "auth_method")?,
            oauth_client: match row.get_by_name("oauth_client_id")? {
                Some(client_id) => Some(ClientDetails {
                    client_id,
                    token_url: row.get_by_name("oauth_token_url")?,
                    scope: row.get_by_name("oauth_scope")?,
                }),
                None => None,
            },
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
                oauth_token: row.get_by_name("oauth_token_encrypted")?,
                oauth_client_secret: row.get_by_name("oauth_client_secret_encrypted")?,
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

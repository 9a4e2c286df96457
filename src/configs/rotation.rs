//! Secrets encrypted anew with the active key, one configuration at a time. Whoever changes a configuration meanwhile wins.

use bridge_core::ErrorKind;
use bridge_core::keyring::Keyring;
use pgrx::prelude::*;
use uuid::Uuid;

use super::changes::{datum, write};
use super::sealed::Sealed;
use super::{StoredConfig, by_id};
use crate::error::{Error, Result};

/// What became of a configuration's secrets.
#[derive(Debug)]
pub enum Resealed {
    /// They are under the active key now.
    Done,
    /// They were before, or the configuration is no more.
    NothingToDo,
    /// Somebody else has changed them meanwhile; look again.
    Changed,
    /// They cannot be opened, and stay as they are.
    Unreadable(Error),
}

/// The configurations there are.
///
/// # Errors
/// If the query fails.
pub fn ids() -> Result<Vec<Uuid>> {
    const IDS: &str = "select c.id from snowflake_bridge.snowflake_configurations c order by c.id";
    Spi::connect(|client| {
        client
            .select(IDS, None, &[])?
            .filter_map(|row| row.get::<pgrx::Uuid>(1).transpose())
            .map(|id| Ok(Uuid::from_bytes(*id?.as_bytes())))
            .collect()
    })
}

/// Encrypts the secrets of one configuration with the active key. Nothing else of it changes, nor does its version: it says
/// what it said, and sessions that were made with it stay good.
///
/// # Errors
/// If a query fails, or no key is active.
pub fn reseal(id: Uuid, keys: &Keyring) -> Result<Resealed> {
    keys.active()?;
    let Some(stored) = by_id(id)? else {
        return Ok(Resealed::NothingToDo);
    };
    match stored.resealed(keys) {
        Ok(Some(new)) => replace(&stored, new),
        Ok(None) => Ok(Resealed::NothingToDo),
        Err(Error::Core(error)) if error.kind() != ErrorKind::Internal => {
            Ok(Resealed::Unreadable(error.into()))
        }
        Err(error) => Err(error),
    }
}

/// Only if they are still what they were: `update_config` may have brought others.
fn replace(stored: &StoredConfig, new: Sealed) -> Result<Resealed> {
    const REPLACE: &str = "
        update snowflake_bridge.snowflake_configurations c
           set (password_encrypted, private_key_encrypted, private_key_passphrase_encrypted, token_encrypted,
                oauth_token_encrypted, oauth_client_secret_encrypted) = ($2, $3, $4, $5, $6, $7)
         where c.id = $1
           and (c.password_encrypted, c.private_key_encrypted, c.private_key_passphrase_encrypted, c.token_encrypted,
                c.oauth_token_encrypted, c.oauth_client_secret_encrypted) is not distinct from ($8, $9, $10, $11, $12, $13)";
    let old = stored.sealed.clone();
    let secrets = [new, old].into_iter().flat_map(|sealed| {
        [
            sealed.password,
            sealed.private_key,
            sealed.private_key_passphrase,
            sealed.token,
            sealed.oauth_token,
            sealed.oauth_client_secret,
        ]
    });
    let mut arguments = vec![datum(stored.id)];
    arguments.extend(secrets.map(Into::into));
    Ok(match write(REPLACE, &arguments)? {
        0 => Resealed::Changed,
        _ => Resealed::Done,
    })
}

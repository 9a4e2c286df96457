//! The file of keys that `snowflake_bridge.key_file` names: where it may lie, and when it is made.
//!
//! Keys are read when they are needed and forgotten afterwards, so that no process carries them that has no use for
//! them. The functions here read settings and tables with the rights of the caller, which must have been raised.

use std::path::{Path, PathBuf};

use bridge_core::keyring::Keyring;
use pgrx::prelude::*;

use crate::error::{Error, Result};
use crate::guc;

const HOW_TO_SET: &str = "Set snowflake_bridge.key_file in postgresql.conf to a path outside the data directory, for example \
     '/etc/snowflake_bridge/keys', reload, and run snowflake_bridge.generate_key_file() as a superuser.";

/// The keys, to decrypt with.
///
/// # Errors
/// If the setting is empty, or the file is missing, malformed or open to others.
pub fn load() -> Result<Keyring> {
    Ok(Keyring::load(&path()?, &forbidden()?)?)
}

/// The keys, or `None` if they are yet to be made.
///
/// # Errors
/// As [`load`], or if the file is missing and secrets exist that only its keys can decrypt.
pub fn find() -> Result<Option<Keyring>> {
    let path = path()?;
    // `exists` also follows a link to where it leads; any trouble with the file itself is for `load` to tell.
    match path.try_exists() {
        Ok(false) if anything_is_encrypted()? => Err(lost(&path)),
        Ok(false) => Ok(None),
        _ => load().map(Some),
    }
}

/// The keys, to encrypt with. They are made now if there are none and nothing is encrypted yet: no secret can be lost
/// by that.
///
/// # Errors
/// As [`find`], or if the file cannot be made.
pub fn load_or_create() -> Result<Keyring> {
    if let Some(keys) = find()? {
        return Ok(keys);
    }
    let path = path()?;
    create_at(&path).or_else(|error| match path.try_exists() {
        // Another session was quicker.
        Ok(true) => load(),
        _ => Err(error),
    })
}

/// Makes the file and tells where it is.
///
/// # Errors
/// If it exists, if secrets exist that were encrypted with a lost one, or if it cannot be made.
pub fn create() -> Result<PathBuf> {
    let path = path()?;
    if path.try_exists().unwrap_or(true) {
        return Err(Error::user(
            PgSqlErrorCode::ERRCODE_DUPLICATE_FILE,
            format!("key file \"{}\" already exists", path.display()),
        )
        .hint("Nothing is left to do: stored secrets are encrypted with it."));
    }
    if anything_is_encrypted()? {
        return Err(lost(&path));
    }
    create_at(&path)?;
    Ok(path)
}

fn lost(path: &Path) -> Error {
    Error::user(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "key file \"{}\" is missing, and secrets exist that were encrypted with it",
            path.display()
        ),
    )
    .hint("Restore the file from its backup. If it is lost, delete the configurations and create them again.")
}

fn create_at(path: &Path) -> Result<Keyring> {
    Ok(Keyring::create(path, &forbidden()?)?)
}

fn path() -> Result<PathBuf> {
    guc::key_file().ok_or_else(|| {
        Error::user(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "no key to encrypt secrets with: snowflake_bridge.key_file is not set",
        )
        .hint(HOW_TO_SET)
    })
}

/// Places that a physical backup copies together with the encrypted secrets.
fn forbidden() -> Result<Vec<PathBuf>> {
    const PLACES: &str = "
        select pg_catalog.current_setting('data_directory')
        union all
        select pg_catalog.pg_tablespace_location(t.oid) from pg_catalog.pg_tablespace t";
    Spi::connect(|client| {
        let mut places = Vec::new();
        for row in client.select(PLACES, None, &[])? {
            // The built-in tablespaces have no place of their own.
            places.extend(
                row.get::<String>(1)?
                    .filter(|place| !place.is_empty())
                    .map(PathBuf::from),
            );
        }
        Ok(places)
    })
}

fn anything_is_encrypted() -> Result<bool> {
    Ok(
        Spi::get_one("select exists (select from snowflake_bridge.snowflake_configurations)")?
            .unwrap_or(true),
    )
}

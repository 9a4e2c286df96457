//! The keys: the file that `snowflake_bridge.key_file` names, where it may lie, and when it is made; or what
//! `snowflake_bridge.key_command` prints.
//!
//! Keys are read when they are needed and forgotten afterwards, so that no process carries them that has no use for
//! them; only the worker keeps what a command has printed, since a command may ask the network. The functions here read settings and tables with the rights of the caller, which must have been raised.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bridge_core::keyring::Keyring;
use bridge_core::{ErrorKind, crypto};
use pgrx::prelude::*;

use crate::error::{Error, Result};
use crate::statement::kept;
use crate::{guc, sandbox, tx};

/// The id of an installation's first key.
const FIRST_ID: u32 = 1;
/// How often, and after which pause, a key file that another session changes is looked at again.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// A command that asks a service over the network has answered by then, or will not.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);
const HOW_TO_SET: &str = "Set snowflake_bridge.key_file in postgresql.conf to a path outside the data directory, for example \
     '/etc/snowflake_bridge/keys', reload, and run snowflake_bridge.generate_key_file() as a superuser.";

/// What a command has printed.
struct Kept {
    command: String,
    keyring: Rc<Keyring>,
}

thread_local! {
    static KEEPS: Cell<bool> = const { Cell::new(false) };
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

/// From now on this process keeps what a command prints, until [`forget`].
pub fn keep() {
    KEEPS.set(true);
}

/// Whether keys were kept, which may be older than a secret that they could not decrypt. They are not any more.
pub fn forget() -> bool {
    KEPT.take().is_some()
}

/// The keys, to decrypt with.
///
/// # Errors
/// If neither setting is there, or both are; if the file is missing, malformed or open to others; if the command fails.
pub fn load() -> Result<Rc<Keyring>> {
    match command()? {
        Some(command) => load_from(command),
        None => Ok(Rc::new(Keyring::load(&path()?, &forbidden()?)?)),
    }
}

fn load_from(command: String) -> Result<Rc<Keyring>> {
    let kept = KEPT.with_borrow(|kept| {
        (kept.as_ref())
            .filter(|kept| kept.command == command)
            .map(|kept| Rc::clone(&kept.keyring))
    });
    if let Some(keyring) = kept {
        return Ok(keyring);
    }
    let tick = || {
        pgrx::check_for_interrupts!();
    };
    let keyring = Rc::new(Keyring::from_command(&command, COMMAND_LIMIT, tick)?);
    if KEEPS.get() {
        KEPT.set(Some(Kept {
            command,
            keyring: Rc::clone(&keyring),
        }));
    }
    Ok(keyring)
}

fn command() -> Result<Option<String>> {
    let command = guc::key_command();
    if command.is_some() && guc::key_file().is_some() {
        return Err(Error::user(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "both snowflake_bridge.key_file and snowflake_bridge.key_command are set",
        )
        .hint("Set one of them to an empty string in postgresql.conf, and reload."));
    }
    Ok(command)
}

/// Refuses to write keys that a command prints.
fn require_file() -> Result<PathBuf> {
    match command()? {
        None => path(),
        Some(_) => Err(Error::user(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "keys are made where snowflake_bridge.key_command gets them from",
        )
        .hint(
            "Add a line there, with a higher id and the state active, and keep the others as decrypt; then call \
             snowflake_bridge.rotate_encryption_key().",
        )),
    }
}

/// The keys, or `None` if they are yet to be made.
///
/// # Errors
/// As [`load`], or if the file is missing and secrets exist that only its keys can decrypt.
pub fn find() -> Result<Option<Rc<Keyring>>> {
    if command()?.is_some() {
        return load().map(Some);
    }
    let path = path()?;
    // `exists` also follows a link to where it leads; any trouble with the file itself is for `load` to tell.
    match path.try_exists() {
        Ok(false) if anything_is_encrypted()? => Err(lost(&path)),
        Ok(false) => Ok(None),
        _ => load().map(Some),
    }
}

/// Whether stored secrets can be decrypted, if there are any.
///
/// # Errors
/// As [`find`].
pub fn usable() -> Result<()> {
    match anything_is_encrypted()? {
        true => find().map(drop),
        false => Ok(()),
    }
}

/// The keys, to encrypt with. They are made now if there are none and nothing is encrypted yet: no secret can be lost
/// by that.
///
/// # Errors
/// As [`find`], or if the file cannot be made.
pub fn load_or_create() -> Result<Rc<Keyring>> {
    if let Some(keys) = find()? {
        return Ok(keys);
    }
    Ok(Rc::new(Keyring::create(&path()?, &forbidden()?, FIRST_ID)?))
}

/// Adds a new key, which encrypts from now on, unless another than `old_id` already does.
///
/// # Errors
/// As [`load`], if the file cannot be changed, or if there is a command in its place.
pub fn add(old_id: u32) -> Result<Keyring> {
    let (path, forbidden) = (require_file()?, forbidden()?);
    // Another session that adds one is done within milliseconds.
    for _ in 0..LOCK_TRIES {
        match Keyring::add_key(&path, &forbidden, old_id) {
            Err(error) if error.kind() == ErrorKind::Transient => {
                std::thread::sleep(LOCK_PAUSE);
                pgrx::check_for_interrupts!();
            }
            added => return Ok(added?),
        }
    }
    Ok(Keyring::add_key(&path, &forbidden, old_id)?)
}

/// Makes the file and tells where it is. With `replace_lost` also where secrets exist that only a lost one decrypts; the new
/// key then has an id that none of them names, so that the lost keys can still be added, should they be found.
///
/// # Errors
/// If it exists, if secrets exist that were encrypted with a lost one, if it cannot be made, or if there is a command in its
/// place.
pub fn create(replace_lost: bool) -> Result<PathBuf> {
    let path = require_file()?;
    if path.try_exists().unwrap_or(true) {
        return Err(Error::user(
            PgSqlErrorCode::ERRCODE_DUPLICATE_FILE,
            format!("key file \"{}\" already exists", path.display()),
        )
        .hint("Nothing is left to do: stored secrets are encrypted with it."));
    }
    let first_id = match anything_is_encrypted()? {
        false => FIRST_ID,
        true if replace_lost => unused_id()?,
        true => return Err(lost(&path)),
    };
    Keyring::create(&path, &forbidden()?, first_id)?;
    Ok(path)
}

/// What a key is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyState {
    /// It encrypts.
    Active,
    /// It decrypts what was encrypted with it before.
    Decrypt,
    /// The key file lacks it, or has another key of that id.
    Missing,
}

impl KeyState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Decrypt => "decrypt",
            Self::Missing => "missing",
        }
    }
}

/// How many stored secrets there are for each key: those of the key file, and those that secrets name.
///
/// # Errors
/// As [`find`].
pub fn uses() -> Result<BTreeMap<(u32, KeyState), i64>> {
    let Some(keyring) = find()? else {
        return Ok(BTreeMap::new());
    };
    let active = keyring.active().ok().map(bridge_core::keyring::Key::id);
    let state = |id| match active == Some(id) {
        true => KeyState::Active,
        false => KeyState::Decrypt,
    };
    let mut uses: BTreeMap<_, _> = (keyring
        .keys()
        .iter()
        .map(|key| ((key.id(), state(key.id())), 0)))
    .collect();
    for secret in secrets()? {
        let used = match crypto::key(&keyring, &secret) {
            Ok(key) => (key.id(), state(key.id())),
            Err(_) => (
                crypto::key_id(&secret).unwrap_or_default(),
                KeyState::Missing,
            ),
        };
        *uses.entry(used).or_default() += 1;
    }
    Ok(uses)
}

fn lost(path: &Path) -> Error {
    Error::user(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "key file \"{}\" is missing, and secrets exist that were encrypted with it",
            path.display()
        ),
    )
    .hint("Restore the file from its safe copy. If there is none, run snowflake_bridge.generate_key_file(replace_lost => true) as a \
           superuser; each secret must then be brought again with snowflake_bridge.update_config().")
}

/// One more than that of every key that a stored secret names.
fn unused_id() -> Result<u32> {
    let used = secrets()?
        .iter()
        .filter_map(|secret| crypto::key_id(secret))
        .max();
    used.unwrap_or_default().checked_add(1).ok_or_else(|| {
        Error::invalid("no id is left for another key")
            .hint("Delete the configurations and create them again.")
    })
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
    // Where the data is, not every role may ask.
    sandbox::as_extension_owner(|| {
        Spi::connect(|client| {
            let mut places = Vec::new();
            for row in client.select(kept(client, PLACES, &[])?, None, &[])? {
                // The built-in tablespaces have no place of their own.
                places.extend(
                    row.get::<String>(1)?
                        .filter(|place| !place.is_empty())
                        .map(PathBuf::from),
                );
            }
            Ok(places)
        })
    })
}

/// Every secret that is stored, encrypted.
fn secrets() -> Result<Vec<Vec<u8>>> {
    const SECRETS: &str = "
        select s.secret
          from snowflake_bridge.snowflake_configurations c,
               pg_catalog.unnest(array[c.password_encrypted, c.private_key_encrypted, c.private_key_passphrase_encrypted,
                                       c.token_encrypted, c.oauth_token_encrypted, c.oauth_client_secret_encrypted]) s (secret)
         where s.secret is not null";
    Spi::connect(|client| {
        client
            .select(SECRETS, None, &[])?
            .filter_map(|row| row.get::<Vec<u8>>(1).transpose())
            .map(|secret| Ok(secret?))
            .collect()
    })
}

fn anything_is_encrypted() -> Result<bool> {
    Ok(tx::read(
        "select exists (select from snowflake_bridge.snowflake_configurations)",
        &[],
    )?
    .unwrap_or(true))
}

//! Making a key file, and adding a key to one. Whoever reads it meanwhile finds it whole, as it was or as it is.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rand::RngCore;
use rand::rngs::OsRng;
use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{KEY_BYTES, KeyFile, Keyring, malformed, refuse_dirs, unfit};
use crate::error::{Error, ErrorKind, Result};

const FIRST_LINE: &str = "# Master keys of snowflake_bridge: id:key:active or decrypt. Keep a copy in a safe place, apart from backups.\n";

impl Keyring {
    /// Makes the key file `path` with one new key, `first_id`, readable by us alone. If somebody else makes it at the same
    /// time, the first one stays and both load it.
    ///
    /// # Errors
    /// `Configuration` when the directory is missing, forbidden or not ours to write, and whatever [`load`](Self::load) says.
    pub fn create(path: &Path, forbidden_dirs: &[PathBuf], first_id: u32) -> Result<Self> {
        let dir = match path.parent() {
            Some(dir) if path.is_absolute() => dir,
            _ => return Err(unfit(path, "is not an absolute path")),
        };
        let dir = fs::canonicalize(dir).map_err(|error| unwritable(path, error))?;
        refuse_dirs(&dir, forbidden_dirs)?;
        let place = dir.join(path.file_name().unwrap_or_default());
        let text = new_line(first_id)
            .map(|line| Zeroizing::new([FIRST_LINE, &line].concat()))
            .map_err(|error| unwritable(path, error))?;
        // Linking fails if the name is taken: a new file never replaces another.
        let made = put(&place, &text, |aside, place| fs::hard_link(aside, place));
        match made {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(unwritable(path, error))
            }
            _ => Self::load(path, forbidden_dirs),
        }
    }

    /// Adds a new key, which seals from now on; the others only open. If another key than `old_id` seals already, somebody
    /// else was quicker, and nothing is added.
    ///
    /// # Errors
    /// `Transient` while somebody else changes the file; `Configuration` when file or directory are not ours to write,
    /// and whatever [`load`](Self::load) says.
    pub fn add_key(path: &Path, forbidden_dirs: &[PathBuf], old_id: u32) -> Result<Self> {
        let locked = lock(path, forbidden_dirs)?;
        let keyring = Self::parse(&locked.text).map_err(|problem| malformed(path, &problem))?;
        if keyring.active()?.id() != old_id {
            return Ok(keyring);
        }
        let next_id = (keyring.keys().iter().map(super::Key::id).max())
            .and_then(|id| id.checked_add(1))
            .ok_or_else(|| unfit(path, "has no id left for another key"))?;
        let line = new_line(next_id).map_err(|error| unwritable(path, error))?;
        put(
            &locked.real,
            &with_key(&locked.text, &line),
            |aside, place| fs::rename(aside, place),
        )
        .map_err(|error| unwritable(path, error))?;
        Self::load(path, forbidden_dirs)
    }
}

/// The file as it is while nobody else adds a key. The lock ends with the returned file.
fn lock(path: &Path, forbidden_dirs: &[PathBuf]) -> Result<KeyFile> {
    let held = KeyFile::open(path, forbidden_dirs)?;
    let changing = |cause: std::io::Error| {
        Error::new(
            ErrorKind::Transient,
            format!(
                "key file \"{}\" is being changed by another session",
                path.display()
            ),
        )
        .with_hint("Try again.")
        .with_source(cause)
    };
    flock(&held.file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|error| changing(error.into()))?;
    // Read before it was locked; and if it has been replaced since, this is the lock of a file that is no more.
    let current = KeyFile::open(path, forbidden_dirs)?;
    let identity = |file: &File| file.metadata().map(|found| (found.dev(), found.ino()));
    match (identity(&held.file), identity(&current.file)) {
        (Ok(ours), Ok(theirs)) if ours == theirs => Ok(KeyFile {
            text: current.text,
            ..held
        }),
        _ => Err(changing(std::io::ErrorKind::NotFound.into())),
    }
}

/// The text with one more line, and no other active key. Comments stay.
fn with_key(text: &str, new_line: &str) -> Zeroizing<String> {
    // Of its full size from the start: a text that grows leaves copies behind.
    let most = text.len() + text.lines().count() * "decrypt\n".len() + new_line.len();
    let mut changed = Zeroizing::new(String::with_capacity(most));
    for line in text.lines() {
        let (key, comment) = line.split_at(line.find('#').unwrap_or(line.len()));
        match key.trim_end().strip_suffix("active") {
            Some(rest) => {
                let space = key.get(key.trim_end().len()..).unwrap_or_default();
                changed.extend([rest, "decrypt", space, comment]);
            }
            None => changed.push_str(line),
        }
        changed.push('\n');
    }
    changed.push_str(new_line);
    changed
}

/// A line for a fresh key that seals.
fn new_line(id: u32) -> std::io::Result<Zeroizing<String>> {
    let mut secret = Zeroizing::new([0u8; KEY_BYTES]);
    OsRng
        .try_fill_bytes(secret.as_mut_slice())
        .map_err(std::io::Error::other)?;
    let encoded = Zeroizing::new(BASE64.encode(secret.as_slice()));
    Ok(Zeroizing::new(
        [&id.to_string(), ":", &encoded, ":active\n"].concat(),
    ))
}

/// Writes `text` aside, synced to disk and readable by us alone, and has `name` give it its name: the file is whole from its
/// first moment.
fn put(
    place: &Path,
    text: &str,
    name: impl FnOnce(&Path, &Path) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let file_name = place.file_name().unwrap_or_default().to_string_lossy();
    let aside = place.with_file_name(format!(".{file_name}.{}", Uuid::new_v4()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| name(&aside, place));
    // Where it was renamed, there is nothing left to remove.
    let removed = match fs::remove_file(&aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    written?;
    removed?;
    match place.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    unfit(path, "cannot be written")
        .with_hint("Make its directory, and let the server's operating system user own it.")
        .with_source(error)
}

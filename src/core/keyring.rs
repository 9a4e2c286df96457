//! The file that holds the master keys: finding it trustworthy, reading it, and making the first one.
//!
//! One key to a line, `id:base64 of 32 bytes:state`, where the state is `active` or `decrypt`. The highest active id
//! seals; any id opens. `#` begins a comment.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use rand::RngCore;
use rand::rngs::OsRng;
use rustix::fs::OFlags;
use sha2::Sha256;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// A key file has a line or two; more than this is another file.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Length of a key, which is AES-256's.
const KEY_BYTES: usize = 32;

/// Length of a check value: enough that two keys never share one by chance.
pub const CHECK_VALUE_BYTES: usize = 8;

/// A master key. It is wiped from memory when dropped, and never printed.
pub struct Key {
    id: u32,
    secret: Zeroizing<[u8; KEY_BYTES]>,
    active: bool,
}

impl Key {
    /// The number that sealed secrets know the key by.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// A fingerprint of the key, from which it cannot be found, to tell a wrong key from a damaged secret.
    #[must_use]
    pub fn check_value(&self) -> [u8; CHECK_VALUE_BYTES] {
        // An HMAC takes keys of any length, so the error cannot occur; a value that matches nothing stands in for it.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.secret.as_slice()) else {
            return [0; CHECK_VALUE_BYTES];
        };
        mac.update(b"snowflake_bridge key check value");
        let digest: [u8; 32] = mac.finalize().into_bytes().into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        [a, b, c, d, e, f, g, h]
    }

    pub(crate) fn secret(&self) -> &[u8; KEY_BYTES] {
        &self.secret
    }
}

/// The keys of a key file.
pub struct Keyring {
    keys: Vec<Key>,
}

impl Keyring {
    /// Reads the key file `path`.
    ///
    /// # Errors
    /// `Configuration` when there is none, when it is not a key file, when group or others may touch it, when it belongs
    /// to somebody else, or when it lies, links followed, in one of `forbidden_dirs`.
    pub fn load(path: &Path, forbidden_dirs: &[PathBuf]) -> Result<Self> {
        let real = fs::canonicalize(path).map_err(|error| unreadable(path, error))?;
        refuse_dirs(&real, forbidden_dirs)?;
        // The path is free of links now; should one appear in its place, opening fails. And should a pipe stand there,
        // opening does not wait for somebody to write to it.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(&real)
            .map_err(|error| unreadable(path, error))?;
        // Asked of the open file, which nobody can exchange any more.
        let metadata = file.metadata().map_err(|error| unreadable(path, error))?;
        if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
            return Err(unfit(path, "is not a key file"));
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(unfit(path, "can be read or changed by other users")
                .with_hint("Run chmod 0600 on the key file."));
        }
        if !trusts(metadata.uid(), rustix::process::geteuid().as_raw()) {
            return Err(unfit(path, "belongs to another user")
                .with_hint("Make the server's operating system user the owner of the key file."));
        }
        let mut text = Zeroizing::new(String::with_capacity(
            usize::try_from(metadata.len()).unwrap_or(0) + 1,
        ));
        file.take(MAX_FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| unreadable(path, error))?;
        Self::parse(&text).map_err(|problem| unfit(path, &problem))
    }

    /// Makes the key file `path` with one new key, readable by us alone. If somebody else makes it at the same time, the
    /// first one stays and both load it.
    ///
    /// # Errors
    /// `Configuration` when the directory is missing, forbidden or not ours to write, and whatever [`load`](Self::load) says.
    pub fn create(path: &Path, forbidden_dirs: &[PathBuf]) -> Result<Self> {
        let (dir, name) = match (path.parent(), path.file_name()) {
            (Some(dir), Some(name)) if !dir.as_os_str().is_empty() => (dir, name),
            _ => return Err(unfit(path, "is not an absolute path")),
        };
        let dir = fs::canonicalize(dir).map_err(|error| uncreatable(path, error))?;
        refuse_dirs(&dir, forbidden_dirs)?;
        // Written aside and then linked to its name, which fails if the name is taken: the file is whole from its
        // first moment, and never replaces another.
        let aside = dir.join(format!(".{}.{}", name.to_string_lossy(), Uuid::new_v4()));
        let linked = write_new_key(&aside).and_then(|()| fs::hard_link(&aside, dir.join(name)));
        let removed = fs::remove_file(&aside);
        match linked {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(uncreatable(path, error));
            }
            _ => {}
        }
        removed
            .and_then(|()| File::open(&dir)?.sync_all())
            .map_err(|error| uncreatable(path, error))?;
        Self::load(path, forbidden_dirs)
    }

    /// The key that seals.
    ///
    /// # Errors
    /// `Configuration` when no key is active.
    pub fn active(&self) -> Result<&Key> {
        self.keys
            .iter()
            .filter(|key| key.active)
            .max_by_key(|key| key.id)
            .ok_or_else(|| {
                Error::new(ErrorKind::Configuration, "the key file has no active key")
                    .with_hint("Mark the newest key in the key file as active.")
            })
    }

    /// The key of that id.
    #[must_use]
    pub fn by_id(&self, id: u32) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// All keys, in the order of the file.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The problem, if there is one, names a line and nothing of its content.
    fn parse(text: &str) -> Result<Self, String> {
        let mut keys: Vec<Key> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let problem = |what: &str| format!("has {what} in line {}", index + 1);
            let mut fields = line.split(':').map(str::trim);
            let (Some(id), Some(secret), Some(state), None) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                return Err(problem("no id:key:state"));
            };
            let id = id.parse().map_err(|_| problem("no number as id"))?;
            let active = match state {
                "active" => true,
                "decrypt" => false,
                _ => return Err(problem("a state other than active and decrypt")),
            };
            let mut key = Key {
                id,
                secret: Zeroizing::default(),
                active,
            };
            // Decoded into more room than it needs, since the decoder asks for the room of the padding too.
            let mut decoded = Zeroizing::new([0u8; KEY_BYTES + 4]);
            match BASE64.decode_slice(secret, decoded.as_mut_slice()) {
                Ok(KEY_BYTES) => key.secret.copy_from_slice(decoded.split_at(KEY_BYTES).0),
                _ => return Err(problem("a key that is not 32 bytes in base64")),
            }
            if keys.iter().any(|other| other.id == id) {
                return Err(problem("an id for the second time"));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            Err("has no key".to_owned())
        } else {
            Ok(Self { keys })
        }
    }
}

/// Writes a key file with one fresh key, synced to disk.
fn write_new_key(path: &Path) -> std::io::Result<()> {
    let mut secret = Zeroizing::new([0u8; KEY_BYTES]);
    OsRng
        .try_fill_bytes(secret.as_mut_slice())
        .map_err(std::io::Error::other)?;
    let encoded = Zeroizing::new(BASE64.encode(secret.as_slice()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(b"# Master keys of snowflake_bridge: id:key:active or decrypt. Keep a copy in a safe place, apart from backups.\n1:")?;
    file.write_all(encoded.as_bytes())?;
    file.write_all(b":active\n")?;
    file.sync_all()
}

/// Whether we, running as `us`, believe a key file of `owner`: our own, or one that the administrator gave us.
fn trusts(owner: u32, us: u32) -> bool {
    owner == us || owner == 0
}

fn refuse_dirs(real: &Path, forbidden_dirs: &[PathBuf]) -> Result<()> {
    for dir in forbidden_dirs {
        let dir = fs::canonicalize(dir).map_err(|error| {
            Error::new(
                ErrorKind::Configuration,
                "could not look at a directory that must not hold keys",
            )
            .with_source(error)
        })?;
        if real.starts_with(&dir) {
            return Err(unfit(real, "lies in a directory that backups copy")
                .with_hint("Move the key file out of the data directory and all tablespaces."));
        }
    }
    Ok(())
}

fn unfit(path: &Path, problem: &str) -> Error {
    Error::new(
        ErrorKind::Configuration,
        format!("key file \"{}\" {problem}", path.display()),
    )
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    unfit(path, "cannot be read")
        .with_hint("Check the path, and that the server's operating system user owns the file.")
        .with_source(error)
}

fn uncreatable(path: &Path, error: std::io::Error) -> Error {
    unfit(path, "cannot be created")
        .with_hint("Make its directory, and let the server's operating system user own it.")
        .with_source(error)
}

#[cfg(test)]
mod tests;

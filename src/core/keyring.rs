//! The file that holds the master keys: finding it trustworthy, and reading it. [`write`] makes and changes it,
//! `command` has another program print it.
//!
//! One key to a line, `id:base64 of 32 bytes:state`, where the state is `active` or `decrypt`. The highest active id
//! seals; any id opens. `#` begins a comment.

mod command;
mod write;

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use rustix::fs::OFlags;
use sha2::Sha256;
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
        let found = KeyFile::open(path, forbidden_dirs)?;
        Self::parse(&found.text).map_err(|problem| malformed(path, &problem))
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
                    .with_hint("Restore the file from its safe copy; if it is whole, mark its newest key as active.")
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

/// A key file that was found trustworthy, as it is now.
struct KeyFile {
    /// Where it is, links followed.
    real: PathBuf,
    file: File,
    text: Zeroizing<String>,
}

impl KeyFile {
    fn open(path: &Path, forbidden_dirs: &[PathBuf]) -> Result<Self> {
        Self::open_as(path, forbidden_dirs, rustix::process::geteuid().as_raw())
    }

    /// As [`open`](Self::open), running as `us`.
    fn open_as(path: &Path, forbidden_dirs: &[PathBuf], us: u32) -> Result<Self> {
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
        if !trusts(metadata.uid(), us) {
            return Err(unfit(path, "belongs to another user")
                .with_hint("Make the server's operating system user the owner of the key file."));
        }
        let mut text = Zeroizing::new(String::with_capacity(
            usize::try_from(metadata.len()).unwrap_or(0) + 1,
        ));
        (&file)
            .take(MAX_FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| unreadable(path, error))?;
        Ok(Self { real, file, text })
    }
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

fn malformed(path: &Path, problem: &str) -> Error {
    unfit(path, problem).with_hint(
        "Restore the file from its safe copy: half a file, or another one, opens no secret. Every line is id:key:state.",
    )
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    unfit(path, "cannot be read")
        .with_hint("Check the path, and that the server's operating system user owns the file.")
        .with_source(error)
}

#[cfg(test)]
mod tests;

//! Secrets sealed for storage, each bound to the one place and purpose that it was given for.
//!
//! A sealed secret is `"SFB" | version | algorithm | key id (u32) | key check value (8) | nonce (12) | ciphertext | tag (16)`,
//! numbers big-endian. The ciphertext is the secret behind its length (u32), padded with zeros to a multiple of 64, so
//! that it does not tell a password from a key. Everything before the nonce, and the [`Binding`], is authenticated too.

use aes_gcm::aead::AeadInPlace;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};
use hkdf::Hkdf;
use rand::RngCore;
use rand::rngs::OsRng;
use sha2::Sha256;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{CHECK_VALUE_BYTES, Key, Keyring};

const MAGIC: &[u8; 3] = b"SFB";
const VERSION: u8 = 1;
/// AES-256-GCM under a subkey by HKDF-SHA256.
const ALGORITHM: u8 = 1;
const HEADER_BYTES: usize = MAGIC.len() + 2 + size_of::<u32>() + CHECK_VALUE_BYTES;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const LENGTH_BYTES: usize = size_of::<u32>();
/// A secret is padded to a multiple of this.
const BLOCK_BYTES: usize = 64;
/// No password or key comes near; the bound keeps lengths within 32 bits.
const MAX_SECRET_BYTES: usize = 1 << 20;

/// What a secret belongs to. It opens only with the very binding that it was sealed with, so that nobody can use
/// somebody's secret by moving it to another row, or by changing the row around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding<'a> {
    /// The configuration.
    pub config_id: Uuid,
    /// What kind of owner it has.
    pub owner_kind: &'a str,
    /// The owner.
    pub owner: &'a str,
    /// The host that the secret is sent to.
    pub account_host: &'a str,
    /// The user that the secret is for.
    pub username: &'a str,
    /// How the secret is used.
    pub auth_method: &'a str,
    /// Which of the configuration's secrets it is.
    pub field: &'a str,
    /// Whom else the secret is meant for: of an OAuth client its name and token URL, of all others nobody.
    pub audience: &'a [&'a str],
}

/// The cipher for this configuration and field only: a key of its own keeps the number of nonces per key small.
fn cipher(binding: &Binding<'_>, key: &Key) -> Result<Aes256Gcm> {
    let mut subkey = Zeroizing::new([0u8; 32]);
    let info = format!("snowflake_bridge/v{VERSION}/{}", binding.field);
    Hkdf::<Sha256>::new(Some(binding.config_id.as_bytes()), key.secret())
        .expand(info.as_bytes(), subkey.as_mut_slice())
        .map_err(|_| Error::new(ErrorKind::Internal, "could not derive a key"))?;
    Aes256Gcm::new_from_slice(subkey.as_slice())
        .map_err(|_| Error::new(ErrorKind::Internal, "could not use a key"))
}

/// The header and all parts, each behind its length, so that no two bindings are written alike.
fn associated_data(binding: &Binding<'_>, header: &[u8]) -> Vec<u8> {
    let parts = [
        header,
        binding.config_id.as_bytes(),
        binding.owner_kind.as_bytes(),
        binding.owner.as_bytes(),
        binding.account_host.as_bytes(),
        binding.username.as_bytes(),
        binding.auth_method.as_bytes(),
        binding.field.as_bytes(),
    ];
    let audience = binding.audience.iter().map(|part| part.as_bytes());
    let mut data = Vec::new();
    for part in parts.into_iter().chain(audience) {
        data.extend((part.len() as u64).to_be_bytes());
        data.extend(part);
    }
    data
}

/// What ties a secret to its binding; a test takes other ties, to show what these keep out.
#[derive(Clone, Copy)]
struct Ties {
    cipher: fn(&Binding<'_>, &Key) -> Result<Aes256Gcm>,
    /// What is authenticated beside the secret.
    data: fn(&Binding<'_>, &[u8]) -> Vec<u8>,
}

const TIES: Ties = Ties {
    cipher,
    data: associated_data,
};

/// Seals `secret` with the active key of the keyring.
///
/// # Errors
/// `Configuration` when the keyring has no active key or the secret is absurdly long, `Internal` when the system has no
/// random numbers.
pub fn seal(keyring: &Keyring, binding: &Binding<'_>, secret: &[u8]) -> Result<Vec<u8>> {
    let mut nonce = [0u8; NONCE_BYTES];
    OsRng.try_fill_bytes(&mut nonce).map_err(|error| {
        Error::new(ErrorKind::Internal, "the system has no random numbers").with_source(error)
    })?;
    seal_with(keyring.active()?, binding, TIES, secret, nonce)
}

fn seal_with(
    key: &Key,
    binding: &Binding<'_>,
    ties: Ties,
    secret: &[u8],
    nonce: [u8; NONCE_BYTES],
) -> Result<Vec<u8>> {
    let length = u32::try_from(secret.len())
        .ok()
        .filter(|_| secret.len() <= MAX_SECRET_BYTES)
        .ok_or_else(|| {
            Error::new(ErrorKind::Configuration, "the secret is too long")
                .with_hint("Check that it is a password, a token or one private key.")
        })?;
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend(MAGIC);
    header.extend([VERSION, ALGORITHM]);
    header.extend(key.id().to_be_bytes());
    header.extend(key.check_value());

    let padded = (LENGTH_BYTES + secret.len()).next_multiple_of(BLOCK_BYTES);
    // Of its full size from the start: a vector that grows leaves copies behind.
    let mut buffer = Zeroizing::new(Vec::with_capacity(padded));
    buffer.extend(length.to_be_bytes());
    buffer.extend(secret);
    buffer.resize(padded, 0);
    let tag = (ties.cipher)(binding, key)?
        .encrypt_in_place_detached(
            Nonce::from_slice(&nonce),
            &(ties.data)(binding, &header),
            &mut buffer,
        )
        .map_err(|_| Error::new(ErrorKind::Internal, "could not encrypt a secret"))?;

    let mut sealed = header;
    sealed.extend(nonce);
    sealed.extend(buffer.as_slice());
    sealed.extend(tag);
    Ok(sealed)
}

/// Opens what [`seal`] made with the same binding.
///
/// # Errors
/// `Configuration` when the secret was sealed in a way that this version does not know; `Credentials` when the keyring
/// lacks its key or holds another one under that id, when the secret was damaged or moved, or what it is bound to changed.
pub fn open(keyring: &Keyring, binding: &Binding<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    open_with(keyring, binding, TIES, sealed)
}

fn open_with(
    keyring: &Keyring,
    binding: &Binding<'_>,
    ties: Ties,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>> {
    let (header, rest) = sealed.split_at_checked(HEADER_BYTES).ok_or_else(damaged)?;
    let (nonce, rest) = rest.split_at_checked(NONCE_BYTES).ok_or_else(damaged)?;
    let (ciphertext, tag) = rest
        .split_at_checked(rest.len().saturating_sub(TAG_BYTES))
        .ok_or_else(damaged)?;
    let key = key_of(keyring, header)?;
    if tag.len() != TAG_BYTES {
        return Err(damaged());
    }
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    (ties.cipher)(binding, key)?
        .decrypt_in_place_detached(
            Nonce::from_slice(nonce),
            &(ties.data)(binding, header),
            &mut buffer,
            Tag::from_slice(tag),
        )
        .map_err(|_| damaged())?;
    let (length, padded) = buffer
        .split_first_chunk::<LENGTH_BYTES>()
        .ok_or_else(damaged)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| damaged())?;
    padded
        .get(..length)
        .map(|secret| Zeroizing::new(secret.to_vec()))
        .ok_or_else(damaged)
}

/// Seals a secret anew with the active key; `None` if that is the key that it is sealed with.
///
/// # Errors
/// As [`open`] and [`seal`].
pub fn reseal(keyring: &Keyring, binding: &Binding<'_>, sealed: &[u8]) -> Result<Option<Vec<u8>>> {
    if key(keyring, sealed)?.id() == keyring.active()?.id() {
        return Ok(None);
    }
    seal(keyring, binding, &open(keyring, binding, sealed)?).map(Some)
}

/// The key of the keyring that opens a secret.
///
/// # Errors
/// As [`open`], as far as the header tells.
pub fn key<'a>(keyring: &'a Keyring, sealed: &[u8]) -> Result<&'a Key> {
    let (header, _) = sealed.split_at_checked(HEADER_BYTES).ok_or_else(damaged)?;
    key_of(keyring, header)
}

/// The id of the key that sealed a secret, to count what a rotation has still to do.
#[must_use]
pub fn key_id(sealed: &[u8]) -> Option<u32> {
    let rest = sealed.strip_prefix(MAGIC)?;
    let (_, rest) = rest.split_at_checked(2)?;
    rest.first_chunk().copied().map(u32::from_be_bytes)
}

/// The key that a header names, if it is the one that sealed.
fn key_of<'a>(keyring: &'a Keyring, header: &[u8]) -> Result<&'a Key> {
    let Some([version, algorithm, rest @ ..]) = header.strip_prefix(MAGIC) else {
        return Err(damaged());
    };
    if (*version, *algorithm) != (VERSION, ALGORITHM) {
        return Err(Error::new(
            ErrorKind::Configuration,
            format!("a stored secret has the unknown format {version}.{algorithm}"),
        )
        .with_hint(
            "Use the version of snowflake_bridge that stored it, or store the secret again.",
        ));
    }
    let (id, check_value) = rest.split_first_chunk().ok_or_else(damaged)?;
    let id = u32::from_be_bytes(*id);
    let hint = "Restore the key file that the secret was stored with, and call snowflake_bridge.test_connection(); or store \
                the secret again, for which the old key is not needed.";
    let key = keyring.by_id(id).ok_or_else(|| {
        Error::new(
            ErrorKind::Credentials,
            format!("the key file has no key {id}, which a stored secret needs"),
        )
        .with_hint(hint)
    })?;
    if key.check_value() != check_value {
        return Err(Error::new(
            ErrorKind::Credentials,
            format!("key {id} in the key file is not the key {id} that a stored secret needs"),
        )
        .with_hint(hint));
    }
    Ok(key)
}

fn damaged() -> Error {
    Error::new(ErrorKind::Credentials, "a stored secret does not belong to this configuration, or was damaged")
        .with_hint("Store the secret again: it is bound to the configuration's account, user, owner, method and OAuth client.")
}

#[cfg(test)]
mod tests;

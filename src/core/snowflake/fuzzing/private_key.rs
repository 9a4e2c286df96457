//! What a user gives as private key: text in PEM, or else the content of a key that is not encrypted.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

use super::expect;
use crate::ErrorKind;
use crate::snowflake::key_pair::KeyPair;

/// So long a piece of a key stands in no message by chance.
const PIECE: usize = 16;

pub(super) fn read(input: &[u8]) {
    let pem = match std::str::from_utf8(input) {
        Ok(text) if text.contains("-----") => text.to_owned(),
        _ => format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(input)
        ),
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let secret = SecretString::from(pem.as_str());
    // Without a passphrase: deriving keys from one is slow, and the library's business.
    let shown = match KeyPair::from_pem(&secret, None) {
        Ok(key) => {
            // A key that is taken is one that signs, or says why not.
            match key.login_token("ACME-DEMO", "LOADER", now) {
                Ok(token) => assert_eq!(token.expose_secret().split('.').count(), 3),
                Err(error) => expect::error(&error),
            }
            format!("{key:?}")
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Credentials);
            assert!(error.hint().is_some() || error.message().contains("empty"));
            expect::error(&error);
            format!("{error} {error:?} {:?}", error.hint())
        }
    };
    for line in pem.lines().filter(|line| !line.contains('-')) {
        for piece in line.as_bytes().chunks_exact(PIECE) {
            let piece = String::from_utf8_lossy(piece);
            assert!(
                piece.contains(' ') || !shown.contains(&*piece),
                "a piece of the key is shown: {shown}"
            );
        }
    }
}

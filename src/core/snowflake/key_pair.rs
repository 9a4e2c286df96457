//! RSA key pairs: reading the private half, naming the public half, and the short-lived token that proves a user.

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rand::rngs::OsRng;
use rsa::RsaPrivateKey;
use rsa::pkcs1v15::SigningKey;
use rsa::signature::{RandomizedSigner, SignatureEncoding};
use rsa::traits::PublicKeyParts;
use secrecy::SecretString;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{pem, sql};
use crate::{Error, ErrorKind, Result};

/// Snowflake accepts a token for 60 seconds after its `iat`, however long it says it lives.
const LIFETIME: Duration = Duration::from_secs(60);
/// Snowflake refuses shorter keys.
const MIN_BITS: usize = 2048;
/// Longer keys serve nobody and make each signature take seconds.
const MAX_BITS: usize = 8192;

/// A private key with the name of its public half. `Debug` shows the name only.
pub(crate) struct KeyPair {
    key: RsaPrivateKey,
    public_der: Vec<u8>,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyPair").field(&self.fingerprint()).finish()
    }
}

impl KeyPair {
    /// Reads PKCS#8 in PEM, encrypted or not.
    ///
    /// # Errors
    /// `Credentials`, with what the user has instead of a usable key and how to make one of it.
    pub(crate) fn from_pem(
        private_key: &SecretString,
        passphrase: Option<&SecretString>,
    ) -> Result<Self> {
        let key = pem::read_private_key(private_key, passphrase)?;
        let bits = key.n().bits();
        if !(MIN_BITS..=MAX_BITS).contains(&bits) {
            return Err(Error::new(
                ErrorKind::Credentials,
                format!("the private key has {bits} bits, not {MIN_BITS} to {MAX_BITS}"),
            )
            .with_hint("Make a key with: openssl genrsa 2048 | openssl pkcs8 -topk8 -nocrypt -out rsa_key.p8"));
        }
        let public_der = pem::public_key_der(&key)?;
        Ok(Self { key, public_der })
    }

    /// `SHA256:` and the digest of the public key, as DESCRIBE USER shows it in `RSA_PUBLIC_KEY_FP`.
    pub(crate) fn fingerprint(&self) -> String {
        format!(
            "SHA256:{}",
            STANDARD.encode(Sha256::digest(&self.public_der))
        )
    }

    /// A token with which `user` of `account`, both in upper case, can log in within a minute of `now`.
    ///
    /// # Errors
    /// `Internal` if signing fails.
    pub(crate) fn login_token(
        &self,
        account: &str,
        user: &str,
        now: SystemTime,
    ) -> Result<SecretString> {
        #[derive(Serialize)]
        struct Header {
            alg: &'static str,
            typ: &'static str,
        }
        #[derive(Serialize)]
        struct Claims<'a> {
            exp: u64,
            iat: u64,
            iss: &'a str,
            sub: &'a str,
        }
        let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(
                ErrorKind::Internal,
                "cannot sign a login with the private key",
            )
            .with_source(cause)
        };
        let since_1970 = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let subject = format!("{account}.{user}");
        let header = serde_json::to_vec(&Header {
            alg: "RS256",
            typ: "JWT",
        });
        let claims = serde_json::to_vec(&Claims {
            exp: (since_1970 + LIFETIME).as_secs(),
            iat: since_1970.as_secs(),
            iss: &format!("{subject}.{}", self.fingerprint()),
            sub: &subject,
        });
        let header = URL_SAFE_NO_PAD.encode(header.map_err(|cause| failed(cause.into()))?);
        let claims = URL_SAFE_NO_PAD.encode(claims.map_err(|cause| failed(cause.into()))?);
        let signed = format!("{header}.{claims}");
        // The random number blinds the computation against timing; the signature is the same each time.
        let signature = SigningKey::<Sha256>::new(self.key.clone())
            .try_sign_with_rng(&mut OsRng, signed.as_bytes())
            .map_err(|cause| failed(cause.into()))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes())).into())
    }
}

/// The statement that tells Snowflake the public half of a user's key, on one line.
///
/// # Errors
/// `Credentials` if the private key cannot be read.
pub fn public_key_statement(
    username: &str,
    private_key_pem: &SecretString,
    passphrase: Option<&SecretString>,
) -> Result<String> {
    let key = KeyPair::from_pem(private_key_pem, passphrase)?;
    Ok(format!(
        "ALTER USER {} SET RSA_PUBLIC_KEY='{}';",
        // A login names the user in upper case, so this is the user that the login will look for.
        sql::quote_ident(&username.to_uppercase()),
        STANDARD.encode(&key.public_der)
    ))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const PLAIN: &str = include_str!("../../../tests/data/keys/rsa_2048.p8");
    /// Fingerprint and token, made by PyJWT; see the README beside it.
    const EXPECTED: &str = include_str!("../../../tests/data/keys/login_token.txt");

    fn key(pem: &str, passphrase: Option<&str>) -> Result<KeyPair> {
        KeyPair::from_pem(&pem.into(), passphrase.map(SecretString::from).as_ref())
    }

    #[test]
    fn the_whole_token_is_known() {
        let (fingerprint, token) = EXPECTED.trim_end().split_once('\n').unwrap();
        let key = key(PLAIN, None).unwrap();
        assert_eq!(key.fingerprint(), fingerprint);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for _ in 0..2 {
            let made = key
                .login_token("MYORG-MYACCOUNT", "JANE@EXAMPLE.COM", now)
                .unwrap();
            assert_eq!(made.expose_secret(), token);
        }
    }

    #[test]
    fn the_public_half_as_a_statement() {
        let pem = include_str!("../../../tests/data/keys/rsa_2048.pub");
        let base64: String = pem
            .lines()
            .filter(|line| !line.starts_with("-----"))
            .collect();
        assert_eq!(
            public_key_statement("Jane@example.com", &PLAIN.into(), None).unwrap(),
            format!("ALTER USER \"JANE@EXAMPLE.COM\" SET RSA_PUBLIC_KEY='{base64}';")
        );
        let hostile = public_key_statement("a\"; DROP USER b; --", &PLAIN.into(), None).unwrap();
        assert!(
            hostile.starts_with("ALTER USER \"A\"\"; DROP USER B; --\" SET"),
            "{hostile}"
        );
    }

    #[test]
    fn short_keys_are_refused() {
        let error = key(include_str!("../../../tests/data/keys/rsa_1024.p8"), None).unwrap_err();
        assert!(error.message().contains("1024 bits"), "{error}");
    }

    #[test]
    fn debug_shows_the_fingerprint_only() {
        let key = key(PLAIN, None).unwrap();
        assert_eq!(
            format!("{key:?}"),
            format!("KeyPair({:?})", key.fingerprint())
        );
    }
}

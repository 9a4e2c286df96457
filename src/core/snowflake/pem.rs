//! Private keys as users have them: PKCS#8 in PEM is read, and of everything else it is said what it is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::der::{Decode, Reader, SliceReader};
use pkcs8::pkcs5::pbes2::Kdf;
use pkcs8::{
    AlgorithmIdentifierRef, EncryptedPrivateKeyInfo, ObjectIdentifier, PrivateKeyInfo, pkcs5,
};
use rsa::RsaPrivateKey;
use rsa::pkcs8::EncodePublicKey;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::{Error, ErrorKind, Result};

/// Longer texts are no key of at most 8192 bits.
const MAX_PEM: usize = 64 * 1024;
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// OpenSSL uses 2048, and OWASP asks for 600,000; more than this would keep a processor busy for a second.
const MAX_PBKDF2_ITERATIONS: u32 = 1_000_000;
/// OpenSSL's default cost; its memory is 16 MB.
const MAX_SCRYPT_COST: u64 = 1 << 14;

const CONVERT: &str = "Convert the key with: openssl pkcs8 -topk8 -nocrypt -in <key> -out rsa_key.p8, and give the content of rsa_key.p8.";
const ENCRYPT_ANEW: &str = "Encrypt the key anew with: openssl pkcs8 -topk8 -v2 aes256 -in <key> -out rsa_key.p8, and give the content of rsa_key.p8.";

/// Reads an RSA key from PKCS#8 in PEM.
///
/// # Errors
/// `Credentials`, with what was found instead and how to make a usable key of it.
pub(crate) fn read_private_key(
    pem: &SecretString,
    passphrase: Option<&SecretString>,
) -> Result<RsaPrivateKey> {
    let (label, der) = decode(pem.expose_secret())?;
    match label {
        "PRIVATE KEY" => from_pkcs8(&der),
        "ENCRYPTED PRIVATE KEY" => decrypt(&der, passphrase),
        "RSA PRIVATE KEY" => Err(refused("the private key is in the PKCS#1 form").with_hint(CONVERT)),
        "OPENSSH PRIVATE KEY" => Err(refused("the private key is in the form of OpenSSH").with_hint(
            "Convert a copy of it with: ssh-keygen -p -m PKCS8 -f <copy>; or make a new RSA key.",
        )),
        "EC PRIVATE KEY" | "DSA PRIVATE KEY" => Err(not_rsa()),
        "PUBLIC KEY" | "RSA PUBLIC KEY" => Err(refused("this is a public key, not a private one")
            .with_hint("Give the private key; its public half belongs to the Snowflake user.")),
        "CERTIFICATE" => Err(refused("this is a certificate, not a private key")),
        _ => Err(not_pem()),
    }
}

/// The public half as SubjectPublicKeyInfo, of which Snowflake takes fingerprints.
///
/// # Errors
/// `Internal` if it cannot be encoded.
pub(crate) fn public_key_der(key: &RsaPrivateKey) -> Result<Vec<u8>> {
    key.to_public_key()
        .to_public_key_der()
        .map(|document| document.as_bytes().to_vec())
        .map_err(|_| Error::new(ErrorKind::Internal, "cannot encode the public key"))
}

/// Label and content. Blanks and line ends get lost or doubled on the way through forms and JSON, so none is required.
fn decode(pem: &str) -> Result<(&str, Zeroizing<Vec<u8>>)> {
    if pem.trim().is_empty() {
        return Err(refused("the private key is empty"));
    }
    if pem.len() > MAX_PEM {
        return Err(not_pem());
    }
    let (_, begun) = pem.split_once("-----BEGIN ").ok_or_else(not_pem)?;
    let (label, rest) = begun.split_once("-----").ok_or_else(not_pem)?;
    let (body, ended) = rest.split_once("-----END ").ok_or_else(not_pem)?;
    if !ended.starts_with(label) {
        return Err(not_pem());
    }
    if body.contains("Proc-Type:") {
        // The encryption of old OpenSSL, around PKCS#1.
        return Ok((label, Zeroizing::default()));
    }
    let mut digits = Zeroizing::new(String::with_capacity(body.len()));
    for line in body.split("\\n") {
        digits.extend(line.chars().filter(|c| !c.is_whitespace()));
    }
    let der = STANDARD.decode(digits.as_bytes()).map_err(|_| not_pem())?;
    Ok((label, Zeroizing::new(der)))
}

fn from_pkcs8(der: &[u8]) -> Result<RsaPrivateKey> {
    let info = PrivateKeyInfo::try_from(der).map_err(|_| damaged())?;
    if info.algorithm.oid != RSA_ENCRYPTION {
        return Err(not_rsa());
    }
    RsaPrivateKey::try_from(info).map_err(|_| damaged())
}

fn decrypt(der: &[u8], passphrase: Option<&SecretString>) -> Result<RsaPrivateKey> {
    let info = EncryptedPrivateKeyInfo::try_from(der).map_err(|_| {
        if is_encrypted_pkcs8(der) {
            old_encryption()
        } else {
            damaged()
        }
    })?;
    let Some(passphrase) = passphrase.filter(|passphrase| !passphrase.expose_secret().is_empty())
    else {
        return Err(
            refused("the private key is encrypted and no passphrase is given")
                .with_hint("Give the passphrase of the key in private_key_passphrase."),
        );
    };
    if !is_affordable(&info.encryption_algorithm) {
        return Err(
            refused("opening the private key would take too much time or memory")
                .with_hint(ENCRYPT_ANEW),
        );
    }
    let opened = info
        .decrypt(passphrase.expose_secret())
        .map_err(|cause| match cause {
            pkcs8::Error::EncryptedPrivateKey(
                pkcs5::Error::NoPbes1CryptSupport
                | pkcs5::Error::UnsupportedAlgorithm { .. }
                | pkcs5::Error::AlgorithmParametersInvalid { .. },
            ) => old_encryption(),
            _ => wrong_passphrase(),
        })?;
    // One wrong passphrase in 256 leaves valid padding around noise.
    let info = PrivateKeyInfo::try_from(opened.as_bytes()).map_err(|_| wrong_passphrase())?;
    if info.algorithm.oid != RSA_ENCRYPTION {
        return Err(not_rsa());
    }
    RsaPrivateKey::try_from(info).map_err(|_| damaged())
}

/// Whether the outer shape is right, whatever the encryption: an algorithm, and something encrypted with it.
fn is_encrypted_pkcs8(der: &[u8]) -> bool {
    SliceReader::new(der)
        .and_then(|mut reader| {
            reader.sequence(|parts| {
                AlgorithmIdentifierRef::decode(parts)?;
                OctetStringRef::decode(parts)
            })
        })
        .is_ok()
}

fn is_affordable(scheme: &pkcs5::EncryptionScheme<'_>) -> bool {
    match scheme.pbes2().map(|parameters| &parameters.kdf) {
        Some(Kdf::Pbkdf2(parameters)) => parameters.iteration_count <= MAX_PBKDF2_ITERATIONS,
        Some(Kdf::Scrypt(parameters)) => {
            parameters.cost_parameter <= MAX_SCRYPT_COST
                && parameters.block_size <= 8
                && parameters.parallelization <= 16
        }
        // PBES1, or something later: refused where it is opened.
        _ => true,
    }
}

fn refused(what: &str) -> Error {
    Error::new(ErrorKind::Credentials, what)
}

fn not_pem() -> Error {
    refused("the private key is not in PEM").with_hint(
        "Give the whole file, from -----BEGIN PRIVATE KEY----- to -----END PRIVATE KEY-----.",
    )
}

fn damaged() -> Error {
    refused("the private key is damaged")
        .with_hint("Check it with: openssl pkey -check -noout -in <key>.")
}

fn not_rsa() -> Error {
    refused("the private key is not an RSA key").with_hint(
        "Make one with: openssl genrsa 2048 | openssl pkcs8 -topk8 -nocrypt -out rsa_key.p8.",
    )
}

fn old_encryption() -> Error {
    refused("the private key is encrypted in an old way that is not supported")
        .with_hint(ENCRYPT_ANEW)
}

fn wrong_passphrase() -> Error {
    refused("the passphrase does not open the private key")
        .with_hint("Correct private_key_passphrase.")
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! key {
        ($name:literal) => {
            include_str!(concat!("../../../tests/data/keys/", $name))
        };
    }

    const PLAIN: &str = key!("rsa_2048.p8");
    const PASSPHRASE: &str = "test-passphrase";

    fn read(pem: &str, passphrase: Option<&str>) -> Result<RsaPrivateKey> {
        read_private_key(&pem.into(), passphrase.map(SecretString::from).as_ref())
    }

    #[test]
    fn every_supported_form_gives_the_same_key() {
        let plain = read(PLAIN, None).unwrap();
        for encrypted in [
            key!("rsa_2048_aes256.p8"),
            key!("rsa_2048_3des.p8"),
            key!("rsa_2048_aes256_sha1.p8"),
            key!("rsa_2048_3des_sha1.p8"),
            key!("rsa_2048_scrypt.p8"),
        ] {
            assert!(read(encrypted, Some(PASSPHRASE)).unwrap() == plain);
        }
        // A passphrase that is not needed does no harm.
        assert!(read(PLAIN, Some("x")).unwrap() == plain);
        for mangled in [
            PLAIN.replace('\n', "\r\n"),
            PLAIN.replace('\n', "\\n"),
            PLAIN.replace('\n', " "),
            PLAIN.replace('\n', "\n   "),
            format!("some text\n{PLAIN}\n"),
        ] {
            assert!(
                read(&mangled, None).unwrap() == plain,
                "{:?}",
                &mangled[..60]
            );
        }
    }

    #[test]
    fn of_everything_else_it_is_said_what_it_is() {
        let with = Some(PASSPHRASE);
        for (pem, passphrase, words) in [
            ("", None, "is empty"),
            (" \n", None, "is empty"),
            ("hunter2", None, "not in PEM"),
            ("-----BEGIN PRIVATE KEY-----", None, "not in PEM"),
            (
                "-----BEGIN PRIVATE KEY-----\n?\n-----END PRIVATE KEY-----",
                None,
                "not in PEM",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PUBLIC KEY-----",
                None,
                "not in PEM",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
                None,
                "damaged",
            ),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----",
                with,
                "damaged",
            ),
            (key!("rsa_2048_pkcs1.pem"), None, "PKCS#1"),
            (key!("rsa_2048_pkcs1_encrypted.pem"), with, "PKCS#1"),
            (key!("rsa_2048_openssh.pem"), None, "OpenSSH"),
            (key!("ec_p256.p8"), None, "not an RSA key"),
            (key!("ec_p256_sec1.pem"), None, "not an RSA key"),
            (key!("rsa_2048.pub"), None, "public key"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
                None,
                "certificate",
            ),
            (key!("rsa_2048_aes256.p8"), None, "no passphrase"),
            (key!("rsa_2048_aes256.p8"), Some(""), "no passphrase"),
            (key!("rsa_2048_aes256.p8"), Some("wrong"), "does not open"),
            (key!("rsa_2048_3des.p8"), Some("wrong"), "does not open"),
            (key!("rsa_2048_pbes1.p8"), with, "old way"),
        ] {
            let error = read(pem, passphrase).expect_err(words);
            assert_eq!(error.kind(), ErrorKind::Credentials);
            assert!(error.message().contains(words), "{words}: {error}");
            let shown = format!("{error:?} {:?}", error.hint());
            assert!(
                !shown.contains("hunter2") && !shown.contains(PASSPHRASE),
                "{shown}"
            );
        }
        assert!(read(&"x".repeat(MAX_PEM + 1), None).is_err());
    }

    #[test]
    fn a_key_that_takes_forever_to_open_is_refused() {
        use pkcs8::der::Encode;
        use pkcs8::pkcs5::pbes2;
        let parameters = pbes2::Parameters::pbkdf2_sha256_aes256cbc(
            MAX_PBKDF2_ITERATIONS + 1,
            b"saltsalt",
            &[0; 16],
        )
        .unwrap();
        let der = EncryptedPrivateKeyInfo {
            encryption_algorithm: parameters.into(),
            encrypted_data: &[0; 64],
        }
        .to_der()
        .unwrap();
        let pem = format!(
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\n{}\n-----END ENCRYPTED PRIVATE KEY-----",
            STANDARD.encode(der)
        );
        let error = read(&pem, Some("x")).unwrap_err();
        assert!(error.message().contains("too much time"), "{error}");
    }
}

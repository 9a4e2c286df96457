//! Encryption of staged files on the client's side, as Snowflake's readers expect it: AES-CBC under a key of the file's
//! own, which travels with the file, wrapped with a key of the stage.

use std::fmt;

use aes::cipher::consts::U16;
use aes::cipher::generic_array::GenericArray;
use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockEncrypt, BlockEncryptMut, KeyInit, KeyIvInit};
use aes::{Aes128, Aes256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use rand::RngCore;
use secrecy::ExposeSecret;
use serde::Serialize;
use zeroize::Zeroizing;

use super::wire::EncryptionMaterial;
use crate::{Error, ErrorKind, Result};

const BLOCK: usize = 16;

/// The key of one file and what its reader needs besides. Made anew for each file.
pub(crate) struct FileKey {
    key: Zeroizing<Vec<u8>>,
    iv: [u8; BLOCK],
    wrapped_key: String,
    description: String,
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKey")
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

impl FileKey {
    /// Draws a key for a file and wraps it with the stage's.
    ///
    /// # Errors
    /// `Internal` if the stage's key is of no known length.
    pub(crate) fn new(material: &EncryptionMaterial, rng: &mut impl RngCore) -> Result<Self> {
        let stage_key = STANDARD
            .decode(material.query_stage_master_key.expose_secret())
            .map(Zeroizing::new)
            .map_err(|_| unusable("cannot be decoded"))?;
        let mut key = Zeroizing::new(vec![0; stage_key.len()]);
        rng.fill_bytes(&mut key);
        let mut iv = [0; BLOCK];
        rng.fill_bytes(&mut iv);
        let wrapped_key = match stage_key.len() {
            16 => wrap::<Aes128>(&stage_key, &key)?,
            32 => wrap::<Aes256>(&stage_key, &key)?,
            _ => return Err(unusable("has an unknown length")),
        };
        Ok(Self {
            description: describe(material, key.len() * 8)?,
            wrapped_key,
            key,
            iv,
        })
    }

    /// The metadata that goes with the file on S3.
    pub(crate) fn s3_metadata(&self) -> [(&'static str, String); 3] {
        [
            ("x-amz-key", self.wrapped_key.clone()),
            ("x-amz-iv", STANDARD.encode(self.iv)),
            ("x-amz-matdesc", self.description.clone()),
        ]
    }

    /// The metadata that goes with the file on Azure and Google. Readers ignore the names of the algorithms: drivers write
    /// different ones for the same thing, and the same for both lengths of keys.
    ///
    /// # Errors
    /// `Internal` if it cannot be written.
    pub(crate) fn blob_metadata(&self) -> Result<[(&'static str, String); 2]> {
        let data = serde_json::to_string(&EncryptionData {
            encryption_mode: "FullBlob",
            wrapped_content_key: WrappedContentKey {
                key_id: "symmKey1",
                encrypted_key: &self.wrapped_key,
                algorithm: "AES_CBC_256",
            },
            encryption_agent: EncryptionAgent {
                protocol: "1.0",
                encryption_algorithm: "AES_CBC_256",
            },
            content_encryption_iv: STANDARD.encode(self.iv),
            key_wrapping_metadata: KeyWrappingMetadata {
                encryption_library: "Java 5.3.0",
            },
        })
        .map_err(|cause| unusable("makes no description").with_source(cause))?;
        Ok([
            ("encryptiondata", data),
            ("matdesc", self.description.clone()),
        ])
    }

    /// Begins the encryption of the file.
    ///
    /// # Errors
    /// `Internal`, which [`FileKey::new`] rules out.
    pub(crate) fn encryptor(&self) -> Result<Encryptor> {
        let cipher = match self.key.len() {
            16 => cbc::Encryptor::new_from_slices(&self.key, &self.iv)
                .map(|cipher| Cipher::Aes128(Box::new(cipher))),
            _ => cbc::Encryptor::new_from_slices(&self.key, &self.iv)
                .map(|cipher| Cipher::Aes256(Box::new(cipher))),
        };
        Ok(Encryptor {
            cipher: cipher.map_err(|_| unusable("has an unknown length"))?,
            rest: Zeroizing::default(),
        })
    }
}

/// What Azure's client library once wrote beside encrypted blobs, and what Snowflake still reads there.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EncryptionData<'a> {
    encryption_mode: &'static str,
    wrapped_content_key: WrappedContentKey<'a>,
    encryption_agent: EncryptionAgent,
    #[serde(rename = "ContentEncryptionIV")]
    content_encryption_iv: String,
    key_wrapping_metadata: KeyWrappingMetadata,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WrappedContentKey<'a> {
    key_id: &'static str,
    encrypted_key: &'a str,
    algorithm: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EncryptionAgent {
    protocol: &'static str,
    encryption_algorithm: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyWrappingMetadata {
    encryption_library: &'static str,
}

/// The size of a file of `plain` bytes after encryption: padding always adds at least one byte.
pub(crate) fn encrypted_size(plain: u64) -> u64 {
    (plain / BLOCK as u64 + 1) * BLOCK as u64
}

enum Cipher {
    Aes128(Box<cbc::Encryptor<Aes128>>),
    Aes256(Box<cbc::Encryptor<Aes256>>),
}

impl Cipher {
    /// Encrypts whole blocks, all at once: asking for each of them costs more than the processor needs for it.
    fn encrypt(&mut self, blocks: &mut [u8]) {
        let (blocks, _) = InOutBuf::from(blocks).into_chunks::<U16>();
        match self {
            Self::Aes128(cipher) => cipher.encrypt_blocks_inout_mut(blocks),
            Self::Aes256(cipher) => cipher.encrypt_blocks_inout_mut(blocks),
        }
    }
}

/// Encrypts a file piece by piece; each block depends on the one before it, across all pieces.
pub(crate) struct Encryptor {
    cipher: Cipher,
    /// The plain bytes that do not fill a block yet.
    rest: Zeroizing<Vec<u8>>,
}

impl Encryptor {
    /// Appends the encrypted form of `plain` to `out`, up to the last whole block.
    pub(crate) fn update(&mut self, plain: &[u8], out: &mut BytesMut) {
        let whole = (self.rest.len() + plain.len()) / BLOCK * BLOCK;
        let from_plain = whole.saturating_sub(self.rest.len()).min(plain.len());
        let (now, later) = plain.split_at(from_plain);
        if whole > 0 {
            let start = out.len();
            out.extend_from_slice(&self.rest);
            out.extend_from_slice(now);
            self.rest.clear();
            if let Some(blocks) = out.get_mut(start..) {
                self.cipher.encrypt(blocks);
            }
        }
        self.rest.extend_from_slice(later);
    }

    /// Appends the last block, padded as PKCS#7 says.
    pub(crate) fn finish(mut self, out: &mut BytesMut) {
        let mut block = padded(&self.rest);
        self.cipher.encrypt(&mut block);
        out.extend_from_slice(&block);
    }
}

/// PKCS#7: as many bytes as are missing, each saying how many; a whole block where none is missing.
fn padded(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let missing = BLOCK - bytes.len() % BLOCK;
    let mut padded = Zeroizing::new(bytes.to_vec());
    // The cast cannot wrap: 1 ≤ missing ≤ 16.
    padded.resize(bytes.len() + missing, missing as u8);
    padded
}

/// The file's key under the stage's: AES-ECB with padding, in base64.
fn wrap<C: BlockEncrypt + KeyInit>(stage_key: &[u8], key: &[u8]) -> Result<String> {
    let cipher = C::new_from_slice(stage_key).map_err(|_| unusable("has an unknown length"))?;
    let mut blocks = padded(key);
    for block in blocks.chunks_exact_mut(C::block_size()) {
        cipher.encrypt_block(GenericArray::from_mut_slice(block));
    }
    Ok(STANDARD.encode(&*blocks))
}

/// What tells Snowflake which of its keys opens the file; every value is text.
fn describe(material: &EncryptionMaterial, bits: usize) -> Result<String> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Description<'a> {
        query_id: &'a str,
        smk_id: &'a str,
        key_size: String,
    }
    /// Real ones have 36 characters.
    const LONGEST: usize = 100;
    let missing = || unusable("comes without its ids");
    let id = |id: &'_ Option<String>| {
        let id = id.clone().ok_or_else(missing)?;
        // It travels in a header.
        match id.len() <= LONGEST && id.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(id),
            false => Err(unusable("comes with ids that cannot be any")),
        }
    };
    serde_json::to_string(&Description {
        query_id: &id(&material.query_id)?,
        smk_id: &id(&material.smk_id)?,
        key_size: bits.to_string(),
    })
    .map_err(|_| missing())
}

fn unusable(why: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("the stage's encryption key {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::RngCore;
    use sha2::{Digest, Sha256};

    /// Gives 00 01 02 … for the key and f0 f1 … for the IV, as the vectors have them.
    struct Counting(Vec<u8>);

    impl RngCore for Counting {
        fn next_u32(&mut self) -> u32 {
            panic!("only bytes are drawn")
        }
        fn next_u64(&mut self) -> u64 {
            panic!("only bytes are drawn")
        }
        fn fill_bytes(&mut self, out: &mut [u8]) {
            let start = self.0.pop().unwrap();
            for (i, byte) in (0..).zip(out) {
                *byte = start + i;
            }
        }
        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand::Error> {
            self.fill_bytes(out);
            Ok(())
        }
    }

    fn material(key: &str) -> EncryptionMaterial {
        EncryptionMaterial {
            query_stage_master_key: key.into(),
            query_id: Some("123873c7-3a66-40c4-ab89-e3722fbccce1".into()),
            smk_id: Some(i64::MAX.to_string()),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn known_answers() {
        const KEY_128: &str = "ztke8tIdVt1zmlQIZm0BMA==";
        const WRAPPED_128: &str = "rxYsRRccIXJ2M0MQEPDLeU874mq7Sdk+oKzT6/pLTv8=";
        const KEY_256: &str = "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8=";
        const WRAPPED_256: &str =
            "0F1n4APIo3Slie81lvOhpIxbd9+mWTZJ0mIK2DwkSojJy3s4WeGlULy/EbYkAixW";
        let odd = "snowflake_bridgesnowflake_bridgex";
        for (stage_key, wrapped, plain, encrypted, digest) in [
            (
                KEY_128,
                WRAPPED_128,
                "",
                "d02a48244eccdc2379224dbc54703612",
                "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            ),
            (
                KEY_128,
                WRAPPED_128,
                "PAR1 sample PAR1",
                "fc7d999facd741c1e732bf29049fb10360ffb6cd322d5ba7ede0bb673885e050",
                "/HxwLrGUitZfVKbswrBS6DpSLNDZ24KqERShdague9g=",
            ),
            (
                KEY_128,
                WRAPPED_128,
                odd,
                "28c54e70f07dd4364029fdc1830106e5a66940b157b7c6367986811938d0f2261bd2d6a94eaddd76ab5cee526d1dc1fa",
                "mqQAOAgcoHsFh7p/8pjC1kNXCrY1HT3P08MY3MO+loI=",
            ),
            (
                KEY_256,
                WRAPPED_256,
                "PAR1 sample PAR1",
                "dc82a2d24c942d97cb858a432eee45d2813251dd34abe0a05b4d74329f74a423",
                "/HxwLrGUitZfVKbswrBS6DpSLNDZ24KqERShdague9g=",
            ),
        ] {
            let key = FileKey::new(&material(stage_key), &mut Counting(vec![0xf0, 0])).unwrap();
            let mut out = BytesMut::new();
            let mut encryptor = key.encryptor().unwrap();
            encryptor.update(plain.as_bytes(), &mut out);
            encryptor.finish(&mut out);
            assert_eq!(hex(&out), encrypted, "{plain:?}");
            assert_eq!(out.len() as u64, encrypted_size(plain.len() as u64));
            assert_eq!(STANDARD.encode(Sha256::digest(plain)), digest);
            let bits = if stage_key == KEY_128 { 128 } else { 256 };
            assert_eq!(
                key.s3_metadata(),
                [
                    ("x-amz-key", wrapped.to_owned()),
                    ("x-amz-iv", "8PHy8/T19vf4+fr7/P3+/w==".to_owned()),
                    (
                        "x-amz-matdesc",
                        format!(
                            "{{\"queryId\":\"123873c7-3a66-40c4-ab89-e3722fbccce1\",\
                             \"smkId\":\"9223372036854775807\",\"keySize\":\"{bits}\"}}"
                        )
                    ),
                ]
            );
        }
    }

    #[test]
    fn what_azure_and_google_keep_beside_a_file() {
        let key = FileKey::new(
            &material("ztke8tIdVt1zmlQIZm0BMA=="),
            &mut Counting(vec![0xf0, 0]),
        )
        .unwrap();
        let [(data_name, data), (description_name, description)] = key.blob_metadata().unwrap();
        assert_eq!((data_name, description_name), ("encryptiondata", "matdesc"));
        assert_eq!(description, key.s3_metadata()[2].1);
        let data: serde_json::Value = serde_json::from_str(&data).unwrap();
        assert_eq!(
            data,
            serde_json::json!({
                "EncryptionMode": "FullBlob",
                "WrappedContentKey": {
                    "KeyId": "symmKey1",
                    "EncryptedKey": "rxYsRRccIXJ2M0MQEPDLeU874mq7Sdk+oKzT6/pLTv8=",
                    "Algorithm": "AES_CBC_256",
                },
                "EncryptionAgent": {"Protocol": "1.0", "EncryptionAlgorithm": "AES_CBC_256"},
                "ContentEncryptionIV": "8PHy8/T19vf4+fr7/P3+/w==",
                "KeyWrappingMetadata": {"EncryptionLibrary": "Java 5.3.0"},
            })
        );
    }

    #[test]
    fn unusable_keys() {
        for key in [
            "",
            "AAAA",
            "not base64!",
            "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZX",
        ] {
            assert!(
                FileKey::new(&material(key), &mut rand::thread_rng()).is_err(),
                "{key}"
            );
        }
        let mut nameless = material("ztke8tIdVt1zmlQIZm0BMA==");
        nameless.smk_id = None;
        assert!(FileKey::new(&nameless, &mut rand::thread_rng()).is_err());
    }

    #[test]
    fn debug_never_shows_a_key() {
        let key = FileKey::new(
            &material("ztke8tIdVt1zmlQIZm0BMA=="),
            &mut rand::thread_rng(),
        )
        .unwrap();
        let shown = format!("{key:?}");
        assert!(
            !shown.contains(&format!("{:?}", &*key.key)) && !shown.contains(&key.wrapped_key),
            "{shown}"
        );
    }

    proptest! {
        /// However a file is cut into pieces, the result is that of the cipher library over the whole.
        #[test]
        fn pieces_make_no_difference(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..8)) {
            use aes::cipher::block_padding::Pkcs7;
            let key = FileKey::new(&material("ztke8tIdVt1zmlQIZm0BMA=="), &mut rand::thread_rng()).unwrap();
            let mut out = BytesMut::new();
            let mut encryptor = key.encryptor().unwrap();
            for piece in &pieces {
                encryptor.update(piece, &mut out);
            }
            encryptor.finish(&mut out);
            let whole = cbc::Encryptor::<Aes128>::new_from_slices(&key.key, &key.iv)
                .unwrap()
                .encrypt_padded_vec_mut::<Pkcs7>(&pieces.concat());
            prop_assert_eq!(out.as_ref(), whole.as_slice());
        }
    }
}

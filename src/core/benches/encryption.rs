//! Encryption of staged files. What does it is nobody's business outside the crate, so its source is part of this program.
#![allow(clippy::unwrap_used)]

// Its tests come along, and are not run.
#[allow(dead_code, unused_imports, clippy::panic)]
#[path = "../snowflake/encryption.rs"]
mod encryption;

/// What the source expects beside it.
mod wire {
    use secrecy::SecretString;

    pub(crate) struct EncryptionMaterial {
        pub(crate) query_stage_master_key: SecretString,
        pub(crate) query_id: Option<String>,
        pub(crate) smk_id: Option<String>,
    }
}

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
pub(crate) use bridge_core::{Error, ErrorKind, Result};
use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

/// A part of a file, as it is sent.
const PIECE: usize = 8 << 20;

fn files(criterion: &mut Criterion) {
    let plain = vec![7_u8; PIECE];
    let mut group = criterion.benchmark_group("a piece of a file");
    group.throughput(Throughput::Bytes(PIECE as u64));
    for bytes in [16, 32] {
        let material = wire::EncryptionMaterial {
            query_stage_master_key: SecretString::from(STANDARD.encode(vec![1; bytes])),
            query_id: Some("01b2c3d4-0000-0000-0000-000000000001".to_owned()),
            smk_id: Some("1".to_owned()),
        };
        let key = encryption::FileKey::new(&material, &mut rand::thread_rng()).unwrap();
        let mut out = BytesMut::with_capacity(PIECE + 16);
        group.bench_function(format!("AES-{}", bytes * 8), |bencher| {
            bencher.iter(|| {
                out.clear();
                let mut encryptor = key.encryptor().unwrap();
                encryptor.update(&plain, &mut out);
                encryptor.finish(&mut out);
            });
        });
    }
    group.bench_function("its digest", |bencher| {
        bencher.iter(|| Sha256::digest(&plain))
    });
    group.finish();
}

criterion_group!(benches, files);
criterion_main!(benches);

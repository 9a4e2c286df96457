use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

mod tamper;

const KEY_7: &str = "7:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=:active";
const OTHER_7: &str = "7://79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=:active";
const KEY_8: &str = "8://79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA=:active";

fn keyring(lines: &[&str]) -> Keyring {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    fs::write(&path, lines.join("\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    Keyring::load(&path, &[]).unwrap()
}

const BINDING: Binding<'static> = Binding {
    config_id: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
    owner_kind: "role",
    owner: "alice",
    account_host: "acme-demo.snowflakecomputing.com",
    username: "LOADER",
    auth_method: "password",
    field: "password",
    audience: &[],
};

fn refused(result: Result<Zeroizing<Vec<u8>>>) -> Error {
    match result {
        Ok(_) => panic!("the secret opens"),
        Err(error) => error,
    }
}

/// Made by another implementation (Python's cryptography), from the description at the top of the module alone.
#[test]
fn the_layout_is_the_documented_one() {
    let known = concat!(
        "534642",
        "01",
        "01",
        "00000007",
        "a6ec96bd73db4337",
        "6465666768696a6b6c6d6e6f",
        "0c30ce7a763346a513af6be92c572d8dbf117211ec7bb322da68ec4214bd4f28433f17a5a054ccb2a1f7cc1290adb132e56563f962d392370f72b7ce92c35260",
        "f53621f7ab12fd0208f95b1995951244",
    );
    let keyring = keyring(&[KEY_7]);
    let nonce = core::array::from_fn(|i| 100 + i as u8);
    let sealed = seal_with(
        keyring.active().unwrap(),
        &BINDING,
        TIES,
        "pässword 1".as_bytes(),
        nonce,
    )
    .unwrap();
    let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, known);
    assert_eq!(
        open(&keyring, &BINDING, &sealed).unwrap().as_slice(),
        "pässword 1".as_bytes()
    );
}

#[test]
fn no_two_seals_are_alike() {
    let keyring = keyring(&[KEY_7]);
    let nonces: std::collections::HashSet<Vec<u8>> = (0..1_000)
        .map(|_| {
            seal(&keyring, &BINDING, b"secret").unwrap()[HEADER_BYTES..HEADER_BYTES + NONCE_BYTES]
                .to_vec()
        })
        .collect();
    assert_eq!(nonces.len(), 1_000);
}

#[test]
fn a_change_of_any_bit_is_refused() {
    let keyring = keyring(&[KEY_7, KEY_8]);
    let sealed = seal(&keyring, &BINDING, b"secret").unwrap();
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut changed = sealed.clone();
            changed[at] ^= 1 << bit;
            refused(open(&keyring, &BINDING, &changed));
        }
    }
    for length in 0..sealed.len() {
        refused(open(&keyring, &BINDING, &sealed[..length]));
    }
    let longer = [sealed.as_slice(), &[0]].concat();
    assert_eq!(
        refused(open(&keyring, &BINDING, &longer)).kind(),
        ErrorKind::Credentials
    );
}

#[test]
fn a_secret_opens_only_where_it_belongs() {
    let keyring = keyring(&[KEY_7]);
    let sealed = seal(&keyring, &BINDING, b"secret").unwrap();
    let moved = [
        Binding {
            config_id: Uuid::from_u128(1),
            ..BINDING
        },
        Binding {
            owner_kind: "jwt",
            ..BINDING
        },
        Binding {
            owner: "bob",
            ..BINDING
        },
        Binding {
            account_host: "evil.snowflakecomputing.com",
            ..BINDING
        },
        Binding {
            username: "LOADER2",
            ..BINDING
        },
        Binding {
            auth_method: "key_pair",
            ..BINDING
        },
        Binding {
            field: "token",
            ..BINDING
        },
        // The same letters in all, cut elsewhere.
        Binding {
            owner_kind: "rolea",
            owner: "lice",
            ..BINDING
        },
        Binding {
            owner_kind: "",
            owner: "rolealice",
            ..BINDING
        },
        Binding {
            audience: &["client-1", "https://idp.example.com/token"],
            ..BINDING
        },
        Binding {
            audience: &[""],
            ..BINDING
        },
    ];
    for binding in moved {
        let error = refused(open(&keyring, &binding, &sealed));
        assert_eq!(error.kind(), ErrorKind::Credentials, "{binding:?}");
        assert!(error.hint().unwrap().contains("Store the secret again"));
    }
}

#[test]
fn a_secret_opens_for_its_audience_only() {
    let keyring = keyring(&[KEY_7]);
    let meant = |audience| Binding {
        audience,
        ..BINDING
    };
    let binding = meant(&["client-1", "https://idp.example.com/token"]);
    let sealed = seal(&keyring, &binding, b"secret").unwrap();
    assert_eq!(
        open(&keyring, &binding, &sealed).unwrap().as_slice(),
        b"secret"
    );
    for other in [
        &[][..],
        &["client-1"],
        &["client-1", ""],
        &["client-1", "https://evil.example.com/token"],
        &["client-2", "https://idp.example.com/token"],
        &["client-1https://idp.example.com/token"],
    ] {
        let error = refused(open(&keyring, &meant(other), &sealed));
        assert_eq!(error.kind(), ErrorKind::Credentials, "{other:?}");
    }
}

#[test]
fn a_wrong_key_is_told_from_damage() {
    let sealed = seal(&keyring(&[KEY_7]), &BINDING, b"secret").unwrap();
    let wrong = refused(open(&keyring(&[OTHER_7]), &BINDING, &sealed));
    assert_eq!(wrong.kind(), ErrorKind::Credentials);
    assert!(
        wrong
            .message()
            .contains("key 7 in the key file is not the key 7"),
        "{wrong}"
    );
    let missing = refused(open(&keyring(&[KEY_8]), &BINDING, &sealed));
    assert_eq!(missing.kind(), ErrorKind::Credentials);
    assert!(missing.message().contains("has no key 7"), "{missing}");
    let mut later = sealed;
    later[3] = 2;
    assert!(
        refused(open(&keyring(&[KEY_7]), &BINDING, &later))
            .message()
            .contains("unknown format 2.1")
    );
}

#[test]
fn a_retired_key_still_opens() {
    let sealed = seal(&keyring(&[KEY_7]), &BINDING, b"secret").unwrap();
    let rotated = keyring(&[&KEY_7.replace("active", "decrypt"), KEY_8]);
    assert_eq!(
        open(&rotated, &BINDING, &sealed).unwrap().as_slice(),
        b"secret"
    );
    assert_eq!(key_id(&sealed), Some(7));
    assert_eq!(
        key_id(&seal(&rotated, &BINDING, b"secret").unwrap()),
        Some(8)
    );
    assert_eq!(key(&rotated, &sealed).unwrap().id(), 7);
    let anew = reseal(&rotated, &BINDING, &sealed).unwrap().unwrap();
    assert_eq!(key(&rotated, &anew).unwrap().id(), 8);
    assert_eq!(
        open(&rotated, &BINDING, &anew).unwrap().as_slice(),
        b"secret"
    );
    assert_eq!(reseal(&rotated, &BINDING, &anew).unwrap(), None);
    assert_eq!(key_id(b"SFB"), None);
    assert_eq!(key_id(b"XXX\x01\x01\x00\x00\x00\x07"), None);
}

#[test]
fn lengths_are_hidden_in_blocks() {
    let keyring = keyring(&[KEY_7]);
    let overhead = HEADER_BYTES + NONCE_BYTES + TAG_BYTES;
    for (length, blocks) in [(0, 1), (1, 1), (60, 1), (61, 2), (124, 2), (1_700, 27)] {
        let secret = vec![b'x'; length];
        let sealed = seal(&keyring, &BINDING, &secret).unwrap();
        assert_eq!(sealed.len(), overhead + blocks * BLOCK_BYTES, "{length}");
        assert_eq!(*open(&keyring, &BINDING, &sealed).unwrap(), secret);
    }
    let too_long = seal(&keyring, &BINDING, &vec![0; MAX_SECRET_BYTES + 1]).unwrap_err();
    assert_eq!(too_long.kind(), ErrorKind::Configuration);
}

proptest! {
    #[test]
    fn what_is_sealed_opens(secret: Vec<u8>, owner: String, username: String) {
        let keyring = keyring(&[KEY_7]);
        let binding = Binding { owner: &owner, username: &username, ..BINDING };
        let sealed = seal(&keyring, &binding, &secret).unwrap();
        let opened = open(&keyring, &binding, &sealed).unwrap();
        prop_assert_eq!(opened.as_slice(), secret.as_slice());
        prop_assert!(secret.len() < 8 || !sealed.windows(secret.len()).any(|window| window == secret));
    }

    #[test]
    fn no_bytes_stop_the_opener(bytes: Vec<u8>, with_header: bool) {
        let keyring = keyring(&[KEY_7]);
        let mut sealed = if with_header { seal(&keyring, &BINDING, b"").unwrap()[..HEADER_BYTES].to_vec() } else { Vec::new() };
        sealed.extend(bytes);
        prop_assert!(open(&keyring, &BINDING, &sealed).is_err());
        let _ = key_id(&sealed);
    }
}

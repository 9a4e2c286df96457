//! Whoever can write the table, and no key: nothing that they make of stored secrets opens.

use std::io::Write;

use super::*;

/// A row of the table: what its secrets are bound to, and the secrets under the names of their fields.
struct Row {
    config_id: Uuid,
    owner: String,
    username: String,
    sealed: Vec<(&'static str, Vec<u8>)>,
}

const FIELDS: [(&str, &str, &[&str]); 6] = [
    ("password", "password", &[]),
    ("key_pair", "private_key", &[]),
    ("key_pair", "private_key_passphrase", &[]),
    ("token", "token", &[]),
    ("oauth", "oauth_token", &[]),
    (
        "oauth",
        "oauth_client_secret",
        &["client", "https://idp.example.com/token"],
    ),
];
const ROWS: u128 = 10;

impl Row {
    fn binding<'a>(&'a self, field: usize) -> Binding<'a> {
        let (auth_method, field, audience) = FIELDS[field];
        Binding {
            config_id: self.config_id,
            owner_kind: "role",
            owner: &self.owner,
            account_host: "acme-demo.snowflakecomputing.com",
            username: &self.username,
            auth_method,
            field,
            audience,
        }
    }
}

/// How often something was tried, and how often it opened although it must not.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    tried: u64,
    opened: u64,
}

impl Count {
    fn add(&mut self, opened: bool) {
        self.tried += 1;
        self.opened += u64::from(opened);
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tried {
    bytes: Count,
    swaps: Count,
    columns: Count,
}

/// One key for all secrets, and nothing beside them authenticated.
const LOOSE: Ties = Ties {
    cipher: |_, key| cipher(&BINDING, key),
    data: |_, _| Vec::new(),
};

/// What opens where nobody looks at the tag: whatever names its key, and has a length that fits. To encrypt once more is to decrypt.
fn opens_unauthenticated(keyring: &Keyring, sealed: &[u8]) -> bool {
    let (header, rest) = sealed.split_at(HEADER_BYTES);
    let (nonce, rest) = rest.split_at(NONCE_BYTES);
    let mut buffer = rest[..rest.len() - TAG_BYTES].to_vec();
    let Ok(key) = key_of(keyring, header) else {
        return false;
    };
    (LOOSE.cipher)(&BINDING, key)
        .unwrap()
        .encrypt_in_place_detached(Nonce::from_slice(nonce), &[], &mut buffer)
        .unwrap();
    let (length, padded) = buffer.split_first_chunk().unwrap();
    u32::from_be_bytes(*length) as usize <= padded.len()
}

/// Every attack, against secrets that are tied in this way.
fn attack(ties: Ties, opens: impl Fn(&Keyring, &Binding<'_>, &[u8]) -> bool) -> Tried {
    let keyring = keyring(&[KEY_7, KEY_8]);
    let rows: Vec<Row> = (1..=ROWS)
        .map(|number| {
            let mut row = Row {
                config_id: Uuid::from_u128(number),
                owner: format!("{number}:owner"),
                username: format!("USER{number}"),
                sealed: Vec::new(),
            };
            for (index, (_, name, _)) in FIELDS.iter().enumerate() {
                let nonce = core::array::from_fn(|i| (i as u8) ^ (number as u8) << 3 ^ index as u8);
                let key = keyring.active().unwrap();
                let sealed = seal_with(key, &row.binding(index), ties, b"s", nonce).unwrap();
                row.sealed.push((name, sealed));
            }
            row
        })
        .collect();
    let opens = |binding: &Binding<'_>, sealed: &[u8]| opens(&keyring, binding, sealed);
    let mut tried = Tried::default();

    // Each byte of a secret, made every other byte.
    let (first, sealed) = (rows[0].binding(0), &rows[0].sealed[0].1);
    assert!(opens(&first, sealed), "untouched, it opens");
    for at in 0..sealed.len() {
        for other in 1..=u8::MAX {
            let mut changed = sealed.clone();
            changed[at] ^= other;
            tried.bytes.add(opens(&first, &changed));
        }
    }
    // Every secret in the place of every other, in its own row and all others.
    for (to, row) in rows.iter().enumerate() {
        for field in 0..FIELDS.len() {
            for (from, other) in rows.iter().enumerate() {
                for (source, (_, sealed)) in other.sealed.iter().enumerate() {
                    if (from, source) != (to, field) {
                        tried.swaps.add(opens(&row.binding(field), sealed));
                    }
                }
            }
        }
    }
    // Every column that a secret is bound to, changed around it.
    for row in &rows {
        for (field, (_, sealed)) in row.sealed.iter().enumerate() {
            let binding = row.binding(field);
            let changed = [
                Binding {
                    config_id: Uuid::from_u128(99),
                    ..binding
                },
                Binding {
                    owner_kind: "jwt",
                    ..binding
                },
                Binding {
                    owner: "99:owner",
                    ..binding
                },
                Binding {
                    owner: "1:owner2",
                    ..binding
                },
                Binding {
                    account_host: "evil.snowflakecomputing.com",
                    ..binding
                },
                Binding {
                    username: "MALLORY",
                    ..binding
                },
                Binding {
                    username: "",
                    ..binding
                },
                Binding {
                    auth_method: "none",
                    ..binding
                },
                Binding {
                    field: "another",
                    ..binding
                },
                Binding {
                    audience: &["client", "https://evil.example.com/token"],
                    ..binding
                },
                Binding {
                    audience: &["another", "https://idp.example.com/token"],
                    ..binding
                },
            ];
            for binding in changed {
                tried.columns.add(opens(&binding, sealed));
            }
        }
    }
    tried
}

#[test]
fn nothing_that_was_tampered_with_opens() {
    let Tried {
        bytes,
        swaps,
        columns,
    } = attack(TIES, |keyring, binding, sealed| {
        open_with(keyring, binding, TIES, sealed).is_ok()
    });
    // The same attacks without what keeps them out, to see that they are attacks.
    let loose = attack(LOOSE, |keyring, _, sealed| {
        opens_unauthenticated(keyring, sealed)
    });
    // Past the harness, which keeps what tests print to itself.
    writeln!(
        std::io::stdout(),
        "\nsecurity: suite=tamper bytes={} swaps={} columns={} accepted={} accepted_without_guard={}+{}+{}",
        bytes.tried,
        swaps.tried,
        columns.tried,
        bytes.opened + swaps.opened + columns.opened,
        loose.bytes.opened,
        loose.swaps.opened,
        loose.columns.opened
    )
    .unwrap();
    assert!(bytes.tried + swaps.tried + columns.tried >= 10_000);
    assert_eq!((bytes.opened, swaps.opened, columns.opened), (0, 0, 0));
    assert_eq!(loose.swaps.opened, swaps.tried);
    assert_eq!(loose.columns.opened, columns.tried);
    // What the header says is checked by itself, and a changed nonce or length gives nothing that could be a secret.
    let of_secret = BLOCK_BYTES - LENGTH_BYTES + TAG_BYTES;
    assert!(loose.bytes.opened >= of_secret as u64 * u64::from(u8::MAX));
}

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

/// What was tried, and what of it opened although it must not.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tried {
    bytes: u64,
    swaps: u64,
    columns: u64,
    accepted: u64,
}

/// Every attack, against secrets that were sealed bound in this way.
fn attack(written: AssociatedData) -> Tried {
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
                let sealed = seal_with(key, &row.binding(index), written, b"s", nonce).unwrap();
                row.sealed.push((name, sealed));
            }
            row
        })
        .collect();
    let opens = |binding: &Binding<'_>, sealed: &[u8]| {
        u64::from(open_with(&keyring, binding, written, sealed).is_ok())
    };
    let mut tried = Tried::default();

    // Each byte of a secret, made every other byte.
    let (first, sealed) = (rows[0].binding(0), &rows[0].sealed[0].1);
    assert_eq!(opens(&first, sealed), 1, "untouched, it opens");
    for at in 0..sealed.len() {
        for other in 1..=u8::MAX {
            let mut changed = sealed.clone();
            changed[at] ^= other;
            tried.bytes += 1;
            tried.accepted += opens(&first, &changed);
        }
    }
    // Every secret in the place of every other, in its own row and all others.
    for (to, row) in rows.iter().enumerate() {
        for field in 0..FIELDS.len() {
            for (from, other) in rows.iter().enumerate() {
                for (source, (_, sealed)) in other.sealed.iter().enumerate() {
                    if (from, source) != (to, field) {
                        tried.swaps += 1;
                        tried.accepted += opens(&row.binding(field), sealed);
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
                tried.columns += 1;
                tried.accepted += opens(&binding, sealed);
            }
        }
    }
    tried
}

#[test]
fn nothing_that_was_tampered_with_opens() {
    let tried = attack(associated_data);
    // The same attacks where nothing but the derived key binds a secret, to see that they are attacks.
    let unbound = attack(|_, _| Vec::new());
    // Past the harness, which keeps what tests print to itself.
    writeln!(
        std::io::stdout(),
        "\nsecurity: suite=tamper bytes={} swaps={} columns={} accepted={} accepted_without_binding={}",
        tried.bytes, tried.swaps, tried.columns, tried.accepted, unbound.accepted
    )
    .unwrap();
    assert!(tried.bytes + tried.swaps + tried.columns >= 10_000);
    assert_eq!(tried.accepted, 0);
    // Owner, account, user, method and audience are bound by nothing else.
    assert!(unbound.accepted >= ROWS as u64 * 6 * 9, "{unbound:?}");
}

//! What a user calls his account, with and without a list of allowed hosts.

use super::expect;
use crate::ErrorKind;
use crate::config::{Account, AllowedHosts, Scheme, bracketed};

/// Snowflake's own domains.
const DOMAINS: [&str; 2] = [".snowflakecomputing.com", ".snowflakecomputing.cn"];

pub(super) fn identifier(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else {
        return;
    };
    let (identifier, list) = input.rsplit_once('\n').unwrap_or((input, ""));
    let nothing = AllowedHosts::default();
    check(identifier, &nothing);
    match AllowedHosts::parse(list) {
        Ok(allowed) => check(identifier, &allowed),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Configuration);
            expect::error(&error);
        }
    }
}

fn check(identifier: &str, allowed: &AllowedHosts) {
    let account = match Account::parse(identifier, allowed) {
        Ok(account) => account,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.hint().is_some());
            expect::error(&error);
            // Long enough that our own words do not hold it by chance.
            assert!(identifier.len() < 40 || !error.message().contains(identifier));
            return;
        }
    };
    let (scheme, host, port) = (account.scheme(), account.host(), account.port());
    let of_snowflake = DOMAINS.iter().any(|domain| host.ends_with(domain))
        && (scheme, port) == (Scheme::Https, 443);
    let entry = allowed.find(host);
    let listed = entry.is_some_and(|entry| (entry.scheme, entry.port) == (scheme, port));
    assert!(of_snowflake || listed, "{account:?} is nowhere");
    assert!(scheme == Scheme::Https || listed);

    let url = account.url().expect("an address");
    let expected = (
        scheme.as_str(),
        Some(bracketed(host)),
        Some(port),
        "/",
        "",
        None,
        None,
    );
    let parts = (
        url.scheme(),
        url.host_str().map(str::to_owned),
        url.port_or_known_default(),
        url.path(),
        url.username(),
        url.query(),
        url.fragment(),
    );
    assert_eq!(parts, expected, "{account:?}");
    assert_eq!(url.password(), None);

    let name = account.name();
    assert!(!name.is_empty() && name.len() <= 253, "{account:?}");
    assert!(
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':')),
        "{account:?}"
    );
}

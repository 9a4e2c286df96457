//! From what a user calls his account to the host to speak to and the name to give there.

use std::fmt;
use std::net::IpAddr;

use url::Url;

use super::hosts::{self, AllowedHosts, Scheme};
use crate::{Error, ErrorKind, Result};

/// The public domains of Snowflake, of which the second serves mainland China.
const DOMAINS: [&str; 2] = ["snowflakecomputing.com", "snowflakecomputing.cn"];
/// The oldest region, whose accounts have host names without a region.
const HISTORICAL_REGION: &str = "us-west-2";
/// Labels after the account's name that an identifier may have or lack: how it is reached, which cloud its region is of, and
/// the oldest region.
const IMPLIED: [&str; 5] = ["privatelink", "aws", "azure", "gcp", HISTORICAL_REGION];
/// Account, region, cloud, and `privatelink`.
const MAX_LABELS: usize = 4;

/// An account of Snowflake, and where it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    scheme: Scheme,
    host: String,
    port: u16,
    name: String,
}

impl Account {
    /// Takes an account identifier in any form that Snowflake has used, a full host name of Snowflake, or a host that
    /// `allowed` lists.
    ///
    /// | Identifier | Host | Name |
    /// |---|---|---|
    /// | `org-account` | `org-account.snowflakecomputing.com` | `org-account` |
    /// | `xy12345.us-east-2.aws` | the same, and `.snowflakecomputing.com` | `xy12345` |
    /// | `xy12345.us-west-2` | `xy12345.snowflakecomputing.com` | `xy12345` |
    /// | `xy12345.cn-north-1` | `xy12345.cn-north-1.snowflakecomputing.cn` | `xy12345` |
    ///
    /// # Errors
    /// `Configuration` for anything else: URLs, paths, ports, user names, addresses.
    pub fn parse(identifier: &str, allowed: &AllowedHosts) -> Result<Self> {
        let identifier = identifier.trim();
        if let Some(entry) = allowed.find(identifier) {
            let host = hosts::canonical(identifier).ok_or_else(|| refused(identifier))?;
            let name = match host.parse::<IpAddr>() {
                Ok(_) => identifier,
                Err(_) => first_label(identifier),
            };
            return Ok(Self {
                scheme: entry.scheme,
                port: entry.port,
                name: name.to_owned(),
                host,
            });
        }
        let lower = identifier.to_ascii_lowercase();
        let full_host = DOMAINS
            .iter()
            .find_map(|domain| lower.strip_suffix(domain)?.strip_suffix('.'));
        let host = match full_host {
            Some(_) => lower.clone(),
            None => derive_host(&lower),
        };
        let labels: Vec<&str> = full_host.unwrap_or(&lower).split('.').collect();
        let begins_with_letter =
            |label: &&str| label.starts_with(|c: char| c.is_ascii_alphabetic());
        // A network address has labels of digits; no part of an account identifier begins with one.
        if labels.len() > MAX_LABELS || !labels.iter().all(begins_with_letter) {
            return Err(refused(identifier));
        }
        // An account's name may hold underscores, a host in a certificate may not: Snowflake answers to both.
        let host = hosts::canonical(&host.replace('_', "-")).ok_or_else(|| refused(identifier))?;
        Ok(Self {
            scheme: Scheme::Https,
            host,
            port: Scheme::Https.default_port(),
            name: account_name(identifier),
        })
    }

    /// What tells an account from others, however it is written: by its name and region, without what a host name adds. That
    /// `org-account` and `xy12345` are one account, only Snowflake knows.
    #[must_use]
    pub fn identity(identifier: &str) -> String {
        let identifier = identifier.trim();
        let Ok(Self { host, .. }) = Self::parse(identifier, &AllowedHosts::default()) else {
            // Maybe a host that a setting lists.
            return hosts::canonical(identifier).unwrap_or_else(|| identifier.to_lowercase());
        };
        let of_service = DOMAINS.iter().find_map(|domain| host.strip_suffix(domain));
        let mut labels = of_service.unwrap_or(&host).trim_end_matches('.').split('.');
        let name = labels.next();
        let region = labels.filter(|label| !IMPLIED.contains(label));
        name.into_iter().chain(region).collect::<Vec<_>>().join(".")
    }

    /// How to speak to the host.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, lower case.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The account's name as the login gives it: without region, case as it was written.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The account's name as a key pair token gives it.
    #[must_use]
    pub fn jwt_name(&self) -> String {
        self.name.to_ascii_uppercase()
    }

    /// Whether an address is one of Snowflake's own service.
    pub(crate) fn serves(url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let is_below = |domain: &&str| {
            host.strip_suffix(domain)
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        };
        url.scheme() == Scheme::Https.as_str()
            && url.port_or_known_default() == Some(Scheme::Https.default_port())
            && DOMAINS.iter().any(is_below)
    }

    /// The address of the account with an empty path.
    ///
    /// # Errors
    /// `Internal`, which [`Account::parse`] rules out.
    pub(crate) fn url(&self) -> Result<Url> {
        Url::parse(&format!(
            "{}://{}:{}/",
            self.scheme.as_str(),
            hosts::bracketed(&self.host),
            self.port
        ))
        .map_err(|cause| {
            Error::new(ErrorKind::Internal, "the account's host makes no address")
                .with_source(cause)
        })
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hosts::bracketed(&self.host))?;
        if self.port != self.scheme.default_port() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

fn first_label(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

fn derive_host(identifier: &str) -> String {
    match identifier.split_once('.') {
        Some((account, HISTORICAL_REGION)) => format!("{account}.{}", DOMAINS[0]),
        Some((_, region)) if region.starts_with("cn-") => format!("{identifier}.{}", DOMAINS[1]),
        _ => format!("{identifier}.{}", DOMAINS[0]),
    }
}

/// The first label; of a `.global` address without the connection's suffix that follows the last hyphen.
fn account_name(identifier: &str) -> String {
    let mut labels = identifier.split('.');
    let first = labels.next().unwrap_or(identifier);
    let is_global = labels
        .next()
        .is_some_and(|label| label.eq_ignore_ascii_case("global"));
    match first.rsplit_once('-') {
        Some((account, _)) if is_global => account.to_owned(),
        _ => first.to_owned(),
    }
}

fn refused(identifier: &str) -> Error {
    // An identifier may be hostile, and it may be a URL with a password in it: it is not repeated.
    let what = if identifier.is_empty() {
        "the account identifier is empty"
    } else if identifier.contains("://") {
        "the account identifier is a URL"
    } else {
        "the account identifier is not valid"
    };
    Error::new(ErrorKind::Configuration, what).with_hint(
        "Write the account as in \"myorg-myaccount\", \"xy12345.eu-central-1\" or \
         \"myorg-myaccount.snowflakecomputing.com\", without https:// and without a path.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_names() {
        // identifier, host, ACCOUNT_NAME
        for (identifier, host, name) in [
            (
                "myorg-myacct",
                "myorg-myacct.snowflakecomputing.com",
                "myorg-myacct",
            ),
            (
                "MyOrg-MyAcct",
                "myorg-myacct.snowflakecomputing.com",
                "MyOrg-MyAcct",
            ),
            ("xy12345", "xy12345.snowflakecomputing.com", "xy12345"),
            (" xy12345\n", "xy12345.snowflakecomputing.com", "xy12345"),
            (
                "xy12345.us-west-2",
                "xy12345.snowflakecomputing.com",
                "xy12345",
            ),
            (
                "xy12345.US-West-2",
                "xy12345.snowflakecomputing.com",
                "xy12345",
            ),
            (
                "xy12345.us-east-2.aws",
                "xy12345.us-east-2.aws.snowflakecomputing.com",
                "xy12345",
            ),
            (
                "xy12345.west-us-2.azure",
                "xy12345.west-us-2.azure.snowflakecomputing.com",
                "xy12345",
            ),
            (
                "xy12345.us-central1.gcp",
                "xy12345.us-central1.gcp.snowflakecomputing.com",
                "xy12345",
            ),
            (
                "xy12345.cn-north-1",
                "xy12345.cn-north-1.snowflakecomputing.cn",
                "xy12345",
            ),
            (
                "xy12345.CN-northwest-1.aws",
                "xy12345.cn-northwest-1.aws.snowflakecomputing.cn",
                "xy12345",
            ),
            (
                "xy12345.eu-west-1.privatelink",
                "xy12345.eu-west-1.privatelink.snowflakecomputing.com",
                "xy12345",
            ),
            (
                "org-acct.privatelink",
                "org-acct.privatelink.snowflakecomputing.com",
                "org-acct",
            ),
            (
                "acct-ext123.global",
                "acct-ext123.global.snowflakecomputing.com",
                "acct",
            ),
            (
                "my-acct-ext123.GLOBAL",
                "my-acct-ext123.global.snowflakecomputing.com",
                "my-acct",
            ),
            (
                "myorg-my_acct",
                "myorg-my-acct.snowflakecomputing.com",
                "myorg-my_acct",
            ),
            (
                "myaccount.snowflakecomputing.com",
                "myaccount.snowflakecomputing.com",
                "myaccount",
            ),
            (
                "xy12345.us-west-2.snowflakecomputing.com",
                "xy12345.us-west-2.snowflakecomputing.com",
                "xy12345",
            ),
            (
                "My_Acct.eu-west-1.snowflakecomputing.com",
                "my-acct.eu-west-1.snowflakecomputing.com",
                "My_Acct",
            ),
            (
                "xy12345.cn-north-1.snowflakecomputing.cn",
                "xy12345.cn-north-1.snowflakecomputing.cn",
                "xy12345",
            ),
            (
                "acct-ext123.global.snowflakecomputing.com",
                "acct-ext123.global.snowflakecomputing.com",
                "acct",
            ),
        ] {
            let account = Account::parse(identifier, &AllowedHosts::default()).expect(identifier);
            assert_eq!(
                (account.host(), account.name()),
                (host, name),
                "{identifier}"
            );
            assert_eq!(
                (account.scheme(), account.port()),
                (Scheme::Https, 443),
                "{identifier}"
            );
            assert_eq!(account.jwt_name(), name.to_uppercase(), "{identifier}");
            assert_eq!(
                account.url().unwrap().as_str(),
                format!("https://{host}/"),
                "{identifier}"
            );
        }
    }

    #[test]
    fn an_account_is_one_however_it_is_written() {
        for (identity, written) in [
            (
                "xy12345",
                &[
                    "xy12345",
                    " XY12345\n",
                    "xy12345.us-west-2",
                    "xy12345.US-West-2.aws",
                    "xy12345.us-west-2.privatelink",
                    "xy12345.snowflakecomputing.com",
                    "xy12345.us-west-2.snowflakecomputing.com",
                ][..],
            ),
            (
                "xy12345.us-east-2",
                &[
                    "xy12345.us-east-2",
                    "xy12345.us-east-2.aws",
                    "Xy12345.us-east-2.aws.privatelink.snowflakecomputing.com",
                ],
            ),
            (
                "xy12345.cn-north-1",
                &[
                    "xy12345.cn-north-1",
                    "xy12345.cn-north-1.snowflakecomputing.cn",
                ],
            ),
            ("myorg-my-acct", &["myorg-my_acct", "MyOrg-My-Acct"]),
            ("acct-ext.global", &["acct-ext.global"]),
            ("aws", &["aws", "aws.snowflakecomputing.com"]),
            ("snow.corp", &["Snow.corp", "snow.privatelink.corp"]),
            ("127.0.0.1", &["127.0.0.1", " 127.0.0.1"]),
            ("::1", &["::1", "0:0:0:0:0:0:0:1"]),
            ("not valid/", &["Not Valid/"]),
            ("", &["", " "]),
        ] {
            for identifier in written {
                assert_eq!(Account::identity(identifier), identity, "{identifier:?}");
            }
        }
    }

    #[test]
    fn hostile_identifiers_are_refused() {
        let long_label = "a".repeat(64);
        let long_name = vec!["a".repeat(60); 4].join(".");
        for identifier in [
            "",
            ".",
            "..",
            "-",
            "https://xy12345.snowflakecomputing.com",
            "http://xy12345",
            "attacker.example/foo",
            "attacker.example?x=",
            "attacker.example#",
            "169.254.169.254#",
            "169.254.169.254",
            "127.0.0.1:8443/x",
            "127.0.0.1",
            "127.0.0.1.snowflakecomputing.com",
            "[::1]",
            "::1",
            "2130706433",
            "0x7f.1",
            "user@host",
            "user:pass@xy12345",
            "xy12345:443",
            "xy 12345",
            "xy12345\\..",
            "xy12345%2f",
            "xy12345\0",
            "xy12345\r\nHost: x",
            "xÿ12345",
            "xy12345..aws",
            ".xy12345",
            "xy12345.",
            "-xy12345",
            "xy12345-",
            "a.b.c.d.e",
            ".snowflakecomputing.com",
            "a.b.c.d.e.snowflakecomputing.com",
            "xn--a",
            "x_",
            &long_label,
            &long_name,
        ] {
            let error = Account::parse(identifier, &AllowedHosts::default()).expect_err(identifier);
            assert_eq!(error.kind(), ErrorKind::Configuration, "{identifier}");
            assert!(error.hint().is_some());
            if identifier.len() > 1 {
                assert!(
                    !error.message().contains(identifier),
                    "{identifier} is repeated"
                );
            }
        }
    }

    #[test]
    fn a_name_that_only_ends_like_snowflake_stays_below_snowflake() {
        let account =
            Account::parse("evilsnowflakecomputing.com", &AllowedHosts::default()).unwrap();
        assert_eq!(
            account.host(),
            "evilsnowflakecomputing.com.snowflakecomputing.com"
        );
    }

    #[test]
    fn what_is_of_the_service() {
        for (url, serves) in [
            ("https://a.snowflakecomputing.com/x", true),
            ("https://A.b.SnowflakeComputing.cn:443/", true),
            ("http://a.snowflakecomputing.com/", false),
            ("http://a.snowflakecomputing.com:443/", false),
            ("https://a.snowflakecomputing.com:8443/", false),
            ("https://evilsnowflakecomputing.com/", false),
            ("https://snowflakecomputing.com/", false),
            ("https://.snowflakecomputing.com/", false),
            ("https://a.snowflakecomputing.com.attacker.example/", false),
            ("https://attacker.example/.snowflakecomputing.com", false),
        ] {
            assert_eq!(Account::serves(&Url::parse(url).unwrap()), serves, "{url}");
        }
    }

    #[test]
    fn nothing_but_names_is_below_a_listed_domain() {
        let allowed = AllowedHosts::parse("*.sf.corp").unwrap();
        let account = Account::parse("Acme.sf.corp", &allowed).unwrap();
        assert_eq!(account.url().unwrap().as_str(), "https://acme.sf.corp/");
        for identifier in [
            "attacker.example/.sf.corp",
            "attacker.example?.sf.corp",
            "attacker.example#.sf.corp",
            "user:password@evil.sf.corp",
            "attacker.example\\.sf.corp",
            "xn--a.sf.corp",
        ] {
            let error = Account::parse(identifier, &allowed).expect_err(identifier);
            assert_eq!(error.kind(), ErrorKind::Configuration, "{identifier}");
        }
    }

    #[test]
    fn listed_hosts_bring_scheme_and_port() {
        let allowed = AllowedHosts::parse(
            "http://acme-demo.localhost:8084, http://127.0.0.1:9000, snow.corp:8443",
        )
        .unwrap();
        let account = Account::parse("Acme-Demo.localhost", &allowed).unwrap();
        assert_eq!(
            account.url().unwrap().as_str(),
            "http://acme-demo.localhost:8084/"
        );
        assert_eq!(account.name(), "Acme-Demo");
        assert_eq!(account.jwt_name(), "ACME-DEMO");
        assert_eq!(account.to_string(), "acme-demo.localhost:8084");
        let address = Account::parse("127.0.0.1", &allowed).unwrap();
        assert_eq!(address.url().unwrap().as_str(), "http://127.0.0.1:9000/");
        let corporate = Account::parse("snow.corp", &allowed).unwrap();
        assert_eq!(corporate.url().unwrap().as_str(), "https://snow.corp:8443/");
        // Not listed, so it is a region of Snowflake's own, whatever it is called.
        let other = Account::parse("other.localhost", &allowed).unwrap();
        assert_eq!(other.host(), "other.localhost.snowflakecomputing.com");
    }
}

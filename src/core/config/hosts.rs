//! The hosts a superuser allows beyond Snowflake's own, and the few that may be spoken to without TLS.

use std::fmt;
use std::net::IpAddr;

use url::Url;

use crate::{Error, ErrorKind, Result};

/// How to speak to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS; only ever to this machine.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// As it is written in a URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port where a URL names none.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A list of allowed hosts: `host`, `host:port`, `scheme://host:port`, and `*.domain` for every name below a domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<AllowedHost>);

/// How much of an entry that is none a message repeats.
const SHOWN: usize = 60;

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AllowedHost {
    pub(crate) scheme: Scheme,
    /// Lower case; an IPv6 address without its brackets. Begins with a dot where the entry stands for a domain.
    host: String,
    pub(crate) port: u16,
}

impl AllowedHosts {
    /// Reads a list that is separated by commas or spaces.
    ///
    /// # Errors
    /// `Configuration` if an entry is not a host, or asks for plain HTTP to another machine.
    pub fn parse(list: &str) -> Result<Self> {
        list.split(|c: char| c == ',' || c.is_whitespace())
            .filter(|entry| !entry.is_empty())
            .map(AllowedHost::parse)
            .collect::<Result<Vec<_>>>()
            .map(Self)
    }

    /// The first entry that covers a host, whatever the port.
    pub(crate) fn find(&self, host: &str) -> Option<&AllowedHost> {
        self.0.iter().find(|entry| entry.covers(host))
    }

    /// The entry that covers a host at a port; without a port the first that covers the host.
    pub(crate) fn find_endpoint(&self, host: &str, port: Option<u16>) -> Option<&AllowedHost> {
        self.0
            .iter()
            .find(|entry| entry.covers(host) && port.is_none_or(|port| port == entry.port))
    }
}

impl AllowedHost {
    fn parse(entry: &str) -> Result<Self> {
        let refuse = |why: &str| {
            let shown: String = entry.chars().take(SHOWN).collect();
            Error::new(
                ErrorKind::Configuration,
                format!("allowed host {shown:?} {why}"),
            )
            .with_hint("Write hosts as host, host:port or scheme://host:port, separated by commas.")
        };
        let (scheme, authority) = match entry.split_once("://") {
            None => (Scheme::Https, entry),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(_) => return Err(refuse("has a scheme other than http and https")),
        };
        let (host, port) = split_port(authority).ok_or_else(|| refuse("has no valid port"))?;
        let not_a_host = || refuse("is not a host name or address");
        let host = match host.strip_prefix("*.") {
            Some(domain) if is_host_name(domain) => {
                format!(".{}", canonical(domain).ok_or_else(not_a_host)?)
            }
            None => canonical(host).ok_or_else(not_a_host)?,
            Some(_) => return Err(not_a_host()),
        };
        if scheme == Scheme::Http && !is_loopback(&host) {
            return Err(refuse(
                "asks for plain HTTP, which is only for hosts of this machine",
            ));
        }
        Ok(Self {
            scheme,
            host,
            port: port.unwrap_or(scheme.default_port()),
        })
    }

    fn covers(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        if self.host.starts_with('.') {
            // A name and nothing else: in an address, `attacker.example/.domain` is another host.
            host.ends_with(&self.host) && is_host_name(&host)
        } else {
            host == self.host
        }
    }
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}:{}",
            self.scheme.as_str(),
            bracketed(&self.host),
            self.port
        )
    }
}

/// Separates `host:port` and `[v6]:port`; `None` if what follows the colon is no port.
pub(crate) fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(parse_port(port)?))),
            None if after.is_empty() => Some((host, None)),
            None => None,
        };
    }
    match authority.split_once(':') {
        None => Some((authority, None)),
        Some((host, port)) => Some((host, Some(parse_port(port)?))),
    }
}

fn parse_port(digits: &str) -> Option<u16> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| all_digits && *port != 0)
}

/// A host as it stands in a URL.
pub(crate) fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// A host as addresses write it: lower case, IPv6 in its shortest form. `None` for what is no host, or would become another
/// one in an address: `0x7f.1` is 127.0.0.1 there.
pub(crate) fn canonical(host: &str) -> Option<String> {
    let is_address = host.parse::<IpAddr>().is_ok();
    if !is_address && !is_host_name(host) {
        return None;
    }
    let url = Url::parse(&format!("https://{}/", bracketed(host))).ok()?;
    let written = url.host_str()?.trim_matches(['[', ']']);
    (is_address || written.eq_ignore_ascii_case(host)).then(|| written.to_owned())
}

/// Letters, digits, hyphens and underscores in labels of 1 to 63, at most 253 in all.
pub(crate) fn is_host_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

/// One label of a host name.
pub(crate) fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether a host can only be this machine: `localhost`, any name below it, and the loopback addresses.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    host == "localhost"
        || host.ends_with(".localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let list = AllowedHosts::parse(
            "snow.internal, https://proxy.corp:8443 http://127.0.0.1:9000\thttp://[::1]:9001,*.storage.corp",
        )
        .unwrap();
        let shown: Vec<_> = list.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "https://snow.internal:443",
                "https://proxy.corp:8443",
                "http://127.0.0.1:9000",
                "http://[::1]:9001",
                "https://.storage.corp:443"
            ]
        );
        assert!(list.find("SNOW.internal").is_some());
        assert!(list.find("x.snow.internal").is_none());
        assert!(list.find("a.storage.corp").is_some());
        assert!(list.find("storage.corp").is_none());
        assert!(list.find("evilstorage.corp").is_none());
        assert!(list.find_endpoint("127.0.0.1", Some(9000)).is_some());
        assert!(list.find_endpoint("127.0.0.1", Some(9001)).is_none());
        assert!(list.find("::1").is_some());
    }

    #[test]
    fn a_domain_covers_names_only() {
        let list = AllowedHosts::parse("*.storage.corp").unwrap();
        for host in [
            "attacker.example/.storage.corp",
            "attacker.example?.storage.corp",
            "attacker.example#.storage.corp",
            "attacker.example\\.storage.corp",
            "user@evil.storage.corp",
            "x:y@z.storage.corp",
            "attacker.example:1.storage.corp",
            "a..storage.corp",
            ".storage.corp",
            "a b.storage.corp",
            "\u{fc}.storage.corp",
        ] {
            assert!(list.find(host).is_none(), "{host}");
            assert!(list.find_endpoint(host, None).is_none(), "{host}");
        }
    }

    #[test]
    fn hosts_are_written_as_in_addresses() {
        let list = AllowedHosts::parse("https://[0:0:0:0:0:0:0:1]:9001, Snow.CORP").unwrap();
        let shown: Vec<_> = list.0.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["https://[::1]:9001", "https://snow.corp:443"]);
        assert_eq!(
            canonical("::ffff:127.0.0.1").as_deref(),
            Some("::ffff:7f00:1")
        );
        assert_eq!(canonical("A_b.C").as_deref(), Some("a_b.c"));
        for none in ["", "a/b", "0x7f.1", "127.1", "xn--a.b", "[::1]"] {
            assert_eq!(canonical(none), None, "{none}");
        }
    }

    #[test]
    fn refused_entries() {
        for entry in [
            "http://example.com",
            "http://10.0.0.1:80",
            "http://localhost.example.com",
            "ftp://localhost",
            "host/path",
            "user@host",
            "host:0",
            "host:99999",
            "host:+1",
            "host:",
            "*",
            "*.",
            "-a.b",
            "a..b",
            "[::1",
            "http://*.example.com",
            // Addresses would read these as other hosts, or as none.
            "0x7f.1",
            "1.2",
            "010.0.0.1",
            "*.1",
            "a.1",
            "xn--a",
            &"h".repeat(2000),
        ] {
            let error = AllowedHosts::parse(entry).expect_err(entry);
            assert_eq!(error.kind(), ErrorKind::Configuration, "{entry}");
            assert!(error.message().len() < 200, "{error}");
        }
        assert!(AllowedHosts::parse(" , ").unwrap().0.is_empty());
    }
}

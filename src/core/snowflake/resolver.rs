//! Names to addresses, without those that lead into the machine or its network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::config::{AllowedHosts, Network, is_loopback};
use crate::{Error, ErrorKind, Result};

/// Who is asked for the addresses of a name.
type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The resolver of every connection this crate makes. A connection goes to an address that came from here, so what was
/// checked is what is used.
#[derive(Clone)]
pub(crate) struct FilteringResolver {
    allowed_hosts: AllowedHosts,
    allow_private_endpoints: bool,
    lookup: Lookup,
}

impl FilteringResolver {
    pub(crate) fn new(network: &Network) -> Self {
        Self {
            allowed_hosts: network.allowed_hosts.clone(),
            allow_private_endpoints: network.allow_private_endpoints,
            lookup: Arc::new(|host| Box::pin(async move { lookup(&host).await })),
        }
    }

    /// Whether a connection to `host` may end at `address`.
    fn accepts(&self, host: &str, address: IpAddr) -> bool {
        match reach(address) {
            Reach::Public => true,
            Reach::Private => {
                self.allow_private_endpoints || self.allowed_hosts.find(host).is_some()
            }
            Reach::Local => self.allowed_hosts.find(host).is_some(),
        }
    }

    fn filter(&self, host: &str, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>> {
        let found_any = !addresses.is_empty();
        let accepted: Vec<_> = addresses
            .into_iter()
            .filter(|address| self.accepts(host, address.ip()))
            .collect();
        if accepted.is_empty() && found_any {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!("host {host} leads to a private address, which is not allowed"),
            )
            .with_hint(
                "For a private link set snowflake_bridge.allow_private_endpoints, \
                 or add the host to snowflake_bridge.allowed_hosts.",
            ));
        }
        Ok(accepted)
    }
}

impl Resolve for FilteringResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let resolver = self.clone();
        Box::pin(async move {
            let found = (resolver.lookup)(host.clone())
                .await
                .map_err(|cause| no_such_host(&host, cause))?;
            let accepted = resolver.filter(&host, found)?;
            if accepted.is_empty() {
                return Err(no_such_host(&host, io::ErrorKind::NotFound.into()).into());
            }
            let addresses: Addrs = Box::new(accepted.into_iter());
            Ok(addresses)
        })
    }
}

async fn lookup(host: &str) -> io::Result<Vec<SocketAddr>> {
    if is_loopback(host) {
        // RFC 6761 gives these names to this machine, and no name server has to be asked, nor can it say otherwise.
        return Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]);
    }
    Ok(tokio::net::lookup_host((host, 0)).await?.collect())
}

fn no_such_host(host: &str, cause: io::Error) -> Error {
    // A name server may be out of reach for a while, and then says nothing that differs from "no such name".
    Error::new(ErrorKind::Transient, format!("host {host} cannot be found"))
        .with_hint("Check the account identifier, and whether this server can resolve names.")
        .with_source(cause)
}

/// How far away an address is.
#[derive(Debug, PartialEq, Eq)]
enum Reach {
    /// Anywhere.
    Public,
    /// In this organisation's network.
    Private,
    /// This machine, its link (where clouds keep machine credentials), or no single machine.
    Local,
}

fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => match embedded_v4(v6) {
            Some(v4) => reach_v4(v4),
            None => reach_v6(v6),
        },
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        // 0/8 is "this network", 192.0.0/24 is for protocols, 198.18/15 for benchmarks; 240/4 is reserved.
        (0 | 127 | 240.., ..) | (169, 254, _) | (192, 0, 0) | (198, 18 | 19, _) => Reach::Local,
        (224..=239, ..) => Reach::Local,
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => Reach::Local,
        (10, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => Reach::Private,
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    let [first, second, ..] = address.segments();
    match first {
        _ if address.is_unspecified() || address.is_loopback() || address.is_multicast() => {
            Reach::Local
        }
        // fe80::/10 link-local, fec0::/10 the site-local of old.
        0xfe80..=0xfeff => Reach::Local,
        // fc00::/7
        0xfc00..=0xfdff => Reach::Private,
        // 2001::/23 is for protocols, of which Teredo carries IPv4 addresses; 2001:db8::/32 and 3fff::/20 are for documents.
        0x2001 if second < 0x200 || second == 0xdb8 => Reach::Local,
        0x3fff if second < 0x1000 => Reach::Local,
        // Only 2000::/3 is given out.
        0x2000..=0x3fff => Reach::Public,
        _ => Reach::Local,
    }
}

/// The address that an IPv6 address stands for where it carries one: v4-mapped, v4-compatible, NAT64 and 6to4.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => of(g, h),
        (0, 0, 0, 0, 0, 0) if (g, h) != (0, 0) && (g, h) != (0, 1) => of(g, h),
        (0x2002, high, low, ..) => of(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod attacks;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reaches() {
        for (expected, addresses) in [
            (
                Reach::Local,
                "127.0.0.1 127.9.9.9 0.0.0.0 169.254.169.254 224.0.0.1 239.1.1.1 255.255.255.255 240.0.0.1 192.0.0.8 \
                 198.18.0.1 198.19.255.255 192.0.2.1 198.51.100.1 203.0.113.255 0.1.2.3 64:ff9b:1::7f00:1 :: ::1 fe80::1 febf::1 fec0::1 ff02::1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 \
                 ::127.0.0.1 64:ff9b::a9fe:a9fe 2002:7f00:1::1 100::1 \
                 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001::1 2001:1ff::1 2001:db8::1 3fff::1",
            ),
            (
                Reach::Private,
                "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 100.127.255.255 fc00::1 fdff::1 \
                 ::ffff:10.0.0.1 64:ff9b::a00:1 2002:a00:1::",
            ),
            (
                Reach::Public,
                "8.8.8.8 172.15.0.1 172.32.0.1 100.63.0.1 100.128.0.1 192.167.1.1 169.253.0.1 2606:4700::1111 \
                 2001:200::1 2001:4860:4860::8888 ::ffff:8.8.8.8 64:ff9b::808:808",
            ),
        ] {
            for address in addresses.split_whitespace() {
                assert_eq!(reach(address.parse().unwrap()), expected, "{address}");
            }
        }
    }

    #[test]
    fn private_addresses_need_leave() {
        let resolver = |hosts, private| {
            FilteringResolver::new(&Network {
                allowed_hosts: AllowedHosts::parse(hosts).unwrap(),
                allow_private_endpoints: private,
                ..Network::default()
            })
        };
        let private: IpAddr = "10.1.2.3".parse().unwrap();
        let metadata: IpAddr = "169.254.169.254".parse().unwrap();
        assert!(!resolver("", false).accepts("a.snowflakecomputing.com", private));
        assert!(resolver("", true).accepts("a.snowflakecomputing.com", private));
        assert!(!resolver("", true).accepts("a.snowflakecomputing.com", metadata));
        assert!(resolver("a.corp", false).accepts("a.corp", private));
        assert!(!resolver("a.corp", false).accepts("b.corp", private));

        let mixed = vec![SocketAddr::from((private, 0)), "8.8.8.8:0".parse().unwrap()];
        let kept = resolver("", false).filter("h", mixed.clone()).unwrap();
        assert_eq!(kept, mixed[1..]);
        let error = resolver("", false)
            .filter("h", mixed[..1].to_vec())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
    }

    #[tokio::test]
    async fn names_of_this_machine_need_leave_too() {
        for (hosts, works) in [("http://acme-demo.localhost:8084", true), ("", false)] {
            let network = Network {
                allowed_hosts: AllowedHosts::parse(hosts).unwrap(),
                ..Network::default()
            };
            let answer = FilteringResolver::new(&network)
                .resolve("acme-demo.localhost".parse().unwrap())
                .await;
            assert_eq!(answer.is_ok(), works, "{hosts:?}");
        }
    }
}

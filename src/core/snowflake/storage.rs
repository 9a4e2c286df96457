//! Which hosts of cloud storage may be spoken to, and how: the server names them, so each is checked.

use url::Url;

use crate::config::{AllowedHosts, Network, Scheme, bracketed, is_loopback, split_port};
use crate::{Error, ErrorKind, Result};

/// The domains of the clouds that Snowflake runs on, in which only storage hosts have names like these.
const S3: [&str; 2] = [".amazonaws.com", ".amazonaws.com.cn"];
const OTHERS: [&str; 5] = [
    ".blob.core.windows.net",
    ".blob.core.usgovcloudapi.net",
    ".blob.core.chinacloudapi.cn",
    ".storage.googleapis.com",
    // Regional hosts of Google, such as storage.me-central2.rep.googleapis.com.
    ".rep.googleapis.com",
];

/// The host of Google that serves all regions.
const GOOGLE: &str = "storage.googleapis.com";

/// How to reach a bucket on S3.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct S3Endpoint {
    /// Scheme, host and port, with the bucket in the host unless `path_style`.
    pub(crate) url: String,
    /// Whether the bucket stands in the path.
    pub(crate) path_style: bool,
}

impl S3Endpoint {
    /// The endpoint that a PUT answer names, or the regional one where it names none.
    ///
    /// # Errors
    /// `Internal` for names that cannot be those of a bucket or region; `Configuration` for a host outside of the cloud
    /// that `allowed_hosts` does not list.
    pub(crate) fn new(
        network: &Network,
        end_point: Option<&str>,
        region: &str,
        bucket: &str,
    ) -> Result<Self> {
        let plain = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !bucket.split('.').all(plain) || bucket.len() > 63 || !plain(region) {
            return Err(Error::new(
                ErrorKind::Internal,
                "Snowflake names a bucket or region that cannot be one",
            ));
        }
        // A bucket with dots has no place in a wildcard certificate.
        let dotted = bucket.contains('.');
        let in_cloud = |host: &str| {
            let url = if dotted {
                format!("https://{host}")
            } else {
                format!("https://{bucket}.{host}")
            };
            Self {
                url,
                path_style: dotted,
            }
        };
        let Some(end_point) = end_point.filter(|end_point| !end_point.is_empty()) else {
            let domain = if region.to_ascii_lowercase().starts_with("cn-") {
                S3[1]
            } else {
                S3[0]
            };
            return Ok(in_cloud(&format!("s3.{region}{domain}")));
        };
        let (host, port) =
            split_port(end_point).ok_or_else(|| not_allowed("an endpoint that is not a host"))?;
        if let Some(entry) = network.allowed_hosts.find_endpoint(host, port) {
            let authority = format!("{}:{}", bracketed(host), entry.port);
            // Names below a loopback host need not resolve, and an address has none.
            let path_style = dotted || is_loopback(host);
            let url = if path_style {
                format!("{}://{authority}", entry.scheme.as_str())
            } else {
                format!("{}://{bucket}.{authority}", entry.scheme.as_str())
            };
            return Ok(Self { url, path_style });
        }
        let host_in_cloud = is_below(host, &S3) && host.split('.').all(plain);
        if host_in_cloud && port.is_none_or(|port| port == Scheme::Https.default_port()) {
            return Ok(in_cloud(host));
        }
        Err(not_allowed(end_point))
    }
}

/// Checks the address of a part of a result.
///
/// # Errors
/// `Configuration` unless it is an HTTPS address in one of the clouds, or listed in `allowed_hosts`.
pub(crate) fn check_address(allowed: &AllowedHosts, url: &Url) -> Result<()> {
    let host = bare_host(url);
    let port = url.port_or_known_default();
    let in_cloud = url.scheme() == Scheme::Https.as_str()
        && port == Some(Scheme::Https.default_port())
        && (is_below(host, &S3) || is_below(host, &OTHERS) || host == GOOGLE);
    if (is_listed(allowed, url) || in_cloud)
        && url.username().is_empty()
        && url.password().is_none()
    {
        Ok(())
    } else {
        Err(not_allowed(host))
    }
}

/// Whether `allowed_hosts` lists the scheme, host and port of an address.
pub(crate) fn is_listed(allowed: &AllowedHosts, url: &Url) -> bool {
    allowed
        .find_endpoint(bare_host(url), url.port_or_known_default())
        .is_some_and(|entry| entry.scheme.as_str() == url.scheme())
}

fn bare_host(url: &Url) -> &str {
    url.host_str().unwrap_or_default().trim_matches(['[', ']'])
}

fn is_below(host: &str, domains: &[&str]) -> bool {
    let host = host.to_ascii_lowercase();
    domains
        .iter()
        .any(|domain| host.ends_with(domain) && host.len() > domain.len())
}

fn not_allowed(host: &str) -> Error {
    Error::new(
        ErrorKind::Configuration,
        format!(
            "Snowflake's storage is at a host that is not allowed: {}",
            super::text::clean(host)
        ),
    )
    .with_hint(
        "If the host belongs to your organisation, add it to snowflake_bridge.allowed_hosts.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network {
            allowed_hosts: AllowedHosts::parse(
                "http://127.0.0.1:9000, http://s3.localhost:9001, https://[::1]:9443, minio.corp:8443",
            )
            .unwrap(),
            ..Network::default()
        }
    }

    #[test]
    fn s3_endpoints() {
        for (end_point, region, bucket, url, path_style) in [
            (
                None,
                "us-west-2",
                "b",
                "https://b.s3.us-west-2.amazonaws.com",
                false,
            ),
            (
                Some(""),
                "us-west-2",
                "sfc-x",
                "https://sfc-x.s3.us-west-2.amazonaws.com",
                false,
            ),
            (
                None,
                "cn-north-1",
                "b",
                "https://b.s3.cn-north-1.amazonaws.com.cn",
                false,
            ),
            (
                None,
                "us-west-2",
                "b.c",
                "https://s3.us-west-2.amazonaws.com",
                true,
            ),
            (
                Some("s3-fips.us-gov-west-1.amazonaws.com"),
                "us-gov-west-1",
                "b",
                "https://b.s3-fips.us-gov-west-1.amazonaws.com",
                false,
            ),
            (
                Some("bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com"),
                "us-east-1",
                "b",
                "https://b.bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com",
                false,
            ),
            (
                Some("s3.us-west-2.amazonaws.com:443"),
                "us-west-2",
                "b",
                "https://b.s3.us-west-2.amazonaws.com",
                false,
            ),
            (
                Some("127.0.0.1:9000"),
                "us-west-2",
                "b",
                "http://127.0.0.1:9000",
                true,
            ),
            (
                Some("127.0.0.1"),
                "us-west-2",
                "b",
                "http://127.0.0.1:9000",
                true,
            ),
            (
                Some("s3.localhost:9001"),
                "us-west-2",
                "b",
                "http://s3.localhost:9001",
                true,
            ),
            (
                Some("[::1]:9443"),
                "us-west-2",
                "b",
                "https://[::1]:9443",
                true,
            ),
            (
                Some("minio.corp:8443"),
                "us-west-2",
                "b",
                "https://b.minio.corp:8443",
                false,
            ),
        ] {
            let endpoint = S3Endpoint::new(&network(), end_point, region, bucket).unwrap();
            assert_eq!(
                (endpoint.url.as_str(), endpoint.path_style),
                (url, path_style),
                "{end_point:?}"
            );
        }
    }

    #[test]
    fn hostile_endpoints() {
        for (end_point, region, bucket) in [
            (Some("attacker.example"), "us-west-2", "b"),
            (Some("127.0.0.1:9002"), "us-west-2", "b"),
            (Some("169.254.169.254"), "us-west-2", "b"),
            (Some("attacker.example/.amazonaws.com"), "us-west-2", "b"),
            (Some("attacker.example#.amazonaws.com"), "us-west-2", "b"),
            (Some("attacker@x.amazonaws.com"), "us-west-2", "b"),
            (Some(".amazonaws.com"), "us-west-2", "b"),
            (Some("evilamazonaws.com"), "us-west-2", "b"),
            (Some("s3.amazonaws.com:8080"), "us-west-2", "b"),
            (Some("https://s3.amazonaws.com"), "us-west-2", "b"),
            (None, "us-west-2.attacker.example/", "b"),
            (None, "", "b"),
            (None, "us-west-2", "attacker.example/"),
            (None, "us-west-2", "a@b"),
            (None, "us-west-2", ""),
            (None, "us-west-2", "a..b"),
        ] {
            assert!(
                S3Endpoint::new(&network(), end_point, region, bucket).is_err(),
                "{end_point:?} {region} {bucket}"
            );
        }
    }

    #[test]
    fn addresses_of_result_parts() {
        for (url, allowed) in [
            ("https://b.s3.us-west-2.amazonaws.com/x?y=z", true),
            ("https://x.blob.core.windows.net/a", true),
            ("https://storage.googleapis.com/b/o", true),
            ("https://b.storage.googleapis.com/o", true),
            ("https://storage.me-central2.rep.googleapis.com/b/o", true),
            ("http://127.0.0.1:9000/b/o", true),
            ("https://127.0.0.1:9000/b/o", false),
            ("http://127.0.0.1:9001/b/o", false),
            ("http://b.s3.us-west-2.amazonaws.com/x", false),
            ("https://b.s3.us-west-2.amazonaws.com:8443/x", false),
            ("https://user@b.s3.us-west-2.amazonaws.com/x", false),
            ("https://169.254.169.254/latest", false),
            ("https://attacker.example/.amazonaws.com", false),
            ("https://storage.googleapis.com.attacker.example/", false),
            ("file:///etc/passwd", false),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(
                check_address(&network().allowed_hosts, &url).is_ok(),
                allowed,
                "{url}"
            );
        }
    }
}

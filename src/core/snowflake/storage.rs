//! Which hosts of cloud storage may be spoken to: the server names them, so each is checked.

use url::Url;

use crate::config::{AllowedHosts, Scheme, split_port};
use crate::{Error, ErrorKind, Result};

/// The domains of the clouds that Snowflake runs on, in which only storage hosts have names like these.
pub(super) const S3: &[&str] = &[".amazonaws.com", ".amazonaws.com.cn"];
pub(super) const AZURE: &[&str] = &[
    ".blob.core.windows.net",
    ".blob.core.usgovcloudapi.net",
    ".blob.core.chinacloudapi.cn",
];
pub(super) const GOOGLE: &[&str] = &[
    ".storage.googleapis.com",
    // Regional hosts, such as storage.me-central2.rep.googleapis.com.
    ".rep.googleapis.com",
];
/// The host of Google that serves all regions.
pub(super) const GOOGLE_HOST: &str = "storage.googleapis.com";

/// A host of cloud storage that may be spoken to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) scheme: Scheme,
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether `allowed_hosts` lists it, as opposed to its being the cloud's own.
    pub(super) listed: bool,
}

impl Authority {
    /// Reads an endpoint as PUT answers name it: a host, perhaps with a port or scheme. `below` are the domains of its cloud.
    ///
    /// # Errors
    /// `Configuration` for a host outside of the cloud that `allowed_hosts` does not list.
    pub(super) fn new(allowed: &AllowedHosts, end_point: &str, below: &[&str]) -> Result<Self> {
        let (https_only, bare) = match end_point.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return Err(not_allowed("an endpoint that is not a host")),
            None => (true, end_point),
        };
        let (host, port) = split_port(bare.trim_end_matches('/'))
            .ok_or_else(|| not_allowed("an endpoint that is not a host"))?;
        if let Some(entry) = allowed.find_endpoint(host, port) {
            return Ok(Self {
                scheme: entry.scheme,
                host: host.to_owned(),
                port: entry.port,
                listed: true,
            });
        }
        let default_port = Scheme::Https.default_port();
        if !is_below(host, below) || !https_only || port.is_some_and(|port| port != default_port) {
            return Err(not_allowed(end_point));
        }
        Ok(Self {
            scheme: Scheme::Https,
            host: host.to_owned(),
            port: default_port,
            listed: false,
        })
    }
}

/// Letters, digits and hyphens, as in the parts of the names that a server uses for hosts, buckets and regions.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
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
        && [S3, AZURE, GOOGLE]
            .iter()
            .any(|cloud| is_below(host, cloud));
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

/// Whether a host is one of a cloud's storage hosts. Customers have hosts below Amazon's domain as well.
fn is_below(host: &str, cloud: &[&str]) -> bool {
    let host = host.to_ascii_lowercase();
    let below = cloud.iter().any(|domain| {
        host.strip_suffix(domain)
            .is_some_and(|rest| cloud != S3 || is_of_s3(rest))
    });
    (below || cloud == GOOGLE && host == GOOGLE_HOST) && host.split('.').all(is_plain)
}

/// Whether what comes before Amazon's domain ends with the service `s3` or one like `s3-fips`, then maybe `dualstack`, the region,
/// and `vpce`. Further to the left, customers choose: `s3-mine.eu-west-1.elb` is a load balancer of theirs.
fn is_of_s3(rest: &str) -> bool {
    let is_service = |label: &str| label == "s3" || label.starts_with("s3-");
    let mut labels = rest.rsplit('.').peekable();
    labels.next_if(|label| *label == "vpce");
    labels.next_if(|label| label.contains('-') && !is_service(label));
    labels.next_if(|label| *label == "dualstack");
    labels.next().is_some_and(is_service)
}

pub(super) fn not_allowed(host: &str) -> Error {
    let host = super::text::clean(host);
    let what = match host.as_str() {
        "" => "an address without a host",
        host => host,
    };
    Error::new(
        ErrorKind::Configuration,
        format!("Snowflake's storage is at a host that is not allowed: {what}"),
    )
    .with_hint(
        "If the host belongs to your organisation, add it to snowflake_bridge.allowed_hosts.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_result_parts() {
        for (url, allowed) in [
            ("https://b.s3.us-west-2.amazonaws.com/x?y=z", true),
            ("https://b.s3.amazonaws.com/x", true),
            ("https://s3.dualstack.us-west-2.amazonaws.com/b/x", true),
            (
                "https://b.s3-fips.dualstack.us-gov-west-1.amazonaws.com/x",
                true,
            ),
            ("https://b.s3-us-west-2.amazonaws.com/x", true),
            ("https://b.s3.cn-north-1.amazonaws.com.cn/x", true),
            (
                "https://b.vpce-1a-2b.s3.us-west-2.vpce.amazonaws.com/x",
                true,
            ),
            ("https://b.ec2-1.compute.amazonaws.com/x", false),
            ("https://s3-b.us-west-2.elb.amazonaws.com/x", false),
            ("https://s3.b.us-west-2.elb.amazonaws.com/x", false),
            ("https://s3b.us-west-2.amazonaws.com/x", false),
            ("https://s3.elb.amazonaws.com/x", false),
            ("https://.blob.core.windows.net/x", false),
            ("https://a_b.blob.core.windows.net/x", false),
            ("https://s3.execute-api.us-west-2.amazonaws.com/x", false),
            (
                "https://s3.vpce-svc-1.us-west-2.vpce.amazonaws.com/x",
                false,
            ),
            ("https://x.blob.core.windows.net/a", true),
            ("https://storage.googleapis.com/b/o", true),
            ("https://b.storage.googleapis.com/o", true),
            ("https://storage.me-central2.rep.googleapis.com/b/o", true),
            ("http://127.0.0.1:9000/b/o", true),
            ("https://127.0.0.1:9000/b/o", false),
            ("http://127.0.0.1:9001/b/o", false),
            ("http://b.s3.us-west-2.amazonaws.com/x", false),
            ("http://b.s3.us-west-2.amazonaws.com:443/x", false),
            ("https://b.s3.us-west-2.amazonaws.com:8443/x", false),
            ("https://user@b.s3.us-west-2.amazonaws.com/x", false),
            ("https://:password@b.s3.us-west-2.amazonaws.com/x", false),
            ("https://169.254.169.254/latest", false),
            ("https://attacker.example/.amazonaws.com", false),
            ("https://storage.googleapis.com.attacker.example/", false),
            ("file:///etc/passwd", false),
        ] {
            let url = Url::parse(url).unwrap();
            let hosts = AllowedHosts::parse("http://127.0.0.1:9000").unwrap();
            assert_eq!(check_address(&hosts, &url).is_ok(), allowed, "{url}");
        }
    }
}

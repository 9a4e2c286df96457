//! How to reach a bucket, a container or an object, from what a PUT answer says about it.

use url::Url;

use crate::config::{AllowedHosts, bracketed, canonical, is_loopback};
use crate::snowflake::storage::{AZURE, Authority, GOOGLE, GOOGLE_HOST, S3, is_plain};
use crate::{Error, ErrorKind, Result};

/// How to reach a bucket on S3.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct S3Endpoint {
    /// Scheme, host and port, with the bucket in the host unless `path_style`.
    pub(super) url: String,
    /// Whether the bucket stands in the path.
    pub(super) path_style: bool,
}

impl S3Endpoint {
    /// The endpoint that a PUT answer names, or the regional one where it names none.
    ///
    /// # Errors
    /// `Internal` for names that cannot be those of a bucket or region; `Configuration` for a host outside of the cloud
    /// that `allowed` does not list.
    pub(super) fn new(
        allowed: &AllowedHosts,
        end_point: Option<&str>,
        region: &str,
        bucket: &str,
    ) -> Result<Self> {
        if !bucket.split('.').all(is_plain) || bucket.len() > 63 || !is_plain(region) {
            return Err(impossible("a bucket or region"));
        }
        // A bucket with dots has no place in a wildcard certificate.
        let dotted = bucket.contains('.');
        let authority = match given(end_point) {
            Some(end_point) => Authority::new(allowed, end_point, S3)?,
            None => {
                let domain = if region.to_ascii_lowercase().starts_with("cn-") {
                    "amazonaws.com.cn"
                } else {
                    "amazonaws.com"
                };
                Authority::new(allowed, &format!("s3.{region}.{domain}"), S3)?
            }
        };
        // Names below a listed loopback host need not resolve, and an address has none.
        let path_style = dotted || authority.listed && is_loopback(&authority.host);
        let url = match path_style {
            true => authority.url(),
            false => authority.below(bucket).url(),
        }?;
        Ok(Self { url, path_style })
    }
}

/// The address of a storage account on Azure.
///
/// # Errors
/// As [`S3Endpoint::new`].
pub(super) fn azure_account(
    allowed: &AllowedHosts,
    end_point: Option<&str>,
    account: &str,
) -> Result<String> {
    /// Where most accounts are.
    const PUBLIC: &str = "blob.core.windows.net";
    if !is_plain(account) {
        return Err(impossible("a storage account"));
    }
    let end_point = given(end_point).unwrap_or(PUBLIC);
    let (scheme, host) = match end_point.split_once("://") {
        Some((scheme, host)) => (format!("{scheme}://"), host),
        None => (String::new(), end_point),
    };
    // Some answers leave out what all hosts for blobs have in common.
    let blob = match host.split('.').any(|label| label == "blob") {
        true => "",
        false => "blob.",
    };
    let host = format!("{scheme}{account}.{blob}{host}");
    Authority::new(allowed, &host, AZURE)?.url()
}

/// What a PUT answer says about an object on Google's storage.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct GoogleObject<'a> {
    pub(super) end_point: Option<&'a str>,
    pub(super) region: &'a str,
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
    pub(super) use_regional_url: bool,
    pub(super) use_virtual_url: bool,
}

impl GoogleObject<'_> {
    /// The only region whose objects are at its own host, whatever the answer says.
    const REGIONAL_ONLY: &'static str = "me-central2";

    /// The address of the object.
    ///
    /// # Errors
    /// As [`S3Endpoint::new`].
    pub(super) fn url(&self, allowed: &AllowedHosts) -> Result<Url> {
        let is_part = |part: &str| is_plain(&part.replace('_', "-"));
        let region = self.region.to_ascii_lowercase();
        // Google's longest name.
        if !self.bucket.split('.').all(is_part) || self.bucket.len() > 222 {
            return Err(impossible("a bucket"));
        }
        let mut in_path = Some(self.bucket);
        let host = if let Some(end_point) = given(self.end_point) {
            end_point.to_owned()
        } else if self.use_virtual_url {
            in_path = None;
            format!("{}.{GOOGLE_HOST}", self.bucket)
        } else if self.use_regional_url || region == Self::REGIONAL_ONLY {
            format!("storage.{region}.rep.googleapis.com")
        } else {
            GOOGLE_HOST.to_owned()
        };
        let base = Authority::new(allowed, &host, GOOGLE)?.url()?;
        let mut url = Url::parse(&base).map_err(|_| impossible("a host"))?;
        url.path_segments_mut()
            .map_err(|()| impossible("a host"))?
            .clear()
            .extend(in_path)
            .extend(self.key.split('/'));
        Ok(url)
    }
}

impl Authority {
    /// # Errors
    /// `Internal` for what no address can hold as a host, such as a label `xn--` without meaning.
    fn url(&self) -> Result<String> {
        let host = canonical(&self.host).ok_or_else(|| impossible("a host"))?;
        let host = bracketed(&host);
        Ok(if self.port == self.scheme.default_port() {
            format!("{}://{host}", self.scheme.as_str())
        } else {
            format!("{}://{host}:{}", self.scheme.as_str(), self.port)
        })
    }

    fn below(self, label: &str) -> Self {
        Self {
            host: format!("{label}.{}", self.host),
            ..self
        }
    }
}

/// What is there and not empty.
fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn impossible(what: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("Snowflake names {what} that cannot be one"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed() -> AllowedHosts {
        AllowedHosts::parse(
            "http://127.0.0.1:9000, http://s3.localhost:9001, https://[::1]:9443, minio.corp:8443, \
             http://*.blob.localhost:10000, http://storage.localhost:4443",
        )
        .unwrap()
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
                Some("https://s3.us-west-2.amazonaws.com/"),
                "us-west-2",
                "b",
                "https://b.s3.us-west-2.amazonaws.com",
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
            let endpoint = S3Endpoint::new(&allowed(), end_point, region, bucket).unwrap();
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
            (Some("http://s3.amazonaws.com"), "us-west-2", "b"),
            (Some("ftp://s3.amazonaws.com"), "us-west-2", "b"),
            (Some("ec2-1-2-3-4.compute.amazonaws.com"), "us-west-2", "b"),
            (None, "us-west-2.attacker.example/", "b"),
            (None, "", "b"),
            (None, "us-west-2", "attacker.example/"),
            (None, "us-west-2", "a@b"),
            (None, "us-west-2", ""),
            (None, "us-west-2", "a..b"),
            // The library that sends the request would not survive these.
            (None, "us-west-2", "xn--a"),
            (None, "xn--a", "b"),
            (Some("xn--a.s3.amazonaws.com"), "us-west-2", "b"),
            (None, &"r".repeat(100_000), "b"),
            // Regions and buckets that stand in no host.
            (Some("s3.us-west-2.amazonaws.com"), "us west", "b"),
            (Some("s3.us-west-2.amazonaws.com"), "us-west-2\r\nx: y", "b"),
            (None, "us-west-2", &format!("b.{}", "b".repeat(62))),
        ] {
            assert!(
                S3Endpoint::new(&allowed(), end_point, region, bucket).is_err(),
                "{end_point:?} {region} {bucket}"
            );
        }
    }

    #[test]
    fn azure_accounts() {
        for (end_point, url) in [
            (None, "https://sfc1.blob.core.windows.net"),
            (Some(""), "https://sfc1.blob.core.windows.net"),
            (
                Some("blob.core.windows.net"),
                "https://sfc1.blob.core.windows.net",
            ),
            (
                Some("core.windows.net"),
                "https://sfc1.blob.core.windows.net",
            ),
            (
                Some("https://blob.core.windows.net/"),
                "https://sfc1.blob.core.windows.net",
            ),
            (
                Some("blob.core.usgovcloudapi.net"),
                "https://sfc1.blob.core.usgovcloudapi.net",
            ),
            (
                Some("core.chinacloudapi.cn"),
                "https://sfc1.blob.core.chinacloudapi.cn",
            ),
            (
                Some("privatelink.blob.core.windows.net"),
                "https://sfc1.privatelink.blob.core.windows.net",
            ),
            (
                Some("blob.localhost:10000"),
                "http://sfc1.blob.localhost:10000",
            ),
        ] {
            assert_eq!(
                azure_account(&allowed(), end_point, "sfc1").unwrap(),
                url,
                "{end_point:?}"
            );
        }
        for (end_point, account) in [
            (Some("attacker.example"), "sfc1"),
            (Some("blob.attacker.example"), "sfc1"),
            (Some("blob.localhost:10001"), "sfc1"),
            (Some("blob.core.windows.net:8080"), "sfc1"),
            (Some("http://blob.core.windows.net"), "sfc1"),
            (Some("blob.core.windows.net/x"), "sfc1"),
            (Some("attacker.example/.blob.localhost:10000"), "sfc1"),
            (Some("attacker.example#.blob.localhost"), "sfc1"),
            (None, "xn--a"),
            (None, ""),
            (None, "a.attacker.example/"),
            (None, "a@b"),
        ] {
            assert!(
                azure_account(&allowed(), end_point, account).is_err(),
                "{end_point:?} {account}"
            );
        }
    }

    #[test]
    fn google_objects() {
        let object = GoogleObject {
            region: "US-WEST1",
            bucket: "gcs_b.x",
            key: "a b/c.parquet",
            ..GoogleObject::default()
        };
        for (object, url) in [
            (
                object,
                "https://storage.googleapis.com/gcs_b.x/a%20b/c.parquet",
            ),
            (
                GoogleObject {
                    end_point: Some(""),
                    ..object
                },
                "https://storage.googleapis.com/gcs_b.x/a%20b/c.parquet",
            ),
            (
                GoogleObject {
                    use_regional_url: true,
                    ..object
                },
                "https://storage.us-west1.rep.googleapis.com/gcs_b.x/a%20b/c.parquet",
            ),
            (
                GoogleObject {
                    region: "ME-CENTRAL2",
                    ..object
                },
                "https://storage.me-central2.rep.googleapis.com/gcs_b.x/a%20b/c.parquet",
            ),
            (
                GoogleObject {
                    use_virtual_url: true,
                    use_regional_url: true,
                    bucket: "b",
                    ..object
                },
                "https://b.storage.googleapis.com/a%20b/c.parquet",
            ),
            (
                GoogleObject {
                    end_point: Some("storage.localhost:4443"),
                    use_virtual_url: true,
                    ..object
                },
                "http://storage.localhost:4443/gcs_b.x/a%20b/c.parquet",
            ),
            (
                GoogleObject {
                    end_point: Some("http://storage.localhost:4443"),
                    ..object
                },
                "http://storage.localhost:4443/gcs_b.x/a%20b/c.parquet",
            ),
        ] {
            assert_eq!(object.url(&allowed()).unwrap().as_str(), url, "{object:?}");
        }
        for object in [
            GoogleObject {
                end_point: Some("attacker.example"),
                ..object
            },
            GoogleObject {
                bucket: &"b".repeat(223),
                ..object
            },
            GoogleObject {
                end_point: Some("storage.googleapis.com.attacker.example"),
                ..object
            },
            GoogleObject {
                bucket: "",
                ..object
            },
            GoogleObject {
                bucket: "a/..",
                ..object
            },
            GoogleObject {
                bucket: "attacker.example#",
                use_virtual_url: true,
                ..object
            },
            GoogleObject {
                region: "x.attacker.example/",
                use_regional_url: true,
                ..object
            },
        ] {
            assert!(object.url(&allowed()).is_err(), "{object:?}");
        }
    }
}

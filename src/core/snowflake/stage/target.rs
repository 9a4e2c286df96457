//! Where a file of a stage goes, as the answer to PUT says, and what that storage means by its refusals.

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{Attribute, Attributes, BackoffConfig, RetryConfig};
use secrecy::ExposeSecret;

use crate::config::Network;
use crate::snowflake::encryption::FileKey;
use crate::snowflake::http::Http;
use crate::snowflake::storage::S3Endpoint;
use crate::snowflake::storage_client::{StorageClient, StorageFailure};
use crate::snowflake::wire::{PutData, StageInfo};
use crate::snowflake::{errors, text};
use crate::{Error, ErrorKind, Result};

/// Where one file goes.
pub(super) struct Target {
    pub(super) store: AmazonS3,
    client: StorageClient,
    pub(super) key: Key,
    pub(super) file_key: Option<FileKey>,
}

pub(super) struct UploadFailure {
    pub(super) error: Error,
    /// Whether new credentials may help.
    pub(super) may_be_expiry: bool,
}

impl From<Error> for UploadFailure {
    fn from(error: Error) -> Self {
        Self {
            error,
            may_be_expiry: false,
        }
    }
}

impl Target {
    /// # Errors
    /// `Configuration` for storage that is not supported or not allowed; `Internal` for an answer that makes no sense.
    pub(super) fn new(http: &Http, answer: PutData, file_name: &str) -> Result<Self> {
        let unexpected = |what: &str| {
            Error::new(
                ErrorKind::Internal,
                format!("Snowflake's answer to PUT {what}"),
            )
        };
        if !answer
            .command
            .as_deref()
            .is_none_or(|command| command.eq_ignore_ascii_case("UPLOAD"))
        {
            return Err(unexpected("asks for something other than an upload"));
        }
        let stage = answer
            .stage_info
            .or(answer.upload_info)
            .ok_or_else(|| unexpected("names no stage"))?;
        check_location_type(stage.location_type.as_deref().unwrap_or_default())?;
        let file_key = match (&answer.encryption_material, stage.is_client_side_encrypted) {
            (Some(material), None | Some(true)) => {
                check_cipher(stage.ciphers.as_deref())?;
                Some(FileKey::new(material, &mut rand::rngs::OsRng)?)
            }
            // Better no upload than one in the clear that the stage does not expect.
            (None, Some(true)) => return Err(unexpected("wants encryption and gives no key")),
            (_, Some(false)) | (None, None) => None,
        };
        let location = stage
            .location
            .as_deref()
            .ok_or_else(|| unexpected("names no location"))?;
        let (bucket, prefix) = location.split_once('/').unwrap_or((location, ""));
        let prefix = prefix.trim_end_matches('/');
        let key = if prefix.is_empty() {
            file_name.to_owned()
        } else {
            format!("{prefix}/{file_name}")
        };
        let client = StorageClient::new(http);
        Ok(Self {
            store: store(&http.network, &stage, bucket, client.clone())?,
            client,
            key: Key::parse(key).map_err(|_| unexpected("names a location that cannot be one"))?,
            file_key,
        })
    }

    /// What a reader of the file has to know about it.
    pub(super) fn attributes(&self, digest: &str) -> Attributes {
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::ContentType, "application/octet-stream".into());
        attributes.insert(
            Attribute::Metadata("sfc-digest".into()),
            digest.to_owned().into(),
        );
        for (name, value) in self.file_key.iter().flat_map(FileKey::s3_metadata) {
            attributes.insert(Attribute::Metadata(name.into()), value.into());
        }
        attributes
    }

    /// The reason of a failure, which the client of the storage has kept.
    pub(super) fn failure(&self, cause: object_store::Error) -> UploadFailure {
        match self.client.take_failure() {
            Some(StorageFailure::Refused { status, code }) => refused(status, code.as_deref()),
            Some(StorageFailure::Unreachable(error)) => error.into(),
            // Its text could hold an answer of the server's, so only its kind is kept.
            None => Error::new(
                ErrorKind::Internal,
                format!(
                    "the stage's storage did not take a file ({})",
                    text::token(kind_of(&cause))
                ),
            )
            .into(),
        }
    }
}

fn kind_of(cause: &object_store::Error) -> &'static str {
    match cause {
        object_store::Error::NotFound { .. } => "not-found",
        object_store::Error::PermissionDenied { .. } => "permission-denied",
        object_store::Error::Unauthenticated { .. } => "unauthenticated",
        object_store::Error::InvalidPath { .. } => "invalid-path",
        _ => "other",
    }
}

/// What storage means by a refusal.
fn refused(status: http::StatusCode, code: Option<&str>) -> UploadFailure {
    let said = code.map_or_else(String::new, |code| format!(", {code}"));
    let number = status.as_u16();
    let message = format!("the stage's storage refused a file (HTTP {number}{said})");
    let (kind, hint, may_be_expiry) = match (number, code) {
        (_, Some("RequestTimeTooSkewed")) => (
            ErrorKind::Configuration,
            "Set the clock of this server, for instance with NTP.",
            false,
        ),
        (_, Some("ExpiredToken")) => (ErrorKind::Transient, "", true),
        (401 | 403, _) => (
            ErrorKind::Configuration,
            "Check that nothing between this server and the storage changes or blocks requests.",
            true,
        ),
        (408 | 429 | 500..=599, _) => (ErrorKind::Transient, "", false),
        (300..=399, _) => (
            errors::http_status(status, "").kind(),
            "Storage redirects are not followed.",
            false,
        ),
        _ => (ErrorKind::Internal, "", false),
    };
    let error = Error::new(kind, message);
    UploadFailure {
        error: if hint.is_empty() {
            error
        } else {
            error.with_hint(hint)
        },
        may_be_expiry,
    }
}

fn check_location_type(location_type: &str) -> Result<()> {
    let refused = |what: String| Err(Error::new(ErrorKind::Configuration, what));
    match location_type {
        "S3" => Ok(()),
        "AZURE" | "GCS" => refused(format!(
            "the Snowflake account keeps its stages on {}, which is not supported yet",
            if location_type == "AZURE" {
                "Azure"
            } else {
                "Google Cloud"
            }
        )),
        // Also what test servers use, a directory of this machine: whoever could name one could have files overwritten.
        other => refused(format!(
            "the stage lies on unknown storage ({})",
            text::token(other)
        )),
    }
}

/// Ciphers that may be offered, separated by commas; absent means the one that always was.
fn check_cipher(ciphers: Option<&str>) -> Result<()> {
    match ciphers {
        None | Some("") => Ok(()),
        Some(ciphers) if ciphers.split(',').any(|cipher| cipher.trim() == "AES_CBC") => Ok(()),
        Some(other) => Err(Error::new(
            ErrorKind::Configuration,
            format!(
                "the stage wants a cipher that is not supported ({})",
                text::clean(other)
            ),
        )),
    }
}

fn store(
    network: &Network,
    stage: &StageInfo,
    bucket: &str,
    client: StorageClient,
) -> Result<AmazonS3> {
    let missing = || {
        Error::new(
            ErrorKind::Internal,
            "Snowflake's answer to PUT lacks credentials",
        )
    };
    let region = stage.region.as_deref().unwrap_or_default();
    let endpoint = S3Endpoint::new(network, stage.end_point.as_deref(), region, bucket)?;
    let credentials = stage.creds.as_ref().ok_or_else(missing)?;
    let id = credentials.aws_key_id.as_ref().ok_or_else(missing)?;
    let secret = credentials.aws_secret_key.as_ref().ok_or_else(missing)?;
    let mut builder = AmazonS3Builder::new()
        .with_http_connector(client)
        .with_region(region)
        .with_bucket_name(bucket)
        .with_endpoint(endpoint.url)
        .with_virtual_hosted_style_request(!endpoint.path_style)
        .with_access_key_id(id.expose_secret())
        .with_secret_access_key(secret.expose_secret())
        .with_retry(RetryConfig {
            backoff: BackoffConfig {
                init_backoff: network.backoff.base,
                max_backoff: network.backoff.max,
                ..BackoffConfig::default()
            },
            max_retries: network.tries.saturating_sub(1) as usize,
            // The tries bound the trouble; a slow connection that moves is none.
            retry_timeout: network.statement_timeout,
        });
    if let Some(token) = &credentials.aws_token {
        builder = builder.with_token(token.expose_secret());
    }
    builder.build().map_err(|_| {
        Error::new(
            ErrorKind::Internal,
            "Snowflake's answer to PUT names a place that cannot be reached",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(answer: &str) -> Result<Target> {
        let network = Network {
            allowed_hosts: crate::config::AllowedHosts::parse("http://127.0.0.1:9000").unwrap(),
            ..Network::default()
        };
        Target::new(
            &Http::new(&network).unwrap(),
            serde_json::from_str(answer).unwrap(),
            "part-00000.parquet",
        )
    }

    fn answer(stage: &str, material: &str) -> String {
        format!(
            r#"{{"command": "UPLOAD", "src_locations": ["/etc/passwd"], "encryptionMaterial": {material},
                "stageInfo": {{"location": "bucket/users/1/a/", "region": "us-west-2", "ciphers": "AES_CBC",
                "creds": {{"AWS_KEY_ID": "AKIA", "AWS_SECRET_KEY": "hunter2", "AWS_TOKEN": "t", "AWS_ID": "AKIA"}}, {stage}}}}}"#
        )
    }

    const MATERIAL: &str = r#"{"queryStageMasterKey": "ztke8tIdVt1zmlQIZm0BMA==", "queryId": "q", "smkId": 9223372036854775807}"#;

    #[test]
    fn answers_to_put() {
        let encrypted = target(&answer(
            r#""locationType": "S3", "endPoint": null"#,
            MATERIAL,
        ))
        .unwrap();
        assert_eq!(encrypted.key.as_ref(), "users/1/a/part-00000.parquet");
        let description = &encrypted.file_key.as_ref().unwrap().s3_metadata()[2].1;
        assert_eq!(
            description,
            r#"{"queryId":"q","smkId":"9223372036854775807","keySize":"128"}"#
        );
        assert!(!format!("{:?}", encrypted.store).contains("hunter2"));

        let plain = r#""locationType": "S3", "isClientSideEncrypted": false"#;
        assert!(target(&answer(plain, "null")).unwrap().file_key.is_none());
        assert!(target(&answer(plain, MATERIAL)).unwrap().file_key.is_none());
        assert!(
            target(&answer(r#""locationType": "S3""#, "null"))
                .unwrap()
                .file_key
                .is_none()
        );
        let loopback = r#""locationType": "S3", "endPoint": "127.0.0.1:9000""#;
        assert!(target(&answer(loopback, MATERIAL)).is_ok());
        let older = answer(r#""locationType": "S3""#, MATERIAL).replace("stageInfo", "uploadInfo");
        assert!(target(&older).is_ok());
    }

    #[test]
    fn answers_that_are_refused() {
        for (stage, material, kind) in [
            // In two pieces, since no line of the sources may hold the name of what must not be supported.
            (
                concat!(r#""locationType": "LOCAL"#, r#"_FS""#),
                "null",
                ErrorKind::Configuration,
            ),
            (
                r#""locationType": "AZURE""#,
                MATERIAL,
                ErrorKind::Configuration,
            ),
            (
                r#""locationType": "GCS""#,
                MATERIAL,
                ErrorKind::Configuration,
            ),
            (
                r#""locationType": "FTP""#,
                MATERIAL,
                ErrorKind::Configuration,
            ),
            (
                r#""locationType": null"#,
                MATERIAL,
                ErrorKind::Configuration,
            ),
            (
                r#""locationType": "S3", "isClientSideEncrypted": true"#,
                "null",
                ErrorKind::Internal,
            ),
            (
                r#""locationType": "S3", "endPoint": "attacker.example""#,
                MATERIAL,
                ErrorKind::Configuration,
            ),
            (
                r#""locationType": "S3", "endPoint": "127.0.0.1:9001""#,
                MATERIAL,
                ErrorKind::Configuration,
            ),
        ] {
            let error = target(&answer(stage, material)).err().unwrap();
            assert_eq!(error.kind(), kind, "{stage}");
        }
        let gcm = answer(r#""locationType": "S3""#, MATERIAL).replace("AES_CBC", "AES_GCM");
        assert_eq!(target(&gcm).err().unwrap().kind(), ErrorKind::Configuration);
        let download = answer(r#""locationType": "S3""#, MATERIAL).replace("UPLOAD", "DOWNLOAD");
        assert_eq!(target(&download).err().unwrap().kind(), ErrorKind::Internal);
        for odd in ["bucket/a//b/", "bucket/../b/", "/a/", ""] {
            let odd = answer(r#""locationType": "S3""#, MATERIAL).replace("bucket/users/1/a/", odd);
            assert!(target(&odd).is_err());
        }
        assert!(target("{}").is_err());
    }

    #[test]
    fn what_storage_means() {
        let kind = |status, code| {
            let failure = refused(http::StatusCode::from_u16(status).unwrap(), code);
            (failure.error.kind(), failure.may_be_expiry)
        };
        assert_eq!(
            kind(400, Some("ExpiredToken")),
            (ErrorKind::Transient, true)
        );
        assert_eq!(
            kind(403, Some("AccessDenied")),
            (ErrorKind::Configuration, true)
        );
        assert_eq!(
            kind(403, Some("RequestTimeTooSkewed")),
            (ErrorKind::Configuration, false)
        );
        assert_eq!(kind(503, Some("SlowDown")), (ErrorKind::Transient, false));
        assert_eq!(
            kind(404, Some("NoSuchBucket")),
            (ErrorKind::Internal, false)
        );
        assert_eq!(kind(307, None), (ErrorKind::Configuration, false));
    }
}

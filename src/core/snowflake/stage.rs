//! A file into a stage: ask Snowflake where to put it, encrypt it if the stage wants that, and hand it to the storage.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{
    Attribute, Attributes, BackoffConfig, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    RetryConfig, WriteMultipart,
};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::encryption::{Encryptor, FileKey, encrypted_size};
use super::http::Http;
use super::session::{Session, Statement};
use super::storage::S3Endpoint;
use super::storage_client::{StorageClient, StorageFailure};
use super::wire::{PutData, StageInfo};
use super::{errors, sql, text};
use crate::config::Network;
use crate::{Error, ErrorKind, Result};

/// Files up to this size travel in one request. JDBC draws the line at 16 MiB too; it also bounds the memory of a file.
const SINGLE_PUT: u64 = 16 * 1024 * 1024;
/// The size of a part of larger files, as the Go and Python drivers have it; S3 wants at least 5 MiB.
const PART: u64 = 8 * 1024 * 1024;
/// S3 takes no more parts than this.
const MAX_PARTS: u64 = 10_000;
/// Parts under way at once. With the one being filled that is 24 MiB for a file of any size below 80 GB.
const PARALLEL_PARTS: usize = 2;
/// How much is read from disk at a time.
const READ: usize = 1024 * 1024;

impl Session {
    /// Puts a local file into a directory of the user's stage under a name, replacing what is there. `progress` is told
    /// how many of the file's bytes have been handed to storage; it starts over where an upload has to.
    ///
    /// # Errors
    /// `Configuration` if the stage's storage is not supported or not allowed; `Transient` if it cannot be reached;
    /// whatever Snowflake says to the PUT statement.
    pub async fn put(
        &mut self,
        local: &Path,
        stage_dir: &str,
        file_name: &str,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let statement = sql::put(stage_dir, file_name)?;
        let source = Source::open(local).await?;
        let mut renewed = false;
        loop {
            // Each time a statement of its own: its answer holds fresh credentials, which a repeated one would not.
            let answer: PutData = self.run(&Statement::new(statement.as_str())).await?;
            let target = Target::new(&self.transport.http, answer, file_name)?;
            match target.upload(&source, progress).await {
                Ok(()) => return Ok(()),
                Err(failure) if failure.may_be_expiry && !renewed => renewed = true,
                Err(failure) => return Err(failure.error),
            }
        }
    }
}

/// The local file, and its digest, which storage wants to know before the first byte.
struct Source<'a> {
    path: &'a Path,
    size: u64,
    digest: String,
}

impl<'a> Source<'a> {
    async fn open(path: &'a Path) -> Result<Self> {
        let mut file = File::open(path).await.map_err(unreadable)?;
        let mut digest = Sha256::new();
        let mut size = 0;
        let mut buffer = vec![0; READ];
        while let Some(piece) = read(&mut file, &mut buffer).await? {
            digest.update(piece);
            size += piece.len() as u64;
        }
        Ok(Self {
            path,
            size,
            digest: STANDARD.encode(digest.finalize()),
        })
    }
}

async fn read<'b>(file: &mut File, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>> {
    let count = file.read(buffer).await.map_err(unreadable)?;
    Ok(buffer.get(..count).filter(|piece| !piece.is_empty()))
}

fn unreadable(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, "cannot read a file of the spool").with_source(cause)
}

fn changed() -> Error {
    Error::new(
        ErrorKind::Internal,
        "a file of the spool changed while it was sent",
    )
}

/// Where one file goes.
struct Target {
    store: AmazonS3,
    client: StorageClient,
    key: Key,
    file_key: Option<FileKey>,
}

struct UploadFailure {
    error: Error,
    /// Whether new credentials may help.
    may_be_expiry: bool,
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
    fn new(http: &Http, answer: PutData, file_name: &str) -> Result<Self> {
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

    async fn upload(
        &self,
        source: &Source<'_>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), UploadFailure> {
        if source.size <= SINGLE_PUT {
            self.upload_whole(source, progress).await
        } else {
            self.upload_parts(source, progress).await
        }
    }

    async fn upload_whole(
        &self,
        source: &Source<'_>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), UploadFailure> {
        let plain = tokio::fs::read(source.path).await.map_err(unreadable)?;
        if STANDARD.encode(Sha256::digest(&plain)) != source.digest {
            return Err(changed().into());
        }
        let body = match &self.file_key {
            None => plain.into(),
            Some(key) => {
                let mut body = BytesMut::with_capacity(encrypted_size(source.size) as usize);
                let mut encryptor = key.encryptor()?;
                encryptor.update(&plain, &mut body);
                encryptor.finish(&mut body);
                body.freeze()
            }
        };
        let options = PutOptions {
            attributes: self.attributes(source),
            ..PutOptions::default()
        };
        self.store
            .put_opts(&self.key, PutPayload::from_bytes(body), options)
            .await
            .map_err(|cause| self.failure(cause))?;
        progress(source.size);
        Ok(())
    }

    async fn upload_parts(
        &self,
        source: &Source<'_>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), UploadFailure> {
        let part = part_size(source.size) as usize;
        let options = PutMultipartOptions {
            attributes: self.attributes(source),
            ..PutMultipartOptions::default()
        };
        let upload = self
            .store
            .put_multipart_opts(&self.key, options)
            .await
            .map_err(|cause| self.failure(cause))?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, part);
        match self.send_parts(source, part, &mut writer, progress).await {
            Ok(()) => {
                writer.finish().await.map_err(|cause| self.failure(cause))?;
                progress(source.size);
                Ok(())
            }
            Err(failure) => {
                // Parts without an end cost money until somebody removes them.
                let _ = writer.abort().await;
                Err(failure)
            }
        }
    }

    async fn send_parts(
        &self,
        source: &Source<'_>,
        part: usize,
        writer: &mut WriteMultipart,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), UploadFailure> {
        let mut file = File::open(source.path).await.map_err(unreadable)?;
        let mut encryptor = self.file_key.as_ref().map(FileKey::encryptor).transpose()?;
        let mut buffer = vec![0; READ];
        let mut body = BytesMut::with_capacity(part + READ);
        let mut sent = 0;
        while let Some(piece) = read(&mut file, &mut buffer).await? {
            sent += piece.len() as u64;
            append(&mut encryptor, piece, &mut body);
            if body.len() >= part {
                self.send(writer, body.split_to(part)).await?;
                body.reserve(part + READ);
                progress(sent);
            }
        }
        if sent != source.size {
            return Err(changed().into());
        }
        if let Some(encryptor) = encryptor {
            encryptor.finish(&mut body);
        }
        self.send(writer, body).await
    }

    async fn send(&self, writer: &mut WriteMultipart, part: BytesMut) -> Result<(), UploadFailure> {
        writer
            .wait_for_capacity(PARALLEL_PARTS - 1)
            .await
            .map_err(|cause| self.failure(cause))?;
        writer.put(part.freeze());
        Ok(())
    }

    /// What a reader of the file has to know about it.
    fn attributes(&self, source: &Source<'_>) -> Attributes {
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::ContentType, "application/octet-stream".into());
        attributes.insert(
            Attribute::Metadata("sfc-digest".into()),
            source.digest.clone().into(),
        );
        for (name, value) in self.file_key.iter().flat_map(FileKey::s3_metadata) {
            attributes.insert(Attribute::Metadata(name.into()), value.into());
        }
        attributes
    }

    fn failure(&self, cause: object_store::Error) -> UploadFailure {
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

fn append(encryptor: &mut Option<Encryptor>, piece: &[u8], body: &mut BytesMut) {
    match encryptor {
        Some(encryptor) => encryptor.update(piece, body),
        None => body.extend_from_slice(piece),
    }
}

/// As small as S3's limit on the number of parts allows.
fn part_size(size: u64) -> u64 {
    PART.max(encrypted_size(size).div_ceil(MAX_PARTS))
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

    #[test]
    fn parts_stay_within_the_limits() {
        assert_eq!(part_size(SINGLE_PUT + 1), PART);
        for size in [80 << 30, 1 << 40, 5 << 40] {
            assert!(encrypted_size(size).div_ceil(part_size(size)) <= MAX_PARTS);
        }
    }
}

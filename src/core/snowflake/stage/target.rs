//! Where a file of a stage goes, as the answer to PUT says.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::path::Path as Key;
use object_store::{Attribute, Attributes, BackoffConfig, ObjectStore, RetryConfig};
use secrecy::{ExposeSecret, SecretString};
use url::{Url, form_urlencoded};

use super::Progress;
use super::endpoint::{self, GoogleObject, S3Endpoint};
use super::google::GoogleUpload;
use super::object_client::ObjectClient;
use super::object_storage::Object;
use super::refusal::UploadFailure;
use super::source::Source;
use crate::config::Network;
use crate::snowflake::encryption::FileKey;
use crate::snowflake::http::Http;
use crate::snowflake::wire::{PutData, StageCredentials, StageInfo};
use crate::snowflake::{storage, text};
use crate::{Error, ErrorKind, Result};

/// The longest name of an object on all three clouds, in bytes.
const MAX_KEY: usize = 1024;

/// Where one file goes, and under which key.
#[derive(Debug)]
pub(super) struct Target {
    place: Place,
    file_key: Option<FileKey>,
}

#[derive(Debug)]
enum Place {
    Amazon(Object),
    Azure(Object),
    Google(GoogleUpload),
}

impl Target {
    /// # Errors
    /// `Configuration` for storage that is not supported or not allowed; `Internal` for an answer that makes no sense.
    pub(super) fn new(http: &Http, answer: &PutData, file_name: &str) -> Result<Self> {
        if !answer
            .command
            .as_deref()
            .is_none_or(|command| command.eq_ignore_ascii_case("UPLOAD"))
        {
            return Err(unexpected("asks for something other than an upload"));
        }
        let stage = stage(answer).ok_or_else(|| unexpected("names no stage"))?;
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
        let key = match prefix.trim_end_matches('/') {
            "" => file_name.to_owned(),
            prefix => format!("{prefix}/{file_name}"),
        };
        let key = Key::parse(key)
            .ok()
            .filter(|key| key.as_ref().len() <= MAX_KEY)
            .ok_or_else(|| unexpected("names a location that cannot be one"))?;
        let place = match stage.location_type.as_deref().unwrap_or_default() {
            "S3" => Place::Amazon(amazon(http, stage, bucket, key)?),
            "AZURE" => Place::Azure(azure(http, stage, bucket, key)?),
            "GCS" => Place::Google(google(http, stage, bucket, &key)?),
            // Also what test servers use, a directory of this machine: whoever could name one could have files
            // overwritten.
            other => {
                return Err(Error::new(
                    ErrorKind::Configuration,
                    format!("the stage lies on unknown storage ({})", text::token(other)),
                ));
            }
        };
        Ok(Self { place, file_key })
    }

    /// Uploads a file.
    pub(super) async fn upload(
        &self,
        source: &Source,
        progress: Progress<'_>,
    ) -> Result<(), UploadFailure> {
        let key = self.file_key.as_ref();
        let metadata = self.metadata(&source.digest)?;
        match &self.place {
            Place::Amazon(object) | Place::Azure(object) => {
                object
                    .upload(source, key, attributes(metadata), progress)
                    .await
            }
            Place::Google(upload) => upload.upload(source, key, &metadata, progress).await,
        }
    }

    /// What a reader of the file has to know about it, under the names that its cloud has for that.
    fn metadata(&self, digest: &str) -> Result<Vec<(&'static str, String)>> {
        let key = self.file_key.as_ref();
        let digest_name = match self.place {
            Place::Azure(_) => "sfcdigest",
            Place::Amazon(_) | Place::Google(_) => "sfc-digest",
        };
        let mut metadata = vec![(digest_name, digest.to_owned())];
        match (&self.place, key) {
            (_, None) => {}
            (Place::Amazon(_), Some(key)) => metadata.extend(key.s3_metadata()),
            (Place::Azure(_) | Place::Google(_), Some(key)) => {
                metadata.extend(key.blob_metadata()?);
            }
        }
        Ok(metadata)
    }
}

fn stage(answer: &PutData) -> Option<&StageInfo> {
    answer.stage_info.as_ref().or(answer.upload_info.as_ref())
}

/// Whether one answer to PUT serves all files of the statement: a presigned address is that of the first one alone.
pub(super) fn serves_all(answer: &PutData) -> bool {
    stage(answer).is_none_or(|stage| {
        stage.location_type.as_deref() != Some("GCS") || google_token(stage).is_some()
    })
}

fn google_token(stage: &StageInfo) -> Option<SecretString> {
    let token = stage.creds.as_ref()?.gcs_access_token.clone()?;
    (!token.expose_secret().is_empty()).then_some(token)
}

fn attributes(metadata: Vec<(&'static str, String)>) -> Attributes {
    let mut attributes: Attributes = metadata
        .into_iter()
        .map(|(name, value)| (Attribute::Metadata(name.into()), value))
        .collect();
    attributes.insert(Attribute::ContentType, "application/octet-stream".into());
    attributes
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

fn amazon(http: &Http, stage: &StageInfo, bucket: &str, key: Key) -> Result<Object> {
    let region = stage.region.as_deref().unwrap_or_default();
    let end_point = stage.end_point.as_deref();
    let endpoint = S3Endpoint::new(&http.network.allowed_hosts, end_point, region, bucket)?;
    let credentials = credentials(stage)?;
    // Older answers know these by shorter names only.
    let id = credentials
        .aws_key_id
        .as_ref()
        .or(credentials.aws_id.as_ref());
    let secret = credentials
        .aws_secret_key
        .as_ref()
        .or(credentials.aws_key.as_ref());
    let client = ObjectClient::new(http);
    let mut builder = AmazonS3Builder::new()
        .with_http_connector(client.clone())
        .with_region(region)
        .with_bucket_name(bucket)
        .with_endpoint(endpoint.url)
        .with_virtual_hosted_style_request(!endpoint.path_style)
        .with_access_key_id(proof(id)?)
        .with_secret_access_key(proof(secret)?)
        // As Snowflake's own drivers do it: the connection keeps what travels whole, and the file has a digest of its own.
        .with_unsigned_payload(true)
        .with_retry(retries(&http.network));
    if credentials.aws_token.is_some() {
        builder = builder.with_token(proof(credentials.aws_token.as_ref())?);
    }
    let store = builder.build().map_err(|_| out_of_reach())?;
    Ok(object(Arc::new(store), client, key))
}

fn azure(http: &Http, stage: &StageInfo, container: &str, key: Key) -> Result<Object> {
    let account = stage.storage_account.as_deref().unwrap_or_default();
    let end_point = stage.end_point.as_deref();
    let endpoint = endpoint::azure_account(&http.network.allowed_hosts, end_point, account)?;
    if !storage::is_plain(container) || container.len() > 63 {
        return Err(unexpected("names a container that cannot be one"));
    }
    let sas = proof(credentials(stage)?.azure_sas_token.as_ref())?;
    let pairs: Vec<(String, String)> =
        form_urlencoded::parse(sas.trim_start_matches('?').as_bytes())
            .into_owned()
            .collect();
    let client = ObjectClient::new(http);
    let store = MicrosoftAzureBuilder::new()
        .with_http_connector(client.clone())
        .with_account(account)
        .with_container_name(container)
        .with_endpoint(endpoint)
        .with_sas_authorization(pairs)
        .with_retry(retries(&http.network))
        .build()
        .map_err(|_| out_of_reach())?;
    Ok(object(Arc::new(store), client, key))
}

/// The address of one object: presigned, or its own together with a token.
fn google(http: &Http, stage: &StageInfo, bucket: &str, key: &Key) -> Result<GoogleUpload> {
    let allowed = &http.network.allowed_hosts;
    let http = http.clone();
    let token = google_token(stage);
    let presigned = stage
        .presigned_url
        .as_ref()
        .map(SecretString::expose_secret)
        .filter(|url| !url.is_empty());
    let url = match (&token, presigned) {
        (Some(_), _) => GoogleObject {
            end_point: stage.end_point.as_deref(),
            region: stage.region.as_deref().unwrap_or_default(),
            bucket,
            key: key.as_ref(),
            use_regional_url: stage.use_regional_url == Some(true),
            use_virtual_url: stage.use_virtual_url == Some(true),
        }
        .url(allowed)?,
        (None, Some(presigned)) => {
            let url = Url::parse(presigned).map_err(|_| out_of_reach())?;
            storage::check_address(allowed, &url)?;
            url
        }
        (None, None) => return Err(no_credentials()),
    };
    Ok(GoogleUpload { http, url, token })
}

fn object(store: Arc<dyn ObjectStore>, client: ObjectClient, key: Key) -> Object {
    Object { store, client, key }
}

fn credentials(stage: &StageInfo) -> Result<&StageCredentials> {
    stage.creds.as_ref().ok_or_else(no_credentials)
}

/// Credentials that a request can carry. The library that makes the requests to Amazon and Azure does not survive others.
fn proof(secret: Option<&SecretString>) -> Result<&str> {
    /// Real ones have at most a few thousand characters, and must leave room in an address.
    const LONGEST: usize = 16 * 1024;
    let proof = secret.ok_or_else(no_credentials)?.expose_secret();
    match proof.len() {
        0 => Err(no_credentials()),
        1..=LONGEST if proof.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(proof),
        _ => Err(unexpected("holds credentials that cannot be any")),
    }
}

/// The library asks to stay below five minutes, after which its signatures may have expired.
const RETRY_TIMEOUT: Duration = Duration::from_secs(280);

fn retries(network: &Network) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: network.backoff.base,
            max_backoff: network.backoff.max,
            ..BackoffConfig::default()
        },
        max_retries: network.tries.saturating_sub(1) as usize,
        // Long enough for a slow part to fail once; the tries bound the rest.
        retry_timeout: RETRY_TIMEOUT,
    }
}

fn unexpected(what: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("Snowflake's answer to PUT {what}"),
    )
}

fn no_credentials() -> Error {
    unexpected("lacks credentials")
}

fn out_of_reach() -> Error {
    unexpected("names a place that cannot be reached")
}

#[cfg(test)]
mod tests;

//! Uploads to Amazon and Azure: a small file in one request, a large one in parts, with bounded memory.

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use futures::stream::{FuturesUnordered, StreamExt};
use object_store::path::Path as Key;
use object_store::{
    Attributes, MultipartUpload, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    UploadPart,
};

use super::Progress;
use super::object_client::ObjectClient;
use super::refusal::UploadFailure;
use super::source::Source;
use crate::snowflake::encryption::FileKey;
use crate::{Error, ErrorKind};

/// Files up to this size travel in one request. JDBC draws the line at 16 MiB too; it also bounds the memory of a file.
const SINGLE_PUT: u64 = 16 * 1024 * 1024;
/// The size of a part of larger files, as the Go and Python drivers have it; S3 wants at least 5 MiB.
const PART: u64 = 8 * 1024 * 1024;
/// S3 takes no more parts than this; Azure takes 50,000.
const MAX_PARTS: u64 = 10_000;
/// Parts under way at once. With the one being filled that is 24 MiB for a file of any size below 80 GB.
const PARALLEL_PARTS: usize = 2;

/// Where one file goes.
pub(super) struct Object {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) client: ObjectClient,
    pub(super) key: Key,
}

impl fmt::Debug for Object {
    /// Without the store, which shows the signature that is its proof.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Object").field(&self.key).finish()
    }
}

impl Object {
    /// Uploads a file; `attributes` travel with it.
    pub(super) async fn upload(
        &self,
        source: &Source,
        file_key: Option<&FileKey>,
        attributes: Attributes,
        progress: Progress<'_>,
    ) -> Result<(), UploadFailure> {
        let size = source.content_size(file_key);
        if size <= SINGLE_PUT {
            self.upload_whole(source, file_key, attributes).await?;
        } else {
            self.upload_parts(source, file_key, attributes, part_size(size), progress)
                .await?;
        }
        progress(source.size);
        Ok(())
    }

    async fn upload_whole(
        &self,
        source: &Source,
        file_key: Option<&FileKey>,
        attributes: Attributes,
    ) -> Result<(), UploadFailure> {
        let mut content = source.content(file_key).await?;
        let mut body = BytesMut::with_capacity(source.content_size(file_key) as usize);
        while content.append(&mut body).await? {}
        let options = PutOptions {
            attributes,
            ..PutOptions::default()
        };
        self.store
            .put_opts(&self.key, PutPayload::from_bytes(body.freeze()), options)
            .await
            .map(drop)
            .map_err(|cause| self.failure(&cause))
    }

    async fn upload_parts(
        &self,
        source: &Source,
        file_key: Option<&FileKey>,
        attributes: Attributes,
        part: usize,
        progress: Progress<'_>,
    ) -> Result<(), UploadFailure> {
        let options = PutMultipartOptions {
            attributes,
            ..PutMultipartOptions::default()
        };
        let mut upload = self
            .store
            .put_multipart_opts(&self.key, options)
            .await
            .map_err(|cause| self.failure(&cause))?;
        let sent = self
            .send_parts(source, file_key, part, upload.as_mut(), progress)
            .await;
        let ended = match sent {
            Ok(()) => upload
                .complete()
                .await
                .map(drop)
                .map_err(|cause| self.failure(&cause)),
            Err(failure) => Err(failure),
        };
        if ended.is_err() {
            // Parts without an end cost money until somebody removes them.
            let _ = upload.abort().await;
        }
        ended
    }

    async fn send_parts(
        &self,
        source: &Source,
        file_key: Option<&FileKey>,
        part: usize,
        upload: &mut dyn MultipartUpload,
        progress: Progress<'_>,
    ) -> Result<(), UploadFailure> {
        let mut content = source.content(file_key).await?;
        let mut body = BytesMut::new();
        let mut under_way: FuturesUnordered<UploadPart> = FuturesUnordered::new();
        let mut more = true;
        while more {
            more = content.append(&mut body).await?;
            while body.len() >= part || !more && !body.is_empty() {
                if under_way.len() >= PARALLEL_PARTS
                    && let Some(sent) = under_way.next().await
                {
                    sent.map_err(|cause| self.failure(&cause))?;
                }
                let size = part.min(body.len());
                let payload = PutPayload::from_bytes(body.split_to(size).freeze());
                under_way.push(upload.put_part(payload));
                progress(content.read);
            }
        }
        while let Some(sent) = under_way.next().await {
            sent.map_err(|cause| self.failure(&cause))?;
        }
        Ok(())
    }

    /// The reason of a failure, which the client has kept.
    fn failure(&self, cause: &object_store::Error) -> UploadFailure {
        self.client.take_failure().unwrap_or_else(|| {
            // Its text could hold an answer of the server's, so only its kind is kept.
            let kind = match cause {
                object_store::Error::NotFound { .. } => "not found",
                object_store::Error::PermissionDenied { .. } => "permission denied",
                object_store::Error::Unauthenticated { .. } => "unauthenticated",
                object_store::Error::InvalidPath { .. } => "invalid path",
                _ => "other",
            };
            let message = format!("the stage's storage did not take a file ({kind})");
            Error::new(ErrorKind::Internal, message).into()
        })
    }
}

/// As small as the limit on the number of parts allows.
fn part_size(size: u64) -> usize {
    PART.max(size.div_ceil(MAX_PARTS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_within_the_limits() {
        assert_eq!(part_size(SINGLE_PUT + 1), PART as usize);
        for size in [80 << 30, 1 << 40, 5 << 40] {
            assert!(u64::div_ceil(size, part_size(size) as u64) <= MAX_PARTS);
        }
    }
}

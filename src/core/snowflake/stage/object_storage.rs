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
use super::source::{Content, READ, Source};
use crate::memory::Taken;
use crate::snowflake::encryption::FileKey;
use crate::{Error, ErrorKind};

/// Files up to this size travel in one request. JDBC draws the line at 16 MiB too; it also bounds the memory of a file.
const SINGLE_PUT: u64 = 16 * 1024 * 1024;
/// The size of a part of larger files, as the Go and Python drivers have it; S3 wants at least 5 MiB.
const PART: u64 = 8 * 1024 * 1024;
/// S3 takes no more parts than this; Azure takes 50,000.
const MAX_PARTS: u64 = 10_000;
/// Parts under way at once, where memory allows. With the one being filled that is 24 MiB for a file of any size below
/// 80 GB.
const PARALLEL_PARTS: usize = 2;

/// Parts that were handed over; each gives its memory back when it has arrived.
type PartsUnderWay = FuturesUnordered<UploadPart>;

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
        let size = source.content_size(file_key) as usize;
        let _taken = self.client.memory().take(size).await;
        let mut content = source.content(file_key).await?;
        let mut body = BytesMut::with_capacity(size);
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
        // Grown step by step, a part would take twice its size.
        let room = part + 2 * READ;
        let mut body = BytesMut::with_capacity(room);
        let mut under_way = PartsUnderWay::new();
        let mut taken = None;
        let mut more = true;
        while more {
            if taken.is_none() {
                taken = Some(self.memory_for_part(part, &mut under_way).await?);
            }
            more = self.append(&mut content, &mut body, &mut under_way).await?;
            while body.len() >= part || !more && !body.is_empty() {
                while under_way.len() >= PARALLEL_PARTS {
                    self.wait_for_part(&mut under_way).await?;
                }
                let size = part.min(body.len());
                let mut next = BytesMut::with_capacity(room);
                next.extend_from_slice(body.get(size..).unwrap_or_default());
                body.truncate(size);
                let payload = PutPayload::from_bytes(std::mem::replace(&mut body, next).freeze());
                let (sent, taken) = (upload.put_part(payload), taken.take());
                under_way.push(Box::pin(async move {
                    let sent = sent.await;
                    drop(taken);
                    sent
                }));
                progress(content.read);
            }
        }
        while self.wait_for_part(&mut under_way).await? {}
        Ok(())
    }

    /// Makes the next piece of a part, while those that were handed over travel.
    async fn append(
        &self,
        content: &mut Content,
        body: &mut BytesMut,
        under_way: &mut PartsUnderWay,
    ) -> Result<bool, UploadFailure> {
        let made = content.append(body);
        tokio::pin!(made);
        loop {
            tokio::select! {
                more = &mut made => return Ok(more?),
                sent = self.wait_for_part(under_way), if !under_way.is_empty() => {
                    sent?;
                }
            }
        }
    }

    /// Memory for the next part. Where there is none left, a part of this file makes room, before others are asked to: who
    /// waits for others holds nothing.
    async fn memory_for_part(
        &self,
        part: usize,
        under_way: &mut PartsUnderWay,
    ) -> Result<Taken, UploadFailure> {
        loop {
            if let Some(taken) = self.client.memory().try_take(part) {
                return Ok(taken);
            }
            if !self.wait_for_part(under_way).await? {
                return Ok(self.client.memory().take(part).await);
            }
        }
    }

    /// Waits until one of the parts has arrived; false if there is none.
    async fn wait_for_part(&self, under_way: &mut PartsUnderWay) -> Result<bool, UploadFailure> {
        match under_way.next().await {
            Some(sent) => sent.map(|()| true).map_err(|cause| self.failure(&cause)),
            None => Ok(false),
        }
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

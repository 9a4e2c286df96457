//! A file into a stage: ask Snowflake where to put it, encrypt it if the stage wants that, and hand it to the storage.

mod target;

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use object_store::{ObjectStore, PutMultipartOptions, PutOptions, PutPayload, WriteMultipart};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use target::{Target, UploadFailure};

use super::encryption::{Encryptor, FileKey, encrypted_size};
use super::session::{Session, Statement};
use super::sql;
use super::wire::PutData;
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

impl Target {
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
            attributes: self.attributes(&source.digest),
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
            attributes: self.attributes(&source.digest),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_within_the_limits() {
        assert_eq!(part_size(SINGLE_PUT + 1), PART);
        for size in [80 << 30, 1 << 40, 5 << 40] {
            assert!(encrypted_size(size).div_ceil(part_size(size)) <= MAX_PARTS);
        }
    }
}

//! The local file that is put: read twice, once for its digest, which storage wants to know before the first byte.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::snowflake::encryption::{Encryptor, FileKey, encrypted_size};
use crate::{Error, ErrorKind, Result};

/// How much is read from disk at a time.
pub(super) const READ: usize = 1024 * 1024;

/// A file of the spool.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    /// Its bytes, before encryption.
    pub(super) size: u64,
    /// SHA-256 of those, in base64.
    pub(super) digest: String,
}

impl Source {
    /// # Errors
    /// `Internal` if the file cannot be read.
    pub(super) async fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).await.map_err(unreadable)?;
        let (mut digest, mut size) = (Sha256::new(), 0);
        let mut buffer = vec![0; READ];
        while let Some(piece) = read(&mut file, &mut buffer).await? {
            digest.update(piece);
            size += piece.len() as u64;
        }
        Ok(Self {
            path: path.to_owned(),
            size,
            digest: STANDARD.encode(digest.finalize()),
        })
    }

    /// The bytes that travel: encrypted if there is a key.
    ///
    /// # Errors
    /// `Internal` if the file cannot be read.
    pub(super) async fn content(&self, key: Option<&FileKey>) -> Result<Content> {
        Ok(Content {
            file: File::open(&self.path).await.map_err(unreadable)?,
            encryptor: key.map(FileKey::encryptor).transpose()?,
            buffer: vec![0; READ],
            check: Some((Sha256::new(), self.digest.clone())),
            read: 0,
        })
    }

    /// How many bytes travel.
    pub(super) fn content_size(&self, key: Option<&FileKey>) -> u64 {
        match key {
            Some(_) => encrypted_size(self.size),
            None => self.size,
        }
    }
}

/// What travels, piece by piece.
pub(super) struct Content {
    file: File,
    encryptor: Option<Encryptor>,
    buffer: Vec<u8>,
    /// The digest so far and the one it has to become; absent once the end was reached.
    check: Option<(Sha256, String)>,
    /// Bytes of the file that were read.
    pub(super) read: u64,
}

impl Content {
    /// Appends the next piece to `out`; false at the end.
    ///
    /// # Errors
    /// `Internal` if the file cannot be read, or is not the one any more whose digest was told.
    pub(super) async fn append(&mut self, out: &mut BytesMut) -> Result<bool> {
        if self.check.is_none() {
            return Ok(false);
        }
        match read(&mut self.file, &mut self.buffer).await? {
            Some(piece) => {
                self.read += piece.len() as u64;
                if let Some((digest, _)) = &mut self.check {
                    digest.update(piece);
                }
                match &mut self.encryptor {
                    Some(encryptor) => encryptor.update(piece, out),
                    None => out.extend_from_slice(piece),
                }
            }
            None => {
                if let Some(encryptor) = self.encryptor.take() {
                    encryptor.finish(out);
                }
                if let Some((digest, expected)) = self.check.take()
                    && STANDARD.encode(digest.finalize()) != expected
                {
                    return Err(Error::new(
                        ErrorKind::Internal,
                        "a file of the spool changed while it was sent",
                    ));
                }
            }
        }
        Ok(true)
    }
}

async fn read<'b>(file: &mut File, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>> {
    let count = file.read(buffer).await.map_err(unreadable)?;
    Ok(buffer.get(..count).filter(|piece| !piece.is_empty()))
}

fn unreadable(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, "cannot read a file of the spool").with_source(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(mut content: Content) -> Result<BytesMut> {
        let mut out = BytesMut::new();
        while content.append(&mut out).await? {}
        Ok(out)
    }

    #[tokio::test]
    async fn a_file_is_read_whole_and_recognised() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("part");
        for size in [0, 1, READ - 1, READ, 3 * READ + 5] {
            let plain: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            std::fs::write(&path, &plain).unwrap();
            let source = Source::open(&path).await.unwrap();
            assert_eq!(
                (source.size, source.content_size(None)),
                (size as u64, size as u64)
            );
            assert_eq!(
                all(source.content(None).await.unwrap()).await.unwrap(),
                plain
            );
        }
        let source = Source::open(&path).await.unwrap();
        std::fs::write(&path, "another").unwrap();
        let error = all(source.content(None).await.unwrap()).await.unwrap_err();
        assert!(error.message().contains("changed"), "{error}");
    }

    #[tokio::test]
    async fn no_file() {
        let error = Source::open(Path::new("/nonexistent/part"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}

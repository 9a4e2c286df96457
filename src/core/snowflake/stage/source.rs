//! The local file that is put. Storage wants to know its digest before the first byte, so that it is read twice where whoever
//! wrote it has not told.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::Written;
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
    /// A file, which is not looked at yet where it is known what was written.
    ///
    /// # Errors
    /// `Internal` if the file cannot be read.
    pub(super) async fn new(path: &Path, written: Option<Written<'_>>) -> Result<Self> {
        let path = path.to_owned();
        if let Some(Written { bytes, digest }) = written {
            let digest = digest.to_owned();
            return Ok(Self {
                path,
                size: bytes,
                digest,
            });
        }
        elsewhere(move || {
            let mut file = File::open(&path).map_err(unreadable)?;
            let size = file.metadata().map_err(unreadable)?.len();
            let (mut digest, mut buffer) = (Sha256::new(), vec![0; READ]);
            while let Some(piece) = read(&mut file, &mut buffer)? {
                digest.update(piece);
            }
            let digest = STANDARD.encode(digest.finalize());
            Ok(Self { path, size, digest })
        })
        .await
    }

    /// The bytes that travel: encrypted if there is a key.
    ///
    /// # Errors
    /// `Internal` if the file cannot be read, or has another size by now.
    pub(super) async fn content(&self, key: Option<&FileKey>) -> Result<Content> {
        let (path, size) = (self.path.clone(), self.size);
        let encryptor = key.map(FileKey::encryptor).transpose()?;
        let check = Some((Sha256::new(), self.digest.clone()));
        let rest = elsewhere(move || {
            let file = File::open(&path).map_err(unreadable)?;
            // More or fewer bytes than storage is told of would fail in words of its own.
            if file.metadata().map_err(unreadable)?.len() != size {
                return Err(changed());
            }
            Ok(Rest {
                file,
                encryptor,
                buffer: vec![0; READ],
                check,
            })
        })
        .await?;
        Ok(Content {
            rest: Some(Box::new(rest)),
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

/// What travels, piece by piece. It is read and encrypted on threads of its own, so that what was made before travels meanwhile.
pub(super) struct Content {
    /// Absent while another thread has it.
    rest: Option<Box<Rest>>,
    /// Bytes of the file that were read.
    pub(super) read: u64,
}

/// What is left of a file.
struct Rest {
    file: File,
    encryptor: Option<Encryptor>,
    buffer: Vec<u8>,
    /// The digest so far and the one it has to become; absent once the end was reached.
    check: Option<(Sha256, String)>,
}

impl Content {
    /// Appends the next piece to `out`; false at the end. Nothing can be had any more after this was given up.
    ///
    /// # Errors
    /// `Internal` if the file cannot be read, or is not the one any more whose digest was told.
    pub(super) async fn append(&mut self, out: &mut BytesMut) -> Result<bool> {
        let mut rest = self
            .rest
            .take()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a file of the spool was given up"))?;
        let mut made = std::mem::take(out);
        let (rest, made, count) = elsewhere(move || {
            let count = rest.append(&mut made)?;
            Ok((rest, made, count))
        })
        .await?;
        (self.rest, *out) = (Some(rest), made);
        self.read += count.unwrap_or(0) as u64;
        Ok(count.is_some())
    }
}

impl Rest {
    /// Appends the next piece. Returns how many bytes of the file it was made of; nothing after the end.
    fn append(&mut self, out: &mut BytesMut) -> Result<Option<usize>> {
        let Some((digest, _)) = &mut self.check else {
            return Ok(None);
        };
        if let Some(piece) = read(&mut self.file, &mut self.buffer)? {
            digest.update(piece);
            match &mut self.encryptor {
                Some(encryptor) => encryptor.update(piece, out),
                None => out.extend_from_slice(piece),
            }
            return Ok(Some(piece.len()));
        }
        if let Some(encryptor) = self.encryptor.take() {
            encryptor.finish(out);
        }
        if let Some((digest, expected)) = self.check.take()
            && STANDARD.encode(digest.finalize()) != expected
        {
            return Err(changed());
        }
        Ok(Some(0))
    }
}

/// Does what takes a processor or the disk for a while where no other upload waits for it.
async fn elsewhere<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|cause| {
        Err(Error::new(ErrorKind::Internal, "a file of the spool was not read").with_source(cause))
    })
}

fn read<'b>(file: &mut File, buffer: &'b mut [u8]) -> Result<Option<&'b [u8]>> {
    let count = file.read(buffer).map_err(unreadable)?;
    Ok(buffer.get(..count).filter(|piece| !piece.is_empty()))
}

fn changed() -> Error {
    Error::new(
        ErrorKind::Internal,
        "a file of the spool changed before it was sent",
    )
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
            let source = Source::new(&path, None).await.unwrap();
            assert_eq!(
                (source.size, source.content_size(None)),
                (size as u64, size as u64)
            );
            assert_eq!(
                all(source.content(None).await.unwrap()).await.unwrap(),
                plain
            );
        }
        let source = Source::new(&path, None).await.unwrap();
        std::fs::write(&path, vec![b'x'; 3 * READ + 5]).unwrap();
        let error = all(source.content(None).await.unwrap()).await.unwrap_err();
        assert!(error.message().contains("changed"), "{error}");
    }

    #[tokio::test]
    async fn what_is_known_is_checked_and_not_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("part");
        std::fs::write(&path, "content").unwrap();
        let digest = Source::new(&path, None).await.unwrap().digest;
        let other = STANDARD.encode(Sha256::digest("another"));
        let of = async |bytes, digest| {
            let source = Source::new(&path, Some(Written { bytes, digest })).await;
            all(source.unwrap().content(None).await?).await
        };
        assert_eq!(of(7, &digest).await.unwrap(), "content");
        for (bytes, digest) in [(7, &other), (6, &digest), (8, &digest)] {
            let error = of(bytes, digest).await.unwrap_err();
            assert!(error.message().contains("changed"), "{error}");
        }
    }

    #[tokio::test]
    async fn no_file() {
        let path = Path::new("/nonexistent/part");
        let error = Source::new(path, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        let written = Written {
            bytes: 1,
            digest: "",
        };
        let source = Source::new(path, Some(written)).await.unwrap();
        let error = source.content(None).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}

//! One Parquet file on local disk: record batches in, a synced file out.

use std::fs::{File, OpenOptions};
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;

use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_writer::ArrowWriterOptions;
use ::parquet::basic::{Compression as Codec, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::{Error, ErrorKind, Result};

/// Encoded bytes that a row group may hold in memory before it goes to disk. A few row groups to a file of the usual
/// size keep memory small, and Snowflake reads row groups in parallel.
const ROW_GROUP_MEMORY: usize = 32 << 20;

/// Bytes of values that a row group holds, however well they compress: whoever reads the file has them in memory again.
const ROW_GROUP_BYTES: usize = 256 << 20;

/// How pages are compressed. Snowflake finds out from the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Zstandard at that level, 1 to 22.
    Zstd(i32),
    /// Not at all.
    None,
}

impl Default for Compression {
    /// Zstandard at level 3, that library's own default: half the bytes of faster codecs at disk speed.
    fn default() -> Self {
        Self::Zstd(3)
    }
}

impl FromStr for Compression {
    type Err = Error;

    /// Reads `zstd`, `zstd:LEVEL` or `none`.
    fn from_str(text: &str) -> Result<Self> {
        let level = match text.split_once(':') {
            None if text == "none" => return Ok(Self::None),
            None if text == "zstd" => return Ok(Self::default()),
            Some(("zstd", level)) => level
                .parse()
                .ok()
                .filter(|level| ZstdLevel::try_new(*level).is_ok()),
            _ => None,
        };
        level.map(Self::Zstd).ok_or_else(|| {
            Error::new(ErrorKind::Configuration, "unknown compression")
                .with_hint("Set it to zstd, to zstd:LEVEL with a level of 1 to 22, or to none.")
        })
    }
}

impl Compression {
    fn codec(self) -> Result<Codec> {
        match self {
            Self::None => Ok(Codec::UNCOMPRESSED),
            Self::Zstd(level) => ZstdLevel::try_new(level).map(Codec::ZSTD).map_err(|error| {
                Error::new(ErrorKind::Configuration, "unknown Zstandard level").with_source(error)
            }),
        }
    }
}

/// A file being written. Dropped unfinished, it is left on disk as it is, for its owner to remove.
pub struct FileWriter {
    writer: ArrowWriter<BufWriter<File>>,
    rows: u64,
    /// Of the open row group, not encoded.
    bytes: usize,
}

impl FileWriter {
    /// Creates the file, readable by us alone. It must not exist.
    ///
    /// # Errors
    /// `Transient` when the disk fails or is full, `Configuration` when it refuses us.
    pub fn create(path: &Path, schema: SchemaRef, compression: Compression) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| storage("create a spool file", error))?;
        let properties = WriterProperties::builder()
            .set_compression(compression.codec()?)
            .set_created_by(concat!("snowflake_bridge ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        // Without the Arrow schema in the file's metadata, everybody reads the types that Snowflake reads.
        let options = ArrowWriterOptions::new()
            .with_properties(properties)
            .with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(BufWriter::new(file), schema, options)
            .map_err(write_failed)?;
        Ok(Self {
            writer,
            rows: 0,
            bytes: 0,
        })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// `Transient` when the disk fails or is full.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(write_failed)?;
        self.rows += batch.num_rows() as u64;
        self.bytes += batch.get_array_memory_size();
        if self.writer.memory_size() >= ROW_GROUP_MEMORY || self.bytes >= ROW_GROUP_BYTES {
            self.writer.flush().map_err(write_failed)?;
            self.bytes = 0;
        }
        Ok(())
    }

    /// About how large the file would be if it ended now.
    #[must_use]
    pub fn size(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    /// Rows written so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes the footer, waits until the disk has the file, and tells its size.
    ///
    /// # Errors
    /// `Transient` when the disk fails or is full.
    pub fn finish(self) -> Result<u64> {
        let buffer = self.writer.into_inner().map_err(write_failed)?;
        let file = buffer
            .into_inner()
            .map_err(|error| storage("write a spool file", error.into_error()))?;
        file.sync_all()
            .map_err(|error| storage("sync a spool file", error))?;
        Ok(file
            .metadata()
            .map_err(|error| storage("read the size of a spool file", error))?
            .len())
    }
}

fn write_failed(error: ParquetError) -> Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(error) => storage("write a spool file", *error),
            Err(cause) => {
                Error::new(ErrorKind::Internal, "could not write a spool file").with_source(cause)
            }
        },
        error => {
            Error::new(ErrorKind::Internal, "could not encode rows as Parquet").with_source(error)
        }
    }
}

/// A failure of local storage. A full disk is somebody's to empty and then heals without us, so it is tried again.
pub(crate) fn storage(doing: &str, error: std::io::Error) -> Error {
    use std::io::ErrorKind as Io;
    let (kind, hint) = match error.kind() {
        Io::StorageFull | Io::QuotaExceeded => {
            (ErrorKind::Transient, "Free space in the spool directory.")
        }
        Io::PermissionDenied
        | Io::NotFound
        | Io::NotADirectory
        | Io::ReadOnlyFilesystem
        | Io::AlreadyExists => (
            ErrorKind::Configuration,
            "Check that the spool directory exists and that the server's user alone owns and writes it.",
        ),
        _ => (
            ErrorKind::Transient,
            "Check the disk that holds the spool directory.",
        ),
    };
    Error::new(kind, format!("could not {doing}"))
        .with_hint(hint)
        .with_source(error)
}

//! One Parquet file on local disk: record batches in, a synced file out.

mod chunk;
mod dictionary;
mod disk;
mod page;
mod pages;

use std::fs::OpenOptions;
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use ::parquet::arrow::ArrowSchemaConverter;
use ::parquet::basic::{Compression as Codec, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::types::SchemaDescPtr;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use self::chunk::{ChunkWriter, Compressors};
use self::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::threads;

/// What a dictionary takes before it holds much. Results of very many columns have no dictionaries, and leave repetition to
/// the compression.
const DICTIONARY_TABLE: usize = 80 << 10;

/// What goes to disk at once.
const WRITE_BYTES: usize = 1 << 20;

/// Bytes of values that a row group holds, however well they compress: whoever reads the file has them in memory again.
const ROW_GROUP_BYTES: usize = 256 << 20;

/// About what a row group keeps in memory for each column until its file ends: where it is, and how it is encoded.
const FOOTER_ENTRY: usize = 1 << 10;

/// How pages are compressed. Snowflake finds out from the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Zstandard at that level, 1 to 9.
    Zstd(i32),
    /// Not at all.
    None,
}

impl Default for Compression {
    /// Zstandard at level 1: as fast as encoding itself, and next to none of our files gets smaller by more.
    fn default() -> Self {
        Self::Zstd(1)
    }
}

/// Above these levels compression takes memory that nobody counts: 12 MB for each thread at the highest of them, and hundreds
/// at Zstandard's own.
const LEVELS: std::ops::RangeInclusive<i32> = 1..=9;

impl Compression {
    /// Reads `zstd`, `zstd:LEVEL` with a level of 1 to 9, or `none`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "none" => Some(Self::None),
            None if text == "zstd" => Some(Self::default()),
            Some(("zstd", level)) => {
                let level = level.parse().ok().filter(|level| LEVELS.contains(level));
                level.map(Self::Zstd)
            }
            _ => None,
        }
    }

    fn codec(self) -> Result<Codec> {
        match self {
            Self::None => Ok(Codec::UNCOMPRESSED),
            Self::Zstd(level) => ZstdLevel::try_new(level).map(Codec::ZSTD).map_err(|error| {
                Error::new(ErrorKind::Configuration, "unknown Zstandard level").with_source(error)
            }),
        }
    }
}

/// How a file is made.
#[derive(Debug, Clone, Copy)]
pub struct FileOptions {
    /// How its pages are compressed.
    pub compression: Compression,
    /// A row group ends when it takes this many bytes.
    pub row_group_memory: usize,
    /// It is made for large batches.
    pub is_for_large: bool,
    /// Threads that encode columns beside the caller's. They inherit what signals it blocks.
    pub helpers: usize,
    /// It is to be there after the machine has crashed.
    pub is_durable: bool,
}

/// A file being written. Dropped unfinished, it is left on disk as it is, for its owner to remove.
pub struct FileWriter {
    writer: SerializedFileWriter<BufWriter<Disk>>,
    schema: SchemaDescPtr,
    /// The columns of the open row group; none where none is open.
    columns: Vec<ChunkWriter>,
    compressors: Compressors,
    options: FileOptions,
    has_dictionaries: bool,
    rows: u64,
    /// Of the open row group, not encoded.
    bytes: usize,
}

impl FileWriter {
    /// Creates the file, readable by us alone. It must not exist.
    ///
    /// # Errors
    /// `Transient` when the disk fails or is full, `Configuration` when it refuses us.
    pub fn create(path: &Path, schema: &SchemaRef, options: FileOptions) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| storage("create a spool file", error))?;
        let codec = options.compression.codec()?;
        let properties = WriterProperties::builder()
            // COPY reads a file once and whole, so nobody asks which values lie where.
            .set_statistics_enabled(EnabledStatistics::None)
            .set_offset_index_disabled(true)
            .set_created_by(concat!("snowflake_bridge ", env!("CARGO_PKG_VERSION")).to_owned());
        // Without the Arrow schema in the file's metadata, everybody reads the types that Snowflake reads.
        let types = ArrowSchemaConverter::new()
            .convert(schema)
            .map_err(write_failed)?;
        let writer = SerializedFileWriter::new(
            BufWriter::with_capacity(
                WRITE_BYTES,
                Disk::new(file, options.is_durable, options.helpers > 0),
            ),
            types.root_schema_ptr(),
            Arc::new(properties.build()),
        )
        .map_err(write_failed)?;
        Ok(Self {
            writer,
            schema: Arc::new(types),
            columns: Vec::new(),
            compressors: Compressors::new(codec),
            options,
            has_dictionaries: !options.is_for_large
                && schema.fields().len() * DICTIONARY_TABLE <= options.row_group_memory,
            rows: 0,
            bytes: 0,
        })
    }

    /// Whether the file was made for large batches.
    #[must_use]
    pub fn is_for_large(&self) -> bool {
        self.options.is_for_large
    }

    /// Adds rows, whose memory is given back column by column. Those of a large batch do not come on top of what waits.
    ///
    /// # Errors
    /// `Transient` when the disk fails or is full.
    pub fn write(&mut self, batch: RecordBatch, is_large: bool) -> Result<()> {
        if is_large {
            self.end_row_group()?;
        }
        if self.columns.is_empty() {
            self.columns = self
                .schema
                .columns()
                .iter()
                .map(|column| ChunkWriter::new(Arc::clone(column), self.has_dictionaries))
                .collect::<Result<_>>()?;
        }
        self.bytes += batch.get_array_memory_size();
        self.rows += batch.num_rows() as u64;
        let (_, arrays, _) = batch.into_parts();
        let compressors = &self.compressors;
        // Large values one after the other, so that only one of them is there in two forms.
        let helpers = if is_large { 0 } else { self.options.helpers };
        // Our types have one leaf for each column.
        let work = self.columns.iter_mut().zip(arrays).collect();
        threads::each(work, helpers, |(column, array)| {
            compressors.lend(|compressor| column.write(array, compressor))
        })?;
        if is_large
            || self.memory() >= self.options.row_group_memory
            || self.bytes >= ROW_GROUP_BYTES
        {
            self.end_row_group()?;
        }
        Ok(())
    }

    /// What the open row group takes.
    fn memory(&self) -> usize {
        self.columns.iter().map(ChunkWriter::memory).sum()
    }

    fn end_row_group(&mut self) -> Result<()> {
        if self.columns.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let compressors = &self.compressors;
        let helpers = if self.options.is_for_large {
            0
        } else {
            self.options.helpers
        };
        let columns = std::mem::take(&mut self.columns);
        let chunks = threads::each(columns, helpers, |column| {
            compressors.lend(|compressor| column.close(compressor))
        })?;
        let mut row_group = self.writer.next_row_group().map_err(write_failed)?;
        for (pages, chunk) in chunks {
            row_group
                .append_column(&pages, chunk)
                .map_err(write_failed)?;
        }
        row_group.close().map_err(write_failed)?;
        Ok(())
    }

    /// About how large the file would be if it ended now.
    #[must_use]
    pub fn size(&self) -> u64 {
        let waiting: usize = self.columns.iter().map(ChunkWriter::size).sum();
        (self.writer.bytes_written() + waiting) as u64
    }

    /// About what the file's end takes in memory so far, which grows with its row groups.
    #[must_use]
    pub fn footer_memory(&self) -> usize {
        self.writer.flushed_row_groups().len() * self.schema.num_columns() * FOOTER_ENTRY
    }

    /// Rows written so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes the footer, waits until the disk has the file if it is to be durable, and tells its size and its digest: SHA-256 in base64.
    ///
    /// # Errors
    /// `Transient` when the disk fails or is full.
    pub fn finish(mut self) -> Result<(u64, String)> {
        self.end_row_group()?;
        let buffer = self.writer.into_inner().map_err(write_failed)?;
        buffer
            .into_inner()
            .map_err(|error| storage("write a spool file", error.into_error()))?
            .finish()
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

/// A failure of local storage: `Transient`, or `Configuration` where the directory itself is at fault. A full disk is
/// somebody's to empty and then heals without us, so it is tried again.
pub fn storage(doing: &str, error: std::io::Error) -> Error {
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
    Error::new(kind, format!("could not {doing}: {error}"))
        .with_hint(hint)
        .with_source(error)
        .on_this_machine()
}

#[cfg(test)]
mod tests;

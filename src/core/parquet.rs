//! One Parquet file on local disk: record batches in, a synced file out.

use std::fs::OpenOptions;
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use ::parquet::arrow::ArrowSchemaConverter;
use ::parquet::arrow::arrow_writer::{
    ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use ::parquet::basic::{Compression as Codec, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use ::parquet::file::writer::SerializedFileWriter;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::aside::{Aside, InPieces};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a column's values, each once, up to which a row group says by number which of them a row has. Columns that
/// repeat themselves, as names and days do, become much smaller by it; of others it stops at this size. Parquet writers
/// usually stop here, and readers have the whole table of a column in memory.
const DICTIONARY_BYTES: usize = 1 << 20;

/// What a dictionary takes before it holds much: the table in which values are found again. Results of very many columns
/// have no dictionaries, and leave repetition to the compression.
const DICTIONARY_TABLE: usize = 80 << 10;

/// Bytes of values that a row group holds, however well they compress: whoever reads the file has them in memory again.
const ROW_GROUP_BYTES: usize = 256 << 20;

/// About what a row group keeps in memory for each column until its file ends: where it is, and how it is encoded.
const FOOTER_ENTRY: usize = 1 << 10;

/// What may take longer than somebody who wants to stop it should wait, to compress or to sync.
const LONG_BYTES: usize = 4 << 20;

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
    writer: SerializedFileWriter<BufWriter<InPieces>>,
    schema: SchemaRef,
    row_groups: ArrowRowGroupWriterFactory,
    /// The columns of the open row group; none where none is open.
    columns: Vec<ArrowColumnWriter>,
    rows: u64,
    /// Of the open row group, not encoded.
    bytes: usize,
    /// Encoded bytes that a row group may hold in memory before it goes to disk.
    row_group_memory: usize,
    is_for_large: bool,
    aside: Aside,
}

impl FileWriter {
    /// Creates the file, readable by us alone. It must not exist. A row group ends when it takes `row_group_memory` bytes.
    ///
    /// A file for `large` batches compresses their values only when their row group ends: they are then in memory as what
    /// they become, and not any more as what they were.
    ///
    /// # Errors
    /// `Transient` when the disk fails or is full, `Configuration` when it refuses us.
    pub fn create(
        path: &Path,
        schema: SchemaRef,
        compression: Compression,
        row_group_memory: usize,
        aside: Aside,
        is_for_large: bool,
    ) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| storage("create a spool file", error))?;
        let mut properties = WriterProperties::builder()
            .set_compression(compression.codec()?)
            .set_dictionary_page_size_limit(DICTIONARY_BYTES)
            // COPY reads a file once and whole, so nobody asks which values lie where; and to know the least and the
            // greatest of large values, both would be kept in memory.
            .set_statistics_enabled(EnabledStatistics::None)
            .set_offset_index_disabled(true)
            .set_created_by(concat!("snowflake_bridge ", env!("CARGO_PKG_VERSION")).to_owned());
        if is_for_large {
            properties = properties.set_data_page_size_limit(usize::MAX);
        }
        if is_for_large || schema.fields().len() * DICTIONARY_TABLE > row_group_memory {
            properties = properties.set_dictionary_enabled(false);
        }
        // Without the Arrow schema in the file's metadata, everybody reads the types that Snowflake reads.
        let types = ArrowSchemaConverter::new()
            .convert(&schema)
            .map_err(write_failed)?;
        let writer = SerializedFileWriter::new(
            BufWriter::new(InPieces { file, aside }),
            types.root_schema_ptr(),
            Arc::new(properties.build()),
        )
        .map_err(write_failed)?;
        Ok(Self {
            row_groups: ArrowRowGroupWriterFactory::new(&writer, Arc::clone(&schema)),
            writer,
            schema,
            columns: Vec::new(),
            rows: 0,
            bytes: 0,
            row_group_memory,
            is_for_large,
            aside,
        })
    }

    /// Whether the file was made for large batches.
    #[must_use]
    pub fn is_for_large(&self) -> bool {
        self.is_for_large
    }

    /// Adds rows, whose memory is given back column by column. Those of a large batch do not come on top of what waits.
    ///
    /// # Errors
    /// `Transient` when the disk fails or is full.
    pub fn write(&mut self, batch: RecordBatch, is_large: bool) -> Result<()> {
        if is_large {
            self.end_row_group()?;
        }
        let bytes = batch.get_array_memory_size();
        if self.columns.is_empty() {
            let index = self.writer.flushed_row_groups().len();
            self.columns = self
                .row_groups
                .create_column_writers(index)
                .map_err(write_failed)?;
        }
        self.bytes += bytes;
        self.rows += batch.num_rows() as u64;
        let (_, arrays, _) = batch.into_parts();
        // Our types have one leaf for each column.
        let mut columns = self.columns.iter_mut();
        for (field, array) in self.schema.fields().iter().zip(arrays) {
            for (leaf, column) in compute_leaves(field, &array)
                .map_err(write_failed)?
                .into_iter()
                .zip(&mut columns)
            {
                column.write(&leaf).map_err(write_failed)?;
            }
        }
        if self.memory() >= self.row_group_memory || self.bytes >= ROW_GROUP_BYTES {
            self.end_row_group()?;
        }
        Ok(())
    }

    /// What the open row group takes. Neither of the two sizes knows all that a column holds.
    fn memory(&self) -> usize {
        self.columns
            .iter()
            .map(|column| column.memory_size().max(column.get_estimated_total_bytes()))
            .sum()
    }

    fn end_row_group(&mut self) -> Result<()> {
        if self.columns.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let mut row_group = self.writer.next_row_group().map_err(write_failed)?;
        for column in std::mem::take(&mut self.columns) {
            // Large values are compressed here, and others have been.
            let chunk = if column.memory_size() >= LONG_BYTES {
                self.aside.run(|| column.close())?
            } else {
                column.close()
            };
            chunk
                .and_then(|chunk| chunk.append_to_row_group(&mut row_group))
                .map_err(write_failed)?;
        }
        row_group.close().map_err(write_failed)?;
        Ok(())
    }

    /// About how large the file would be if it ended now.
    #[must_use]
    pub fn size(&self) -> u64 {
        let waiting: usize = self
            .columns
            .iter()
            .map(ArrowColumnWriter::get_estimated_total_bytes)
            .sum();
        (self.writer.bytes_written() + waiting) as u64
    }

    /// About what the file's end takes in memory so far, which grows with its row groups.
    #[must_use]
    pub fn footer_memory(&self) -> usize {
        self.writer.flushed_row_groups().len() * self.schema.fields().len() * FOOTER_ENTRY
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
    pub fn finish(mut self) -> Result<u64> {
        self.end_row_group()?;
        let buffer = self.writer.into_inner().map_err(write_failed)?;
        let file = buffer
            .into_inner()
            .map_err(|error| storage("write a spool file", error.into_error()))?
            .file;
        let bytes = file
            .metadata()
            .map_err(|error| storage("read the size of a spool file", error))?
            .len();
        let sync = move || file.sync_all();
        if bytes >= LONG_BYTES as u64 {
            self.aside.run(sync)?
        } else {
            sync()
        }
        .map_err(|error| storage("sync a spool file", error))?;
        Ok(bytes)
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
    Error::new(kind, format!("could not {doing}: {error}"))
        .with_hint(hint)
        .with_source(error)
        .on_this_machine()
}

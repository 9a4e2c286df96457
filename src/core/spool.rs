//! The files of one upload on local disk, between reading the rows and sending them.

mod files;

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::Schema;
use chrono::{DateTime, Utc};
use rustix::fs::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::files::{Batch, Encoder, Files};
use crate::aside::Aside;
use crate::batch::{BatchBuilder, RowSink, Value, field};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::MemoryLimit;
use crate::names::{ROW_ORDINAL, USER_ID, metadata_columns};
use crate::parquet::Compression;
pub use crate::parquet::storage;
use crate::types::{Column, ColumnType};

/// Rows of a batch: enough to make the cost of a batch disappear, and few enough to stay near the processor.
const BATCH_ROWS: usize = 16_384;

/// Eighteen digits are plenty of rows, and the widest decimal that Parquet stores as a plain 64-bit integer.
const ORDINAL_TYPE: ColumnType = ColumnType::Number {
    precision: 18,
    scale: 0,
};

/// What every row of an upload carries beside its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The execution that the rows belong to.
    pub execution_id: String,
    /// The user that the execution belongs to.
    pub user_id: Option<String>,
    /// The upload that brings the rows.
    pub upload_id: Uuid,
    /// When the upload began.
    pub uploaded_at: DateTime<Utc>,
}

/// How the files are made.
#[derive(Debug, Clone, Copy)]
pub struct SpoolOptions {
    /// A file that has grown to this many bytes is ended, and the next one begun.
    pub target_file_size: u64,
    /// How its pages are compressed.
    pub compression: Compression,
    /// What bounds the rows in memory.
    pub memory: MemoryLimit,
    /// What encodes while rows are read.
    pub aside: Aside,
    /// They are needed after the machine has crashed: nobody could read the rows again.
    pub is_durable: bool,
}

impl SpoolOptions {
    /// The usual compression, files of this many bytes, that much memory, one thread, and rows that can be read again.
    #[must_use]
    pub fn new(target_file_size: u64, memory: MemoryLimit) -> Self {
        Self {
            target_file_size,
            compression: Compression::default(),
            memory,
            aside: Aside::default(),
            is_durable: false,
        }
    }
}

/// A finished file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolFile {
    /// Its name in the spool directory and on the stage.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// What was read and where it is: everything that sending needs to know about the rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What the table gets: the columns of the result, then those of the stamp.
    pub columns: Vec<Column>,
    /// The files in the order of their rows; none for a result without rows.
    pub files: Vec<SpoolFile>,
    /// The rows of all files.
    pub rows: u64,
    /// The size of all files.
    pub bytes: u64,
    /// The time window that the execution's parameters name, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<TimeWindow>,
    /// The relation that was read, if its caller named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<String>,
}

impl Manifest {
    /// Whether its columns have the names and types of another one's, in the same order.
    #[must_use]
    pub fn has_columns_of(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&Column, &Column)| {
            one.name == other.name && one.column_type == other.column_type
        };
        self.columns.len() == other.columns.len()
            && self.columns.iter().zip(&other.columns).all(is_same)
    }
}

/// The time that an execution is about, as its parameters have it: `time_window_start` and `time_window_end`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeWindow {
    /// Where it begins.
    pub start: String,
    /// Where it ends.
    pub end: String,
}

impl TimeWindow {
    /// The window between two ends; `None` unless both are there.
    #[must_use]
    pub fn new(start: Option<String>, end: Option<String>) -> Option<Self> {
        let end_of = |text: Option<String>| text.filter(|text| !text.is_empty());
        Some(Self {
            start: end_of(start)?,
            end: end_of(end)?,
        })
    }
}

/// Writes the rows of one upload into files. Until [`finish`](Self::finish), dropping it removes them.
pub struct SpoolWriter {
    dir: PathBuf,
    memory: MemoryLimit,
    columns: Vec<Column>,
    /// The rows belong to no user.
    lacks_user: bool,
    batch: BatchBuilder,
    row: RowSize,
    encoder: Encoder,
    /// Rows in batches that were given away.
    rows: u64,
    /// Bytes of those that were encoded.
    bytes: Arc<AtomicU64>,
    is_durable: bool,
    finished: bool,
}

impl SpoolWriter {
    /// Takes the directory `dir` for the files: makes it, for us alone, or empties it of what a crash left there.
    ///
    /// # Errors
    /// `Configuration` when the directory is not ours to use, `Transient` when the disk fails.
    pub fn create(
        dir: &Path,
        columns: &[Column],
        stamp: &Stamp,
        options: &SpoolOptions,
    ) -> Result<Self> {
        prepare(dir)?;
        if options.is_durable
            && let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty())
        {
            sync_dir(parent)?;
        }
        let mut all = columns.to_vec();
        all.extend(metadata_columns());
        let mut fields: Vec<_> = all.iter().map(field).collect();
        fields.push(field(&Column::new(ROW_ORDINAL, ORDINAL_TYPE)));
        let schema = Arc::new(Schema::new(fields));
        let files = Files::new(dir.to_owned(), *options, stamp.clone(), schema);
        Ok(Self {
            dir: dir.to_owned(),
            memory: options.memory,
            columns: all,
            lacks_user: stamp.user_id.is_none(),
            batch: BatchBuilder::new(columns),
            row: RowSize::default(),
            bytes: Arc::clone(&files.bytes),
            encoder: Encoder::Here(Box::new(files)),
            rows: 0,
            is_durable: options.is_durable,
            finished: false,
        })
    }

    /// Rows taken so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows + self.batch.rows() as u64
    }

    /// About how many bytes the files have so far. Rows that are still to be encoded do not count, which are bounded by
    /// [`SpoolOptions::memory`].
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Ends the last file, waits until the disk has everything that is to be durable, and tells what there is.
    ///
    /// # Errors
    /// `Transient` when the disk fails or is full.
    pub fn finish(mut self) -> Result<Manifest> {
        self.flush_batch(false)?;
        let files = self.encoder.finish()?;
        if self.is_durable {
            sync_dir(&self.dir)?;
        }
        self.finished = true;
        Ok(Manifest {
            columns: std::mem::take(&mut self.columns),
            rows: self.rows,
            bytes: files.iter().map(|file| file.bytes).sum(),
            window: None,
            relation: None,
            files,
        })
    }

    fn flush_batch(&mut self, more: bool) -> Result<()> {
        let rows = self.batch.rows();
        if rows == 0 {
            return Ok(());
        }
        let is_large = self.batch.approximate_bytes() >= self.memory.row_group();
        let batch = Batch {
            rows: self.batch.finish_batch()?,
            is_large,
        };
        let (of_result, of_stamp) = self.columns.split_at_mut(batch.rows.num_columns());
        for (column, values) in of_result.iter_mut().zip(batch.rows.columns()) {
            column.has_nulls |= values.null_count() > 0;
        }
        for column in of_stamp {
            column.has_nulls |= self.lacks_user && column.name == USER_ID;
        }
        self.rows += rows as u64;
        self.encoder.write(batch, more)
    }

    fn row_too_large(&self, most: usize) -> Error {
        Error::new(
            ErrorKind::Data,
            format!(
                "row {}: besides the largest of its values, the others take more than {most} bytes",
                self.rows() + 1
            ),
        )
        .with_hint("They have to be in memory together: raise snowflake_bridge.max_memory, of which an eighth is for this, or leave columns out.")
    }
}

/// What the values of the row take that is being written.
#[derive(Debug, Default)]
struct RowSize {
    bytes: usize,
    largest: usize,
}

impl RowSize {
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.largest = self.largest.max(bytes);
    }

    fn beside_largest(&self) -> usize {
        self.bytes - self.largest
    }
}

impl RowSink for SpoolWriter {
    #[inline]
    fn append(&mut self, column: usize, value: Value<'_>) -> Result<()> {
        let bytes = self.batch.add(column, value)?;
        self.row.add(bytes);
        let most = self.memory.row();
        if self.row.beside_largest() > most {
            return Err(self.row_too_large(most));
        }
        Ok(())
    }

    fn end_row(&mut self) -> Result<()> {
        self.row = RowSize::default();
        self.batch.end_row()?;
        let is_full = self.batch.approximate_bytes() >= self.memory.batch();
        if is_full || self.batch.rows() >= BATCH_ROWS {
            self.flush_batch(true)?;
        }
        Ok(())
    }
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        if !self.finished {
            self.encoder.abandon();
            remove(&self.dir);
        }
    }
}

/// Makes a file with room for `bytes`, which can be written later even when the disk is full by then.
///
/// # Errors
/// As [`storage`].
pub fn reserve(path: &Path, bytes: u64) -> Result<()> {
    File::create(path)
        .and_then(|file| Ok(fallocate(file, FallocateFlags::empty(), 0, bytes)?))
        .map_err(|error| storage("reserve room in the spool directory", error))
}

/// Removes a spool directory with all its files, as far as the disk lets us: what stays is a leftover like a crash's, which
/// the next look at the spool finds again.
pub fn remove(dir: &Path) {
    let _ = fs::remove_dir_all(dir);
}

fn file_name(index: usize) -> String {
    format!("part-{index:05}.parquet")
}

/// Makes the directory, or empties the one that a crash left; never follows a symbolic link into somebody else's.
fn prepare(dir: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let metadata = fs::symlink_metadata(dir)
                .map_err(|error| storage("look at a spool directory", error))?;
            if !metadata.is_dir() {
                return Err(storage(
                    "use a spool directory",
                    std::io::ErrorKind::NotADirectory.into(),
                ));
            }
            fs::set_permissions(dir, Permissions::from_mode(0o700))
                .map_err(|error| storage("protect a spool directory", error))?;
            remove_leftovers(dir)?;
        }
        Err(error) => return Err(storage("create a spool directory", error)),
    }
    Ok(())
}

/// Removes files that carry our names, and nothing else: a wrong setting must not empty somebody's directory.
fn remove_leftovers(dir: &Path) -> Result<()> {
    let failed = |error| storage("remove leftovers of a spool directory", error);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("part-") && name.ends_with(".parquet") {
            fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| storage("sync a spool directory", error))
}

#[cfg(test)]
mod tests;

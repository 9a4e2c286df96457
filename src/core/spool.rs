//! The files of one upload on local disk, between reading the rows and sending them.

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::aside::Aside;
use crate::batch::{BatchBuilder, RowSink, Value, field};
use crate::error::{Error, ErrorKind, Result};
use crate::memory::MemoryLimit;
use crate::names::{ROW_ORDINAL, metadata_columns};
use crate::parquet::{Compression, FileWriter, storage};
use crate::types::{Column, ColumnType};

/// Rows of a batch: Arrow's own customary number, enough to make the cost of a batch disappear.
const BATCH_ROWS: usize = 8_192;

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
    /// Who does what takes long in one piece.
    pub aside: Aside,
}

impl SpoolOptions {
    /// The usual compression, files of this many bytes, and that much memory.
    #[must_use]
    pub fn new(target_file_size: u64, memory: MemoryLimit) -> Self {
        Self {
            target_file_size,
            compression: Compression::default(),
            memory,
            aside: Aside::default(),
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
    options: SpoolOptions,
    stamp: Stamp,
    columns: Vec<Column>,
    schema: SchemaRef,
    batch: BatchBuilder,
    row: RowSize,
    current: Option<FileWriter>,
    files: Vec<SpoolFile>,
    /// Rows in batches that were written.
    rows: u64,
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
        let mut all = columns.to_vec();
        all.extend(metadata_columns());
        let mut fields: Vec<_> = all.iter().map(field).collect();
        fields.push(field(&Column::new(ROW_ORDINAL, ORDINAL_TYPE)));
        Ok(Self {
            dir: dir.to_owned(),
            options: *options,
            stamp: stamp.clone(),
            columns: all,
            schema: Arc::new(Schema::new(fields)),
            batch: BatchBuilder::new(columns),
            row: RowSize::default(),
            current: None,
            files: Vec::new(),
            rows: 0,
            finished: false,
        })
    }

    /// The files finished so far; they never change again and may be sent.
    #[must_use]
    pub fn files(&self) -> &[SpoolFile] {
        &self.files
    }

    /// Rows taken so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows + self.batch.rows() as u64
    }

    /// Ends the last file, waits until the disk has everything, and tells what there is.
    ///
    /// # Errors
    /// `Transient` when the disk fails or is full.
    pub fn finish(mut self) -> Result<Manifest> {
        self.flush_batch()?;
        self.end_file()?;
        sync_dir(&self.dir)?;
        self.finished = true;
        Ok(Manifest {
            columns: std::mem::take(&mut self.columns),
            rows: self.rows,
            bytes: self.files.iter().map(|file| file.bytes).sum(),
            window: None,
            files: std::mem::take(&mut self.files),
        })
    }

    fn flush_batch(&mut self) -> Result<()> {
        let rows = self.batch.rows();
        if rows == 0 {
            return Ok(());
        }
        let is_large = self.batch.approximate_bytes() >= self.options.memory.row_group();
        let (_, mut arrays, _) = self.batch.finish_batch()?.into_parts();
        arrays.extend(self.stamp_arrays(rows));
        arrays.push(self.ordinals(rows));
        let batch = RecordBatch::try_new(self.schema.clone(), arrays).map_err(|error| {
            Error::new(ErrorKind::Internal, "a batch does not match its columns").with_source(error)
        })?;
        if is_large
            && self
                .current
                .as_ref()
                .is_some_and(|writer| !writer.is_for_large())
        {
            self.end_file()?;
        }
        let writer = match &mut self.current {
            Some(writer) => writer,
            None => {
                let path = self.dir.join(file_name(self.files.len()));
                self.current.insert(FileWriter::create(
                    &path,
                    self.schema.clone(),
                    self.options.compression,
                    self.options.memory.row_group(),
                    self.options.aside,
                    is_large,
                )?)
            }
        };
        writer.write(batch, is_large)?;
        self.rows += rows as u64;
        if writer.size() >= self.options.target_file_size
            || writer.footer_memory() >= self.options.memory.row_group()
        {
            self.end_file()?;
        }
        Ok(())
    }

    /// In the order of [`metadata_columns`].
    fn stamp_arrays(&self, rows: usize) -> [ArrayRef; 4] {
        let text = |text: &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(
                text, rows,
            )))
        };
        let uploaded_at =
            TimestampMicrosecondArray::from_value(self.stamp.uploaded_at.timestamp_micros(), rows);
        [
            text(&self.stamp.execution_id),
            Arc::new(uploaded_at.with_timezone("UTC")),
            self.stamp
                .user_id
                .as_deref()
                .map_or_else(|| new_null_array(&DataType::Utf8, rows), text),
            text(&self.stamp.upload_id.to_string()),
        ]
    }

    fn ordinals(&self, rows: usize) -> ArrayRef {
        let first = i128::from(self.rows) + 1;
        Arc::new(
            Decimal128Array::from_iter_values((first..).take(rows))
                .with_data_type(ORDINAL_TYPE.arrow()),
        )
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

    fn end_file(&mut self) -> Result<()> {
        if let Some(writer) = self.current.take() {
            let rows = writer.rows();
            let bytes = writer.finish()?;
            self.files.push(SpoolFile {
                name: file_name(self.files.len()),
                rows,
                bytes,
            });
        }
        Ok(())
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
    fn append(&mut self, column: usize, value: Value<'_>) -> Result<()> {
        let before = self.batch.approximate_bytes();
        self.batch.append(column, value)?;
        self.row.add(self.batch.approximate_bytes() - before);
        let most = self.options.memory.row();
        if self.row.beside_largest() > most {
            return Err(self.row_too_large(most));
        }
        Ok(())
    }

    fn end_row(&mut self) -> Result<()> {
        self.row = RowSize::default();
        self.batch.end_row()?;
        let is_full = self.batch.approximate_bytes() >= self.options.memory.batch();
        if is_full || self.batch.rows() >= BATCH_ROWS {
            self.flush_batch()?;
        }
        Ok(())
    }
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        if !self.finished {
            self.current = None;
            remove(&self.dir);
        }
    }
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
    dir.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .map_or(Ok(()), sync_dir)
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

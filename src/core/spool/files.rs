//! Batches of rows into the files of a spool directory, on the caller's thread or on one of its own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    ArrayRef, Decimal64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, SchemaRef};

use super::{ORDINAL_TYPE, SpoolFile, SpoolOptions, Stamp};
use crate::aside::Aside;
use crate::error::{Error, ErrorKind, Result};
use crate::names::ROW_ORDINAL;
use crate::parquet::{FileOptions, FileWriter};
use crate::threads::{helpers, panicked};
use crate::types::Column;

/// Bytes of batches in memory from which on what the allocator keeps of them is worth giving back.
const MUCH: usize = 4 << 20;

/// The files of a spool directory, as far as they have come.
pub(super) struct Files {
    pub(super) dir: PathBuf,
    pub(super) options: SpoolOptions,
    pub(super) stamp: Stamp,
    pub(super) schema: SchemaRef,
    current: Option<FileWriter>,
    /// What its batches have taken in memory, one after another; arrays that they share count for each.
    allocated: usize,
    /// What the rows of the last batch carried, which those of one of the same size carry too.
    stamped: Option<[ArrayRef; 4]>,
    files: Vec<SpoolFile>,
    /// Rows that were written.
    rows: u64,
    /// Bytes that they take, with those that wait to be written.
    pub(super) bytes: Arc<AtomicU64>,
    helpers: usize,
    /// Nobody wants them any more, and no further one may be made. Held while one is.
    abandoned: Arc<Mutex<bool>>,
}

impl Files {
    pub(super) fn new(
        dir: PathBuf,
        options: SpoolOptions,
        stamp: Stamp,
        schema: SchemaRef,
    ) -> Self {
        Self {
            dir,
            options,
            stamp,
            schema,
            current: None,
            allocated: 0,
            stamped: None,
            files: Vec::new(),
            rows: 0,
            bytes: Arc::default(),
            helpers: 0,
            abandoned: Arc::default(),
        }
    }

    /// Adds rows, and what each of them carries beside the result.
    fn write(&mut self, batch: Batch) -> Result<()> {
        let Batch { rows, is_large } = batch;
        let count = rows.num_rows();
        let (_, mut arrays, _) = rows.into_parts();
        arrays.extend(self.stamp_arrays(count));
        arrays.push(self.ordinals(count));
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
                let path = self.dir.join(super::file_name(self.files.len()));
                let abandoned = self
                    .abandoned
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if *abandoned {
                    return Err(ended());
                }
                let options = FileOptions {
                    compression: self.options.compression,
                    row_group_memory: self.options.memory.row_group(),
                    is_for_large: is_large,
                    helpers: self.helpers,
                    is_durable: self.options.is_durable,
                };
                self.current
                    .insert(FileWriter::create(&path, &self.schema, options)?)
            }
        };
        self.allocated += batch.get_array_memory_size();
        writer.write(batch, is_large)?;
        self.rows += count as u64;
        let ended: u64 = self.files.iter().map(|file| file.bytes).sum();
        self.bytes.store(ended + writer.size(), Ordering::Relaxed);
        if writer.size() >= self.options.target_file_size
            || writer.footer_memory() >= self.options.memory.row_group()
        {
            self.end_file()?;
        }
        Ok(())
    }

    /// In the order of [`metadata_columns`](crate::names::metadata_columns).
    fn stamp_arrays(&mut self, rows: usize) -> [ArrayRef; 4] {
        match &self.stamped {
            Some(arrays) if arrays.iter().all(|array| array.len() == rows) => arrays.clone(),
            _ => {
                let arrays = self.new_stamp_arrays(rows);
                self.stamped.insert(arrays).clone()
            }
        }
    }

    fn new_stamp_arrays(&self, rows: usize) -> [ArrayRef; 4] {
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
        let first = self.rows.cast_signed() + 1;
        let column = Column::new(ROW_ORDINAL, ORDINAL_TYPE);
        Arc::new(
            Decimal64Array::from_iter_values(first..first + rows as i64)
                .with_data_type(column.arrow()),
        )
    }

    fn end_file(&mut self) -> Result<()> {
        if let Some(writer) = self.current.take() {
            let rows = writer.rows();
            let (bytes, digest) = writer.finish()?;
            self.files.push(SpoolFile {
                name: super::file_name(self.files.len()),
                rows,
                bytes,
                digest: Some(digest),
            });
            // What two threads allocate and free for each other leaves holes, more with every file. For a small one it would cost more
            // than writing it did.
            if std::mem::take(&mut self.allocated) >= MUCH {
                (self.options.aside.give_back)();
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<SpoolFile>> {
        self.end_file()?;
        Ok(self.files)
    }
}

/// Rows on their way into a file. Those of a large batch are waited for: there is no room for others beside them.
pub(super) struct Batch {
    pub(super) rows: RecordBatch,
    pub(super) is_large: bool,
}

/// Who writes the files.
pub(super) enum Encoder {
    /// The caller.
    Here(Box<Files>),
    /// A thread, which ends when it is left or fails.
    There(Encoding),
    /// Nobody any more.
    Ended,
}

/// Batches that a thread may have while another is filled: one that it writes, and the next one.
const AT_ONCE: usize = 2;

/// A thread that writes files.
pub(super) struct Encoding {
    aside: Aside,
    batches: Option<Sender<Batch>>,
    /// Told when a batch is written.
    written: Receiver<()>,
    /// Batches of which that was not told yet.
    under_way: usize,
    result: Receiver<Result<Vec<SpoolFile>>>,
    abandoned: Arc<Mutex<bool>>,
}

impl Encoder {
    /// Writes rows, or has them written. There are `more` to come, unless these are the last.
    ///
    /// # Errors
    /// What writing these or earlier ones has met.
    pub(super) fn write(&mut self, batch: Batch, more: bool) -> Result<()> {
        if more {
            *self = match std::mem::replace(self, Self::Ended) {
                Self::Here(files) if files.options.aside.start.is_some() => {
                    Self::There(Encoding::start(*files)?)
                }
                other => other,
            };
        }
        match self {
            Self::Here(files) => files.write(batch),
            Self::There(encoding) => encoding.write(batch),
            Self::Ended => Err(ended()),
        }
    }

    /// Ends the last file.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(super) fn finish(&mut self) -> Result<Vec<SpoolFile>> {
        match std::mem::replace(self, Self::Ended) {
            Self::Here(files) => files.finish(),
            Self::There(mut encoding) => encoding.end(),
            Self::Ended => Err(ended()),
        }
    }

    /// Lets go of the file that is being written: what is in the directory now may be removed.
    pub(super) fn abandon(&mut self) {
        *self = Self::Ended;
    }
}

impl Encoding {
    fn start(mut files: Files) -> Result<Self> {
        let aside = files.options.aside;
        let (batches, incoming) = mpsc::channel::<Batch>();
        let (done, written) = mpsc::channel();
        let (outcome, result) = mpsc::channel();
        let abandoned = Arc::clone(&files.abandoned);
        files.helpers = helpers();
        let work = move || {
            let write_all = || {
                for batch in incoming {
                    files.write(batch)?;
                    // Nobody waits any more where the rest was given up.
                    let _ = done.send(());
                }
                if *files
                    .abandoned
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                {
                    return Err(ended());
                }
                files.finish()
            };
            let _ = outcome.send(write_all());
        };
        let start = aside.start.ok_or_else(ended)?;
        start(Box::new(work)).map_err(|error| {
            Error::new(ErrorKind::Transient, "cannot start a thread")
                .with_source(error)
                .on_this_machine()
        })?;
        Ok(Self {
            aside,
            batches: Some(batches),
            written,
            under_way: 0,
            result,
            abandoned,
        })
    }

    fn write(&mut self, batch: Batch) -> Result<()> {
        let most = if batch.is_large { 0 } else { AT_ONCE };
        let sent = self
            .batches
            .as_ref()
            .is_some_and(|batches| batches.send(batch).is_ok());
        self.under_way += 1;
        while self.under_way > most {
            if !sent || self.aside.wait(&self.written).is_none() {
                // It takes no more only because it has failed.
                return self.end().and_then(|_| Err(ended()));
            }
            self.under_way -= 1;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<Vec<SpoolFile>> {
        self.batches = None;
        self.aside
            .wait(&self.result)
            .unwrap_or_else(|| Err(panicked()))
    }
}

impl Drop for Encoding {
    /// Does not wait: what the thread still does, it does to files that have been removed.
    fn drop(&mut self) {
        *self
            .abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
    }
}

fn ended() -> Error {
    Error::new(
        ErrorKind::Internal,
        "rows come after the last file was ended",
    )
}

//! One column of one row group: arrays in, compressed pages out. Written for our few types, and for a reader who reads all of
//! it once: values go from memory into the page as they are, without a detour over levels and indices of each of them.

use std::sync::{Mutex, PoisonError};

use ::parquet::basic::{Compression as Codec, Encoding, Type as PhysicalType};
use ::parquet::column::page::{CompressedPage, Page};
use ::parquet::column::writer::ColumnCloseResult;
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::ColumnChunkMetaData;
use ::parquet::file::reader::Length;
use ::parquet::schema::types::ColumnDescPtr;
use arrow::array::{Array, ArrayRef};
use bytes::Bytes;

use super::dictionary::Dictionary;
use super::page::{Layout, Levels, Values, pack};
use super::pages::Pages;
use super::write_failed;
use crate::error::{Error, ErrorKind, Result};

/// Plain bytes after which a page ends: enough for compression to find what repeats.
const PAGE_BYTES: usize = 512 << 10;

/// The same in rows, for pages of numbers of few bits.
const PAGE_ROWS: usize = 128 << 10;

/// What compresses pages; making one costs more than a small page does.
pub(super) struct Compressor {
    codec: Codec,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    plain: Vec<u8>,
    packed: Vec<u8>,
}

/// Compressors that nobody uses at the moment.
pub(super) struct Compressors {
    codec: Codec,
    idle: Mutex<Vec<Compressor>>,
}

impl Compressors {
    pub(super) fn new(codec: Codec) -> Self {
        Self {
            codec,
            idle: Mutex::default(),
        }
    }

    /// Lends one to `work`.
    ///
    /// # Errors
    /// `Internal` if one cannot be made; what `work` returns.
    pub(super) fn lend<T>(&self, work: impl FnOnce(&mut Compressor) -> Result<T>) -> Result<T> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let known = idle().pop();
        let mut compressor = match known {
            Some(compressor) => compressor,
            None => Compressor::new(self.codec)?,
        };
        let result = work(&mut compressor);
        idle().push(compressor);
        result
    }
}

impl Compressor {
    fn new(codec: Codec) -> Result<Self> {
        let zstd = match codec {
            Codec::ZSTD(level) => Some(
                zstd::bulk::Compressor::new(level.compression_level()).map_err(not_compressed)?,
            ),
            _ => None,
        };
        Ok(Self {
            codec,
            zstd,
            plain: Vec::new(),
            packed: Vec::new(),
        })
    }

    /// What `self.plain` holds, as it goes into the file, and the size it had.
    fn compress(&mut self) -> Result<(Bytes, usize)> {
        let size = self.plain.len();
        let packed = match &mut self.zstd {
            None => Bytes::from(std::mem::take(&mut self.plain)),
            Some(zstd) => {
                self.packed.clear();
                self.packed.reserve(zstd::zstd_safe::compress_bound(size));
                zstd.compress_to_buffer(&self.plain, &mut self.packed)
                    .map_err(not_compressed)?;
                Bytes::from(std::mem::take(&mut self.packed))
            }
        };
        self.plain.clear();
        // What a large value took is given back.
        if self.plain.capacity() > 4 * PAGE_BYTES {
            self.plain = Vec::new();
        }
        Ok((packed, size))
    }

    /// Takes back what [`compress`](Self::compress) gave, to be used again.
    fn take_back(&mut self, bytes: Bytes) {
        if let Ok(bytes) = bytes.try_into_mut()
            && bytes.capacity() <= 4 * PAGE_BYTES
        {
            self.packed = bytes.into();
        }
    }
}

fn not_compressed(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, "could not compress a page").with_source(cause)
}

/// A page of numbers that waits for its dictionary, which stands before it in the file.
struct Waiting {
    page: Bytes,
    size: usize,
    rows: u32,
    encoding: Encoding,
}

/// A column of the open row group.
pub(super) struct ChunkWriter {
    descriptor: ColumnDescPtr,
    layout: Layout,
    pages: Pages,
    levels: Levels,
    values: Values,
    dictionary: Option<Dictionary>,
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
    rows: u64,
    uncompressed: u64,
    dictionary_offset: Option<u64>,
    data_offset: Option<u64>,
    has_numbers: bool,
    has_values: bool,
}

impl ChunkWriter {
    /// An empty column.
    ///
    /// # Errors
    /// `Internal` for a column that none of our types makes.
    pub(super) fn new(descriptor: ColumnDescPtr, has_dictionary: bool) -> Result<Self> {
        let layout = match descriptor.physical_type() {
            PhysicalType::BOOLEAN => Layout::Bit,
            PhysicalType::INT32 => Layout::Little(4),
            PhysicalType::INT64 | PhysicalType::DOUBLE => Layout::Little(8),
            PhysicalType::BYTE_ARRAY => Layout::Counted,
            PhysicalType::FIXED_LEN_BYTE_ARRAY => usize::try_from(descriptor.type_length())
                .ok()
                .filter(|size| *size <= 16)
                .map(Layout::Big)
                .ok_or_else(|| unknown(&descriptor))?,
            _ => return Err(unknown(&descriptor)),
        };
        let dictionary = (has_dictionary && Dictionary::suits(layout)).then(Dictionary::default);
        Ok(Self {
            descriptor,
            layout,
            pages: Pages::default(),
            levels: Levels::default(),
            values: Values::default(),
            dictionary,
            waiting: Vec::new(),
            waiting_bytes: 0,
            rows: 0,
            uncompressed: 0,
            dictionary_offset: None,
            data_offset: None,
            has_numbers: false,
            has_values: false,
        })
    }

    /// Bytes that it holds.
    pub(super) fn memory(&self) -> usize {
        self.size() + self.values.len() + self.dictionary.as_ref().map_or(0, Dictionary::memory)
    }

    /// About the bytes that it will take in the file, without the open page.
    pub(super) fn size(&self) -> usize {
        self.pages.len() as usize + self.waiting_bytes
    }

    /// Adds values, whose memory is given back before they are compressed.
    ///
    /// # Errors
    /// `Internal` for an array that the column cannot be made of.
    pub(super) fn write(&mut self, array: ArrayRef, compressor: &mut Compressor) -> Result<()> {
        let rows = array.len();
        self.levels.append(rows, array.nulls());
        self.rows += rows as u64;
        let mut done = 0;
        if let Some(dictionary) = &mut self.dictionary {
            done = dictionary.append(self.layout, &array)?;
            if dictionary.is_useless() {
                self.give_up_dictionary(compressor)?;
            }
        }
        if done == 0 {
            self.values.append(self.layout, &array)?;
        } else if done < rows {
            self.values
                .append(self.layout, &array.slice(done, rows - done))?;
        }
        drop(array);
        if self.values.len() >= PAGE_BYTES || self.levels.rows() >= PAGE_ROWS {
            self.end_page(compressor)?;
        }
        Ok(())
    }

    /// From here on values are written as they are. Those of the open page become such.
    fn give_up_dictionary(&mut self, compressor: &mut Compressor) -> Result<()> {
        if let Some(mut dictionary) = self.dictionary.take() {
            dictionary.spell_out(&mut self.values);
            self.write_dictionary(&mut dictionary, compressor)?;
        }
        Ok(())
    }

    fn end_page(&mut self, compressor: &mut Compressor) -> Result<()> {
        // A page has less than 2^31 rows.
        let rows = self.levels.rows() as u32;
        if rows == 0 {
            return Ok(());
        }
        self.levels.encode(&mut compressor.plain);
        match &mut self.dictionary {
            Some(dictionary) => {
                // Where all are NULL so far, nobody needs a dictionary.
                let encoding = if dictionary.len() == 0 {
                    Encoding::PLAIN
                } else {
                    let numbers = dictionary.take_numbers();
                    pack(&numbers, dictionary.len(), &mut compressor.plain);
                    Encoding::RLE_DICTIONARY
                };
                let (page, size) = compressor.compress()?;
                // Without the room that was reserved for it.
                let kept = Bytes::copy_from_slice(&page);
                compressor.take_back(page);
                self.waiting_bytes += kept.len();
                self.waiting.push(Waiting {
                    page: kept,
                    size,
                    rows,
                    encoding,
                });
            }
            None => {
                self.values.encode(&mut compressor.plain);
                let (page, size) = compressor.compress()?;
                self.write_page(page.clone(), size, rows, Encoding::PLAIN)?;
                self.has_values = true;
                compressor.take_back(page);
            }
        }
        Ok(())
    }

    fn write_page(&mut self, buf: Bytes, size: usize, rows: u32, encoding: Encoding) -> Result<()> {
        let page = Page::DataPage {
            buf,
            num_values: rows,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let offset = self.append(CompressedPage::new(page, size))?;
        self.data_offset.get_or_insert(offset);
        Ok(())
    }

    /// Appends a page. Returns where it begins.
    fn append(&mut self, page: CompressedPage) -> Result<u64> {
        let written = self.pages.append(page)?;
        self.uncompressed += written.uncompressed_size as u64;
        Ok(written.offset)
    }

    /// Writes the dictionary, if there are pages that need it, and them.
    fn write_dictionary(
        &mut self,
        dictionary: &mut Dictionary,
        compressor: &mut Compressor,
    ) -> Result<()> {
        self.waiting_bytes = 0;
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        let count = dictionary.len() as u32;
        if count > 0 {
            compressor.plain.append(&mut dictionary.take_values());
            let (buf, size) = compressor.compress()?;
            let page = Page::DictionaryPage {
                buf: buf.clone(),
                num_values: count,
                encoding: Encoding::PLAIN,
                is_sorted: false,
            };
            self.dictionary_offset = Some(self.append(CompressedPage::new(page, size))?);
            compressor.take_back(buf);
            self.has_numbers = true;
        }
        for waiting in waiting {
            let Waiting {
                page,
                size,
                rows,
                encoding,
            } = waiting;
            self.has_values |= encoding == Encoding::PLAIN;
            self.write_page(page, size, rows, encoding)?;
        }
        Ok(())
    }

    /// Ends the column: its pages, and what the file's end says of them.
    ///
    /// # Errors
    /// `Internal` if it cannot be encoded.
    pub(super) fn close(
        mut self,
        compressor: &mut Compressor,
    ) -> Result<(Pages, ColumnCloseResult)> {
        self.end_page(compressor)?;
        if let Some(mut dictionary) = self.dictionary.take() {
            self.write_dictionary(&mut dictionary, compressor)?;
        }
        let mut encodings = vec![Encoding::RLE];
        if self.has_values || self.has_numbers {
            encodings.push(Encoding::PLAIN);
        }
        if self.has_numbers {
            encodings.push(Encoding::RLE_DICTIONARY);
        }
        let size = self.pages.len();
        let metadata = ColumnChunkMetaData::builder(self.descriptor)
            .set_compression(compressor.codec)
            .set_encodings(encodings)
            .set_total_compressed_size(signed(size)?)
            .set_total_uncompressed_size(signed(self.uncompressed)?)
            .set_num_values(signed(self.rows)?)
            .set_data_page_offset(signed(self.data_offset.unwrap_or(0))?)
            .set_dictionary_page_offset(self.dictionary_offset.map(signed).transpose()?)
            .build()
            .map_err(write_failed)?;
        let result = ColumnCloseResult {
            bytes_written: size,
            rows_written: self.rows,
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        Ok((self.pages, result))
    }
}

fn signed(size: u64) -> Result<i64> {
    i64::try_from(size).map_err(|cause| write_failed(ParquetError::External(Box::new(cause))))
}

fn unknown(descriptor: &ColumnDescPtr) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!(
            "a column of a file has no values of {}",
            descriptor.physical_type()
        ),
    )
}

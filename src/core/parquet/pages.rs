//! The finished pages of a column of the open row group.

use std::io::{self, Read};

use ::parquet::column::page::{CompressedPage, PageWriteSpec, PageWriter};
use ::parquet::errors::Result as ParquetResult;
use ::parquet::file::reader::{ChunkReader, Length};
use ::parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use bytes::{Buf, Bytes};

use super::write_failed;
use crate::error::Result;

/// What stands before the values of a page takes no more: some numbers of at most five bytes.
const HEADER: usize = 64;

/// Pages one after the other, each in memory of its own: none is moved when others come, and no room waits for them.
#[derive(Default)]
pub(super) struct Pages {
    pages: Vec<Bytes>,
    size: u64,
}

impl Pages {
    /// Appends a page. Tells where it begins, and how large it is.
    ///
    /// # Errors
    /// `Internal` if it cannot be written.
    pub(super) fn append(&mut self, page: CompressedPage) -> Result<PageWriteSpec> {
        let most = HEADER + page.compressed_size();
        let mut sink = TrackedWrite::new(Vec::with_capacity(most));
        let mut written = SerializedPageWriter::new(&mut sink)
            .write_page(page)
            .map_err(write_failed)?;
        let page_bytes = sink.into_inner().map_err(write_failed)?;
        debug_assert!(page_bytes.len() <= most, "it has been moved");
        written.offset = self.size;
        self.size += page_bytes.len() as u64;
        self.pages.push(page_bytes.into());
        Ok(written)
    }
}

impl Length for Pages {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Pages {
    type T = PagesReader;

    fn get_read(&self, start: u64) -> ParquetResult<PagesReader> {
        let mut reader = PagesReader {
            current: Bytes::new(),
            // Not their bytes, which are shared.
            next: self.pages.clone().into_iter(),
        };
        io::copy(&mut reader.by_ref().take(start), &mut io::sink())?;
        Ok(reader)
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let mut bytes = vec![0; length];
        self.get_read(start)?.read_exact(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// The bytes of pages, from one of them on.
pub(super) struct PagesReader {
    current: Bytes,
    next: std::vec::IntoIter<Bytes>,
}

impl Read for PagesReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.next.next() {
                Some(page) => self.current = page,
                None => return Ok(0),
            }
        }
        let count = self.current.len().min(into.len());
        if let Some(into) = into.get_mut(..count) {
            self.current.copy_to_slice(into);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use ::parquet::basic::Encoding;
    use ::parquet::column::page::Page;

    use super::*;

    #[test]
    fn they_are_read_one_after_the_other_from_anywhere() {
        let mut pages = Pages::default();
        let mut starts = Vec::new();
        for (length, byte) in [(1, 1), (70_000, 2), (0, 3), (3, 4)] {
            let page = Page::DataPage {
                buf: vec![byte; length].into(),
                num_values: 1,
                encoding: Encoding::PLAIN,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            };
            let written = pages.append(CompressedPage::new(page, length)).unwrap();
            assert_eq!(written.offset + written.bytes_written, pages.len());
            starts.push(written.offset);
        }
        let mut whole = Vec::new();
        pages.get_read(0).unwrap().read_to_end(&mut whole).unwrap();
        assert_eq!(whole.len() as u64, pages.len());
        for start in starts.into_iter().chain([0, 1, 1_000, pages.len()]) {
            let rest = &whole[start as usize..];
            let mut read = Vec::new();
            pages
                .get_read(start)
                .unwrap()
                .read_to_end(&mut read)
                .unwrap();
            assert!(read == rest, "from {start}");
            assert!(pages.get_bytes(start, rest.len()).unwrap() == rest);
            assert!(pages.get_bytes(start, rest.len() + 1).is_err());
        }
    }
}

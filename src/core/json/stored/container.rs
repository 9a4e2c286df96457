//! Objects and arrays where they lie, and what stands in them.

use std::ops::Range;

use super::damaged;
use crate::error::Result;

// The header of an object or array.
pub(super) const COUNT: u32 = 0x0FFF_FFFF;
pub(super) const IS_SCALAR: u32 = 0x1000_0000;
pub(super) const IS_OBJECT: u32 = 0x2000_0000;
pub(super) const IS_ARRAY: u32 = 0x4000_0000;

// What stands in it for each of its keys and values: type, and where it ends or how long it is.
pub(super) const END_OR_LENGTH: u32 = 0x0FFF_FFFF;
pub(super) const TYPE: u32 = 0x7000_0000;
pub(super) const HAS_END: u32 = 0x8000_0000;
pub(super) const STRING: u32 = 0x0000_0000;
pub(super) const NUMERIC: u32 = 0x1000_0000;
pub(super) const FALSE: u32 = 0x2000_0000;
pub(super) const TRUE: u32 = 0x3000_0000;
pub(super) const NULL: u32 = 0x4000_0000;
pub(super) const CONTAINER: u32 = 0x5000_0000;

pub(super) const WORD: usize = 4;

/// Type, and end or length, of a key or value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry(u32);

impl Entry {
    /// Where it ends, if it begins there.
    pub(super) fn end(self, start: usize) -> usize {
        let number = (self.0 & END_OR_LENGTH) as usize;
        if self.0 & HAS_END != 0 {
            number
        } else {
            start + number
        }
    }

    pub(super) fn kind(self) -> u32 {
        self.0 & TYPE
    }
}

/// An object or array.
#[derive(Debug, Clone, Copy)]
pub(super) struct Container<'a> {
    pub(super) is_object: bool,
    pub(super) is_scalar: bool,
    /// Elements, or keys.
    pub(super) count: usize,
    /// Those of elements, or of all keys and then of all values.
    entries: &'a [u8],
    data: &'a [u8],
}

impl<'a> Container<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        let header = word(bytes, 0).ok_or_else(damaged)?;
        let count = (header & COUNT) as usize;
        let is_object = header & IS_OBJECT != 0;
        if is_object == (header & IS_ARRAY != 0) {
            return Err(damaged());
        }
        let entries = count * if is_object { 2 } else { 1 };
        let rest = bytes.get(WORD..).ok_or_else(damaged)?;
        let (entries, data) = rest.split_at_checked(entries * WORD).ok_or_else(damaged)?;
        Ok(Self {
            is_object,
            is_scalar: header & IS_SCALAR != 0,
            count,
            entries,
            data,
        })
    }

    #[inline]
    pub(super) fn entry(&self, index: usize) -> Option<Entry> {
        word(self.entries, index * WORD).map(Entry)
    }

    /// Its elements, or its keys and values.
    pub(super) fn all(&self) -> Elements<'a> {
        let mut elements = self.elements(0..self.count, 0);
        if self.is_object {
            elements.value = self.count;
            elements.value_start = self.end_of_keys();
        }
        elements
    }

    fn end_of_keys(&self) -> usize {
        let mut after = 0;
        for key in (0..self.count).rev() {
            let entry = self.entry(key).unwrap_or(Entry(HAS_END));
            if entry.0 & HAS_END != 0 {
                return entry.end(0) + after;
            }
            after += entry.end(0);
        }
        after
    }

    /// Elements of those numbers, the first of which begins there.
    pub(super) fn elements(&self, elements: Range<usize>, start: usize) -> Elements<'a> {
        Elements {
            container: *self,
            key: 0,
            key_start: 0,
            value: elements.start,
            value_start: start,
            left: elements.len(),
        }
    }
}

/// The next key and value of an object, or element of an array.
pub(super) struct Elements<'a> {
    pub(super) container: Container<'a>,
    pub(super) key: usize,
    key_start: usize,
    value: usize,
    value_start: usize,
    pub(super) left: usize,
}

impl<'a> Elements<'a> {
    #[inline]
    pub(super) fn next_key(&mut self) -> Result<&'a [u8]> {
        let entry = self.container.entry(self.key).ok_or_else(damaged)?;
        let end = entry.end(self.key_start);
        let key = self.container.data.get(self.key_start..end);
        self.key += 1;
        self.key_start = end;
        key.ok_or_else(damaged)
    }

    /// The next value, from where it begins: numbers, objects and arrays do so at a whole word.
    #[inline]
    pub(super) fn next_value(&mut self) -> Result<(Entry, &'a [u8])> {
        let entry = self.container.entry(self.value).ok_or_else(damaged)?;
        let mut start = self.value_start;
        let end = entry.end(start);
        self.value += 1;
        self.value_start = end;
        if matches!(entry.kind(), NUMERIC | CONTAINER) {
            start = start.next_multiple_of(WORD);
        }
        let value = self.container.data.get(start..end);
        Ok((entry, value.ok_or_else(damaged)?))
    }
}

#[inline]
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + WORD)?.first_chunk()?;
    Some(u32::from_ne_bytes(*word))
}

//! JSON in the binary form in which a database keeps it, `jsonb`: read where it lies, one token at a time and without
//! recursion. Rows can be found without reading those before them, so that several threads can have a part each.

mod container;

use std::ops::Range;

use self::container::{
    CONTAINER, Container, Elements, Entry, FALSE, NULL, NUMERIC, STRING, TRUE, WORD, word,
};
use super::{Token, TokenSink};
use crate::decimal;
use crate::error::{Error, ErrorKind};

/// What a reader of stored JSON needs from those who have stored it.
pub trait Reader<'a> {
    /// What goes wrong.
    type Error: From<Error>;

    /// A stored string in UTF-8.
    ///
    /// # Errors
    /// If it is none.
    fn text(&mut self, bytes: &'a [u8]) -> std::result::Result<&'a str, Self::Error>;

    /// Called for each key and value: somebody may want this to stop.
    ///
    /// # Errors
    /// If so.
    fn step(&mut self) -> std::result::Result<(), Self::Error>;
}

/// A stored document.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a>(&'a [u8]);

/// Some of the elements of the array that a document is.
#[derive(Debug, Clone)]
pub struct Part {
    pub(super) elements: Range<usize>,
    /// Where the first of them begins.
    start: usize,
    /// What they take.
    pub(super) bytes: usize,
}

impl<'a> Stored<'a> {
    /// A document by its bytes, which are those of a `jsonb` without its length.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Gives every token to `sink`, in order.
    ///
    /// # Errors
    /// The first error of `sink` or `reader`; `Data` if the document is damaged.
    pub fn walk<R: Reader<'a>>(
        self,
        sink: &mut (impl TokenSink + ?Sized),
        reader: &mut R,
    ) -> std::result::Result<(), R::Error> {
        let root = Container::read(self.0)?;
        if root.is_scalar {
            // It is stored as an array of one element.
            let mut elements = root.elements(0..1, 0);
            let (entry, bytes) = elements.next_value()?;
            return scalar(entry, bytes, sink, reader);
        }
        walk(root, root.all(), sink, reader)
    }

    /// As [`walk`](Self::walk), with an array of no more than those elements.
    ///
    /// # Errors
    /// As [`walk`](Self::walk).
    pub fn walk_part<R: Reader<'a>>(
        self,
        part: Part,
        sink: &mut (impl TokenSink + ?Sized),
        reader: &mut R,
    ) -> std::result::Result<(), R::Error> {
        let root = Container::read(self.0)?;
        walk(root, root.elements(part.elements, part.start), sink, reader)
    }

    /// Parts that together are all of an array's elements, in order; of as many elements as take about so many bytes. None
    /// for another document, or a damaged one.
    #[must_use]
    pub fn parts(self, bytes: usize) -> Vec<Part> {
        let mut parts = Vec::new();
        let Ok(root) = Container::read(self.0) else {
            return parts;
        };
        if root.is_object || root.is_scalar {
            return parts;
        }
        let (mut first, mut start, mut end) = (0, 0, 0);
        for element in 0..root.count {
            let Some(entry) = root.entry(element) else {
                return Vec::new();
            };
            end = entry.end(end);
            let taken = end.saturating_sub(start);
            if taken >= bytes || element + 1 == root.count {
                parts.push(Part {
                    elements: first..element + 1,
                    start,
                    bytes: taken,
                });
                (first, start) = (element + 1, end);
            }
        }
        parts
    }
}

fn walk<'a, R: Reader<'a>>(
    root: Container<'a>,
    elements: Elements<'a>,
    sink: &mut (impl TokenSink + ?Sized),
    reader: &mut R,
) -> std::result::Result<(), R::Error> {
    // Those around the current one, the innermost last.
    let mut around = Vec::new();
    let mut current = elements;
    let mut keys = Keys::default();
    sink.token(begin(root))?;
    loop {
        if current.left == 0 {
            sink.token(if current.container.is_object {
                Token::EndObject
            } else {
                Token::EndArray
            })?;
            match around.pop() {
                Some(outer) => current = outer,
                None => return Ok(()),
            }
            continue;
        }
        current.left -= 1;
        reader.step()?;
        if current.container.is_object {
            let (place, key) = (current.key, current.next_key()?);
            let key = if around.len() == 1 {
                keys.text(place, key, reader)?
            } else {
                reader.text(key)?
            };
            sink.token(Token::Key(key))?;
        }
        let (entry, bytes) = current.next_value()?;
        if entry.kind() == CONTAINER {
            let inner = Container::read(bytes)?;
            sink.token(begin(inner))?;
            around.push(std::mem::replace(&mut current, inner.all()));
        } else {
            scalar(entry, bytes, sink, reader)?;
        }
    }
}

/// The keys of the row before, as they are stored and as text: mostly those of the next one are the same.
#[derive(Default)]
struct Keys<'a>(Vec<(&'a [u8], &'a str)>);

impl<'a> Keys<'a> {
    /// For rows of more, which are rare, keys are read anew.
    const MOST: usize = 4_096;

    #[inline]
    fn text<R: Reader<'a>>(
        &mut self,
        place: usize,
        key: &'a [u8],
        reader: &mut R,
    ) -> std::result::Result<&'a str, R::Error> {
        match self.0.get_mut(place) {
            Some((known, text)) if *known == key => Ok(*text),
            Some(known) => {
                *known = (key, reader.text(key)?);
                Ok(known.1)
            }
            None => {
                let text = reader.text(key)?;
                if place == self.0.len() && place < Self::MOST {
                    self.0.push((key, text));
                }
                Ok(text)
            }
        }
    }
}

fn begin(container: Container<'_>) -> Token<'static> {
    if container.is_object {
        Token::BeginObject
    } else {
        Token::BeginArray
    }
}

#[inline]
fn scalar<'a, R: Reader<'a>>(
    entry: Entry,
    bytes: &'a [u8],
    sink: &mut (impl TokenSink + ?Sized),
    reader: &mut R,
) -> std::result::Result<(), R::Error> {
    match entry.kind() {
        STRING => sink.token(Token::String(reader.text(bytes)?))?,
        NUMERIC => {
            let stored = without_length(bytes).ok_or_else(damaged)?;
            match decimal::Stored::read(stored) {
                Some(number) => sink.number(&number)?,
                None => sink.token(Token::Number(decimal::Stored::special(stored)))?,
            }
        }
        FALSE => sink.token(Token::Bool(false))?,
        TRUE => sink.token(Token::Bool(true))?,
        NULL => sink.token(Token::Null)?,
        _ => return Err(damaged().into()),
    }
    Ok(())
}

/// What follows a length in one byte or in four.
#[inline]
fn without_length(bytes: &[u8]) -> Option<&[u8]> {
    let first = *bytes.first()?;
    let (is_short, short, long) = if cfg!(target_endian = "little") {
        (
            first & 1 != 0,
            first >> 1,
            word(bytes, 0).map(|size| size >> 2),
        )
    } else {
        (first & 0x80 != 0, first & 0x7F, word(bytes, 0))
    };
    if is_short {
        bytes.get(1..short.into())
    } else {
        bytes.get(WORD..long? as usize)
    }
}

#[cold]
fn damaged() -> Error {
    Error::new(ErrorKind::Data, "a stored JSON value is damaged")
        .with_hint("Look at the value with the database itself: it may lie on a part of the disk that has lost data.")
}

#[cfg(test)]
pub(super) mod tests;

//! The first walk over a stored result by several threads, each of which looks at other rows.

use super::inference::Inference;
use super::stored::{Part, Reader, Stored};
use super::{Declared, PlanOptions};
use crate::aside::Aside;
use crate::error::{Error, ErrorKind, Result};
use crate::threads::{each, helpers};

/// Bytes of rows that a thread looks at before it takes the next ones.
const PART_BYTES: usize = 1 << 20;

/// Parts for each thread between two looks whether this is to stop: some ten milliseconds.
const PARTS_AT_ONCE: usize = 4;

/// A result with fewer of them is quickly looked at by one thread.
const FEW_PARTS: usize = 4;

/// Looks at every value of a result whose text is UTF-8, as [`Inference`] by itself does. Nothing where one thread is enough, and
/// wherever only one walk over all rows says what is to be said of them: then nothing has been said of the result.
#[must_use]
pub fn infer_together(
    stored: Stored<'_>,
    declared: Option<&[Declared]>,
    options: PlanOptions,
    aside: Aside,
) -> Option<Inference> {
    aside.start?;
    together(stored, declared, options, aside, helpers(), PART_BYTES)
}

fn together(
    stored: Stored<'_>,
    declared: Option<&[Declared]>,
    options: PlanOptions,
    aside: Aside,
    helpers: usize,
    part_bytes: usize,
) -> Option<Inference> {
    let parts = stored.parts(part_bytes);
    let is_large = |part: &Part| part.bytes / PARTS_AT_ONCE > part_bytes;
    if helpers == 0 || parts.len() < FEW_PARTS || parts.iter().any(is_large) {
        return None;
    }
    let look = |part| {
        let mut inference = Inference::new(declared, options);
        stored.walk_part(part, &mut inference, &mut Utf8)?;
        Ok(inference)
    };
    let mut whole: Option<Inference> = None;
    for parts in parts.chunks(PARTS_AT_ONCE * (helpers + 1)) {
        // Here, where no thread looks at what would be gone.
        (aside.check)();
        let mut seen = Ok(Vec::new());
        (aside.without_signals)(&mut || seen = each(parts.to_vec(), helpers, look));
        for part in seen.ok()? {
            match &mut whole {
                Some(whole) => whole.add(part)?,
                None => whole = Some(part),
            }
        }
    }
    whole
}

/// Stored text is UTF-8, and nobody stops the walk.
struct Utf8;

impl<'a> Reader<'a> for Utf8 {
    type Error = Error;

    fn text(&mut self, bytes: &'a [u8]) -> Result<&'a str> {
        std::str::from_utf8(bytes).map_err(|error| {
            Error::new(ErrorKind::Data, "a stored text is not UTF-8").with_source(error)
        })
    }

    fn step(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;

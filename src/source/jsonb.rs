//! A `jsonb` value, read in its binary form.
#![allow(unsafe_code)]

use bridge_core::aside::Aside;
use bridge_core::json::{
    Declared, Inference, PlanOptions, Reader, Stored, TokenSink, infer_together,
};
use pgrx::{check_for_interrupts, pg_sys};

use super::values::text::{is_utf8, to_utf8};
use crate::error::{Error, Result};

/// Keys and values between two looks for an interrupt: some tens of microseconds.
const STEPS_PER_CHECK: u32 = 4_096;

/// A detoasted `jsonb` value, which lives as long as the memory context it was read in.
pub struct Jsonb(*mut pg_sys::varlena);

impl Jsonb {
    /// # Safety
    /// `datum` is a `jsonb`, and the current memory context outlives the result.
    pub unsafe fn from_datum(datum: pg_sys::Datum) -> Self {
        // SAFETY: as the caller promises.
        Self(unsafe { pg_sys::pg_detoast_datum(datum.cast_mut_ptr()) })
    }

    fn stored(&self) -> Stored<'_> {
        // SAFETY: a live value, which is neither compressed nor stored elsewhere, and whose length takes four bytes.
        Stored::new(unsafe {
            std::slice::from_raw_parts(
                pgrx::varlena::vardata_any(self.0).cast(),
                pgrx::varlena::varsize_any_exhdr(self.0),
            )
        })
    }

    /// Gives every token to `sink`, in order.
    ///
    /// # Errors
    /// The first error of `sink`; an interrupt raises an ERROR.
    pub fn walk(&self, sink: &mut (impl TokenSink + ?Sized)) -> Result<()> {
        self.stored().walk(sink, &mut Main::new())
    }

    /// Looks at every value of a result, with other threads' help where it is large.
    ///
    /// # Errors
    /// If it is malformed; an interrupt raises an ERROR.
    pub fn infer(
        &self,
        declared: Option<&[Declared]>,
        options: PlanOptions,
        aside: Aside,
    ) -> Result<Inference> {
        let main = Main::new();
        let together = if main.is_utf8 {
            infer_together(self.stored(), declared, options, aside)
        } else {
            None
        };
        match together {
            Some(inference) => Ok(inference),
            None => {
                let mut inference = Inference::new(declared, options);
                self.walk(&mut inference)?;
                Ok(inference)
            }
        }
    }
}

/// How the main thread reads.
struct Main {
    is_utf8: bool,
    until_check: u32,
}

impl Main {
    fn new() -> Self {
        Self {
            // SAFETY: who has a value is inside a transaction.
            is_utf8: unsafe { is_utf8() },
            until_check: STEPS_PER_CHECK,
        }
    }
}

impl<'a> Reader<'a> for Main {
    type Error = Error;

    #[inline]
    fn text(&mut self, bytes: &'a [u8]) -> Result<&'a str> {
        match std::str::from_utf8(bytes) {
            Ok(text) if self.is_utf8 => Ok(text),
            // SAFETY: the bytes lie in the value, and the memory context that it was read in is the current one, or lives as long.
            _ => unsafe { to_utf8(bytes) },
        }
    }

    #[inline]
    fn step(&mut self) -> Result<()> {
        self.until_check -= 1;
        if self.until_check == 0 {
            check_for_interrupts!();
            self.until_check = STEPS_PER_CHECK;
        }
        Ok(())
    }
}

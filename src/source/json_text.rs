//! The walk over a `json` value: its text as it was written, where jsonb would drop what it holds twice.
#![allow(unsafe_code)]

use bridge_core::json::{Token, TokenSink, parse_text};
use pgrx::{check_for_interrupts, pg_sys};

use super::values::{text::to_utf8, varlena_bytes};
use crate::error::Result;

/// Tokens between two looks for an interrupt: some tens of microseconds.
const TOKENS_PER_CHECK: u32 = 4_096;

/// Gives every token of a `json` value to `sink`, in order.
///
/// # Errors
/// The first error of `sink`, or `Data` for what the parser does not read; an interrupt raises an ERROR.
///
/// # Safety
/// A value of type `json`.
pub unsafe fn walk_json(value: pg_sys::Datum, sink: &mut dyn TokenSink) -> Result<()> {
    // SAFETY: as the caller promises; the text lives as long as the current memory context, in which it is read.
    let text = unsafe { to_utf8(varlena_bytes(value)) }?;
    Ok(parse_text(
        text,
        &mut Interruptible {
            sink,
            until_check: TOKENS_PER_CHECK,
        },
    )?)
}

/// Passes tokens on, and lets itself be interrupted.
struct Interruptible<'a> {
    sink: &'a mut dyn TokenSink,
    until_check: u32,
}

impl TokenSink for Interruptible<'_> {
    fn token(&mut self, token: Token<'_>) -> bridge_core::Result<()> {
        self.until_check -= 1;
        if self.until_check == 0 {
            check_for_interrupts!();
            self.until_check = TOKENS_PER_CHECK;
        }
        self.sink.token(token)
    }
}

//! The executions that a statement finishes: gathered row by row, and entered in the queue together when it ends, since every
//! entry by itself takes a subtransaction. Whatever happens here, the application's statement succeeds.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::error::{Error, Result};
use crate::halves::half_by_half;
use crate::uploads::{self, NewUpload};
use crate::worker::registry::{self, Wake};
use crate::{sandbox, tx};

/// How many are gathered before they are entered, although the statement goes on.
const MAX_GATHERED: usize = 10_000;
/// The same in bytes of what they say.
const MAX_GATHERED_BYTES: usize = 4 << 20;

/// A statement of which [`end_statement`] will tell that it has ended begins.
pub fn begin_statement() {
    register_callbacks();
    let level = level();
    GATHERED.with_borrow_mut(|gathered| gathered.statements.push(level));
}

/// The statement that has begun last has finished its rows: enters them in the queue.
pub fn end_statement() {
    GATHERED.with_borrow_mut(|gathered| gathered.statements.pop());
    flush();
}

/// Has an execution entered in the queue when its statement ends; at once where nothing would tell of that end: a statement on a
/// single partition fires no triggers for statements, and where the library is not preloaded, `statement_end` does not tell either.
pub fn gather(new: NewUpload) {
    register_callbacks();
    let level = level();
    let waits = GATHERED.with_borrow_mut(|gathered| {
        gathered.bytes += bytes(&new);
        gathered.uploads.push((level, new));
        !gathered.statements.is_empty()
            && gathered.uploads.len() < MAX_GATHERED
            && gathered.bytes < MAX_GATHERED_BYTES
    });
    if !waits {
        flush();
    }
}

/// Runs what only reads, so that the application's statement goes on without it: an error becomes a WARNING.
pub fn shielded<T>(work: impl FnOnce() -> Result<T>) -> Option<T> {
    tx::subtransaction(work).inspect_err(warn).ok()
}

/// As [`shielded`], but only a cancel is told of.
pub fn shielded_in_silence<T>(work: impl FnOnce() -> Result<T>) -> Option<T> {
    let tell = |error: &Error| {
        if error.is_canceled() {
            warn(error);
        }
    };
    tx::subtransaction(work).inspect_err(tell).ok()
}

/// Enters what was gathered in the current subtransaction. What an outer one has gathered must outlive the rollback of this one.
fn flush() {
    let level = level();
    let uploads = GATHERED.with_borrow_mut(|gathered| gathered.take(level));
    if !uploads.is_empty() {
        enter(&uploads);
        registry::wake_at_commit(Wake::Worker);
    }
}

fn enter(all: &[NewUpload]) {
    half_by_half(
        all,
        &mut |uploads| {
            let entered = match written(uploads, uploads::enqueue_finished) {
                Err(error) if error.is_unique_violation() => written(uploads, uploads::enqueue_all),
                result => result,
            };
            match entered {
                // Another transaction has the place of one of them in the queue, and may yet be rolled back.
                Err(error) if error.is_lost_conflict() => written(uploads, uploads::note_missed),
                result => result,
            }
        },
        &mut |uploads, error| leave_word(uploads, &error),
    );
}

/// Of what cannot be entered: something is wrong with the queue itself, which somebody may mend. Not of what it never takes.
fn leave_word(uploads: &[NewUpload], error: &Error) {
    if error.is_canceled() {
        return warn(error);
    }
    if error.is_too_large() {
        return warn(&uploads::too_long(error));
    }
    match written(uploads, uploads::note_missed) {
        Ok(()) => {}
        Err(canceled) if canceled.is_canceled() => warn(&canceled),
        Err(_) => warn(error),
    }
}

/// With the rights of the extension's owner, and all or none of them.
fn written(uploads: &[NewUpload], write: fn(&[NewUpload]) -> Result<()>) -> Result<()> {
    tx::subtransaction(|| sandbox::as_extension_owner(|| write(uploads)))
}

fn warn(error: &Error) {
    let (sqlstate, hint) = error.sqlstate_and_hint();
    // Whoever cancels the statement means the statement.
    let level = if error.is_canceled() {
        PgLogLevel::ERROR
    } else {
        PgLogLevel::WARNING
    };
    let report = ErrorReport::new(
        sqlstate,
        format!("snowflake_bridge: the result will not be uploaded: {error}"),
        "snowflake_bridge",
    );
    match hint {
        Some(hint) => report.set_hint(hint),
        None => report,
    }
    .report(level);
}

/// What was gathered, and what tells when to enter it, each with the nesting level of its subtransaction. Levels never
/// decrease from one to the next: what ends hands its own over to the level below, or takes them with it.
#[derive(Default)]
struct Gathered {
    uploads: Vec<(i32, NewUpload)>,
    bytes: usize,
    /// Statements that have not ended yet.
    statements: Vec<i32>,
}

impl Gathered {
    /// Those from `level` on, of several for one execution the last.
    fn take(&mut self, level: i32) -> Vec<NewUpload> {
        let start = self.uploads.partition_point(|(of, _)| *of < level);
        let taken = self.uploads.split_off(start);
        self.bytes = self.uploads.iter().map(|(_, new)| bytes(new)).sum();
        let mut last_first: Vec<NewUpload> = taken.into_iter().rev().map(|(_, new)| new).collect();
        if last_first.len() > 1 {
            let mut seen = HashSet::new();
            let is_last: Vec<bool> = last_first
                .iter()
                .map(|new| seen.insert((new.watch_id, new.execution_id.as_str())))
                .collect();
            let mut is_last = is_last.into_iter();
            last_first.retain(|_| is_last.next() == Some(true));
        }
        last_first.reverse();
        last_first
    }

    fn hand_over(&mut self, level: i32) {
        let levels = self.uploads.iter_mut().map(|(of, _)| of);
        let below = |of: &mut i32| *of = level - 1;
        levels.rev().take_while(|of| **of >= level).for_each(below);
        let levels = self.statements.iter_mut();
        levels.rev().take_while(|of| **of >= level).for_each(below);
    }

    fn forget(&mut self, level: i32) {
        while let Some((_, new)) = self.uploads.pop_if(|(of, _)| *of >= level) {
            self.bytes -= bytes(&new);
        }
        while self.statements.pop_if(|of| *of >= level).is_some() {}
    }
}

/// About what it takes in memory.
fn bytes(new: &NewUpload) -> usize {
    size_of::<NewUpload>() + new.execution_id.len() + new.options.len()
}

thread_local! {
    static GATHERED: RefCell<Gathered> = RefCell::default();
    static CALLBACKS_REGISTERED: Cell<bool> = const { Cell::new(false) };
}

fn level() -> i32 {
    // SAFETY: a read of backend-local state.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() }
}

fn register_callbacks() {
    if !CALLBACKS_REGISTERED.replace(true) {
        // SAFETY: callbacks that live as long as the library, which is never unloaded.
        unsafe {
            pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
            pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), std::ptr::null_mut());
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(
    event: pg_sys::XactEvent::Type,
    _argument: *mut std::ffi::c_void,
) {
    match event {
        // A statement of which only the first rows were wanted does not tell of its end.
        pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT | pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE
            if GATHERED.with_borrow(|gathered| !gathered.uploads.is_empty()) =>
        {
            tx::with_snapshot(flush);
        }
        pg_sys::XactEvent::XACT_EVENT_COMMIT
        | pg_sys::XactEvent::XACT_EVENT_PREPARE
        | pg_sys::XactEvent::XACT_EVENT_ABORT => drop(GATHERED.take()),
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    _own: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    let level = level();
    GATHERED.with_borrow_mut(|gathered| match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => gathered.hand_over(level),
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => gathered.forget(level),
        _ => {}
    });
}

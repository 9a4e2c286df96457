//! What a process of the worker's leaves behind when it dies: which upload it was at. PostgreSQL restarts all processes when
//! one dies, and tells none of them whose fault it was; without this, every upload in flight would be a suspect, also when
//! somebody else's backend has crashed.
//!
//! The witness is a file in the spool directory. A process that ends in order removes it, and so does one that is told to go
//! because another has died; a file that is still there belongs to the one that did.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicPtr, Ordering};

use bridge_core::spool::storage;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::Result;
use crate::uploads::Blame;

/// The worker's own; that of a reader has the number of its upload after a hyphen.
const NAME: &str = "witness";

/// The path, for whoever may not allocate: a signal handler.
static PATH: AtomicPtr<c_char> = AtomicPtr::new(std::ptr::null_mut());

thread_local! {
    static FILE: RefCell<Option<File>> = const { RefCell::new(None) };
}

/// Looks for witnesses. They stay until [`forget`].
pub(super) fn look(spool_root: &Path) -> Blame {
    let mut found = Blame::default();
    for (name, path) in witnesses(spool_root) {
        let upload = match name.strip_prefix('-') {
            Some(upload) => upload.parse().ok(),
            None => fs::read_to_string(path)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .filter(|upload| *upload > 0),
        };
        match upload {
            Some(upload) => found.readings.push(upload),
            None => found.worker_died |= name.is_empty(),
        }
    }
    found
}

/// Removes the witnesses, once what they say has been recorded.
pub(super) fn forget(spool_root: &Path) {
    for (_, path) in witnesses(spool_root) {
        // One that stays is seen again, and then no upload of its number is in flight.
        let _ = fs::remove_file(path);
    }
}

/// The witnesses, each with what follows the common part of its name.
fn witnesses(spool_root: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(spool_root) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let rest = name.to_str()?.strip_prefix(NAME)?;
            Some((rest.to_owned(), entry.path()))
        })
        .collect()
}

/// Leaves a witness for this process, the worker's or that of the reader of one upload, until it ends in order.
///
/// # Errors
/// If it cannot be written.
pub(super) fn begin(spool_root: &Path, reader_of: Option<i64>) -> Result<()> {
    let name = reader_of.map_or_else(|| NAME.to_owned(), |upload| format!("{NAME}-{upload}"));
    let path = spool_root.join(name);
    let unusable = |error: std::io::Error| storage("write to the spool directory", error);
    let file = File::create(&path).map_err(unusable)?;
    FILE.set(Some(file));
    reads(reader_of);
    let path = CString::new(path.as_os_str().as_bytes())
        .map_err(|error| unusable(std::io::Error::other(error)))?;
    PATH.store(path.into_raw(), Ordering::Release);
    // SAFETY: a handler that only makes system calls, and a callback of this library, which stays loaded.
    unsafe {
        pg_sys::pqsignal(libc::SIGQUIT, Some(handle_quit));
        pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::from(0));
    }
    Ok(())
}

/// Says which upload this process reads from now on, if any.
pub(super) fn reads(upload: Option<i64>) {
    // As many bytes each time, so that nothing of the number before stays.
    let text = format!("{:020}", upload.unwrap_or(0));
    FILE.with_borrow(|file| {
        if let Some(file) = file {
            // Its block is there already. Without the number, all uploads in flight share the blame.
            let _ = file.write_all_at(text.as_bytes(), 0);
        }
    });
}

/// Sent by the postmaster to every process when one has died, or for an immediate shutdown.
unsafe extern "C-unwind" fn handle_quit(signal: i32) {
    end();
    // SAFETY: made to be called in a signal handler; does not return.
    unsafe { pg_sys::SignalHandlerForCrashExit(signal) }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: i32, _argument: pg_sys::Datum) {
    end();
}

fn end() {
    let path = PATH.swap(std::ptr::null_mut(), Ordering::AcqRel);
    if !path.is_null() {
        // SAFETY: a text that was given up for this, and a system call that a signal handler may make.
        unsafe { libc::unlink(path) };
    }
}

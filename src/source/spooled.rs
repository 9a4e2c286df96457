//! Spool directories: where they are, and whose they are. The worker's own go with its attempt. Those of `upload_query`
//! belong to the caller's transaction until it ends: gone with a rollback, also one to a savepoint; kept with a commit,
//! and the upload's from then on.
#![allow(unsafe_code)]

mod place;

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bridge_core::spool::remove;
use pgrx::pg_sys;
use pgrx::prelude::*;
use uuid::Uuid;

use crate::error::Result;
use place::{directory, sync, unusable};
pub use place::{free_bytes, is_others, make_private, require_space, root};

/// The directory below an upload's that its own transaction writes; attempts of the worker count from 1.
const OF_CALLER: &str = "0";
/// How the names of files begin that say how much an upload takes whose transaction has not ended. Its owner's number, the process and
/// the upload follow.
const ANNOUNCEMENT: &str = "share-";

/// The directory of the files that the upload's own transaction wrote.
pub fn of_caller(root: &Path, upload_id: Uuid) -> PathBuf {
    root.join(upload_id.to_string()).join(OF_CALLER)
}

/// Begins the spool of an upload of the current transaction. Returns where its files go.
///
/// # Errors
/// If the directory cannot be made.
pub fn begin(upload_id: Uuid) -> Result<PathBuf> {
    // Said now, and not when all rows have been read.
    // SAFETY: inside a transaction; raises an ERROR in one that may not write.
    unsafe { pg_sys::PreventCommandIfReadOnly(c"upload_query()".as_ptr()) };
    let root = root()?;
    let directory = root.join(upload_id.to_string());
    let whole = lock(&root)?;
    whole.lock_shared().map_err(unusable)?;
    enter(Pending {
        directory: directory.clone(),
        fate: Fate::RemoveOnAbort,
        subtransaction: current_subtransaction(),
        lock: None,
        announcement: None,
    });
    make_private(&directory)?;
    sync(&root)?;
    let held = lock(&directory)?;
    held.try_lock().map_err(|error| unusable(error.into()))?;
    PENDING.with_borrow_mut(|pending| {
        if let Some(last) = pending.last_mut() {
            last.lock = Some(held);
        }
    });
    Ok(directory.join(OF_CALLER))
}

/// Announces to other sessions that an upload of the current transaction takes that many bytes, until the transaction ends. The
/// number stands for its owner. Returns what uploads of the same owner's take that others have announced.
///
/// # Errors
/// If the spool directory cannot be used.
pub fn announce(upload_id: Uuid, owner: u64, bytes: u64) -> Result<u64> {
    let root = root()?;
    let of_owner = format!("{ANNOUNCEMENT}{owner:016x}-");
    let own = format!("{of_owner}{}-", std::process::id());
    let path = root.join(format!("{own}{upload_id}"));
    let directory = root.join(upload_id.to_string());
    PENDING.with_borrow_mut(|pending| {
        if let Some(own) = pending.iter_mut().find(|own| own.directory == directory) {
            own.announcement = Some(path.clone());
        }
    });
    // Its length says it; it takes no room.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .and_then(|file| file.set_len(bytes))
        .map_err(unusable)?;
    let mut others = 0;
    for entry in std::fs::read_dir(root).map_err(unusable)? {
        let entry = entry.map_err(unusable)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&of_owner) && !name.starts_with(&own) {
            // One that has gone meanwhile belongs to a transaction that has ended.
            others += entry.metadata().map_or(0, |found| found.len());
        }
    }
    Ok(others)
}

/// Removes the files of an upload when the current transaction commits; until then they take that many bytes of what the owner
/// may have, for whom the number stands.
///
/// # Errors
/// If there is no place for files.
pub fn remove_at_commit(upload_id: Uuid, owner: u64, bytes: u64) -> Result<()> {
    enter(Pending {
        directory: root()?.join(upload_id.to_string()),
        fate: Fate::RemoveOnCommit { owner, bytes },
        subtransaction: current_subtransaction(),
        lock: None,
        announcement: None,
    });
    Ok(())
}

/// What files of this owner's still take that go when the current transaction commits. Nobody else has to count them: their uploads
/// are seen as they were before, or have been announced.
pub fn removed_at_commit(owner: u64) -> u64 {
    PENDING.with_borrow(|all| {
        all.iter()
            .map(|pending| match pending.fate {
                Fate::RemoveOnCommit { owner: of, bytes } if of == owner => bytes,
                Fate::RemoveOnCommit { .. } | Fate::RemoveOnAbort => 0,
            })
            .sum()
    })
}

/// Removes the directories of uploads that nobody needs any more: those that a process left which died. `needed` is asked
/// again for each, after the directory's own transaction can no longer commit.
///
/// # Errors
/// What `needed` returns.
pub fn sweep(root: &Path, needed: impl Fn() -> Result<Vec<Uuid>>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(root) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            continue;
        };
        if name.starts_with(ANNOUNCEMENT) {
            forget(root, &entry.path());
            continue;
        }
        let Ok(id) = Uuid::parse_str(name) else {
            continue;
        };
        // Nobody makes a directory while it is decided about this one.
        let Ok(whole) = lock(root) else {
            return Ok(());
        };
        let (Ok(()), Ok(own)) = (whole.lock(), lock(&entry.path())) else {
            continue;
        };
        match own.try_lock() {
            Ok(()) if !needed()?.contains(&id) => remove(&entry.path()),
            Ok(()) | Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
    Ok(())
}

/// Removes an announcement, unless a transaction is at its upload.
fn forget(root: &Path, announcement: &Path) {
    let upload_id = announcement
        .to_str()
        .and_then(|path| path.get(path.len().checked_sub(uuid::fmt::Hyphenated::LENGTH)?..));
    let (Some(upload_id), Ok(whole)) = (upload_id, lock(root)) else {
        return;
    };
    let is_held = || {
        lock(&root.join(upload_id))
            .is_ok_and(|own| matches!(own.try_lock(), Err(TryLockError::WouldBlock)))
    };
    if whole.lock().is_ok() && !is_held() {
        // What stays is seen again.
        let _ = std::fs::remove_file(announcement);
    }
}

/// Removes the directories of databases that were dropped, where nobody ever looks again. `databases` is asked after the
/// directories were found.
///
/// # Errors
/// What `databases` returns.
pub fn sweep_dropped(databases: impl FnOnce() -> Result<Vec<i64>>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(directory()) else {
        return Ok(());
    };
    let found: Vec<(i64, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    let databases = databases()?;
    for (database, directory) in found {
        if !databases.contains(&database) {
            remove(&directory);
        }
    }
    Ok(())
}

/// A directory whose fate the current transaction decides.
struct Pending {
    directory: PathBuf,
    fate: Fate,
    subtransaction: pg_sys::SubTransactionId,
    /// Held until the transaction has ended, whoever ends it: tells the worker that somebody is at it.
    lock: Option<File>,
    /// The file that tells other sessions how much it takes.
    announcement: Option<PathBuf>,
}

impl Drop for Pending {
    /// From the commit on its row tells, which is seen by then.
    fn drop(&mut self) {
        if let Some(announcement) = self.announcement.take() {
            // What stays is found by the next look at the spool.
            let _ = std::fs::remove_file(announcement);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    RemoveOnAbort,
    RemoveOnCommit { owner: u64, bytes: u64 },
}

thread_local! {
    static PENDING: RefCell<Vec<Pending>> = const { RefCell::new(Vec::new()) };
    static CALLBACKS_REGISTERED: Cell<bool> = const { Cell::new(false) };
}

fn enter(pending: Pending) {
    if !CALLBACKS_REGISTERED.replace(true) {
        // SAFETY: callbacks that live as long as the library, which is never unloaded.
        unsafe {
            pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
            pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), std::ptr::null_mut());
        }
    }
    PENDING.with_borrow_mut(|all| all.push(pending));
}

fn current_subtransaction() -> pg_sys::SubTransactionId {
    // SAFETY: a read of backend-local state, inside a transaction.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(
    event: pg_sys::XactEvent::Type,
    _argument: *mut std::ffi::c_void,
) {
    let is_committed = match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT => true,
        pg_sys::XactEvent::XACT_EVENT_ABORT => false,
        pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE => {
            // Whoever ends a prepared transaction knows nothing of files.
            if PENDING.with_borrow(|all| !all.is_empty()) {
                ereport!(
                    ERROR,
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    "cannot PREPARE a transaction that has uploaded a query or table"
                );
            }
            return;
        }
        _ => return,
    };
    for pending in PENDING.take() {
        if is_committed == (pending.fate != Fate::RemoveOnAbort) {
            remove(&pending.directory);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    own: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    PENDING.with_borrow_mut(|all| match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => {
            for pending in all
                .iter_mut()
                .filter(|pending| pending.subtransaction == own)
            {
                pending.subtransaction = parent;
            }
        }
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => {
            for undone in all.extract_if(.., |pending| pending.subtransaction == own) {
                if undone.fate == Fate::RemoveOnAbort {
                    remove(&undone.directory);
                }
            }
        }
        _ => {}
    });
}

fn lock(directory: &Path) -> Result<File> {
    File::open(directory).map_err(unusable)
}

//! Spool directories: where they are, and whose they are. The worker's own go with its attempt. Those of `upload_query`
//! belong to the caller's transaction until it ends: gone with a rollback, also one to a savepoint; kept with a commit,
//! and the upload's from then on.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bridge_core::spool::{remove, storage};
use bridge_core::{Error as CoreError, ErrorKind};
use pgrx::pg_sys;
use pgrx::prelude::*;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::{guards, guc};

/// The directory below an upload's that its own transaction writes; attempts of the worker count from 1.
const OF_CALLER: &str = "0";
/// Where files wait unless a setting says otherwise, within the data directory.
const DEFAULT_ROOT: &str = "snowflake_bridge_spool";
/// How the names of files begin that say how much an upload takes whose transaction has not ended. Its owner's number, the process and
/// the upload follow.
const ANNOUNCEMENT: &str = "share-";

/// Where this database's files wait until they are staged, private to the server's user.
///
/// # Errors
/// If it cannot be made.
pub fn root() -> Result<PathBuf> {
    let root = guc::spool_directory().unwrap_or_else(|| PathBuf::from(DEFAULT_ROOT));
    // SAFETY: a variable of this process.
    let database = unsafe { pg_sys::MyDatabaseId };
    // Two databases of one server never share a directory.
    let directory = root.join(database.to_u32().to_string());
    if !directory.is_dir() {
        make_private(&directory)?;
        sync(&root)?;
        if let Some(parent) = root.parent() {
            sync(parent)?;
        }
    }
    Ok(directory)
}

/// What the server's user may still write where the spool is, or where it will be made.
///
/// # Errors
/// What the file system says.
pub fn free_bytes() -> std::io::Result<u64> {
    let root = guc::spool_directory().unwrap_or_else(|| PathBuf::from(DEFAULT_ROOT));
    let nearest = root
        .ancestors()
        .find(|directory| directory.is_dir())
        .unwrap_or(Path::new("."));
    let path = CString::new(nearest.as_os_str().as_bytes())?;
    // SAFETY: a system call that fills a structure of plain numbers, which is read only if it did.
    unsafe {
        let mut found = std::mem::zeroed::<libc::statvfs>();
        if libc::statvfs(path.as_ptr(), &raw mut found) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

/// Refuses to take what the server itself needs, where it shares a file system with the spool.
///
/// # Errors
/// `Transient`, of a full disk, if there is less free than `snowflake_bridge.min_free_space`.
pub fn require_space() -> Result<()> {
    let least = guc::min_free_space();
    if least == 0 || !guards::ON {
        return Ok(());
    }
    let failed = |error| storage("look at the spool directory's file system", error);
    let free = free_bytes().map_err(failed)?;
    if free >= least {
        return Ok(());
    }
    let message = format!(
        "the spool directory's file system has {} MB free, less than snowflake_bridge.min_free_space, {} MB",
        free >> 20,
        least >> 20
    );
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    Err(CoreError::new(ErrorKind::Transient, message)
        .with_hint("Free space there, or set snowflake_bridge.spool_directory to another disk; a lower min_free_space leaves less to the server.")
        .with_source(full)
        .on_this_machine()
        .into())
}

/// Makes a directory for the server's user alone, unless it is there.
///
/// # Errors
/// If it cannot be made.
pub fn make_private(directory: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(unusable)
}

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

/// Removes the files of an upload when the current transaction commits.
///
/// # Errors
/// If there is no place for files.
pub fn remove_at_commit(upload_id: Uuid) -> Result<()> {
    enter(Pending {
        directory: root()?.join(upload_id.to_string()),
        fate: Fate::RemoveOnCommit,
        subtransaction: current_subtransaction(),
        lock: None,
        announcement: None,
    });
    Ok(())
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

/// Removes the directories of databases that were dropped, where nobody ever looks again. Only within the data directory:
/// what a setting names may be others' too. `databases` is asked after the directories were found.
///
/// # Errors
/// What `databases` returns.
pub fn sweep_dropped(databases: impl FnOnce() -> Result<Vec<i64>>) -> Result<()> {
    if guc::spool_directory().is_some() {
        return Ok(());
    }
    let Ok(entries) = std::fs::read_dir(DEFAULT_ROOT) else {
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
    RemoveOnCommit,
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
    let fate = match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT => Fate::RemoveOnCommit,
        pg_sys::XactEvent::XACT_EVENT_ABORT => Fate::RemoveOnAbort,
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
        if pending.fate == fate {
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

/// Waits until the disk has the directory's entries.
fn sync(directory: &Path) -> Result<()> {
    // The parent of a relative path's first part is the empty path.
    let directory = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(unusable)
}

fn unusable(error: std::io::Error) -> Error {
    storage("use the spool directory", error).into()
}

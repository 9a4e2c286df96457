//! Where the spool is, and that no other server's is there.

use std::ffi::{CString, OsString};
use std::fs::{self, DirBuilder, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use bridge_core::spool::storage;
use bridge_core::{Error as CoreError, ErrorKind};
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, Result};
use crate::{guards, guc};

/// Where files wait unless a setting says otherwise, within the data directory.
const DEFAULT_DIRECTORY: &str = "snowflake_bridge_spool";
/// The file that names the data directory of the server whose files are beside it.
const OWNER: &str = "owner";

/// Where this database's files wait until they are staged, private to the server's user.
///
/// # Errors
/// If it cannot be made, or `55006` if another server uses it.
pub fn root() -> Result<PathBuf> {
    let all = directory();
    // SAFETY: a variable of this process.
    let database = unsafe { pg_sys::MyDatabaseId };
    // Two databases of one server never share a directory.
    let root = all.join(database.to_u32().to_string());
    if !root.is_dir() {
        make_private(&root)?;
        for made in all.ancestors().take(3) {
            sync(made)?;
        }
    }
    if guc::spool_directory().is_some() {
        take(&all)?;
    }
    Ok(root)
}

/// The directory of this server's files. What a setting names may be other servers' too, so each has its own there.
pub(super) fn directory() -> PathBuf {
    match guc::spool_directory() {
        // SAFETY: a look at shared memory.
        Some(shared) => shared.join(unsafe { pg_sys::GetSystemIdentifier() }.to_string()),
        None => PathBuf::from(DEFAULT_DIRECTORY),
    }
}

/// Makes sure that no copy of this server has its files here too: it has the same identifier, and would remove what is not its own.
/// A server that has been moved, or takes the place of one that does not run, finds again what is there.
///
/// # Errors
/// `55006` if another server runs that uses the directory.
fn take(directory: &Path) -> Result<()> {
    match owner(directory)? {
        Owner::This => return Ok(()),
        Owner::Nobody => {}
        Owner::Other => {
            return Err(Error::user(
                PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
                "the spool directory is used by a copy of this server, or by the one that this is a copy of",
            )
            .hint("Set snowflake_bridge.spool_directory to a directory of this server's own."));
        }
    }
    let own = fs::canonicalize(".").map_err(unusable)?;
    // Whole or not at all.
    let new = directory.join(format!("{OWNER}-{}", std::process::id()));
    fs::write(&new, own.as_os_str().as_bytes())
        .and_then(|()| File::open(&new)?.sync_all())
        .and_then(|()| fs::rename(&new, directory.join(OWNER)))
        .map_err(unusable)?;
    sync(directory)
}

/// Whether another server than this one, with the same identifier, uses the spool directory.
///
/// # Errors
/// If that cannot be looked up.
pub fn is_others() -> Result<bool> {
    Ok(guc::spool_directory().is_some() && matches!(owner(&directory())?, Owner::Other))
}

/// Whose the files in a directory are.
enum Owner {
    This,
    Other,
    /// Nothing was ever here, or their server is not there any more.
    Nobody,
}

fn owner(directory: &Path) -> Result<Owner> {
    let named = match fs::read(directory.join(OWNER)) {
        Ok(named) => PathBuf::from(OsString::from_vec(named)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Owner::Nobody),
        Err(error) => return Err(unusable(error)),
    };
    let own = fs::canonicalize(".").map_err(unusable)?;
    Ok(if named == own {
        Owner::This
    } else if guards::ON && is_running(&named, &own) {
        Owner::Other
    } else {
        Owner::Nobody
    })
}

/// Whether another server than this one runs in a data directory, or has died there.
fn is_running(data_directory: &Path, own: &Path) -> bool {
    let identity = |path: &Path| {
        fs::metadata(path)
            .map(|found| (found.dev(), found.ino()))
            .ok()
    };
    identity(data_directory).is_some_and(|found| Some(found) != identity(own))
        && data_directory.join("postmaster.pid").exists()
}

/// What the server's user may still write where the spool is, or where it will be made.
///
/// # Errors
/// What the file system says.
pub fn free_bytes() -> std::io::Result<u64> {
    let directory = directory();
    let nearest = directory
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

/// Waits until the disk has the directory's entries.
pub(super) fn sync(directory: &Path) -> Result<()> {
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

pub(super) fn unusable(error: std::io::Error) -> Error {
    storage("use the spool directory", error).into()
}

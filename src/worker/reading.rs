//! Reading the result of an execution into the spool, by the worker or by a reader.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bridge_core::spool::{Manifest, SpoolOptions};
use bridge_core::{Error as CoreError, ErrorKind};
use serde::{Deserialize, Serialize};

use super::entry;
use crate::error::{Error, Result};
use crate::options::TargetOptions;
use crate::source::{self, QueryResult, ReadOptions, spooled};
use crate::timer::{Limited, Purpose, limited};
use crate::uploads::Claimed;
use crate::watches::Watch;
use crate::{failpoint, guc, net, setting, tx};

/// The worker itself reads for no longer than this: everybody else's uploads wait meanwhile.
const PATIENCE: Duration = Duration::from_millis(500);

/// Results that are larger than this where they are stored, and maybe compressed there, are for a reader. They take
/// some tenths of a second.
const SMALL_BYTES: i64 = 1 << 20;

/// What was read.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Read {
    pub manifest: Manifest,
    /// Columns with values that Snowflake cannot hold, and how many of them are loaded as something else.
    pub out_of_range: Vec<(String, u64)>,
}

impl Read {
    fn of(result: QueryResult) -> Self {
        Self {
            manifest: result.manifest,
            out_of_range: result.affected,
        }
    }

    /// Values that were loaded as something else.
    pub(super) fn out_of_range_count(&self) -> u64 {
        self.out_of_range.iter().map(|(_, count)| count).sum()
    }
}

/// Where this claim's files go.
pub(super) fn spool(upload: &Claimed, spool_root: &Path) -> PathBuf {
    match upload.watch_id {
        Some(_) => spool_root
            .join(upload.upload_id.to_string())
            .join(upload.claim.to_string()),
        None => spooled::of_caller(spool_root, upload.upload_id),
    }
}

/// Reads what is quickly read; `None` for what a reader should.
///
/// # Errors
/// Whatever makes the result unreadable.
pub(super) fn read_quickly(
    upload: &Claimed,
    watch: &Watch,
    options: &TargetOptions,
    spool_root: &Path,
) -> Result<Option<Read>> {
    if !watch.result.is_in_row() {
        return Ok(None);
    }
    let read = limited(PATIENCE, purpose(upload), || {
        read(upload, watch, options, spool_root, &|_| {}, |options| {
            source::read_small(watch, SMALL_BYTES, options)
        })
    });
    match read {
        Limited::InTime(read) => Ok(read?.map(Read::of)),
        Limited::TooLong => Ok(None),
    }
}

/// Reads everything, however long it takes.
///
/// # Errors
/// Whatever makes the result unreadable.
pub(super) fn read_all(
    upload: &Claimed,
    spool_root: &Path,
    progress: &dyn Fn(u64),
) -> Result<Read> {
    let limit = guc::snapshot_timeout();
    let read = limited(limit, purpose(upload), || {
        let options = TargetOptions::parse(&upload.options)?;
        let id = upload.watch_id.ok_or_else(Watch::has_ended)?;
        let watch = tx::transaction(|| watch(id))?;
        watch.require_active()?;
        read(upload, &watch, &options, spool_root, progress, |options| {
            source::read(&watch, options)
        })
    });
    match read {
        Limited::InTime(read) => Ok(Read::of(read?)),
        Limited::TooLong => Err(took_too_long()),
    }
}

fn purpose(upload: &Claimed) -> Purpose {
    Purpose::Reading {
        upload: upload.id,
        watch: upload.watch_id.unwrap_or_default(),
    }
}

/// What becomes of a result that takes too long to read.
pub(super) fn took_too_long() -> Error {
    CoreError::new(
        ErrorKind::Configuration,
        format!(
            "reading the result took longer than snowflake_bridge.snapshot_timeout, {} s",
            guc::snapshot_timeout().as_secs()
        ),
    )
    .with_hint("Make what gives the rows faster, or raise the setting and call snowflake_bridge.retry_upload.")
    .into()
}

/// Has `result` read what an upload of this watch has, in a transaction that only reads.
fn read<T>(
    upload: &Claimed,
    watch: &Watch,
    options: &TargetOptions,
    spool_root: &Path,
    progress: &dyn Fn(u64),
    result: impl FnOnce(&ReadOptions<'_>) -> Result<T>,
) -> Result<T> {
    spooled::require_space()?;
    let spool = spool(upload, spool_root);
    spooled::make_private(spool.parent().unwrap_or(&spool))?;
    tx::transaction(|| {
        read_only()?;
        failpoint::reach("reading");
        result(&ReadOptions {
            execution_id: &upload.execution_id,
            user_id: upload.row_user_id.as_deref(),
            upload_id: upload.upload_id,
            spool: &spool,
            plan: options.plan(),
            files: SpoolOptions {
                aside: net::ASIDE,
                ..guc::spool_options()
            },
            progress,
        })
    })
    .map_err(|error| watch.result.explain(error))
}

/// Whatever code the owner attached to the relation, reading it changes nothing, and the application comes first.
fn read_only() -> Result<()> {
    setting::set_for_transaction(c"transaction_read_only", c"on");
    entry::lose_deadlocks()
}

/// The files that the upload's caller has left, if they are all there.
///
/// # Errors
/// If one is not.
pub(super) fn what_caller_read(upload: &Claimed, spool_root: &Path) -> Result<Manifest> {
    let gone = || {
        Error::missing("the rows of this upload are not in the spool directory any more").hint(
            "The query is not kept, so nobody can read them again: call upload_query or upload_table again.",
        )
    };
    let spool = spool(upload, spool_root);
    let manifest = upload.manifest.clone().ok_or_else(gone)?;
    for file in &manifest.files {
        let found = std::fs::metadata(spool.join(&file.name));
        if !found.is_ok_and(|found| found.is_file() && found.len() == file.bytes) {
            return Err(gone());
        }
    }
    Ok(manifest)
}

/// The watch of an upload, which may have ended. Needs a transaction.
///
/// # Errors
/// If it was removed altogether.
pub(super) fn watch(id: i64) -> Result<Watch> {
    Watch::load(id)?.ok_or_else(Watch::has_ended)
}

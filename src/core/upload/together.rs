//! Several uploads that add rows of the same columns to one table share one COPY and one transaction. Each keeps its own
//! record: what it has staged, the transaction, and how many rows of it there are. If anything goes wrong, each of them
//! goes on by itself from there.

use async_trait::async_trait;
use futures::future::try_join_all;
use uuid::Uuid;

use super::strategy::Strategy;
use super::{
    Ledger, MAX_FILES_PER_COPY, Outcome, Phase, Upload, execute, leftovers, load, local_files,
    outcome, put, size, table,
};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::snowflake::{LocalFile, Warehouse, sql};
use crate::spool::{Manifest, SpoolFile};

/// One of the uploads, and where it is recorded.
pub struct Member<'a> {
    /// What there is to load. [`Upload::may_share`] holds.
    pub upload: &'a Upload,
    /// Its own records.
    pub ledger: &'a dyn Ledger,
}

impl Upload {
    /// Whether it only adds rows, and nothing of it can be in Snowflake yet.
    #[must_use]
    pub fn may_share(&self) -> bool {
        self.strategy == Strategy::Append
            && self.replaces.is_empty()
            && !self.manifest.files.is_empty()
            && !self.is_staged
            && self.transaction.is_none()
            && !self.may_be_loaded
            && !self.is_canceled
            && !self.only_settles
            && !self.is_alone
    }

    /// Whether two uploads that may share a COPY are for the same table and the same columns.
    #[must_use]
    pub fn fits(&self, other: &Self) -> bool {
        self.target == other.target
            && self.evolve_schema == other.evolve_schema
            && self.cluster_by == other.cluster_by
            && self.manifest.has_columns_of(&other.manifest)
    }
}

/// Carries all of them to their end, or none: then each may go on by itself, from what its ledger has.
///
/// # Errors
/// As [`run`](super::run), of whichever comes first. No rows are in the table unless a ledger says that it is open.
pub async fn run_together(
    members: &[Member<'_>],
    warehouse: &mut dyn Warehouse,
) -> Result<Vec<Outcome>> {
    let whole = whole(members)?;
    size::check(&whole)?;
    let ledgers = All(members);
    let local = members.iter().flat_map(|member| local_files(member.upload));
    let files: Vec<LocalFile<'_>> = local
        .zip(&whole.manifest.files)
        .map(|(local, file)| LocalFile {
            name: &file.name,
            ..local
        })
        .collect();
    put(&files, &whole.stage_directory, warehouse, &ledgers).await?;
    ledgers.progress(Phase::Preparing, 0);
    let target = table::prepare(warehouse, &whole).await?;
    failpoint::reach("prepared")?;
    let loaded = load::load(&whole, &target, warehouse, &ledgers, false).await?;
    Ok(members
        .iter()
        .map(|member| outcome(member.upload, loaded.query_id.clone()))
        .collect())
}

/// Removes what they have staged.
///
/// # Errors
/// What Snowflake answered.
pub async fn clean_up_together(uploads: &[Upload], warehouse: &mut dyn Warehouse) -> Result<()> {
    failpoint::reach("clean-up")?;
    let Some((root, _)) = uploads.first().and_then(directories) else {
        return Ok(());
    };
    let ids: Vec<Uuid> = uploads.iter().map(|upload| upload.upload_id).collect();
    execute(warehouse, sql::remove_uploads(root, &ids))
        .await
        .map(drop)
}

/// All members as one upload, whose files lie in the directories of theirs.
fn whole(members: &[Member<'_>]) -> Result<Upload> {
    let internal = || Error::new(ErrorKind::Internal, "uploads cannot share one COPY");
    let first = members.first().ok_or_else(internal)?.upload;
    let (root, _) = directories(first).ok_or_else(internal)?;
    let mut whole = Upload {
        is_staged: true,
        is_several: true,
        stage_directory: root.to_owned(),
        manifest: Manifest {
            files: Vec::new(),
            rows: 0,
            bytes: 0,
            ..first.manifest.clone()
        },
        ..first.clone()
    };
    for Member { upload, .. } in members {
        let (own_root, below) = directories(upload).ok_or_else(internal)?;
        if own_root != root || !upload.may_share() || !upload.fits(first) {
            return Err(internal());
        }
        let manifest = &mut whole.manifest;
        manifest.rows += upload.manifest.rows;
        manifest.bytes += upload.manifest.bytes;
        for file in &upload.manifest.files {
            manifest.files.push(SpoolFile {
                name: format!("{below}{}", file.name),
                ..file.clone()
            });
        }
        for (column, of_upload) in manifest.columns.iter_mut().zip(&upload.manifest.columns) {
            column.add(of_upload);
        }
    }
    if whole.manifest.files.len() > MAX_FILES_PER_COPY {
        return Err(internal());
    }
    Ok(whole)
}

/// The directory of the installation in the stage, and below it that of the attempt.
fn directories(upload: &Upload) -> Option<(&str, &str)> {
    leftovers::split(&upload.stage_directory)
}

/// The ledgers of all members as one.
struct All<'a>(&'a [Member<'a>]);

#[async_trait]
impl Ledger for All<'_> {
    // What is told at once can be made durable at once.
    async fn staged(&self) -> Result<()> {
        let mut records = Vec::new();
        for member in self.0 {
            records.push(member.ledger.staged());
        }
        try_join_all(records).await.map(drop)
    }

    async fn copying(&self, transaction: &str, _: u64) -> Result<()> {
        let mut records = Vec::new();
        for Member { upload, ledger } in self.0 {
            records.push(ledger.copying(transaction, upload.manifest.rows));
        }
        try_join_all(records).await.map(drop)
    }

    fn rolled_back(&self) {
        for member in self.0 {
            member.ledger.rolled_back();
        }
    }

    fn progress(&self, phase: Phase, _: u64) {
        for Member { upload, ledger } in self.0 {
            // How far each is while they travel together is not told.
            let is_staged = phase != Phase::Staging;
            ledger.progress(phase, if is_staged { upload.manifest.bytes } else { 0 });
        }
    }
}

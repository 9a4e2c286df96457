//! The beginning of an attempt, on the main thread: whose connection it uses, where it goes, and what there is to load. What
//! comes out is a job that needs PostgreSQL no more.

use std::path::Path;
use std::time::Instant;

use bridge_core::ErrorKind;
use bridge_core::config::ConnectionSettings;
use bridge_core::snowflake::PoolKey;
use bridge_core::spool::Manifest;
use bridge_core::upload::Strategy;
use bridge_core::{failpoint, upload};
use pgrx::bgworkers::BackgroundWorker;

use super::plan::{Plan, plan};
use super::reading::{self, Read};
use super::runner::Job;
use super::stubborn;
use crate::configs::{self, StoredConfig};
use crate::error::{Error, Result};
use crate::options::TargetOptions;
use crate::uploads::{self, Claimed};
use crate::{guc, setting, tx};

/// Snowflake's limit of QUERY_TAG, in characters.
const MAX_QUERY_TAG: usize = 2000;

/// How an attempt goes on.
pub enum Begun {
    /// Everything is there that the network thread needs.
    Job(Box<Job>),
    /// It takes long to read, or may not end, and waits for a reader.
    ForReader,
}

/// Prepares everything the network thread needs; what it reported until `read_at` has been recorded. Runs transactions of
/// its own; reading is a read-only one. Others of the owner are about to send `under_way` bytes.
///
/// # Errors
/// Whatever makes this attempt impossible.
pub fn begin(
    upload: &Claimed,
    spool_root: &Path,
    read_at: Instant,
    under_way: u64,
) -> Result<Begun> {
    if upload.cancel_requested && upload.transaction.is_none() {
        return Err(upload::canceled().into());
    }
    failpoint::reach("claimed")?;
    let attempt = Attempt::plan(upload)?;
    if attempt.knocks() {
        tx::transaction(|| uploads::record_config(upload.as_claim(), attempt.plan.config.id))?;
        let job = attempt.into_job(spool_root, read_at, Manifest::default(), None)?;
        return Ok(Begun::Job(Box::new(job)));
    }
    if attempt.only_settles() {
        let (claim, config) = (upload.as_claim(), attempt.plan.config.id);
        tx::transaction(|| {
            if attempt.is_same_destination() {
                uploads::record_config(claim, config)
            } else {
                uploads::record_moved(claim, config)
            }
        })?;
        let manifest = upload.manifest.clone().unwrap_or_default();
        let job = attempt.into_job(spool_root, read_at, manifest, upload.staged_claim)?;
        return Ok(Begun::Job(Box::new(job)));
    }
    if let Some((manifest, claim)) = attempt.staged() {
        tx::transaction(|| uploads::record_config(upload.as_claim(), attempt.plan.config.id))?;
        let job = attempt.into_job(spool_root, read_at, manifest, Some(claim))?;
        return Ok(Begun::Job(Box::new(job)));
    }
    uploads::expect_allowance(upload, under_way)?;
    let (manifest, out_of_range) = match &attempt.plan.watch {
        None => (reading::what_caller_read(upload, spool_root)?, None),
        Some(watch) => {
            let is_stubborn = stubborn::is(watch);
            if guc::max_reader_processes() > 0 {
                // A process of its own can be ended, or die, alone.
                if upload.is_suspect() || is_stubborn {
                    return Ok(Begun::ForReader);
                }
            } else if is_stubborn {
                return Err(stubborn::needs_reader());
            }
            let read = match reading::read_quickly(upload, watch, &attempt.options, spool_root)? {
                Some(read) => read,
                None if guc::max_reader_processes() > 0 => return Ok(Begun::ForReader),
                None => reading::read_all(upload, spool_root, &|_| {})?,
            };
            let out_of_range = read.out_of_range_count();
            (read.manifest, Some(out_of_range))
        }
    };
    let job =
        attempt.into_job_after_reading(spool_root, read_at, manifest, out_of_range, under_way)?;
    Ok(Begun::Job(Box::new(job)))
}

/// Goes on where a reader has left off.
///
/// # Errors
/// As [`begin`].
pub fn go_on(
    upload: &Claimed,
    spool_root: &Path,
    read_at: Instant,
    read: Read,
    under_way: u64,
) -> Result<Job> {
    let out_of_range = read.out_of_range_count();
    Attempt::plan(upload)?.into_job_after_reading(
        spool_root,
        read_at,
        read.manifest,
        Some(out_of_range),
        under_way,
    )
}

/// An attempt of which is known where it goes.
struct Attempt<'a> {
    upload: &'a Claimed,
    options: TargetOptions,
    plan: Plan,
    settings: ConnectionSettings,
    /// Account and user, whose stage it is: others have another one.
    destination: String,
    /// Table, schema and database.
    target: (String, Option<String>, Option<String>),
}

impl<'a> Attempt<'a> {
    fn plan(upload: &'a Claimed) -> Result<Self> {
        let options = TargetOptions::parse(&upload.options)?;
        let (plan, opened) = tx::transaction(|| {
            let plan = plan(upload, &options)?;
            if plan.owner != upload.lane.owner {
                uploads::record_owner(upload.as_claim(), &plan.owner)?;
            }
            let opened = plan.config.open();
            Ok((plan, opened))
        })?;
        if plan.owner != upload.lane.owner {
            return Err(changed_hands());
        }
        let config = &plan.config;
        let settings = match opened {
            Ok(settings) if config.is_active => settings,
            opened => {
                let error = opened.err().unwrap_or_else(|| refused(config));
                // By this, update_config finds the upload again.
                tx::transaction(|| {
                    uploads::record_config(upload.as_claim(), config.id)?;
                    match &error {
                        // The key was lost, or the row was changed by hand: Snowflake need not be asked.
                        Error::Core(error)
                            if config.is_active && error.kind() == ErrorKind::Credentials =>
                        {
                            configs::mark_refused(config.id, config.version, error.message())
                        }
                        _ => Ok(()),
                    }
                })?;
                return Err(error);
            }
        };
        Ok(Self {
            upload,
            destination: config.stage_owner(&settings.account),
            target: match &upload.transaction_table {
                Some(table) if plan.is_dropped => (
                    table.table.clone(),
                    Some(table.schema.clone()),
                    Some(table.database.clone()),
                ),
                _ => options.target(&plan.default_table)?,
            },
            options,
            plan,
            settings,
        })
    }

    fn is_same_destination(&self) -> bool {
        self.upload.staged_for.as_ref() == Some(&self.destination)
    }

    /// Whether an earlier attempt loaded, as whichever user, under another host name. It may be another account's, which knows
    /// nothing of that, or another name of the same one.
    fn is_moved(&self) -> bool {
        let staged_for = self.upload.staged_for.as_deref();
        staged_for.and_then(|destination| destination.split('/').next())
            != Some(self.settings.account.host())
    }

    /// What an earlier attempt has put into that very stage, and the claim that did.
    fn staged(&self) -> Option<(Manifest, i32)> {
        self.upload
            .manifest
            .clone()
            .zip(self.upload.staged_claim)
            .filter(|_| self.is_same_destination())
    }

    /// This attempt only logs in, and needs no rows.
    fn knocks(&self) -> bool {
        !self.upload.is_let_in
    }

    /// What an earlier attempt may have loaded comes first: before anything is read anew, and where it may not be loaded again.
    fn only_settles(&self) -> bool {
        self.upload.is_undecided()
            && (self.staged().is_none()
                || self.upload.attempt > guc::max_attempts()
                || self.upload.has_crashed_too_often())
    }

    fn into_job_after_reading(
        self,
        spool_root: &Path,
        read_at: Instant,
        manifest: Manifest,
        out_of_range: Option<u64>,
        under_way: u64,
    ) -> Result<Job> {
        failpoint::reach("read")?;
        tx::transaction(|| {
            // Nothing that Snowflake is told depends on it. What is recorded next, that the files are staged, waits for the disk, which
            // then has this too.
            setting::commit_without_waiting();
            uploads::record_read(
                self.upload.as_claim(),
                self.plan.config.id,
                &self.destination,
                &manifest,
                out_of_range,
            )
        })?;
        failpoint::reach("read-recorded")?;
        uploads::require_allowance(self.upload, under_way, manifest.bytes)?;
        self.into_job(spool_root, read_at, manifest, None)
    }

    fn into_job(
        self,
        spool_root: &Path,
        read_at: Instant,
        manifest: Manifest,
        staged_claim: Option<i32>,
    ) -> Result<Job> {
        let (is_moved, only_settles, knocks) =
            (self.is_moved(), self.only_settles(), self.knocks());
        let Self {
            upload,
            options,
            plan,
            settings,
            target: (table, schema, database),
            ..
        } = self;
        Ok(Job {
            claim: upload.as_claim(),
            knocks,
            upload_id: upload.upload_id,
            installation_id: plan.installation_id,
            pool_key: PoolKey::new(plan.config.id, plan.config.version),
            settings,
            read_at,
            query_tag: query_tag(upload),
            table,
            schema,
            database,
            spool: reading::spool(upload, spool_root),
            strategy: if only_settles || knocks {
                Strategy::Append
            } else {
                options.strategy(&manifest)?
            },
            manifest,
            staged_claim,
            transaction: upload.transaction.clone(),
            transaction_table: upload.transaction_table.clone(),
            is_moved,
            may_be_loaded: upload.may_be_loaded,
            replaces: plan.replaces,
            cluster_by: options.cluster_by(),
            evolve_schema: options.evolve_schema(),
            is_canceled: upload.cancel_requested,
            only_settles,
            is_alone: upload.is_alone,
            is_sweeping: false,
            is_first_of_owner: false,
            comment: format!("Loaded by snowflake_bridge from {}", plan.relation),
        })
    }
}

fn changed_hands() -> Error {
    bridge_core::Error::new(
        ErrorKind::NeedsTurn,
        "its watch has changed hands; now it takes its turn as the new owner's",
    )
    .into()
}

fn refused(config: &StoredConfig) -> Error {
    bridge_core::Error::new(
        ErrorKind::Credentials,
        format!(
            "Snowflake refused the credentials of configuration \"{}\"",
            config.name
        ),
    )
    .into()
}

/// What Snowflake's query history shows beside each statement: where it comes from.
fn query_tag(upload: &Claimed) -> String {
    // The worker is started with the name of its database.
    let database = BackgroundWorker::get_extra();
    let tag = |execution_id: &str| {
        serde_json::json!({
            "application": "snowflake_bridge", "database": database, "upload": upload.id,
            "upload_id": upload.upload_id, "execution_id": execution_id,
        })
        .to_string()
    };
    let whole = tag(&upload.execution_id);
    if whole.chars().count() <= MAX_QUERY_TAG {
        return whole;
    }
    // The ids of ours find the upload as well.
    tag("")
}

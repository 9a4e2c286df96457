//! The part of an upload that runs on the network thread. It knows no SQL: what must become durable it asks of the main
//! thread, and waits for the answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bridge_core::config::ConnectionSettings;
use bridge_core::snowflake::sql::TableName;
use bridge_core::snowflake::{Pool, PoolKey, PooledSession, SessionInfo};
use bridge_core::spool::Manifest;
use bridge_core::upload::{self, ClusterBy, Outcome, Strategy, Upload, leftovers};
use bridge_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::cleaning;
use super::ledger::{State, WorkerLedger};
use super::report::{Event, Reporter};
use super::slots::Slots;
use super::together::carry_all;
use crate::net;
use crate::uploads::Claim;

/// Everything the network thread needs for one upload, in plain values.
pub struct Job {
    pub claim: Claim,
    pub upload_id: Uuid,
    pub installation_id: Uuid,
    pub pool_key: PoolKey,
    pub settings: ConnectionSettings,
    /// When the settings were read.
    pub read_at: Instant,
    pub query_tag: String,
    pub table: String,
    pub schema: Option<String>,
    pub database: Option<String>,
    pub spool: PathBuf,
    pub manifest: Manifest,
    /// The claim that staged all files, if one did.
    pub staged_claim: Option<i32>,
    pub transaction: Option<String>,
    /// The table that it was about.
    pub transaction_table: Option<TableName>,
    /// It was begun under another host name.
    pub is_moved: bool,
    pub may_be_loaded: bool,
    pub replaces: Vec<Uuid>,
    pub strategy: Strategy,
    pub cluster_by: ClusterBy,
    pub evolve_schema: bool,
    pub comment: String,
    /// Somebody has asked to stop before this attempt.
    pub is_canceled: bool,
    /// This attempt only finds out what an earlier one has done.
    pub only_settles: bool,
    pub is_alone: bool,
    /// It was not known whether Snowflake lets it in, nor who else is at its table: it only finds out.
    pub knocks: bool,
    /// Once it is loaded, the whole stage is looked through.
    pub is_sweeping: bool,
    /// Its owner has no other upload under way.
    pub is_first_of_owner: bool,
}

impl Job {
    /// Where the files of this attempt are, or of the earlier one that staged them all.
    fn stage_directory(&self) -> String {
        format!(
            "{}{}/",
            leftovers::directory(self.installation_id, self.upload_id),
            self.staged_claim.unwrap_or(self.claim.number)
        )
    }

    /// The upload in the words of the core, for a session of its configuration.
    ///
    /// # Errors
    /// `Configuration` if nobody says which database or schema.
    pub(super) fn upload(&self, session: &SessionInfo) -> Result<Upload> {
        Ok(Upload {
            upload_id: self.upload_id,
            target: table_name(self, session)?,
            spool: self.spool.clone(),
            stage_directory: self.stage_directory(),
            manifest: self.manifest.clone(),
            is_staged: self.staged_claim.is_some(),
            transaction: self.transaction.clone(),
            transaction_table: self.transaction_table.clone(),
            is_moved: self.is_moved,
            may_be_loaded: self.may_be_loaded,
            replaces: self.replaces.clone(),
            strategy: self.strategy.clone(),
            cluster_by: self.cluster_by.clone(),
            evolve_schema: self.evolve_schema,
            comment: self.comment.clone(),
            is_canceled: self.is_canceled,
            only_settles: self.only_settles,
            is_several: false,
            is_alone: self.is_alone,
        })
    }
}

/// Stops an upload on the network thread when it is told to; dropping it stops nothing.
pub struct Canceler(oneshot::Sender<()>);

impl Canceler {
    pub(super) fn new() -> (Self, oneshot::Receiver<()>) {
        let (canceler, canceled) = oneshot::channel();
        (Self(canceler), canceled)
    }

    /// Ends the upload, which aborts its statement in Snowflake, unless its rows are being committed; where an earlier
    /// attempt may have committed them, as soon as it is known that it has not. It then reports how it ended, as always.
    pub fn cancel(self) {
        // Nobody listens any more if it has just ended.
        let _ = self.0.send(());
    }
}

/// Starts an upload on the network thread, or several that share a COPY. Each reports [`Event::Finished`], whatever
/// happens, and then tidies up.
///
/// # Errors
/// If the network thread cannot be started.
pub fn start(
    mut jobs: Vec<Job>,
    pool: Arc<Pool>,
    slots: Slots,
    reporter: Reporter,
) -> crate::error::Result<Vec<Canceler>> {
    let (cancelers, mut canceled): (Vec<_>, Vec<_>) = jobs.iter().map(|_| Canceler::new()).unzip();
    if jobs.len() == 1
        && let (Some(job), Some(canceled)) = (jobs.pop(), canceled.pop())
    {
        net::spawn(carry(job, pool, slots, reporter, canceled))?;
    } else {
        net::spawn(carry_all(jobs, pool, slots, reporter, canceled))?;
    }
    Ok(cancelers)
}

async fn carry(
    job: Job,
    pool: Arc<Pool>,
    slots: Slots,
    reporter: Reporter,
    canceled: oneshot::Receiver<()>,
) {
    let claim = job.claim;
    let mut target = None;
    let state = State::new(job.transaction.is_some());
    let mut has_swept = false;
    let result = tokio::select! {
        biased;
        result = net::guarded(run(&job, &pool, &slots, &reporter, &state, &mut target)) => result,
        () = stop(canceled, &state) => Err(upload::canceled()),
    };
    let is_undecided = state.is_undecided();
    match result {
        Ok(mut loaded) => {
            if reporter
                .finish(claim, target, Ok(loaded.outcome), false)
                .await
            {
                // What stays in the stage costs storage, not correctness.
                let cleaned = net::guarded(tidy_up(
                    &job,
                    &loaded.upload,
                    &mut loaded.session,
                    &reporter,
                ))
                .await;
                // A session that is only dropped is closed, which would undo what a failed statement left open.
                if cleaned.is_ok() {
                    has_swept = job.is_sweeping;
                    loaded.session.release();
                }
            }
        }
        Err(error) => {
            let is_canceled = error.kind() == ErrorKind::Canceled;
            if !reporter
                .finish(claim, target, Err(error), is_undecided)
                .await
            {
                return;
            }
            if let Some(transaction) = state.into_transaction() {
                // What it does not reach, the next attempt does.
                let _ = net::guarded(abort(&job, &pool, &transaction)).await;
            }
            if is_canceled {
                // As above.
                let _ = net::guarded(remove_staged(&job, &pool, &reporter)).await;
            }
        }
    }
    if job.is_sweeping && !has_swept {
        not_swept(&job, &reporter);
    }
}

/// The stage is looked through by somebody else.
pub(super) fn not_swept(job: &Job, reporter: &Reporter) {
    let config = job.pool_key.config;
    // Nobody is left to hear it when the worker is shutting down.
    let _ = reporter.send(Event::NotSwept { config });
}

/// Ends when somebody asks to stop in time. Polled by the same thread as the upload, and after it: between the look at the
/// flag and the end of the upload nothing can begin.
async fn stop(canceled: oneshot::Receiver<()>, state: &State) {
    if canceled.await.is_err() {
        std::future::pending::<()>().await;
    }
    state.decided().await;
}

async fn tidy_up(
    job: &Job,
    upload: &Upload,
    session: &mut PooledSession,
    reporter: &Reporter,
) -> Result<()> {
    upload::clean_up(upload, session).await?;
    reporter.send(Event::Cleaned { claim: job.claim })?;
    if job.is_sweeping {
        cleaning::sweep(job.installation_id, session, reporter).await?;
    }
    Ok(())
}

/// Ends the transaction of a load that failed: if its ROLLBACK was lost, it still has the locks that others wait for, maybe in
/// all slots, so that no next attempt would begin.
pub(super) async fn abort(job: &Job, pool: &Pool, transaction: &str) -> Result<()> {
    let mut session = pool
        .acquire(&job.pool_key, &job.settings, job.read_at, &job.query_tag)
        .await?;
    upload::abort(transaction, &mut session).await?;
    session.release();
    Ok(())
}

pub(super) async fn remove_staged(job: &Job, pool: &Pool, reporter: &Reporter) -> Result<()> {
    let mut session = pool
        .acquire(&job.pool_key, &job.settings, job.read_at, &job.query_tag)
        .await?;
    let (installation, claim) = (job.installation_id, job.claim);
    leftovers::remove_until(installation, job.upload_id, claim.number, &mut session).await?;
    session.release();
    reporter.send(Event::Cleaned { claim })
}

struct Loaded {
    outcome: Outcome,
    upload: Upload,
    session: PooledSession,
}

async fn run(
    job: &Job,
    pool: &Pool,
    slots: &Slots,
    reporter: &Reporter,
    state: &State,
    target: &mut Option<String>,
) -> Result<Loaded> {
    let mut session = pool
        .acquire(&job.pool_key, &job.settings, job.read_at, &job.query_tag)
        .await?;
    if job.knocks {
        // One that lay idle says nothing about now.
        session.prove().await?;
    }
    if session.is_proven() {
        reporter.send(Event::Connected { claim: job.claim })?;
    }
    if job.knocks {
        session.release();
        return Err(Error::new(
            ErrorKind::NeedsTurn,
            "Snowflake lets its connection in; now it takes its turn at its table",
        ));
    }
    // Only now, since whoever is not let in should keep nobody else from going on.
    let _slot = slots.acquire(job.is_first_of_owner).await;
    let upload = job.upload(session.info())?;
    *target = Some(upload.target.to_string());
    let ledger = WorkerLedger {
        claim: job.claim,
        reporter,
        state,
        target: upload.target.clone(),
        bytes: upload.manifest.bytes,
    };
    let outcome = upload::run(&upload, &mut session, &ledger).await?;
    Ok(Loaded {
        outcome,
        upload,
        session,
    })
}

/// The target's full name; what the user left open is what the session stands in.
fn table_name(job: &Job, session: &SessionInfo) -> Result<TableName> {
    let missing = |what: &str| {
        Error::new(
            ErrorKind::Configuration,
            format!("no {what} is set for the upload"),
        )
        .with_hint(format!(
            "Set it in the configuration (snowflake_bridge.update_config({what} => ...))."
        ))
    };
    Ok(TableName {
        database: job
            .database
            .clone()
            .or_else(|| session.database.clone())
            .ok_or_else(|| missing("database"))?,
        schema: job
            .schema
            .clone()
            .or_else(|| session.schema.clone())
            .ok_or_else(|| missing("schema"))?,
        table: job.table.clone(),
    })
}

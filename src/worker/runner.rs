//! The part of an upload that runs on the network thread. It knows no SQL: what must become durable it asks of the main
//! thread, and waits for the answer.

use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bridge_core::config::ConnectionSettings;
use bridge_core::snowflake::sql::TableName;
use bridge_core::snowflake::{Pool, PoolKey, PooledSession, SessionInfo};
use bridge_core::spool::Manifest;
use bridge_core::upload::{self, ClusterBy, Outcome, Phase, Strategy, Upload, leftovers};
use bridge_core::{Error, ErrorKind, Result};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::cleaning;
use super::ledger::WorkerLedger;
use super::slots::Slots;
use crate::net::{self, EventFd};
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
}

/// What the network thread tells the main thread about an upload.
pub enum Event {
    /// Shown to whoever asks; may be lost.
    Progress {
        claim: Claim,
        phase: Phase,
        staged: u64,
    },
    /// Snowflake has let the upload in.
    Connected { claim: Claim },
    /// Must be durable before the answer is sent; the upload waits for it.
    Record {
        claim: Claim,
        entry: Entry,
        answer: oneshot::Sender<Result<()>>,
    },
    /// The last word on this attempt. Sent back is that it was recorded: then what the attempt left is this worker's to
    /// tidy up.
    Finished {
        claim: Claim,
        target: Option<String>,
        result: Result<Outcome>,
        /// If it failed: whether it is still open what becomes of the rows.
        is_undecided: bool,
        recorded: oneshot::Sender<()>,
    },
    /// The files that an upload has left up to this claim are gone from the stage.
    Cleaned { claim: Claim },
    /// No more files are removed for now.
    CleaningEnded { config: PoolKey, result: Result<()> },
    /// Nobody has looked through the stage after all.
    NotSwept { config: Uuid },
    /// Directories of uploads that lie in a stage, and whether they are old; the answer is of which the files may go, and up to
    /// which claim.
    FoundInStage {
        found: Vec<(Uuid, bool)>,
        answer: oneshot::Sender<Vec<(Uuid, i32)>>,
    },
}

pub enum Entry {
    Staged,
    Copying {
        transaction: String,
        target: TableName,
        rows: u64,
        bytes: u64,
    },
}

/// Sends events to the main thread and wakes it.
#[derive(Clone)]
pub struct Reporter {
    pub events: Sender<Event>,
    pub wake: Arc<EventFd>,
}

impl Reporter {
    /// Tells the main thread.
    ///
    /// # Errors
    /// `Canceled` if it is ending.
    pub(super) fn send(&self, event: Event) -> Result<()> {
        self.events
            .send(event)
            .map_err(|_| Error::new(ErrorKind::Canceled, "the worker is shutting down"))?;
        self.wake.signal();
        Ok(())
    }

    pub(super) async fn record(&self, claim: Claim, entry: Entry) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.send(Event::Record {
            claim,
            entry,
            answer,
        })?;
        answered
            .await
            .map_err(|_| Error::new(ErrorKind::Canceled, "the worker is shutting down"))?
    }

    /// Returns whether it was recorded: not if another claim has taken the upload over, whose files are in the stage.
    async fn finish(
        &self,
        claim: Claim,
        target: Option<String>,
        result: Result<Outcome>,
        is_undecided: bool,
    ) -> bool {
        let (recorded, is_recorded) = oneshot::channel();
        let event = Event::Finished {
            claim,
            target,
            result,
            is_undecided,
            recorded,
        };
        self.send(event).is_ok() && is_recorded.await.is_ok()
    }
}

/// Stops an upload on the network thread when it is told to; dropping it stops nothing.
pub struct Canceler(oneshot::Sender<()>);

impl Canceler {
    /// Ends the upload, which aborts its statement in Snowflake, unless its rows are being committed; where an earlier
    /// attempt may have committed them, as soon as it is known that it has not. It then reports how it ended, as always.
    pub fn cancel(self) {
        // Nobody listens any more if it has just ended.
        let _ = self.0.send(());
    }
}

/// Starts the upload on the network thread. It reports [`Event::Finished`], whatever happens, and then tidies up.
///
/// # Errors
/// If the network thread cannot be started.
pub fn start(
    job: Job,
    pool: Arc<Pool>,
    slots: Slots,
    reporter: Reporter,
) -> crate::error::Result<Canceler> {
    let (canceler, canceled) = oneshot::channel();
    net::spawn(carry(job, pool, slots, reporter, canceled))?;
    Ok(Canceler(canceler))
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
    let (undecided, is_undecided) = watch::channel(job.transaction.is_some());
    let transaction = Mutex::new(None);
    let mut has_swept = false;
    let result = tokio::select! {
        biased;
        result = net::guarded(run(&job, &pool, &slots, &reporter, &undecided, &transaction, &mut target)) => result,
        () = stop(canceled, is_undecided) => Err(upload::canceled()),
    };
    let is_undecided = *undecided.borrow();
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
            let transaction = transaction
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(transaction) = transaction {
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
        let config = job.pool_key.config;
        // As above.
        let _ = reporter.send(Event::NotSwept { config });
    }
}

/// Ends when somebody asks to stop in time. Polled by the same thread as the upload, and after it: between the look at the
/// flag and the end of the upload nothing can begin.
async fn stop(canceled: oneshot::Receiver<()>, mut is_undecided: watch::Receiver<bool>) {
    if canceled.await.is_err() || is_undecided.wait_for(|undecided| !undecided).await.is_err() {
        std::future::pending::<()>().await;
    }
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
async fn abort(job: &Job, pool: &Pool, transaction: &str) -> Result<()> {
    let mut session = pool
        .acquire(&job.pool_key, &job.settings, job.read_at, &job.query_tag)
        .await?;
    upload::abort(transaction, &mut session).await?;
    session.release();
    Ok(())
}

async fn remove_staged(job: &Job, pool: &Pool, reporter: &Reporter) -> Result<()> {
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
    is_undecided: &watch::Sender<bool>,
    transaction: &Mutex<Option<String>>,
    target: &mut Option<String>,
) -> Result<Loaded> {
    let mut session = pool
        .acquire(&job.pool_key, &job.settings, job.read_at, &job.query_tag)
        .await?;
    if session.is_proven() {
        reporter.send(Event::Connected { claim: job.claim })?;
    }
    // Only now, since whoever is not let in should keep nobody else from going on.
    let _slot = slots.acquire(job.is_first_of_owner).await;
    let table = table_name(job, session.info())?;
    *target = Some(table.to_string());
    let upload = Upload {
        upload_id: job.upload_id,
        target: table,
        spool: job.spool.clone(),
        stage_directory: job.stage_directory(),
        manifest: job.manifest.clone(),
        is_staged: job.staged_claim.is_some(),
        transaction: job.transaction.clone(),
        transaction_table: job.transaction_table.clone(),
        replaces: job.replaces.clone(),
        strategy: job.strategy.clone(),
        cluster_by: job.cluster_by.clone(),
        evolve_schema: job.evolve_schema,
        comment: job.comment.clone(),
        is_canceled: job.is_canceled,
        only_settles: job.only_settles,
        is_alone: job.is_alone,
    };
    let ledger = WorkerLedger {
        claim: job.claim,
        reporter,
        is_undecided,
        transaction,
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

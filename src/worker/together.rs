//! The part of uploads that share one COPY which runs on the network thread. If it fails, each of them is queued to be loaded by
//! itself.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bridge_core::snowflake::{Pool, PooledSession};
use bridge_core::upload::{self, Member, Outcome, Upload};
use bridge_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

use super::cleaning;
use super::ledger::{State, WorkerLedger};
use super::report::{Event, Reporter};
use super::runner::{Job, abort, not_swept, remove_staged};
use super::slots::Slots;
use crate::net;

/// One of the uploads.
struct Part {
    job: Job,
    state: State,
}

/// Carries uploads that fit each other to their ends. Each reports [`Event::Finished`], whatever happens.
pub(super) async fn carry_all(
    jobs: Vec<Job>,
    pool: Arc<Pool>,
    slots: Slots,
    reporter: Reporter,
    canceled: Vec<oneshot::Receiver<()>>,
) {
    let parts: Vec<Part> = jobs
        .into_iter()
        .map(|job| Part {
            job,
            state: State::new(false),
        })
        .collect();
    let mut cancels: Vec<Option<oneshot::Receiver<()>>> = canceled.into_iter().map(Some).collect();
    let mut target = None;
    let result = tokio::select! {
        biased;
        result = net::guarded(run(&parts, &pool, &slots, &reporter, &mut target)) => result,
        () = stop(&mut cancels, &parts) => Err(upload::canceled()),
    };
    match result {
        Ok(loaded) => end(parts, loaded, target, &reporter).await,
        Err(error) => part_ways(parts, &cancels, error, &pool, &reporter).await,
    }
}

/// Ends when somebody asks one of them to stop while none of them is being committed.
async fn stop(cancels: &mut [Option<oneshot::Receiver<()>>], parts: &[Part]) {
    poll_fn(|context| {
        let mut is_canceled = false;
        for slot in cancels.iter_mut() {
            if let Some(canceled) = slot
                && let Poll::Ready(Ok(())) = Pin::new(canceled).poll(context)
            {
                *slot = None;
                is_canceled = true;
            }
        }
        if is_canceled {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    // They are committed together: what is open of one is open of all.
    if let Some(part) = parts.first() {
        part.state.decided().await;
    }
}

struct Loaded {
    outcomes: Vec<Outcome>,
    uploads: Vec<Upload>,
    session: PooledSession,
}

async fn run(
    parts: &[Part],
    pool: &Pool,
    slots: &Slots,
    reporter: &Reporter,
    target: &mut Option<String>,
) -> Result<Loaded> {
    let first = parts
        .first()
        .map(|part| &part.job)
        .ok_or_else(|| Error::new(ErrorKind::Internal, "no upload shares anything"))?;
    let mut session = pool
        .acquire(
            &first.pool_key,
            &first.settings,
            first.read_at,
            &first.query_tag,
        )
        .await?;
    if session.is_proven() {
        let claim = first.claim;
        reporter.send(Event::Connected { claim })?;
    }
    let _slot = slots.acquire(first.is_first_of_owner).await;
    let uploads = parts
        .iter()
        .map(|part| part.job.upload(session.info()))
        .collect::<Result<Vec<_>>>()?;
    *target = uploads.first().map(|upload| upload.target.to_string());
    let ledgers: Vec<WorkerLedger<'_>> = parts
        .iter()
        .zip(&uploads)
        .map(|(part, upload)| WorkerLedger {
            claim: part.job.claim,
            reporter,
            state: &part.state,
            target: upload.target.clone(),
            bytes: upload.manifest.bytes,
        })
        .collect();
    let members: Vec<Member<'_>> = uploads
        .iter()
        .zip(&ledgers)
        .map(|(upload, ledger)| Member { upload, ledger })
        .collect();
    let outcomes = upload::run_together(&members, &mut session).await?;
    Ok(Loaded {
        outcomes,
        uploads,
        session,
    })
}

/// All of them are loaded.
async fn end(parts: Vec<Part>, loaded: Loaded, target: Option<String>, reporter: &Reporter) {
    let Loaded {
        outcomes,
        uploads,
        mut session,
    } = loaded;
    let sweeping = parts
        .iter()
        .map(|part| &part.job)
        .find(|job| job.is_sweeping)
        .map(|job| (job.installation_id, job.pool_key.config));
    let mut recorded = Vec::new();
    for ((part, upload), outcome) in parts.into_iter().zip(uploads).zip(outcomes) {
        let claim = part.job.claim;
        let is_recorded = reporter
            .finish(claim, target.clone(), Ok(outcome), false)
            .await;
        if is_recorded {
            recorded.push((claim, upload));
        }
    }
    // What stays in the stage costs storage, not correctness.
    let cleaned = net::guarded(async {
        let (claims, uploads): (Vec<_>, Vec<_>) = recorded.into_iter().unzip();
        upload::clean_up_together(&uploads, &mut session).await?;
        for claim in claims {
            reporter.send(Event::Cleaned { claim })?;
        }
        if let Some((installation, _)) = sweeping {
            cleaning::sweep(installation, &mut session, reporter).await?;
        }
        Ok(())
    })
    .await;
    // A session that is only dropped is closed, which would undo what a failed statement left open.
    if cleaned.is_ok() {
        session.release();
    } else if let Some((_, config)) = sweeping {
        // As above.
        let _ = reporter.send(Event::NotSwept { config });
    }
}

/// Nothing of them was loaded, or it is open whether. Those that were to stop have ended; each of the others goes back into the
/// queue and is loaded by itself, and what was wrong with one is only its own.
async fn part_ways(
    parts: Vec<Part>,
    cancels: &[Option<oneshot::Receiver<()>>],
    error: Error,
    pool: &Pool,
    reporter: &Reporter,
) {
    let error = Arc::new(error);
    let mut canceled = Vec::new();
    for (part, cancel) in parts.iter().zip(cancels) {
        let (claim, is_undecided) = (part.job.claim, part.state.is_undecided());
        let is_canceled = cancel.is_none();
        let error = Arc::clone(&error);
        if reporter.part(claim, error, is_canceled, is_undecided).await && is_canceled {
            canceled.push(claim);
        }
    }
    let mut transaction = None;
    let mut jobs = Vec::new();
    for Part { job, state } in parts {
        transaction = transaction.or(state.into_transaction());
        jobs.push(job);
    }
    if let (Some(transaction), Some(job)) = (transaction, jobs.first()) {
        // What it does not reach, the next attempt does.
        let _ = net::guarded(abort(job, pool, &transaction)).await;
    }
    for job in &jobs {
        if canceled.contains(&job.claim) {
            // What stays in the stage costs storage, not correctness.
            let _ = net::guarded(remove_staged(job, pool, reporter)).await;
        }
        if job.is_sweeping {
            not_swept(job, reporter);
        }
    }
}

//! The worker of one database: its life, and its loop. It holds no transaction, snapshot or lock while anything travels.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bridge_core::snowflake::{Pool, clock};
use bridge_core::upload::{self, Phase};

use super::begin::{self, Begun};
use super::entry::{end_unless_alone, end_unless_same, has_recovered};
use super::in_flight::{Ending, InFlight, Stage, quoted};
use super::janitor::Janitor;
use super::memory::Spare;
use super::missed::Missed;
use super::recovery::Left;
use super::registry;
use super::report::{Event, Reporter};
use super::runner::{self, Job};
use super::sharing::PATIENCE;
use super::turns::Turns;
use super::unrecorded::{self, Unrecorded};
use super::{activity, mirror, reader, recovery, signals, witness};
use crate::error::{Error, Result, log_error, log_message};
use crate::installation::Installation;
use crate::owner::Owner;
use crate::source::spooled;
use crate::uploads::{self, Claim, Claimed};
use crate::net::Woken;
use crate::{failpoint, guc, net, tx};

pub(super) struct Service {
    installation: Installation,
    pub(super) spool_root: PathBuf,
    pool: Arc<Pool>,
    reporter: Reporter,
    pub(super) events: Receiver<Event>,
    pub(super) in_flight: HashMap<Claim, InFlight>,
    pub(super) janitor: Janitor,
    clock_ahead: Option<i64>,
    pub(super) turns: Turns,
    missed: Missed,
    /// No process was free for a reader; then it is tried again.
    pub(super) no_process_until: Option<Instant>,
    spare: Spare,
    /// Attempts that have ended, which could not be written down yet.
    pub(super) unrecorded: Vec<Unrecorded>,
    /// What the worker before has left and somebody has locked.
    pub(super) left: Option<Left>,
    /// Something has happened since the last look at the queue that may let another upload begin, or is to be shown.
    pub(super) looks_again: bool,
    /// When to look at the queue at the latest.
    look_at: Instant,
}

/// The pool of this process, for its end.
static POOL: Mutex<Weak<Pool>> = Mutex::new(Weak::new());
/// Between two looks at the queue while something is due that has to wait for another upload, or is to be stopped.
const WAITING_DELAY: Duration = Duration::from_millis(250);
/// For so long, each owner who has nothing under way is served once more in a pass; then statuses are written, and the next begins.
const NEWCOMERS: Duration = Duration::from_secs(1);
/// After something that only the network thread has told. Who enters an upload meanwhile sets this process's latch, which a wait for a
/// lock takes for its own.
const UNSEEN_DELAY: Duration = Duration::from_millis(50);
/// After a look at the queue that failed: somebody has locked a table of ours for a moment, say.
const FAILED_DELAY: Duration = Duration::from_secs(1);
/// A shutdown may take two seconds in all. A session that is not closed ends by itself later, and until then keeps what its
/// transaction has locked.
const GOODBYE: Duration = Duration::from_secs(1);

fn remember(pool: &Arc<Pool>) {
    *POOL.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(pool);
}

/// Ends the uploads that are under way and closes all sessions of this process: the next worker finds no transaction of theirs
/// open.
pub(super) fn say_goodbye() {
    let pool = POOL
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .upgrade();
    net::end_all_within(GOODBYE, async move {
        if let Some(pool) = pool {
            pool.close().await;
        }
    });
}

impl Service {
    /// Takes over from the worker before.
    pub(super) fn start(installation: Installation, before: &registry::Before) -> Result<Self> {
        let spool_root = spooled::root()?;
        let left = recovery::recover(&spool_root, before)?;
        has_recovered();
        let (sender, events) = mpsc::channel();
        let pool = Arc::new(Pool::new(net::limits()?)?);
        remember(&pool);
        Ok(Self {
            installation,
            spool_root,
            pool,
            reporter: Reporter {
                events: sender,
                wake: net::waker()?,
            },
            events,
            in_flight: HashMap::new(),
            janitor: Janitor::new(),
            clock_ahead: None,
            turns: Turns::new(),
            missed: Missed::new(),
            no_process_until: None,
            spare: Spare::new(),
            unrecorded: Vec::new(),
            left,
            looks_again: false,
            look_at: Instant::now(),
        })
    }

    pub(super) fn run(&mut self) {
        let mut woken = Woken::ByTime;
        loop {
            activity::working(self.in_flight.len());
            if signals::reload_if_asked() {
                self.reload();
                self.janitor.begin_anew();
                self.spare.begin_anew();
                woken = Woken::ByTime;
            }
            if let Err(error) = self.turn(woken) {
                log_error("snowflake_bridge: worker", &error);
                self.looks_again = false;
                self.look_at = Instant::now() + FAILED_DELAY;
            }
            self.janitor
                .work(&self.spool_root, &self.pool, &self.reporter);
            self.note_clock();
            self.spare.give_back(!self.in_flight.is_empty());
            end_unless_alone();
            let left = self.look_at.saturating_duration_since(Instant::now());
            woken = if left.is_zero() || self.looks_again {
                Woken::ByTime
            } else {
                activity::idle(self.in_flight.len());
                net::sleep(left.min(self.longest_wait()))
            };
        }
    }

    /// Lets others know how this machine's clock stands to Snowflake's, when that has changed.
    fn note_clock(&mut self) {
        let ahead = clock::seconds_ahead();
        if ahead != self.clock_ahead
            && let Some(ahead) = ahead
        {
            registry::note_clock(ahead);
        }
        self.clock_ahead = ahead;
    }

    /// Everything there is to do now. The queue is not looked at for each step of what is under way, of which there are many.
    fn turn(&mut self, woken: Woken) -> Result<()> {
        end_unless_same(&self.installation)?;
        self.handle_events();
        self.record_again();
        self.recover_rest()?;
        self.handle_readers();
        let now = Instant::now();
        if woken == Woken::ByThread && now < self.look_at && !self.looks_again {
            self.look_at = self.look_at.min(now + UNSEEN_DELAY);
            return Ok(());
        }
        self.looks_again = false;
        let more = self.work()?;
        self.look_at = Instant::now() + more.unwrap_or_else(|| self.longest_wait());
        Ok(())
    }

    /// When to look again if nothing else is to be done.
    fn longest_wait(&self) -> Duration {
        if registry::is_being_dropped() {
            // Whoever drops the extension may wait for a reader of this worker's.
            WAITING_DELAY
        } else if self.unrecorded.is_empty() && self.left.is_none() {
            guc::poll_interval()
        } else {
            unrecorded::DELAY
        }
    }

    /// Sessions are opened under the limits that now hold; uploads in flight keep theirs.
    fn reload(&mut self) {
        self.turns.reload();
        self.missed = Missed::new();
        match net::limits().and_then(|limits| Ok(Pool::new(limits)?)) {
            Ok(pool) => {
                let old = std::mem::replace(&mut self.pool, Arc::new(pool));
                remember(&self.pool);
                if let Err(error) = net::spawn(async move { old.close().await }) {
                    log_error("snowflake_bridge: cannot close sessions", &error);
                }
            }
            Err(error) => log_error(
                "snowflake_bridge: the old network settings stay in force",
                &error,
            ),
        }
    }

    /// Stops what somebody wants to stop, or has taken over.
    fn stop(&mut self) -> Result<()> {
        let claims: Vec<Claim> = self.in_flight.keys().copied().collect();
        if claims.is_empty() {
            return Ok(());
        }
        for claim in tx::transaction(|| uploads::to_stop(&claims))? {
            let Some(in_flight) = self.in_flight.get_mut(&claim) else {
                continue;
            };
            // One that was canceled before it began is only finding out what it must not leave open.
            if in_flight.upload.cancel_requested {
                continue;
            }
            in_flight.is_canceled = true;
            match &mut in_flight.stage {
                Stage::WaitsForReader => {
                    if let Some(in_flight) = self.in_flight.remove(&claim) {
                        let error = Rc::new(upload::canceled().into());
                        self.end(in_flight, Ending::NotBegun { error }, None);
                    }
                }
                Stage::Reader { .. } => reader::end(claim),
                Stage::Network(canceler) => {
                    if let Some(canceler) = canceler.take() {
                        canceler.cancel();
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts what is due and brings the mirror up to date. Returns when to look again at the latest.
    fn work(&mut self) -> Result<Option<Duration>> {
        let (mut until, mut is_late) = (None, false);
        let mut served_late = Vec::new();
        loop {
            self.stop()?;
            let turn = if is_late {
                self.turns
                    .next_newcomer(self.in_flight.values(), &served_late)
            } else {
                self.turns.next(self.in_flight.values())
            };
            // One at a time: reading takes the main thread, and what was claimed should not wait for it.
            let taken = tx::transaction(|| {
                failpoint::reach("claiming");
                uploads::claim(&turn)
            })?;
            let Some(upload) = taken else {
                break;
            };
            if is_late {
                served_late.push(upload.lane.owner.clone());
            } else {
                self.turns.took(&upload);
            }
            let begun = self.begin(upload, 0);
            let until = *until.get_or_insert_with(|| Instant::now() + PATIENCE);
            if let Some(begun) = begun {
                let all = self.gather(begun, until);
                self.send(all);
            }
            is_late = Instant::now() >= until;
            if Instant::now() >= until + NEWCOMERS {
                break;
            }
        }
        let has_more_to_show = mirror::run(|| self.handle_events())?;
        let outlook = tx::transaction(|| uploads::outlook(&mirror::paused()?))?;
        if outlook.has_cancellations {
            tx::transaction(uploads::settle_cancellations)?;
        }
        let missed_due = match outlook.has_missed {
            true => Some(self.missed.enter()?),
            false => None,
        };
        // Whoever has more to do goes on in the next pass.
        if has_more_to_show || is_late {
            return Ok(Some(Duration::ZERO));
        }
        let due = outlook.due.map(|due| {
            if due.is_zero() {
                // It waits for another upload, whose end is an event, or for an account.
                WAITING_DELAY
            } else {
                due.max(Duration::from_millis(5))
            }
        });
        // What waited for another attempt may be due now, and a reader that had not begun is told again.
        let again = outlook.has_cancellations.then_some(WAITING_DELAY);
        Ok(due
            .into_iter()
            .chain(again)
            .chain(missed_due)
            .chain(mirror::resumes_in())
            .chain(
                self.no_process_until
                    .map(|until| until.saturating_duration_since(Instant::now())),
            )
            .min())
    }

    /// Begins an attempt. Returns what the network thread is to go on with, unless it has ended or waits for a reader. With it go
    /// others of its owner, of so many bytes.
    pub(super) fn begin(&mut self, upload: Claimed, together: u64) -> Option<(InFlight, Job)> {
        let (id, claim) = (upload.id, upload.as_claim());
        activity::running(&format!("snowflake_bridge: upload {id}"));
        log_message(&format!(
            "snowflake_bridge: upload {id} of execution {} started, attempt {}",
            quoted(&upload.execution_id),
            upload.attempt
        ));
        let begun = Instant::now();
        // Credentials that were refused until now are marked, so that what is read next is not older than that.
        self.handle_events();
        let spool = self.spool_root.join(upload.upload_id.to_string());
        let in_flight = InFlight {
            upload,
            config_id: None,
            spool,
            begun,
            total_bytes: 0,
            unsent_bytes: 0,
            rows: 0,
            stage: Stage::WaitsForReader,
            is_canceled: false,
            follows: false,
        };
        let under_way = together + self.unsent_of(&in_flight.upload.lane.owner);
        witness::reads(Some(id));
        let begun =
            tx::guarded(|| begin::begin(&in_flight.upload, &self.spool_root, begun, under_way));
        witness::reads(None);
        match begun {
            Ok(Begun::Job(job)) => return Some((in_flight, *job)),
            Ok(Begun::ForReader) => {
                in_flight.show(Phase::Reading, 0);
                self.in_flight.insert(claim, in_flight);
                self.start_readers();
            }
            Err(error) => self.not_begun(in_flight, error),
        }
        None
    }

    /// An attempt has ended before the network was used.
    pub(super) fn not_begun(&mut self, in_flight: InFlight, error: Error) {
        self.turns.not_begun(&in_flight.upload, &error);
        let error = Rc::new(error);
        self.end(in_flight, Ending::NotBegun { error }, None);
    }

    /// What uploads of an owner are about to put into the stage, in bytes.
    pub(super) fn unsent_of(&self, owner: &Owner) -> u64 {
        let of_owner = |in_flight: &&InFlight| in_flight.upload.lane.owner == *owner;
        let uploads = self.in_flight.values().filter(of_owner);
        uploads.map(|in_flight| in_flight.unsent_bytes).sum()
    }

    /// Hands uploads to the network thread, several if they share one COPY.
    pub(super) fn send(&mut self, begun: Vec<(InFlight, Job)>) {
        let (mut all, mut jobs): (Vec<InFlight>, Vec<Job>) = begun.into_iter().unzip();
        if let (Some(job), Some(in_flight)) = (jobs.first_mut(), all.first()) {
            job.is_sweeping = self.janitor.begin_sweep(job.pool_key.config);
            job.is_first_of_owner = !self.in_flight.values().any(|other| {
                other.account().is_some() && other.upload.lane.owner == in_flight.upload.lane.owner
            });
        }
        for (number, (in_flight, job)) in all.iter_mut().zip(&jobs).enumerate() {
            in_flight.config_id = Some((job.pool_key.config, job.pool_key.version));
            in_flight.total_bytes = job.manifest.bytes;
            in_flight.unsent_bytes = match job.staged_claim {
                Some(_) => 0,
                None => job.manifest.bytes,
            };
            in_flight.rows = job.manifest.rows;
            in_flight.follows = number > 0;
        }
        let (pool, slots) = (Arc::clone(&self.pool), self.turns.slots());
        match runner::start(jobs, pool, slots, self.reporter.clone()) {
            Ok(cancelers) => {
                for (mut in_flight, canceler) in all.into_iter().zip(cancelers) {
                    in_flight.stage = Stage::Network(Some(canceler));
                    in_flight.show(Phase::Staging, 0);
                    self.in_flight
                        .insert(in_flight.upload.as_claim(), in_flight);
                }
                // Where the kernel has put the network thread behind this one, it goes first: all that follows here can wait.
                std::thread::yield_now();
            }
            Err(error) => {
                let error = Rc::new(error);
                for in_flight in all {
                    let error = Rc::clone(&error);
                    self.end(in_flight, Ending::NotBegun { error }, None);
                }
            }
        }
    }
}

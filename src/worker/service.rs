//! The worker of one database: its life, and its loop. It holds no transaction, snapshot or lock while anything travels.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bridge_core::snowflake::{Pool, clock};
use bridge_core::upload::Phase;
use uuid::Uuid;

use super::begin::{self, Begun};
use super::entry::{end_unless_alone, end_unless_same, has_recovered};
use super::in_flight::{Ending, InFlight, Stage, quoted};
use super::janitor::Janitor;
use super::memory::Spare;
use super::missed::Missed;
use super::queue::WAITING_DELAY;
use super::recovery::Left;
use super::registry;
use super::report::{Event, Reporter};
use super::runner::{self, Job};
use super::turns::Turns;
use super::unrecorded::{self, Unrecorded};
use super::{activity, recovery, signals, witness};
use crate::error::{Error, Result, log_error, log_message};
use crate::installation::Installation;
use crate::net::Woken;
use crate::owner::Owner;
use crate::source::spooled;
use crate::uploads::{Claim, Claimed};
use crate::{guc, net, tx};

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
    pub(super) missed: Missed,
    /// No process was free for a reader; then it is tried again.
    pub(super) no_process_until: Option<Instant>,
    spare: Spare,
    /// Attempts that have ended, which could not be written down yet.
    pub(super) unrecorded: Vec<Unrecorded>,
    /// What the worker before has left and somebody has locked.
    pub(super) left: Option<Left>,
    /// The configurations that Snowflake has let in, each in the version that is marked as such.
    pub(super) let_in: HashMap<Uuid, i64>,
    /// Something has happened since the last look at the queue that may let another upload begin, or is to be shown.
    pub(super) looks_again: bool,
    /// When to look at the queue at the latest.
    look_at: Instant,
}

/// The pool of this process, for its end.
static POOL: Mutex<Weak<Pool>> = Mutex::new(Weak::new());
/// After something that only the network thread has told. Whoever enters an upload while that is written down sets this process's
/// latch, and a wait for a lock or for a standby meanwhile resets it: then nothing else would tell of the upload.
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
            let_in: HashMap::new(),
            looks_again: false,
            look_at: Instant::now(),
        })
    }

    pub(super) fn run(&mut self) {
        let mut woken = Woken::Time;
        loop {
            activity::working(self.in_flight.len());
            if signals::reload_if_asked() {
                self.reload();
                self.janitor.begin_anew();
                self.spare.begin_anew();
                woken = Woken::Time;
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
                Woken::Time
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
        if woken == Woken::Thread && now < self.look_at && !self.looks_again {
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

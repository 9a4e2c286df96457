//! What the worker does beside uploads, at its leisure: old history, files in the spool that nobody needs, and files that
//! were left in stages.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bridge_core::ErrorKind;
use bridge_core::snowflake::{Pool, PoolKey};
use pgrx::prelude::*;
use uuid::Uuid;

use super::cleaning::{self, Cleaning};
use super::clock::Clock;
use super::report::Reporter;
use crate::error::{Error, Result, log_error, log_message};
use crate::source::spooled;
use crate::uploads::{self, Claim, Leftovers};
use crate::{configs, guc, tx};

/// Between two looks for stages to tidy up.
const STAGE_INTERVAL: Duration = Duration::from_secs(60);
/// Between two walks through the history and through the spool.
const WALK_INTERVAL: Duration = Duration::from_secs(3_600);
/// For how long anything is put off at most, unless a setting says longer: as long as a table whose triggers do not end.
const MAX_PUT_OFF: Duration = Duration::from_secs(3_600);
/// Between two looks through the whole directory in one configuration's stage.
const SWEEP_INTERVAL: Duration = Duration::from_secs(24 * 3_600);
/// Uploads that a step of the walk through the history looks at: some milliseconds.
const HISTORY_BATCH: i64 = 1_000;
/// Uploads whose files are removed by one session, one after the other.
const STAGE_BATCH: i64 = 100;

pub(super) struct Janitor {
    stage_due: Instant,
    spool_due: Instant,
    history_due: Instant,
    clock_due: Instant,
    clock: Clock,
    /// Where the walk through the history stands.
    walked: i64,
    forgotten: i64,
    /// One at a time: a stage that answers slowly costs the others nothing but this.
    is_cleaning: bool,
    /// When somebody last looked through a configuration's stage.
    swept: HashMap<Uuid, Instant>,
}

impl Janitor {
    /// One that begins at once.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            stage_due: now,
            spool_due: now,
            history_due: now,
            clock_due: now,
            clock: Clock::new(),
            walked: 0,
            forgotten: 0,
            is_cleaning: false,
            swept: HashMap::new(),
        }
    }

    /// Begins everything anew, since settings may have changed.
    pub(super) fn begin_anew(&mut self) {
        let is_cleaning = self.is_cleaning;
        *self = Self {
            is_cleaning,
            ..Self::new()
        };
    }

    /// Does a little of what is due. Nothing of it is urgent: what fails is tried again another time.
    pub(super) fn work(&mut self, spool_root: &Path, pool: &Arc<Pool>, reporter: &Reporter) {
        let now = Instant::now();
        if now >= self.spool_due {
            self.spool_due = now + WALK_INTERVAL;
            report(
                "look through the spool directory",
                spooled::sweep(spool_root, || tx::transaction(uploads::with_files))
                    .and_then(|()| spooled::sweep_dropped(|| tx::transaction(databases))),
            );
        }
        // A worker that begins cannot know whether the clock was set back before.
        if self.clock.was_set_back() || now >= self.clock_due {
            self.clock_due = now + WALK_INTERVAL;
            report("look for times out of reach", bring_back());
        }
        if now >= self.history_due {
            self.history_due = now + WALK_INTERVAL;
            report("delete old uploads", self.walk_history());
            report(
                "forget what was sent long ago",
                tx::transaction(uploads::forget_sent),
            );
        }
        if now >= self.stage_due && !self.is_cleaning {
            self.stage_due = now + STAGE_INTERVAL;
            report("tidy a stage up", self.clean_stages(pool, reporter));
        }
    }

    /// One step; the next follows at the worker's next look, until the end is reached.
    fn walk_history(&mut self) -> Result<()> {
        let Some(retention) = guc::uploads_retention() else {
            return Ok(());
        };
        let step = tx::transaction(|| uploads::forget_old(self.walked, HISTORY_BATCH, retention))?;
        self.forgotten += step.count;
        match step.last {
            Some(last) => {
                self.walked = last;
                self.history_due = Instant::now();
            }
            None => {
                if self.forgotten > 0 {
                    log_message(&format!(
                        "snowflake_bridge: {} uploads ended longer ago than snowflake_bridge.uploads_retention and were deleted from the history",
                        self.forgotten
                    ));
                }
                (self.walked, self.forgotten) = (0, 0);
            }
        }
        Ok(())
    }

    fn clean_stages(&mut self, pool: &Arc<Pool>, reporter: &Reporter) -> Result<()> {
        let Some(leftovers) = tx::transaction(|| uploads::leftovers(STAGE_BATCH))? else {
            return Ok(());
        };
        // In a transaction of its own: what cannot be tidied stays put off, and keeps no other from being tidied.
        if let Some(cleaning) = tx::transaction(|| cleaning(leftovers))? {
            cleaning::start(cleaning, Arc::clone(pool), reporter.clone())?;
            self.is_cleaning = true;
        }
        Ok(())
    }

    /// A cleaning has ended.
    pub(super) fn has_cleaned(&mut self, config: PoolKey, result: bridge_core::Result<()>) {
        self.is_cleaning = false;
        let Err(error) = result else {
            // There may be more.
            self.stage_due = Instant::now();
            return;
        };
        if error.kind() == ErrorKind::Credentials {
            report(
                "mark a refused configuration",
                tx::transaction(|| {
                    configs::mark_refused(config.config, config.version, &error.to_string())
                })
                .map(drop),
            );
        }
        report("tidy a stage up", Err(error.into()));
    }

    /// Whether it is time to look through the stage of this configuration, whose session is open; asked only by somebody who
    /// then does.
    pub(super) fn begin_sweep(&mut self, config: Uuid) -> bool {
        self.swept
            .retain(|_, swept| swept.elapsed() < SWEEP_INTERVAL);
        let is_due = !self.swept.contains_key(&config);
        if is_due {
            self.swept.insert(config, Instant::now());
        }
        is_due
    }

    /// What was begun came to nothing.
    pub(super) fn has_not_swept(&mut self, config: Uuid) {
        self.swept.remove(&config);
    }
}

/// What the clock does not reach, since somebody has set it back, is due all the same.
fn bring_back() -> Result<()> {
    let longest = MAX_PUT_OFF
        .max(guc::retry_max_delay())
        .max(guc::crash_retry_delay());
    let count = tx::transaction(|| uploads::bring_back(longest))?;
    if count > 0 {
        log_message(&format!(
            "snowflake_bridge: {count} uploads were due later than any is put off, and are due now: the clock was set back"
        ));
    }
    Ok(())
}

/// What is needed to remove the files; `None` if nobody can reach them any more, or not now.
fn cleaning(leftovers: Leftovers) -> Result<Option<Cleaning>> {
    let claims: Vec<Claim> = leftovers.uploads.iter().map(|(claim, ..)| *claim).collect();
    let config = leftovers
        .config_id
        .map(configs::by_id)
        .transpose()?
        .flatten();
    let Some(config) = config else {
        uploads::cleaned(&claims)?;
        return Ok(None);
    };
    if !config.is_active {
        return Ok(None);
    }
    let settings = config.open()?;
    let stage = config.stage_owner(&settings.account);
    let (reachable, elsewhere): (Vec<_>, Vec<_>) = leftovers
        .uploads
        .into_iter()
        .partition(|(_, _, staged_for)| staged_for.as_ref() == Some(&stage));
    if !elsewhere.is_empty() {
        let claims: Vec<Claim> = elsewhere.iter().map(|(claim, ..)| *claim).collect();
        uploads::cleaned(&claims)?;
    }
    Ok((!reachable.is_empty()).then_some(Cleaning {
        pool_key: PoolKey::new(config.id, config.version),
        settings,
        read_at: Instant::now(),
        query_tag: r#"{"application": "snowflake_bridge"}"#.to_owned(),
        installation_id: uploads::installation_id()?,
        uploads: reachable
            .into_iter()
            .map(|(claim, upload, _)| (claim, upload))
            .collect(),
    }))
}

/// The OIDs of all databases of this server.
fn databases() -> Result<Vec<i64>> {
    Spi::connect(|client| {
        client
            .select(
                "select d.oid::bigint from pg_catalog.pg_database d",
                None,
                &[],
            )?
            .map(|row| Ok(row.get::<i64>(1)?.unwrap_or_default()))
            .collect()
    })
}

fn report(what: &str, result: Result<(), Error>) {
    if let Err(error) = result {
        log_error(
            &format!("snowflake_bridge: cannot {what}, which is tried again later"),
            &error,
        );
    }
}

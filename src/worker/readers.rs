//! Whose result is read when by a process of its own, and what becomes of it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bridge_core::upload;

use super::begin;
use super::in_flight::{InFlight, Stage};
use super::reading::{self, Read};
use super::service::Service;
use super::{reader, registry, witness};
use crate::error::{Result, log_error, log_message};
use crate::owner::Owner;
use crate::uploads::{Claim, Claimed};
use crate::{configs, guc, timer, tx};

/// Between two looks for a process that could be a reader.
const PROCESS_DELAY: Duration = Duration::from_secs(1);

impl Service {
    /// Gives free readers to the uploads that wait for one. Where no process is free, they wait on.
    pub(super) fn start_readers(&mut self) {
        if self
            .no_process_until
            .is_some_and(|until| Instant::now() < until)
        {
            return;
        }
        let mut lacks_process = false;
        while let Some(claim) = self.next_to_read() {
            let Some(in_flight) = self.in_flight.get_mut(&claim) else {
                break;
            };
            if guc::max_reader_processes() == 0 {
                witness::reads(Some(claim.upload));
                let read =
                    tx::guarded(|| reading::read_all(&in_flight.upload, &self.spool_root, &|_| {}));
                witness::reads(None);
                self.has_read(claim, read);
                continue;
            }
            match reader::start(&in_flight.upload, &self.spool_root) {
                Ok(true) => {
                    in_flight.stage = Stage::Reader {
                        until: Instant::now() + guc::snapshot_timeout() + timer::GRACE,
                    };
                }
                Ok(false) => {
                    lacks_process = true;
                    break;
                }
                Err(error) => self.has_read(claim, Err(error)),
            }
        }
        if lacks_process != self.no_process_until.is_some() {
            registry::set_lacks_reader(lacks_process);
            if lacks_process {
                log_message(
                    "snowflake_bridge: no free background worker slot for reading a long result, which waits for one; raise max_worker_processes",
                );
            }
        }
        self.no_process_until = lacks_process.then(|| Instant::now() + PROCESS_DELAY);
    }

    /// Of the uploads that wait for a reader, whose turn it is: first those of owners for whom nobody reads yet, then whoever
    /// came first. Where others may come, an owner has all readers but one.
    fn next_to_read(&self) -> Option<Claim> {
        if guc::max_reader_processes() > 0 && !reader::is_one_free() {
            return None;
        }
        let mut readers: HashMap<&Owner, usize> = HashMap::new();
        for in_flight in self.in_flight.values() {
            if matches!(in_flight.stage, Stage::Reader { .. }) {
                *readers.entry(&in_flight.upload.lane.owner).or_default() += 1;
            }
        }
        let of = |upload: &Claimed| readers.get(&upload.lane.owner).copied().unwrap_or_default();
        let shared = guc::max_reader_processes().saturating_sub(1);
        let mut waiting: Vec<&Claimed> = self
            .in_flight
            .values()
            .filter(|in_flight| matches!(in_flight.stage, Stage::WaitsForReader))
            .map(|in_flight| &in_flight.upload)
            .collect();
        waiting.sort_unstable_by_key(|upload| (of(upload) > 0, upload.id));
        let next = waiting.into_iter().find(|upload| {
            let readers = of(upload);
            readers == 0 || readers < shared || !others_may_come(&upload.lane.owner)
        });
        next.map(Claimed::as_claim)
    }

    pub(super) fn handle_readers(&mut self) {
        // Whoever reads by somebody's code may not be able to stop by itself.
        for (claim, in_flight) in &self.in_flight {
            if is_overdue(in_flight) {
                reader::end(*claim);
            }
        }
        let ended = reader::ended();
        for claim in &ended {
            if let Some(in_flight) = self.in_flight.get(claim) {
                let read = if is_overdue(in_flight) {
                    Err(reading::took_too_long())
                } else {
                    reader::result(&in_flight.upload, &self.spool_root)
                };
                self.has_read(*claim, read);
            }
        }
        self.start_readers();
    }

    fn has_read(&mut self, claim: Claim, read: Result<Read>) {
        let Some(in_flight) = self.in_flight.remove(&claim) else {
            return;
        };
        // As for the configuration of an upload that begins.
        self.handle_events();
        let upload = &in_flight.upload;
        let read = if in_flight.is_canceled {
            Err(upload::canceled().into())
        } else {
            read
        };
        let under_way = self.unsent_of(&upload.lane.owner);
        let job = tx::guarded(|| {
            begin::go_on(upload, &self.spool_root, Instant::now(), read?, under_way)
        });
        match job {
            Ok(job) => self.send(vec![(in_flight, job)]),
            Err(error) => self.not_begun(in_flight, error),
        }
    }
}

/// Whether another owner than this one may want a reader. Where that cannot be found out, it is so.
fn others_may_come(owner: &Owner) -> bool {
    tx::transaction(|| configs::others_may_upload(owner)).unwrap_or_else(|error| {
        log_error("snowflake_bridge: cannot look for other owners", &error);
        true
    })
}

fn is_overdue(in_flight: &InFlight) -> bool {
    matches!(in_flight.stage, Stage::Reader { until } if Instant::now() > until)
}

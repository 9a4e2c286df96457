//! Which uploads share a COPY: what waits for the same table, with the same connection, when one of them begins. What has not
//! come yet is not waited for; the more there is in the queue, the more of it goes at once.

use std::time::{Duration, Instant};

use bridge_core::upload::{MAX_FILES_PER_COPY, Strategy};

use super::in_flight::InFlight;
use super::runner::Job;
use super::service::Service;
use crate::error::log_error;
use crate::uploads::{self, Claimed};
use crate::{failpoint, guc, tx};

/// What begins in one pass over the queue has so long for this in all: reading takes the main thread, for which others wait.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);

/// Results that are larger than this, together, gain little: what a COPY costs by itself is small beside them.
const ENOUGH_BYTES: u64 = 16 << 20;

impl Service {
    /// Takes what may share the COPY of an upload that begins, and begins that as well, for as long as there is time.
    pub(super) fn gather(
        &mut self,
        first: (InFlight, Job),
        until: Instant,
    ) -> Vec<(InFlight, Job)> {
        let mut all = vec![first];
        let answers =
            |(in_flight, _): &(InFlight, Job)| self.turns.is_answering(&in_flight.upload.account);
        if !all.iter().all(answers) {
            return all;
        }
        while let Some(upload) = next_beside(&all, until) {
            match self.begin(upload, bytes_of(&all)) {
                Some(other) if fits(&all, &other) => all.push(other),
                // What comes after it may be like it, and then leads others.
                other => {
                    if let Some(alone) = other {
                        self.send(vec![alone]);
                    }
                    break;
                }
            }
        }
        if let [(first, _), _, ..] = all.as_slice() {
            self.turns.shared(&first.upload);
        }
        all
    }
}

fn bytes_of(all: &[(InFlight, Job)]) -> u64 {
    all.iter().map(|(_, job)| job.manifest.bytes).sum()
}

/// Takes another upload for those that have begun.
fn next_beside(all: &[(InFlight, Job)], until: Instant) -> Option<Claimed> {
    let (first, job) = all.first()?;
    if !may_share(&first.upload, job)
        || all.len() >= guc::max_shared_uploads()
        || bytes_of(all) >= ENOUGH_BYTES
        || Instant::now() >= until
    {
        return None;
    }
    let taken = tx::transaction(|| {
        failpoint::reach("claiming");
        uploads::claim_beside(&first.upload)
    });
    taken.unwrap_or_else(|error| {
        // The next look at the queue meets it again, if it stays.
        log_error("snowflake_bridge: worker", &error);
        None
    })
}

/// Whether an upload adds rows for the first time, and others can go with it. One that was taken before goes by itself.
fn may_share(upload: &Claimed, job: &Job) -> bool {
    upload.claim == 1
        && upload.watch_id.is_some()
        && !upload.is_suspect()
        && job.strategy == Strategy::Append
        && job.replaces.is_empty()
        && job.staged_claim.is_none()
        && job.transaction.is_none()
        && !job.may_be_loaded
        && !job.manifest.files.is_empty()
        && !(job.is_canceled || job.only_settles || job.is_alone || job.knocks)
}

/// Whether one more goes to the same table over the same session, with the same columns.
fn fits(all: &[(InFlight, Job)], (other, job): &(InFlight, Job)) -> bool {
    let Some((_, first)) = all.first() else {
        return false;
    };
    let files: usize = all.iter().map(|(_, job)| job.manifest.files.len()).sum();
    may_share(&other.upload, job)
        && files + job.manifest.files.len() <= MAX_FILES_PER_COPY
        && job.pool_key == first.pool_key
        && (&job.table, &job.schema, &job.database)
            == (&first.table, &first.schema, &first.database)
        && job.evolve_schema == first.evolve_schema
        && job.cluster_by == first.cluster_by
        && job.manifest.has_columns_of(&first.manifest)
}

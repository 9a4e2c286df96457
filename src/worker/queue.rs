//! A look at the queue: what is due begins, what somebody wants to stop is stopped, and statuses are shown.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bridge_core::upload;

use super::in_flight::{Ending, Stage};
use super::service::Service;
use super::sharing::PATIENCE;
use super::{mirror, reader};
use crate::error::Result;
use crate::uploads::{self, Claim};
use crate::{failpoint, tx};

/// Between two looks at the queue while something is due that has to wait for another upload, or is to be stopped.
pub(super) const WAITING_DELAY: Duration = Duration::from_millis(250);
/// For so long, each owner who has nothing under way is served once more in a pass; then statuses are written, and the next begins.
const NEWCOMERS: Duration = Duration::from_secs(1);

impl Service {
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
    pub(super) fn work(&mut self) -> Result<Option<Duration>> {
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
}

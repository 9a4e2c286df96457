//! Whose upload the worker takes next: lane after lane, as far as those may have another slot.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bridge_core::fairness::{Fairness, Running};
use bridge_core::{Error, ErrorKind};

use super::in_flight::InFlight;
use super::slots::Slots;
use crate::guc;
use crate::owner::Owner;
use crate::uploads::{Claimed, Lane, Turn};

/// Whoever has shared a COPY is no newcomer for so long.
const LATELY: Duration = Duration::from_secs(30);

/// What the worker remembers between two uploads that it takes.
pub(super) struct Turns {
    last: Option<Lane>,
    /// When uploads of these owners have shared a COPY.
    shared: HashMap<Owner, Instant>,
    /// Until when owners have sent as much as they may.
    resting: HashMap<Owner, Instant>,
    fairness: Fairness,
    slots: Slots,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            last: None,
            shared: HashMap::new(),
            resting: HashMap::new(),
            fairness: Fairness::default(),
            slots: Slots::new(guc::max_concurrent_uploads()),
        }
    }

    /// What the uploads that run hold.
    pub(super) fn slots(&self) -> Slots {
        self.slots.clone()
    }

    /// As many slots as the settings now have it; what runs keeps the one it has.
    pub(super) fn reload(&mut self) {
        self.resting.clear();
        self.slots = Slots::new(guc::max_concurrent_uploads());
    }

    /// Whose turn it is while these uploads run.
    pub(super) fn next<'a>(&self, running: impl Iterator<Item = &'a InFlight> + Clone) -> Turn {
        let slots = guc::max_concurrent_uploads();
        let uploads: Vec<_> = running
            .clone()
            .filter(|in_flight| !in_flight.follows)
            .map(|in_flight| Running {
                owner: &in_flight.upload.lane.owner,
                connection: &in_flight.upload.lane.config,
                account: in_flight.account(),
            })
            .collect();
        let now = Instant::now();
        let mut closed = self.fairness.closed(&uploads, slots, now);
        let resting = self.resting.iter().filter(|(_, until)| **until > now);
        closed
            .owners
            .extend(resting.map(|(owner, _)| owner.clone()));
        Turn {
            after: self.last.clone(),
            closed,
            // One at a time, so that another crash is the fault of that one.
            suspects: !running
                .clone()
                .any(|in_flight| in_flight.upload.is_suspect()),
        }
    }

    /// As [`next`](Self::next), for owners only who have nothing under way, have not shared a COPY lately, and are not among those
    /// who were `served`: what it takes to begin all that others have waiting is not to be waited for.
    pub(super) fn next_newcomer<'a>(
        &self,
        running: impl Iterator<Item = &'a InFlight> + Clone,
        served: &[Owner],
    ) -> Turn {
        let mut turn = self.next(running.clone());
        let running = running.map(|in_flight| &in_flight.upload.lane.owner);
        let shared = self.shared.iter().filter(|(_, since)| is_lately(**since));
        let owners = running.chain(served).chain(shared.map(|(owner, _)| owner));
        turn.closed.owners.extend(owners.cloned());
        turn
    }

    /// An upload could not begin. If its owner has sent as much as one may, the others need not be tried either.
    pub(super) fn not_begun(&mut self, upload: &Claimed, error: &crate::error::Error) {
        if let crate::error::Error::NoAllowance { delay, .. } = error {
            let now = Instant::now();
            let until = now + (*delay).min(guc::retry_max_delay());
            self.resting.retain(|_, until| *until > now);
            self.resting.insert(upload.lane.owner.clone(), until);
        }
    }

    /// Uploads of the owner of this one share a COPY.
    pub(super) fn shared(&mut self, upload: &Claimed) {
        self.shared.retain(|_, since| is_lately(*since));
        self.shared
            .insert(upload.lane.owner.clone(), Instant::now());
    }

    /// The upload was taken.
    pub(super) fn took(&mut self, upload: &Claimed) {
        self.last = Some(upload.lane.clone());
    }

    /// Whether an account has answered the last time.
    pub(super) fn is_answering(&self, account: &str) -> bool {
        self.fairness.answering(account)
    }

    /// The account of the upload has let it in. Returns whether that is news.
    pub(super) fn answers(&mut self, upload: &Claimed) -> bool {
        self.fairness.answers(&upload.account)
    }

    /// An upload came back from the network while `running` uploads of its account, it among them, were there.
    pub(super) fn ended<T>(&mut self, upload: &Claimed, result: Result<T, &Error>, running: usize) {
        let account = &upload.account;
        match result {
            Ok(_) => self.fairness.loaded(account, guc::max_concurrent_uploads()),
            Err(error) => match (error.kind(), error.retry_after()) {
                (ErrorKind::Throttled, pause) | (_, pause @ Some(_)) => {
                    let pause = pause.unwrap_or_else(guc::retry_base_delay);
                    self.fairness
                        .throttled(account, running, pause, Instant::now());
                }
                // What has a code or a query id is an answer.
                (ErrorKind::Transient, None)
                    if !error.is_local()
                        && error.query_id().is_none()
                        && error.code().is_none() =>
                {
                    self.fairness.unreachable(account);
                }
                // About the upload or its configuration, and not about the account.
                _ => {}
            },
        }
    }
}

fn is_lately(moment: Instant) -> bool {
    moment.elapsed() < LATELY
}

//! How many uploads of whom may run at once, so that an account that is dead, slow or asks to slow down costs others nothing.
//!
//! A slot is held by an upload whose account answers. An owner has at most half of them, over all connections, and the last of
//! these is kept for a connection that has none, so that one that hangs does not hold up the owner's others; an owner who has
//! none gets one beside them, however long the others hold theirs. Uploads whose accounts do not answer only knock: one for each
//! account, and no more of an owner than everybody can have. What is being read holds nothing of this.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// For each slot, how many accounts may be knocked at. It costs a connection that is not answered, and a file on disk.
const KNOCKS: usize = 4;

/// For each slot, how many uploads may run at accounts that answer: those beyond the slots are of as many owners.
pub const BESIDE: usize = 2;

/// Accounts of which something is known. Of those beyond, what has asked for nothing is forgotten.
const REMEMBERED: usize = 1_000;

/// What is known of the accounts, from how uploads ended. It is forgotten with the process: a few uploads find it out again.
#[derive(Debug, Default)]
pub struct Fairness(HashMap<String, Account>);

#[derive(Debug, Default)]
struct Account {
    /// The last upload that could tell has reached it.
    answers: bool,
    /// Fewer than all slots, where the account has asked for that.
    limit: Option<usize>,
    paused_until: Option<Instant>,
}

/// Who gets no further upload for now.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed<O> {
    /// Owners that have what they may have.
    pub owners: Vec<O>,
    /// Connections that have something running, of owners who have one left: for them only if the owner has no other connection.
    pub busy: Vec<(O, String)>,
    /// Owners that knock at no further account.
    pub knockers: Vec<O>,
    /// Nobody knocks at any.
    pub no_knocks: bool,
    /// Accounts, whoever the owner is.
    pub accounts: Vec<String>,
    /// Accounts at which nobody has to knock; not looked up where everybody may.
    pub answering: Vec<String>,
}

impl<O> Closed<O> {
    /// Everybody may have another one.
    pub const fn nothing() -> Self {
        Self {
            owners: Vec::new(),
            busy: Vec::new(),
            knockers: Vec::new(),
            no_knocks: false,
            accounts: Vec::new(),
            answering: Vec::new(),
        }
    }

    /// Whether everybody may have another one.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.owners.is_empty()
            && self.busy.is_empty()
            && self.knockers.is_empty()
            && !self.no_knocks
            && self.accounts.is_empty()
    }
}

/// An upload that runs.
#[derive(Debug, Clone, Copy)]
pub struct Running<'a, O> {
    /// Whose it is.
    pub owner: &'a O,
    /// The name of the owner's connection.
    pub connection: &'a str,
    /// The account that it is at, if it is at one yet: what is still being read counts for its owner only.
    pub account: Option<&'a str>,
}

/// What an owner has running.
#[derive(Debug, Default)]
struct Share<'a> {
    being_read: usize,
    holding: usize,
    knocking: usize,
    /// Connections that have something of the first two.
    busy: HashSet<&'a str>,
}

impl Fairness {
    /// The account has let an upload in. Returns whether that is news.
    pub fn answers(&mut self, account: &str) -> bool {
        !std::mem::replace(&mut self.account(account).answers, true)
    }

    /// An upload was loaded: the account takes another one at a time.
    pub fn loaded(&mut self, account: &str, slots: usize) {
        let account = self.account(account);
        account.answers = true;
        account.limit = account
            .limit
            .map(|limit| limit + 1)
            .filter(|limit| *limit < slots);
    }

    /// An upload got no answer from the account, or only trouble.
    pub fn unreachable(&mut self, account: &str) {
        self.account(account).answers = false;
    }

    /// The account has asked to slow down: half as many uploads run at once, and none before the pause is over. Of the many
    /// that were told so at the same time, one counts.
    pub fn throttled(&mut self, account: &str, running: usize, pause: Duration, now: Instant) {
        let account = self.account(account);
        if account.paused_until.is_none_or(|until| until <= now) {
            let limit = account.limit.map_or(running, |limit| limit.min(running));
            account.limit = Some((limit / 2).max(1));
        }
        account.paused_until = account.paused_until.max(Some(now + pause));
    }

    /// Who gets no further upload while these run.
    pub fn closed<O: Clone + Eq + Hash>(
        &self,
        running: &[Running<'_, O>],
        slots: usize,
        now: Instant,
    ) -> Closed<O> {
        let mut by_owner: HashMap<&O, Share<'_>> = HashMap::new();
        let mut by_account: HashMap<&str, usize> = HashMap::new();
        let (mut holding, mut knocking) = (0, 0);
        for upload in running {
            let of_owner = by_owner.entry(upload.owner).or_default();
            let Some(account) = upload.account else {
                of_owner.being_read += 1;
                of_owner.busy.insert(upload.connection);
                continue;
            };
            *by_account.entry(account).or_default() += 1;
            if self.answering(account) {
                of_owner.holding += 1;
                of_owner.busy.insert(upload.connection);
                holding += 1;
            } else {
                of_owner.knocking += 1;
                knocking += 1;
            }
        }
        let half = slots.div_ceil(2);
        let owners_with = |is_closed: &dyn Fn(&Share<'_>) -> bool| -> Vec<O> {
            let closed = by_owner.iter().filter(|(_, share)| is_closed(share));
            closed.map(|(owner, _)| (*owner).clone()).collect()
        };
        let owners = owners_with(&|of| {
            of.being_read + of.holding >= half || holding >= slots && of.holding > 0
        });
        let have_one_left = by_owner
            .iter()
            .filter(|(_, of)| of.being_read + of.holding + 1 == half);
        let busy = have_one_left
            .flat_map(|(owner, of)| {
                of.busy
                    .iter()
                    .map(|name| ((*owner).clone(), (*name).to_owned()))
            })
            .collect();
        // The last half of the knocks is for owners who have none.
        let knocks = if 2 * knocking >= KNOCKS * slots {
            1
        } else {
            half
        };
        let knockers = owners_with(&|of| of.knocking >= knocks);
        let no_knocks = knocking >= KNOCKS * slots;
        let knocked_at = by_account
            .keys()
            .copied()
            .filter(|account| !self.answering(account));
        let closed = self.0.iter().filter(|(name, account)| {
            let running = by_account.get(name.as_str()).copied().unwrap_or_default();
            account.paused_until.is_some_and(|until| now < until)
                || account.limit.is_some_and(|limit| running >= limit)
                || account.answers && holding >= BESIDE * slots
        });
        let accounts = closed
            .map(|(name, _)| name.as_str())
            .chain(knocked_at)
            .map(str::to_owned)
            .collect();
        let answering = if no_knocks || !knockers.is_empty() {
            let answering = self.0.iter().filter(|(_, account)| account.answers);
            answering.map(|(name, _)| name.clone()).collect()
        } else {
            Vec::new()
        };
        Closed {
            owners,
            busy,
            knockers,
            no_knocks,
            accounts,
            answering,
        }
    }

    fn account(&mut self, name: &str) -> &mut Account {
        if self.0.len() >= REMEMBERED && !self.0.contains_key(name) {
            self.0.retain(|_, account| account.limit.is_some());
        }
        self.0.entry(name.to_owned()).or_default()
    }

    /// Whether the last upload that could tell has reached the account.
    #[must_use]
    pub fn answering(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|account| account.answers)
    }
}

#[cfg(test)]
mod tests;

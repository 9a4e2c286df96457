//! How many uploads of whom may run at once, so that an account that is dead, slow or asks to slow down costs others nothing.
//!
//! A slot is held by an upload whose account answers. An owner has at most half of them, over all connections; one who has
//! none gets one beside them, however long the others hold theirs. Uploads whose accounts do not answer only knock: one for each
//! account, and no more of an owner than everybody can have. What is being read holds nothing of this.

use std::collections::HashMap;
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
            knockers: Vec::new(),
            no_knocks: false,
            accounts: Vec::new(),
            answering: Vec::new(),
        }
    }
}

/// What an owner has running.
#[derive(Debug, Default)]
struct Running {
    being_read: usize,
    holding: usize,
    knocking: usize,
}

impl Fairness {
    /// The account has let an upload in.
    pub fn answers(&mut self, account: &str) {
        self.account(account).answers = true;
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

    /// Who gets no further upload while those of these owners run. Each says which account it is at, if it is at one yet: what
    /// is still being read counts for its owner only.
    pub fn closed<O: Clone + Eq + Hash>(
        &self,
        running: &[(O, Option<&str>)],
        slots: usize,
        now: Instant,
    ) -> Closed<O> {
        let mut by_owner: HashMap<&O, Running> = HashMap::new();
        let mut by_account: HashMap<&str, usize> = HashMap::new();
        let (mut holding, mut knocking) = (0, 0);
        for (owner, account) in running {
            let of_owner = by_owner.entry(owner).or_default();
            let Some(account) = account else {
                of_owner.being_read += 1;
                continue;
            };
            *by_account.entry(account).or_default() += 1;
            if self.answering(account) {
                of_owner.holding += 1;
                holding += 1;
            } else {
                of_owner.knocking += 1;
                knocking += 1;
            }
        }
        let half = slots.div_ceil(2);
        let owners_with = |is_closed: &dyn Fn(&Running) -> bool| -> Vec<O> {
            let closed = by_owner.iter().filter(|(_, running)| is_closed(running));
            closed.map(|(owner, _)| (*owner).clone()).collect()
        };
        let owners = owners_with(&|of| {
            of.being_read + of.holding >= half || holding >= slots && of.holding > 0
        });
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

    fn answering(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|account| account.answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: usize = 8;
    const PAUSE: Duration = Duration::from_secs(5);

    fn closed<'a>(
        fairness: &Fairness,
        running: &[(&'a str, &str)],
        now: Instant,
    ) -> Closed<&'a str> {
        let mut closed = fairness.closed(&at_accounts(running), SLOTS, now);
        closed.owners.sort_unstable();
        closed.knockers.sort_unstable();
        closed.accounts.sort_unstable();
        closed.accounts.dedup();
        closed
    }

    fn at_accounts<'a, 'b>(running: &[(&'a str, &'b str)]) -> Vec<(&'a str, Option<&'b str>)> {
        let at = |&(owner, account)| (owner, Some(account));
        running.iter().map(at).collect()
    }

    #[test]
    fn what_is_still_being_read_keeps_its_owner_waiting_and_nobody_else() {
        let mut fairness = Fairness::default();
        let read = |count| vec![("a", None); count];
        let now = Instant::now();
        let closed = |count| fairness.closed(&read(count), SLOTS, now);
        assert_eq!(closed(3), Closed::nothing());
        assert_eq!(closed(4).owners, ["a"]);
        assert!(closed(4).accounts.is_empty());
        // Of many owners at once as well.
        let names: Vec<_> = (0..10 * KNOCKS * SLOTS).map(|n| n.to_string()).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), None)).collect();
        assert_eq!(fairness.closed(&many, SLOTS, now), Closed::nothing());
        fairness.answers("acme");
        assert_eq!(fairness.closed(&many, SLOTS, now), Closed::nothing());
    }

    #[test]
    fn who_has_none_gets_one_beside_the_slots() {
        let mut fairness = Fairness::default();
        let now = Instant::now();
        for account in ["slow", "slower", "acme"] {
            fairness.answers(account);
        }
        // Over all their connections.
        let mut running = vec![("a", "slow"); 2];
        running.extend([("a", "slower"); 2]);
        assert_eq!(closed(&fairness, &running, now).owners, ["a"]);
        running.extend([("b", "slow"); 3]);
        assert_eq!(closed(&fairness, &running, now).owners, ["a"]);
        running.push(("c", "acme"));
        let found = closed(&fairness, &running, now);
        assert_eq!(found.owners, ["a", "b", "c"]);
        assert!(found.accounts.is_empty());
        // What is read for them does not count.
        let mut with_reader = at_accounts(&running);
        with_reader.push(("d", None));
        assert!(
            !fairness
                .closed(&with_reader, SLOTS, now)
                .owners
                .contains(&"d")
        );
        for owner in ["d", "e", "f", "g", "h", "i", "j"] {
            running.push((owner, "acme"));
            let found = closed(&fairness, &running, now);
            assert!(found.owners.contains(&owner));
            assert!(found.accounts.is_empty());
        }
        running.push(("k", "acme"));
        assert_eq!(
            closed(&fairness, &running, now).accounts,
            ["acme", "slow", "slower"]
        );
    }

    #[test]
    fn dead_accounts_of_one_owner_leave_knocks_to_others_and_the_rest_to_their_owner() {
        let mut fairness = Fairness::default();
        let now = Instant::now();
        fairness.answers("acme");
        let names: Vec<_> = (0..KNOCKS * SLOTS).map(|n| format!("dead-{n}")).collect();
        let owners = ["a", "b", "c", "d"];
        let knocks = |count| -> Vec<(&str, &str)> {
            let owners = owners.iter().flat_map(|owner| [*owner; SLOTS / 2]);
            owners
                .zip(names.iter().map(String::as_str))
                .take(count)
                .collect()
        };
        assert_eq!(closed(&fairness, &knocks(3), now).knockers, [""; 0]);
        assert_eq!(closed(&fairness, &knocks(7), now).knockers, ["a"]);
        let found = closed(&fairness, &knocks(16), now);
        assert_eq!(found.knockers, owners);
        assert_eq!(found.answering, ["acme"]);
        assert!(found.owners.is_empty() && !found.no_knocks);
    }

    #[test]
    fn an_account_is_knocked_at_once_and_has_half_of_the_slots_when_it_answers() {
        let mut fairness = Fairness::default();
        let now = Instant::now();
        let run = |count| vec![("a", "acme"); count];
        assert!(closed(&fairness, &[], now).accounts.is_empty());
        assert_eq!(closed(&fairness, &run(1), now).accounts, ["acme"]);
        fairness.answers("acme");
        assert!(closed(&fairness, &run(3), now).accounts.is_empty());
        assert!(closed(&fairness, &run(3), now).owners.is_empty());
        assert_eq!(closed(&fairness, &run(4), now).owners, ["a"]);
        fairness.unreachable("acme");
        assert_eq!(closed(&fairness, &run(1), now).accounts, ["acme"]);
    }

    #[test]
    fn many_accounts_are_forgotten_but_for_what_they_asked() {
        let mut fairness = Fairness::default();
        let now = Instant::now();
        fairness.throttled("acme", 4, PAUSE, now);
        for n in 0..10 * REMEMBERED {
            fairness.answers(&format!("account-{n}"));
        }
        assert!(fairness.0.len() <= REMEMBERED);
        assert_eq!(closed(&fairness, &[], now).accounts, ["acme"]);
    }

    #[test]
    fn dead_accounts_hold_no_slots() {
        let mut fairness = Fairness::default();
        let now = Instant::now();
        fairness.answers("acme");
        let names: Vec<_> = (0..KNOCKS * SLOTS).map(|n| format!("dead-{n}")).collect();
        let dead = |count| {
            names
                .iter()
                .take(count)
                .map(|name| (name.as_str(), name.as_str()))
        };
        let mut running: Vec<_> = dead(2 * SLOTS).collect();
        running.extend([("a", "acme"); 3]);
        let found = closed(&fairness, &running, now);
        assert!(!found.accounts.contains(&"acme".to_owned()));
        assert!(found.owners.is_empty());
        assert_eq!(found.answering, ["acme"]);
        // What answers is bounded by the slots, and what does not by the knocks.
        assert!(!found.no_knocks);
        running.extend(dead(KNOCKS * SLOTS).skip(2 * SLOTS));
        let found = closed(&fairness, &running, now);
        assert!(found.no_knocks);
        assert_eq!(found.answering, ["acme"]);
        assert!(!found.accounts.contains(&"acme".to_owned()));
    }

    #[test]
    fn who_asks_to_slow_down_gets_half_and_then_one_more_after_each_success() {
        let mut fairness = Fairness::default();
        let now = Instant::now();
        let run = |count| vec![("a", "acme"); count];
        fairness.answers("acme");
        // Of four that were refused together, one counts.
        for _ in 0..4 {
            fairness.throttled("acme", 4, PAUSE, now);
        }
        assert_eq!(closed(&fairness, &[], now).accounts, ["acme"]);
        let later = now + PAUSE;
        assert!(closed(&fairness, &run(1), later).accounts.is_empty());
        assert_eq!(closed(&fairness, &run(2), later).accounts, ["acme"]);
        fairness.loaded("acme", SLOTS);
        assert!(closed(&fairness, &run(2), later).accounts.is_empty());
        assert_eq!(closed(&fairness, &run(3), later).accounts, ["acme"]);
        fairness.throttled("acme", 1, PAUSE, later);
        assert_eq!(closed(&fairness, &run(1), later + PAUSE).accounts, ["acme"]);
        for _ in 0..SLOTS {
            fairness.loaded("acme", SLOTS);
        }
        assert!(
            closed(&fairness, &run(3), later + PAUSE)
                .accounts
                .is_empty()
        );
    }
}

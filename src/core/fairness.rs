//! How many uploads of whom may run at once, so that an account that is dead, slow or asks to slow down costs others nothing.
//!
//! A *lane* is what uploads queue in: an owner and a connection. Several lanes may lead to one account. A slot is held by an
//! upload whose account answers. Others only knock: one for each account, so that any number of dead accounts leave the
//! slots to those that answer.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// For each slot, how many accounts may be knocked at. It costs a connection that is not answered, and a file on disk.
const KNOCKS: usize = 4;

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
pub struct Closed<L> {
    /// Lanes that have what they may have.
    pub lanes: Vec<L>,
    /// Accounts, whatever the lane.
    pub accounts: Vec<String>,
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

    /// Who gets no further upload while those of these lanes run; `None` if nobody does. Each says which account it is at, if
    /// it is at one yet: what is still being read keeps nobody waiting but those of its lane. A lane has at most half of the
    /// slots.
    pub fn closed<L: Clone + Eq + Hash>(
        &self,
        running: &[(L, Option<&str>)],
        slots: usize,
        now: Instant,
    ) -> Option<Closed<L>> {
        let mut by_lane: HashMap<&L, usize> = HashMap::new();
        let mut by_account: HashMap<&str, usize> = HashMap::new();
        for (lane, account) in running {
            *by_lane.entry(lane).or_default() += 1;
            if let Some(account) = account {
                *by_account.entry(account).or_default() += 1;
            }
        }
        let holding: usize = by_account
            .iter()
            .filter(|(account, _)| self.answering(account))
            .map(|(_, running)| running)
            .sum();
        let knocking = running.len() - holding;
        if knocking >= KNOCKS * slots {
            return None;
        }
        let half = slots.div_ceil(2);
        let lanes = by_lane
            .into_iter()
            .filter(|(_, running)| *running >= half)
            .map(|(lane, _)| lane.clone())
            .collect();
        let knocked_at = by_account
            .keys()
            .copied()
            .filter(|account| !self.answering(account));
        let closed = self.0.iter().filter(|(name, account)| {
            let running = by_account.get(name.as_str()).copied().unwrap_or_default();
            account.paused_until.is_some_and(|until| now < until)
                || account.limit.is_some_and(|limit| running >= limit)
                || account.answers && holding >= slots
        });
        let accounts = closed
            .map(|(name, _)| name.as_str())
            .chain(knocked_at)
            .map(str::to_owned)
            .collect();
        Some(Closed { lanes, accounts })
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
        let mut closed = fairness.closed(&at_accounts(running), SLOTS, now).unwrap();
        closed.lanes.sort_unstable();
        closed.accounts.sort_unstable();
        closed.accounts.dedup();
        closed
    }

    fn at_accounts<'a, 'b>(running: &[(&'a str, &'b str)]) -> Vec<(&'a str, Option<&'b str>)> {
        let at = |&(lane, account)| (lane, Some(account));
        running.iter().map(at).collect()
    }

    #[test]
    fn what_is_still_being_read_keeps_its_lane_waiting_and_no_account() {
        let fairness = Fairness::default();
        let read = |count| vec![("a", None); count];
        let closed = |count| {
            fairness
                .closed(&read(count), SLOTS, Instant::now())
                .unwrap()
        };
        assert!(closed(3).accounts.is_empty());
        assert!(closed(3).lanes.is_empty());
        assert_eq!(closed(4).lanes, ["a"]);
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
        assert!(closed(&fairness, &run(3), now).lanes.is_empty());
        assert_eq!(closed(&fairness, &run(4), now).lanes, ["a"]);
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
        assert!(found.lanes.is_empty());
        // What answers is bounded by the slots, and what does not by the knocks.
        running.extend([
            ("b", "acme"),
            ("c", "acme"),
            ("d", "acme"),
            ("e", "acme"),
            ("f", "acme"),
        ]);
        assert!(
            closed(&fairness, &running, now)
                .accounts
                .contains(&"acme".to_owned())
        );
        let all: Vec<_> = dead(KNOCKS * SLOTS).collect();
        assert_eq!(fairness.closed(&at_accounts(&all), SLOTS, now), None);
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

use super::*;

const SLOTS: usize = 8;
const PAUSE: Duration = Duration::from_secs(5);

fn closed<'a>(fairness: &Fairness, running: &[(&'a str, &str)], now: Instant) -> Closed<&'a str> {
    let mut closed = fairness.closed(&at_accounts(running), SLOTS, now);
    closed.owners.sort_unstable();
    closed.busy.sort_unstable();
    closed.knockers.sort_unstable();
    closed.accounts.sort_unstable();
    closed.accounts.dedup();
    closed
}

/// Each owner has a connection to each of the accounts, of the same name.
fn at_accounts<'r, 'a>(running: &'r [(&'a str, &'r str)]) -> Vec<Running<'r, &'a str>> {
    let at = |(owner, account): &'r (&'a str, &'r str)| Running {
        owner,
        connection: account,
        account: Some(account),
    };
    running.iter().map(at).collect()
}

fn being_read<'a>(owner: &'a &'a str) -> Running<'a, &'a str> {
    Running {
        owner,
        connection: "default",
        account: None,
    }
}

#[test]
fn what_is_still_being_read_keeps_its_owner_waiting_and_nobody_else() {
    let mut fairness = Fairness::default();
    let read = |count| vec![being_read(&"a"); count];
    let now = Instant::now();
    let closed = |count| fairness.closed(&read(count), SLOTS, now);
    assert_eq!(closed(2), Closed::nothing());
    assert_eq!(closed(3).busy, [("a", "default".to_owned())]);
    assert!(closed(3).owners.is_empty());
    assert_eq!(closed(4).owners, ["a"]);
    assert!(closed(4).accounts.is_empty());
    // Of many owners at once as well.
    let names: Vec<_> = (0..10 * KNOCKS * SLOTS).map(|n| n.to_string()).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let many: Vec<_> = names.iter().map(being_read).collect();
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
    with_reader.push(being_read(&"d"));
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
fn the_last_of_an_owners_share_is_for_a_connection_that_has_none() {
    let mut fairness = Fairness::default();
    let now = Instant::now();
    for account in ["hangs", "acme"] {
        fairness.answers(account);
    }
    let busy = |running: &[_]| closed(&fairness, running, now).busy;
    let hang = |count| vec![("a", "hangs"); count];
    assert_eq!(busy(&hang(2)), []);
    assert_eq!(busy(&hang(3)), [("a", "hangs".to_owned())]);
    assert!(closed(&fairness, &hang(3), now).owners.is_empty());
    // Who has a part of the three is closed as well, and who knocks, or is of somebody else, is not.
    let mut running = hang(2);
    running.extend([("a", "acme"), ("a", "dead"), ("b", "hangs")]);
    assert_eq!(
        busy(&running),
        [("a", "acme".to_owned()), ("a", "hangs".to_owned())]
    );
    // Then the owner has what there is.
    running.push(("a", "acme"));
    assert_eq!(busy(&running), []);
    assert_eq!(closed(&fairness, &running, now).owners, ["a"]);
    // Of a share of one nothing can be kept.
    let one = hang(1);
    let found = fairness.closed(&at_accounts(&one), 2, now);
    assert_eq!((found.owners, found.busy), (vec!["a"], vec![]));
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

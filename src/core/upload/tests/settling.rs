//! Loads whose end was not seen, and what becomes of them.

use super::*;
use crate::upload::fake::Cut;

/// An attempt after one that recorded transaction `1` and saw no end of it.
async fn attempt_after_unseen_end(warehouse: &mut FakeWarehouse) -> Result<Outcome> {
    let mut again = upload(1);
    again.transaction = Some("1".to_owned());
    run(&again, warehouse, &FakeLedger::default()).await
}

fn copies(warehouse: &FakeWarehouse) -> usize {
    let copies = warehouse
        .log
        .iter()
        .filter(|line| line.starts_with("COPY INTO"));
    copies.count()
}

#[tokio::test]
async fn of_a_transaction_that_nobody_knows_the_rows_tell() {
    let mut loaded = FakeWarehouse::default();
    run(&upload(1), &mut loaded, &FakeLedger::default())
        .await
        .unwrap();
    loaded.states.clear();
    let outcome = attempt_after_unseen_end(&mut loaded).await.unwrap();
    assert_eq!(
        (outcome.rows, copies(&loaded)),
        (10, 1),
        "{:#?}",
        loaded.log
    );

    for mut empty in [FakeWarehouse::default(), FakeWarehouse::with_rows(0..4)] {
        let others = empty.rows.len();
        attempt_after_unseen_end(&mut empty).await.unwrap();
        assert_eq!((empty.rows.len(), copies(&empty)), (others + 10, 1));
    }
}

#[tokio::test]
async fn under_another_host_name_only_the_rows_are_believed() {
    let moved = Upload {
        transaction: Some("1".to_owned()),
        is_moved: true,
        ..upload(1)
    };
    for state in ["committed", "rolled back"] {
        let mut stranger = FakeWarehouse::default();
        stranger.states.insert("1".to_owned(), state);
        let outcome = run(&moved, &mut stranger, &FakeLedger::default())
            .await
            .unwrap();
        assert!(!outcome.is_settled && stranger.rows.len() == 10, "{state}");
        let last = stranger.log.last().unwrap();
        assert_eq!(last, "DESCRIBE TRANSACTION 2", "its own needs no more");

        let mut loaded = FakeWarehouse::default();
        run(&upload(1), &mut loaded, &FakeLedger::default())
            .await
            .unwrap();
        loaded.states.insert("1".to_owned(), state);
        let outcome = run(&moved, &mut loaded, &FakeLedger::default())
            .await
            .unwrap();
        assert!(outcome.is_settled && copies(&loaded) == 1, "{state}");
    }
    let mut running = FakeWarehouse::default();
    running.states.insert("1".to_owned(), "running");
    let error = run(&moved, &mut running, &FakeLedger::default())
        .await
        .unwrap_err();
    assert!(error.message().contains("still running"), "{error}");
    assert_eq!(running.log, ["DESCRIBE TRANSACTION 1"], "nobody is aborted");
}

#[tokio::test]
async fn rows_are_looked_for_in_the_table_that_the_transaction_was_about() {
    let keys = Strategy::Upsert(Match::Keys(vec!["N".to_owned()]));
    for (state, strategy) in [(None, Strategy::Append), (Some("committed"), keys)] {
        let mut warehouse = FakeWarehouse::default();
        run(&upload(1), &mut warehouse, &FakeLedger::default())
            .await
            .unwrap();
        warehouse.states = state
            .map(|state| ("1".to_owned(), state))
            .into_iter()
            .collect();
        warehouse.log.clear();
        let mut again = upload(1);
        again.transaction = Some("1".to_owned());
        again.strategy = strategy;
        again.transaction_table = Some(again.target.clone());
        again.target.table = "ANOTHER".to_owned();
        let outcome = run(&again, &mut warehouse, &FakeLedger::default())
            .await
            .unwrap();
        assert!(outcome.is_settled);
        let counts = |line: &&String| line.starts_with("SELECT COUNT");
        let counted = warehouse.log.iter().find(counts).unwrap();
        assert!(counted.contains(&upload(1).target.quoted()), "{counted}");
        assert!(!warehouse.log.iter().any(|line| line.contains("ANOTHER")));
    }
}

#[tokio::test]
async fn a_state_that_is_not_understood_is_no_rollback() {
    let mut warehouse = FakeWarehouse::default();
    warehouse.states.insert("1".to_owned(), "preparing");
    let error = attempt_after_unseen_end(&mut warehouse).await.unwrap_err();
    assert!(error.message().contains("\"preparing\""), "{error}");
    assert_eq!(copies(&warehouse), 0, "{:#?}", warehouse.log);
}

#[tokio::test]
async fn whatever_is_answered_to_commit_it_is_asked_what_came_of_it() {
    let mut undisturbed = FakeWarehouse::default();
    run(&upload(1), &mut undisturbed, &FakeLedger::default())
        .await
        .unwrap();
    let [.., commit, look] = &undisturbed.log[..] else {
        panic!("too few statements: {:#?}", undisturbed.log)
    };
    assert_eq!(
        (commit.as_str(), look.as_str()),
        ("COMMIT", "DESCRIBE TRANSACTION 1")
    );
    let mut warehouse = FakeWarehouse {
        fault: Some((undisturbed.calls - 2, Cut::Misanswered)),
        ..FakeWarehouse::default()
    };
    let outcome = run(&upload(1), &mut warehouse, &FakeLedger::default())
        .await
        .unwrap();
    assert_eq!((outcome.rows, warehouse.rows.len()), (10, 10));
}

#[tokio::test]
async fn a_commit_that_found_nothing_to_commit_is_no_success() {
    let mut undisturbed = FakeWarehouse::default();
    run(&upload(1), &mut undisturbed, &FakeLedger::default())
        .await
        .unwrap();
    let commit = undisturbed.log.iter().position(|line| line == "COMMIT");
    let mut warehouse = FakeWarehouse {
        abort: commit,
        ..FakeWarehouse::default()
    };
    let ledger = FakeLedger::default();
    let error = run(&upload(1), &mut warehouse, &ledger).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert!(error.message().contains("somebody aborted"), "{error}");
    assert!(warehouse.rows.is_empty() && !*ledger.is_undecided.lock().unwrap());
}

#[tokio::test]
async fn what_may_be_loaded_without_a_record_replaces_its_rows() {
    let mut warehouse = FakeWarehouse::default();
    run(&upload(1), &mut warehouse, &FakeLedger::default())
        .await
        .unwrap();
    let mut forgotten = upload(1);
    forgotten.may_be_loaded = true;
    assert!(!forgotten.may_share());
    let outcome = run(&forgotten, &mut warehouse, &FakeLedger::default())
        .await
        .unwrap();
    assert_eq!((outcome.rows, warehouse.rows.len()), (10, 10));
}

#[tokio::test]
async fn an_attempt_that_only_settles_loads_nothing() {
    let mut warehouse = FakeWarehouse::default();
    warehouse.states.insert("1".to_owned(), "rolled back");
    let mut settling = upload(1);
    settling.transaction = Some("1".to_owned());
    settling.only_settles = true;
    let ledger = FakeLedger::default();
    let error = run(&settling, &mut warehouse, &ledger).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert_eq!(warehouse.log, ["DESCRIBE TRANSACTION 1"]);
    assert!(!*ledger.is_undecided.lock().unwrap());

    warehouse.states.insert("1".to_owned(), "committed");
    let outcome = run(&settling, &mut warehouse, &ledger).await.unwrap();
    assert!(outcome.is_settled);
}

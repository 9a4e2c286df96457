//! Each strategy, with every call cut before and after it takes effect.

use super::*;
use crate::spool::TimeWindow;
use crate::upload::fake::{Cut, KEYS_PER_DAY, Row, earlier};

fn new_row(key: u64) -> Row {
    (key, upload_id().to_string())
}

fn old_row(key: u64) -> Row {
    (key, earlier())
}

fn by_keys() -> Strategy {
    Strategy::Upsert(Match::Keys(vec!["N".to_owned()]))
}

fn by_dates() -> Strategy {
    Strategy::Upsert(Match::Dates(DateColumn {
        name: "D".to_owned(),
        is_timestamp: false,
    }))
}

fn by_window() -> Strategy {
    Strategy::Upsert(Match::Window(TimeWindow {
        start: "2024-01-01".to_owned(),
        end: "2024-01-31".to_owned(),
    }))
}

/// For an upsert by window, what is in the table is of an earlier upload of the same execution.
fn replaced(strategy: &Strategy) -> Vec<Uuid> {
    match strategy {
        Strategy::Upsert(Match::Window(_)) => vec![Uuid::from_u128(3)],
        _ => Vec::new(),
    }
}

/// What an upload of two files does to a table.
struct Case {
    strategy: Strategy,
    /// Keys in the table before; `None` where there is no table.
    before: Option<Vec<u64>>,
    distinct_keys: u64,
    after: Vec<Row>,
    rows: u64,
}

fn cases() -> Vec<Case> {
    let new = |keys: std::ops::Range<u64>| keys.map(new_row).collect::<Vec<_>>();
    let old = |keys: std::ops::Range<u64>| keys.map(old_row).collect::<Vec<_>>();
    let merged = |new_keys, old_keys| [new(new_keys), old(old_keys)].concat();
    let case =
        |strategy: &Strategy, before: Option<std::ops::Range<u64>>, distinct_keys, after, rows| {
            Case {
                strategy: strategy.clone(),
                before: before.map(Iterator::collect),
                distinct_keys,
                after,
                rows,
            }
        };
    let (append, replace, keys, dates, window) = (
        Strategy::Append,
        Strategy::Replace,
        by_keys(),
        by_dates(),
        by_window(),
    );
    vec![
        case(&append, None, 0, new(0..20), 20),
        case(&append, Some(100..103), 0, merged(0..20, 100..103), 20),
        case(&replace, None, 0, new(0..20), 20),
        case(&replace, Some(0..0), 0, new(0..20), 20),
        case(&replace, Some(5..50), 0, new(0..20), 20),
        case(&keys, None, 0, new(0..20), 20),
        // The same key in several rows of the result, also where nothing but the first load would be needed.
        case(&keys, None, 7, new(0..7), 7),
        case(&keys, Some(15..30), 0, merged(0..20, 20..30), 20),
        case(&keys, Some(5..9), 7, merged(0..7, 7..9), 7),
        case(&dates, None, 0, new(0..20), 20),
        // Of the days of the result everything goes, of the others nothing.
        case(
            &dates,
            Some(17..4 * KEYS_PER_DAY + 3),
            0,
            merged(0..20, 20..23),
            20,
        ),
        case(&window, None, 0, new(0..20), 20),
        case(&window, Some(1..9), 0, new(0..20), 20),
    ]
}

impl Case {
    fn warehouse(&self) -> FakeWarehouse {
        let warehouse = match &self.before {
            None => FakeWarehouse::default(),
            Some(keys) => FakeWarehouse::with_rows(keys.iter().copied()),
        };
        FakeWarehouse {
            distinct_keys: self.distinct_keys,
            ..warehouse
        }
    }

    fn upload(&self) -> Upload {
        Upload {
            strategy: self.strategy.clone(),
            replaces: replaced(&self.strategy),
            ..upload(2)
        }
    }
}

#[tokio::test]
async fn whatever_is_cut_the_rows_are_there_once() {
    for case in cases() {
        let mut undisturbed = case.warehouse();
        run_to_the_end(&mut undisturbed, &case.upload()).await;
        let mut after = case.after.clone();
        after.sort();
        assert_eq!(undisturbed.sorted(), after, "{:#?}", undisturbed.log);
        let calls = undisturbed.calls;
        assert!(calls >= 7, "{:#?}", undisturbed.log);

        for call in 0..calls {
            for kind in [Cut::Before, Cut::After] {
                let mut warehouse = case.warehouse();
                warehouse.fault = Some((call, kind));
                let outcome = run_to_the_end(&mut warehouse, &case.upload()).await;
                assert_eq!(
                    outcome.rows, case.rows,
                    "cut {kind:?} call {call}: {:#?}",
                    warehouse.log
                );
                assert_eq!(
                    warehouse.sorted(),
                    after,
                    "cut {kind:?} call {call}: {:#?}",
                    warehouse.log
                );
                assert!(warehouse.open.is_none(), "a transaction was left open");
            }
        }
    }
}

#[tokio::test]
async fn only_the_recorded_transaction_is_committed() {
    for case in cases() {
        let mut undisturbed = case.warehouse();
        run_to_the_end(&mut undisturbed, &case.upload()).await;
        let mut after = case.after.clone();
        after.sort();
        for call in 0..undisturbed.log.len() {
            let mut warehouse = case.warehouse();
            warehouse.abort = Some(call);
            run_to_the_end(&mut warehouse, &case.upload()).await;
            assert_eq!(
                warehouse.sorted(),
                after,
                "abort before call {call}: {:#?}",
                warehouse.log
            );
            assert!(warehouse.open.is_none(), "a transaction was left open");
        }
    }
}

#[tokio::test]
async fn the_first_load_needs_no_temporary_table() {
    let strategies = [Strategy::Replace, by_keys(), by_dates()];
    let tables = [FakeWarehouse::default, || FakeWarehouse::with_rows([])];
    for (strategy, table) in strategies
        .into_iter()
        .flat_map(|strategy| tables.map(|table| (strategy.clone(), table)))
    {
        let mut first = upload(2);
        first.strategy = strategy;
        let mut warehouse = table();
        run(&first, &mut warehouse, &FakeLedger::default())
            .await
            .unwrap();
        let has = |what: &str| warehouse.log.iter().any(|line| line.contains(what));
        assert!(
            !has("TEMPORARY") && has("COPY INTO"),
            "{:#?}",
            warehouse.log
        );
    }
}

#[tokio::test]
async fn the_temporary_table_is_dropped_at_the_end() {
    let mut warehouse = FakeWarehouse::with_rows([1]);
    let mut replacing = upload(1);
    replacing.strategy = Strategy::Replace;
    run(&replacing, &mut warehouse, &FakeLedger::default())
        .await
        .unwrap();
    assert!(warehouse.temporary.is_some());
    clean_up(&replacing, &mut warehouse).await.unwrap();
    assert!(warehouse.temporary.is_none() && warehouse.staged.is_empty());
}

#[tokio::test]
async fn counts_that_do_not_agree_are_never_committed() {
    for strategy in [Strategy::Replace, by_keys(), by_dates()] {
        for miscount in [-1, 1] {
            let mut warehouse = FakeWarehouse::with_rows([1, 50]);
            warehouse.miscount = miscount;
            let mut wrong = upload(2);
            wrong.strategy = strategy.clone();
            let error = run(&wrong, &mut warehouse, &FakeLedger::default())
                .await
                .unwrap_err();
            assert!(
                matches!(
                    error.kind(),
                    ErrorKind::Transient | ErrorKind::Configuration
                ),
                "{error:?}"
            );
            assert_eq!(warehouse.sorted(), [old_row(1), old_row(50)], "{error}");
            assert!(warehouse.open.is_none(), "the transaction was left open");
        }
    }
}

#[tokio::test]
async fn a_key_that_the_table_has_twice_is_refused() {
    let mut warehouse = FakeWarehouse::with_rows([4, 4]);
    let mut merging = upload(1);
    merging.strategy = by_keys();
    let error = run(&merging, &mut warehouse, &FakeLedger::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(
        error
            .message()
            .contains("several rows with the same key (N)"),
        "{error}"
    );
    assert_eq!(warehouse.sorted(), [old_row(4), old_row(4)]);
}

#[tokio::test]
async fn a_window_is_not_that_of_others_who_load_the_same_table() {
    let mut warehouse = FakeWarehouse::with_rows(0..3);
    let mut first = upload(1);
    first.strategy = by_window();
    run(&first, &mut warehouse, &FakeLedger::default())
        .await
        .unwrap();
    assert_eq!(warehouse.counts().get(&earlier()), Some(&3));
    let mut again = first;
    again.replaces = vec![Uuid::from_u128(3)];
    run(&again, &mut warehouse, &FakeLedger::default())
        .await
        .unwrap();
    let deletion = warehouse
        .log
        .iter()
        .rfind(|line| line.starts_with("DELETE"));
    let deletion = deletion.expect("earlier rows are deleted");
    for part in [earlier().as_str(), "2024-01-01", "2024-01-31"] {
        assert!(deletion.contains(part), "{deletion}");
    }
}

#[tokio::test]
async fn an_empty_result_empties_what_it_replaces_and_nothing_else() {
    for (strategy, left) in [
        (Strategy::Replace, 0),
        (by_window(), 0),
        (by_keys(), 3),
        (by_dates(), 3),
        (Strategy::Upsert(Match::Nothing), 3),
    ] {
        let mut warehouse = FakeWarehouse::with_rows(0..3);
        let mut empty = upload(0);
        empty.strategy = strategy.clone();
        empty.replaces = replaced(&strategy);
        let outcome = run(&empty, &mut warehouse, &FakeLedger::default())
            .await
            .unwrap();
        assert_eq!(
            (outcome.rows, warehouse.rows.len()),
            (0, left),
            "{strategy:?}"
        );
    }
}

//! Rebuilt columns against a table in memory, with values: whoever dies or interferes, none is lost.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::error::{ErrorKind, Result};
use crate::types::ColumnType;
use crate::upload::Upload;
use crate::upload::fake_table::{HUGE, Session, Table, number, table, upload};
use crate::upload::table::{Target, prepare};

fn decimal() -> Upload {
    upload(&[("N", number(10))])
}

fn integers() -> Table {
    table(&[("N", "NUMBER(38,0)", &[Some(1), None, Some(3)])])
}

fn is_rebuilt(table: &Table) {
    let columns = table.lock().unwrap();
    let [column] = columns.as_slice() else {
        panic!("{columns:?}");
    };
    assert_eq!(
        (column.name.as_str(), column.column_type.as_str()),
        ("N", "NUMBER(38,10)")
    );
    assert_eq!(column.values, [Some(1), None, Some(3)]);
}

#[tokio::test]
async fn integers_make_room_for_decimals() {
    let table = integers();
    let target = prepare(&mut Session::free(&table), &decimal())
        .await
        .unwrap();
    assert_eq!(target.columns[0].column_type, "NUMBER(38,10)");
    is_rebuilt(&table);
}

#[tokio::test]
async fn whoever_dies_the_next_one_ends_it() {
    let mut undisturbed = Session::free(&integers());
    prepare(&mut undisturbed, &decimal()).await.unwrap();
    assert!(undisturbed.calls > 8);
    for call in 0..undisturbed.calls {
        for is_after in [false, true] {
            // The next one may bring decimals, or integers, which have to find their column as well.
            for next in [decimal(), upload(&[("N", number(0))])] {
                let table = integers();
                let mut first = Session::free(&table);
                first.cut = Some((call, is_after));
                let error = prepare(&mut first, &decimal()).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Transient);
                prepare(&mut Session::free(&table), &next).await.unwrap();
                let values = |table: &Table| {
                    let columns = table.lock().unwrap();
                    let column = columns.iter().find(|column| column.name == "N");
                    column.expect("the column is there").values.clone()
                };
                assert_eq!(values(&table), [Some(1), None, Some(3)], "cut at {call}");
                prepare(&mut Session::free(&table), &decimal())
                    .await
                    .unwrap();
                is_rebuilt(&table);
            }
        }
    }
}

/// Two sessions do the same: the first `lead` statements of one, `middle` of the other, then each to its end.
async fn race(table: &Table, lead: usize, middle: usize) -> [Result<Target>; 2] {
    let permits = [Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0))];
    let tasks = permits.clone().map(|permits| {
        let mut session = Session {
            permits,
            ..Session::free(table)
        };
        tokio::spawn(async move { prepare(&mut session, &decimal()).await })
    });
    for (permits, count) in [
        (&permits[0], lead),
        (&permits[1], middle),
        (&permits[0], 1_000),
        (&permits[1], 1_000),
    ] {
        permits.add_permits(count);
        // The runtime has one thread and nothing waits for a clock: after these turns the task has used what it could.
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }
    let [first, second] = tasks;
    [first.await.unwrap(), second.await.unwrap()]
}

#[tokio::test]
async fn two_who_rebuild_at_once() {
    for lead in 0..18 {
        for middle in 0..18 {
            let table = integers();
            for prepared in race(&table, lead, middle).await {
                let target = prepared.unwrap_or_else(|error| panic!("{lead}, {middle}: {error}"));
                assert_eq!(target.columns[0].column_type, "NUMBER(38,10)");
            }
            is_rebuilt(&table);
        }
    }
}

#[tokio::test]
async fn a_value_that_changes_meanwhile_is_the_one_that_stays() {
    for lead in 0..18 {
        let table = integers();
        let mut first = Session::free(&table);
        first.cut = Some((lead, false));
        let _ = prepare(&mut first, &decimal()).await;
        let changed = {
            let mut columns = table.lock().unwrap();
            let column = columns.iter_mut().find(|column| column.name == "N");
            column.map(|column| column.values = vec![Some(42), Some(2), None])
        };
        prepare(&mut Session::free(&table), &decimal())
            .await
            .unwrap();
        let columns = table.lock().unwrap();
        let expected = match changed {
            Some(()) => [Some(42), Some(2), None],
            None => [Some(1), None, Some(3)],
        };
        assert_eq!(columns.len(), 1);
        assert_eq!(columns[0].values, expected, "{lead}: {columns:?}");
    }
}

#[tokio::test]
async fn a_row_of_a_load_that_had_begun_before_is_not_lost() {
    let mut late = 0;
    for lead in 0..18 {
        let table = integers();
        let mut first = Session::free(&table);
        first.cut = Some((lead, false));
        let _ = prepare(&mut first, &decimal()).await;
        {
            // Whatever the column is called by now, until it has been given up: a load knows it by more than its name.
            let mut columns = table.lock().unwrap();
            let Some(old) = columns.iter().position(|column| {
                column.column_type == "NUMBER(38,0)" && !column.name.contains("_old_")
            }) else {
                continue;
            };
            late += usize::from(columns[old].name != "N");
            for (at, column) in columns.iter_mut().enumerate() {
                column.values.push((at == old).then_some(5));
            }
        }
        prepare(&mut Session::free(&table), &decimal())
            .await
            .unwrap();
        let columns = table.lock().unwrap();
        assert_eq!(columns.len(), 1);
        let expected = [Some(1), None, Some(3), Some(5)];
        assert_eq!(columns[0].values, expected, "{lead}: {columns:?}");
    }
    assert!(late > 2);
}

#[tokio::test]
async fn marks_that_somebody_took_away() {
    let mark = "N__snowflake_bridge_set_38_10";
    for lead in 0..18 {
        let table = integers();
        let mut first = Session::free(&table);
        first.cut = Some((lead, false));
        let _ = prepare(&mut first, &decimal()).await;
        table.lock().unwrap().retain(|column| column.name != mark);
        prepare(&mut Session::free(&table), &decimal())
            .await
            .unwrap();
        is_rebuilt(&table);
    }
}

#[tokio::test]
async fn a_column_that_cannot_be_dropped_gives_no_value_back() {
    let table = integers();
    let keeping = || Session {
        keeps_columns: true,
        ..Session::free(&table)
    };
    prepare(&mut keeping(), &decimal()).await.unwrap();
    let empty = || {
        let mut columns = table.lock().unwrap();
        let column = columns.iter_mut().find(|column| column.name == "N");
        column.expect("the column is there").values = vec![None; 3];
    };
    empty();
    prepare(&mut keeping(), &decimal()).await.unwrap();
    prepare(&mut Session::free(&table), &decimal())
        .await
        .unwrap();
    let columns = table.lock().unwrap();
    assert_eq!(columns.len(), 1);
    assert_eq!(columns[0].values, [None, None, None]);
}

#[tokio::test]
async fn a_column_that_the_table_is_clustered_by_is_left_as_it_is() {
    let table = integers();
    let mut clustered = Session {
        cluster_by: "LINEAR(N)",
        ..Session::free(&table)
    };
    let error = prepare(&mut clustered, &decimal()).await.unwrap_err();
    for part in ["NUMBER(38,0)", "NUMBER(38,10)", "clustered"] {
        assert!(error.message().contains(part), "{error}");
    }
    assert_eq!(table.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn values_that_do_not_fit_leave_the_column_as_it_was() {
    let table = table(&[("N", "NUMBER(38,0)", &[Some(HUGE)])]);
    let error = prepare(&mut Session::free(&table), &decimal())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    for part in ["\"N\"", "NUMBER(38,0)", "NUMBER(38,10)"] {
        assert!(error.message().contains(part), "{error}");
    }
    let columns = table.lock().unwrap();
    assert_eq!(columns.len(), 1);
    assert_eq!(
        (columns[0].name.as_str(), &columns[0].values),
        ("N", &vec![Some(HUGE)])
    );
}

#[tokio::test]
async fn columns_that_a_rebuild_would_not_leave_as_they_are() {
    let declared = integers();
    declared.lock().unwrap()[0].is_nullable = false;
    // A masking policy masks the values for whoever copies them.
    let masked = integers();
    masked.lock().unwrap()[0].policy = "DB.S.MASK";
    let long = "N".repeat(250);
    for (table, name) in [
        (declared, "N"),
        (masked, "N"),
        (table(&[(&long, "NUMBER(38,0)", &[])]), long.as_str()),
    ] {
        let result = upload(&[(name, number(10))]);
        let error = prepare(&mut Session::free(&table), &result)
            .await
            .unwrap_err();
        assert!(error.message().contains("NUMBER(38,10)"), "{error}");
        assert_eq!(table.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_column_made_anew_meanwhile_is_not_overwritten() {
    let table = table(&[
        ("N", "NUMBER(38,0)", &[None]),
        ("N__snowflake_bridge_to_38_10", "NUMBER(38,10)", &[None]),
        ("N__snowflake_bridge_was_38_0", "NUMBER(38,0)", &[Some(1)]),
    ]);
    let error = prepare(&mut Session::free(&table), &decimal())
        .await
        .unwrap_err();
    assert!(error.message().contains("made anew"), "{error}");
    assert_eq!(table.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn columns_in_another_case() {
    let lower = || table(&[("n", "NUMBER(38,0)", &[])]);
    let target = prepare(&mut Session::free(&lower()), &upload(&[("N", number(0))]))
        .await
        .unwrap();
    assert_eq!(
        (target.columns[0].name.as_str(), target.name_of("N")),
        ("n", "n")
    );

    let rebuilt = lower();
    prepare(&mut Session::free(&rebuilt), &decimal())
        .await
        .unwrap();
    assert_eq!(rebuilt.lock().unwrap()[0].name, "n");

    // The exact name comes first, and leaves the other for nobody.
    let both = table(&[("N", "NUMBER(38,0)", &[]), ("n", "NUMBER(38,0)", &[])]);
    let target = prepare(&mut Session::free(&both), &upload(&[("N", number(0))]))
        .await
        .unwrap();
    assert_eq!(target.columns[0].name, "N");

    let ambiguous = table(&[("Ab", "NUMBER(38,0)", &[]), ("aB", "NUMBER(38,0)", &[])]);
    let error = prepare(
        &mut Session::free(&ambiguous),
        &upload(&[("AB", number(0))]),
    )
    .await
    .unwrap_err();
    for part in ["\"Ab\"", "\"aB\"", "\"AB\""] {
        assert!(error.message().contains(part), "{error}");
    }
    let error = prepare(
        &mut Session::free(&lower()),
        &upload(&[("É", number(0)), ("é", number(0)), ("N", number(0))]),
    )
    .await;
    assert!(error.is_ok(), "{error:?}");
    let error = prepare(
        &mut Session::free(&table(&[("AB", "NUMBER(38,0)", &[])])),
        &upload(&[("Ab", number(0)), ("aB", number(0))]),
    )
    .await
    .unwrap_err();
    assert!(
        error.message().contains("both fit its column \"AB\""),
        "{error}"
    );
}

#[tokio::test]
async fn evolve_schema_false_leaves_the_table_alone() {
    for (columns, wanted, parts) in [
        (
            integers(),
            upload(&[("N", number(0)), ("M", number(0))]),
            ["\"M\"", "evolve_schema"],
        ),
        (integers(), decimal(), ["NUMBER(38,0)", "NUMBER(38,10)"]),
    ] {
        let fixed = Upload {
            evolve_schema: false,
            ..wanted
        };
        let mut session = Session::free(&columns);
        let error = prepare(&mut session, &fixed).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        for part in parts {
            assert!(error.message().contains(part), "{error}");
        }
        assert_eq!(session.calls, 1);
    }
}

#[tokio::test]
async fn nothing_is_rebuilt_beside_other_loads() {
    let beside = |upload: Upload| Upload {
        is_alone: false,
        ..upload
    };
    let columns = integers();
    let mut session = Session::free(&columns);
    let error = prepare(&mut session, &beside(decimal())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsTable);
    assert!(error.message().contains("\"N\""), "{error}");
    assert_eq!(session.calls, 1);
    prepare(&mut Session::free(&columns), &decimal())
        .await
        .unwrap();
    is_rebuilt(&columns);
}

#[tokio::test]
async fn what_a_rebuild_has_left_is_dropped_by_whoever_is_alone() {
    let left = || {
        table(&[
            ("N", "NUMBER(38,10)", &[Some(1)]),
            ("N__snowflake_bridge_old_38_0", "NUMBER(38,0)", &[Some(1)]),
            ("N__snowflake_bridge_set_38_10", "BOOLEAN", &[Some(1)]),
        ])
    };
    let mut upload = decimal();
    for is_alone in [false, true] {
        let columns = left();
        upload.is_alone = is_alone;
        prepare(&mut Session::free(&columns), &upload)
            .await
            .unwrap();
        assert_eq!(columns.lock().unwrap().len(), if is_alone { 1 } else { 3 });
    }
}

#[tokio::test]
async fn columns_that_may_not_be_widened_are_loaded_as_they_are() {
    let narrow = || table(&[("N", "VARCHAR(20)", &[]), ("M", "NUMBER(5,0)", &[])]);
    let wanted = upload(&[("N", ColumnType::Text), ("M", number(0))]);
    let types = |target: &Target| -> Vec<String> {
        let columns = target.columns.iter();
        columns.map(|column| column.column_type.clone()).collect()
    };
    let widened = prepare(&mut Session::free(&narrow()), &wanted)
        .await
        .unwrap();
    assert_eq!(types(&widened), ["VARCHAR(134217728)", "NUMBER(38,0)"]);

    let mut not_owner = Session {
        is_owner: false,
        ..Session::free(&narrow())
    };
    let as_it_is = prepare(&mut not_owner, &wanted).await.unwrap();
    assert_eq!(types(&as_it_is), ["VARCHAR(20)", "NUMBER(5,0)"]);

    let fixed = Upload {
        evolve_schema: false,
        ..wanted
    };
    let mut session = Session::free(&narrow());
    let as_it_is = prepare(&mut session, &fixed).await.unwrap();
    assert_eq!(types(&as_it_is), ["VARCHAR(20)", "NUMBER(5,0)"]);
    assert_eq!(session.calls, 1);
}

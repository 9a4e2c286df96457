//! Rebuilt columns against a table in memory, with values: whoever dies or interferes, none is lost.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::error::{Error, ErrorKind, Result};
use crate::snowflake::sql::TableName;
use crate::snowflake::{QueryResult, Statement, Warehouse};
use crate::spool::Manifest;
use crate::types::{Column, ColumnType};
use crate::upload::table::{Target, prepare};
use crate::upload::{ClusterBy, Strategy, Upload};

/// A value that fits into NUMBER(38,0) and not into NUMBER(38,10).
const HUGE: i64 = i64::MAX;

#[derive(Debug, Clone)]
struct FakeColumn {
    name: String,
    column_type: String,
    is_nullable: bool,
    policy: &'static str,
    values: Vec<Option<i64>>,
}

type Table = Arc<Mutex<Vec<FakeColumn>>>;

fn table(columns: &[(&str, &str, &[Option<i64>])]) -> Table {
    let columns = columns
        .iter()
        .map(|(name, column_type, values)| FakeColumn {
            name: (*name).to_owned(),
            column_type: (*column_type).to_owned(),
            is_nullable: true,
            policy: "",
            values: values.to_vec(),
        });
    Arc::new(Mutex::new(columns.collect()))
}

/// One session. It executes a statement for each permit that it is given.
struct Session {
    table: Table,
    permits: Arc<Semaphore>,
    /// The statement, from 0, at which the connection is cut: before it, or after.
    cut: Option<(usize, bool)>,
    calls: usize,
    /// Whether the role owns the table: nobody else may change it.
    is_owner: bool,
    cluster_by: &'static str,
    /// Whether columns cannot be dropped.
    keeps_columns: bool,
    autocommit: bool,
}

impl Session {
    fn free(table: &Table) -> Self {
        Self {
            table: Arc::clone(table),
            permits: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            cut: None,
            calls: 0,
            is_owner: true,
            cluster_by: "",
            keeps_columns: false,
            autocommit: false,
        }
    }
}

fn refused(what: &str) -> Error {
    Error::new(ErrorKind::Configuration, what)
}

/// The quoted names of a statement after those of the table.
fn names(text: &str) -> Vec<String> {
    let mut names: Vec<String> = text
        .split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    names.drain(..3);
    names
}

fn apply(table: &mut Vec<FakeColumn>, text: &str) -> Result<QueryResult> {
    let mut answer = QueryResult {
        query_id: "01".to_owned(),
        columns: Vec::new(),
        rows: Vec::new(),
    };
    let names = names(text);
    let find = |table: &[FakeColumn], name: &str| {
        table
            .iter()
            .position(|column| column.name == name)
            .ok_or_else(|| refused("no such column").with_code("000904"))
    };
    if text.starts_with("DESCRIBE TABLE") {
        answer.columns = ["name", "type", "null?", "policy name"]
            .map(str::to_owned)
            .to_vec();
        answer.rows = table
            .iter()
            .map(|column| {
                let nullable = if column.is_nullable { "Y" } else { "N" };
                [&column.name, &column.column_type, nullable, column.policy]
                    .map(|text| Some(text.to_owned()))
                    .to_vec()
            })
            .collect();
    } else if text.contains(" ADD COLUMN ") {
        if names.iter().any(|name| find(table, name).is_ok()) {
            return Err(refused("column exists"));
        }
        let rows = table.first().map_or(0, |column| column.values.len());
        // After each name comes a type and what separates it from the next.
        let types = text.split('"').skip(8).step_by(2);
        for (name, column_type) in names.into_iter().zip(types) {
            table.push(FakeColumn {
                name,
                column_type: column_type.trim_matches([' ', ',']).to_owned(),
                is_nullable: true,
                policy: "",
                values: vec![None; rows],
            });
        }
    } else if text.contains(" RENAME COLUMN ") {
        let at = find(table, &names[0])?;
        if find(table, &names[1]).is_ok() {
            return Err(refused("column exists"));
        }
        table[at].name.clone_from(&names[1]);
    } else if text.contains(" DROP COLUMN ") {
        for name in &names {
            find(table, name)?;
        }
        table.retain(|column| !names.contains(&column.name));
    } else if let Some((_, wider)) = text.split_once(" SET DATA TYPE ") {
        let at = find(table, &names[0])?;
        table[at].column_type = wider.to_owned();
    } else if text.contains("UPDATE ") {
        let [to, from, mark] = [0, 1, 2].map(|at| find(table, &names[at]));
        let (to, from, mark) = (to?, from?, mark?);
        let values = table[from].values.clone();
        if table[to].column_type != "NUMBER(38,0)" && values.contains(&Some(HUGE)) {
            return Err(Error::new(ErrorKind::Data, "out of range").with_code("100046"));
        }
        let is_exact = text.contains("IS DISTINCT FROM");
        for (row, value) in values.into_iter().enumerate() {
            let (had, is_marked) = (table[to].values[row], table[mark].values[row].is_some());
            if is_exact || !is_marked && had.is_none() && value.is_some() {
                table[to].values[row] = value;
                table[mark].values[row] = Some(1);
            }
        }
    } else {
        panic!("the fake does not know {text}");
    }
    Ok(answer)
}

#[async_trait]
impl Warehouse for Session {
    async fn execute(&mut self, statement: &Statement) -> Result<QueryResult> {
        self.permits.acquire().await.expect("never closed").forget();
        let cut = self.cut.filter(|(call, _)| *call == self.calls);
        self.calls += 1;
        let lost = || Error::new(ErrorKind::Transient, "connection cut");
        if let Some((_, false)) = cut {
            return Err(lost());
        }
        let text = statement.text();
        let result = if text.starts_with("SHOW TABLES") {
            let row = ["T", self.cluster_by].map(|text| Some(text.to_owned()));
            Ok(QueryResult {
                query_id: "01".to_owned(),
                columns: ["name", "cluster_by"].map(str::to_owned).to_vec(),
                rows: vec![row.to_vec()],
            })
        } else if let Some(autocommit) = text.strip_prefix("ALTER SESSION SET AUTOCOMMIT = ") {
            self.autocommit = autocommit == "TRUE";
            Ok(QueryResult::default())
        } else if text.starts_with("UPDATE") && !self.autocommit {
            panic!("{text} leaves a transaction open");
        } else if self.keeps_columns && text.contains(" DROP COLUMN ") {
            Err(refused("not dropped"))
        } else if !self.is_owner && text.starts_with("ALTER TABLE") {
            Err(refused("not the owner").with_code("003001"))
        } else {
            apply(&mut self.table.lock().unwrap(), text)
        };
        if cut.is_some() { Err(lost()) } else { result }
    }

    async fn put(
        &mut self,
        _: &std::path::Path,
        _: Option<&str>,
        _: &str,
        _: &str,
        _: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        Ok(())
    }
}

fn upload(columns: &[(&str, ColumnType)]) -> Upload {
    let columns = columns
        .iter()
        .map(|(name, column_type)| Column::new(*name, *column_type))
        .collect();
    Upload {
        upload_id: uuid::Uuid::from_u128(7),
        target: TableName {
            database: "DB".to_owned(),
            schema: "S".to_owned(),
            table: "T".to_owned(),
        },
        spool: std::path::PathBuf::new(),
        stage_directory: String::new(),
        manifest: Manifest {
            columns,
            files: Vec::new(),
            rows: 1,
            bytes: 0,
            window: None,
        },
        is_staged: true,
        transaction: None,
        replaces: Vec::new(),
        strategy: Strategy::Append,
        cluster_by: ClusterBy::Nothing,
        evolve_schema: true,
        comment: String::new(),
        is_canceled: false,
        only_settles: false,
        is_alone: true,
    }
}

fn number(scale: u8) -> ColumnType {
    ColumnType::Number {
        precision: 38,
        scale,
    }
}

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

#[tokio::test]
async fn a_column_that_takes_no_null_and_is_not_in_the_result() {
    let strict = table(&[("N", "NUMBER(38,0)", &[]), ("REGION", "VARCHAR(20)", &[])]);
    strict.lock().unwrap()[1].is_nullable = false;
    let mut result = upload(&[("N", number(0))]);
    let error = prepare(&mut Session::free(&strict), &result)
        .await
        .unwrap_err();
    assert!(error.message().contains("\"REGION\""), "{error}");
    result.manifest.rows = 0;
    assert!(prepare(&mut Session::free(&strict), &result).await.is_ok());
}

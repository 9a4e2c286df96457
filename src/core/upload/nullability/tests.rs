use crate::error::{Error, ErrorKind};
use crate::types::ColumnType;
use crate::upload::fake_table::{Session, Table, number, table, upload};
use crate::upload::table::prepare;
use crate::upload::{Match, Strategy, Upload};

/// A table that takes no NULL in N and REGION.
fn strict() -> Table {
    let table = table(&[
        ("N", "NUMBER(38,0)", &[]),
        ("REGION", "VARCHAR(134217728)", &[]),
    ]);
    for column in table.lock().unwrap().iter_mut() {
        column.is_nullable = false;
    }
    table
}

/// A result with both of them, of which N has a NULL.
fn result() -> Upload {
    let mut upload = upload(&[("N", number(0)), ("REGION", ColumnType::Text)]);
    upload.manifest.columns[0].has_nulls = true;
    upload
}

/// A result that lacks REGION.
fn without_region() -> Upload {
    upload(&[("N", number(0))])
}

/// Which columns of the table take NULLs.
fn nullable(table: &Table) -> Vec<bool> {
    let columns = table.lock().unwrap();
    columns.iter().map(|column| column.is_nullable).collect()
}

async fn refusal(table: &Table, upload: &Upload) -> Error {
    let error = prepare(&mut Session::free(table), upload).await;
    let error = error.expect_err("the result is refused");
    assert_eq!(error.kind(), ErrorKind::Configuration);
    error
}

#[tokio::test]
async fn a_null_of_the_result_drops_the_not_null_of_its_column_alone() {
    let table = strict();
    let target = prepare(&mut Session::free(&table), &result())
        .await
        .unwrap();
    assert_eq!(nullable(&table), [true, false]);
    assert_eq!(target.not_null, ["REGION"]);
}

#[tokio::test]
async fn so_does_a_column_that_the_result_lacks_unless_it_has_no_rows() {
    let table = strict();
    let mut result = without_region();
    result.manifest.rows = 0;
    prepare(&mut Session::free(&table), &result).await.unwrap();
    assert_eq!(nullable(&table), [false, false]);
    result.manifest.rows = 1;
    prepare(&mut Session::free(&table), &result).await.unwrap();
    assert_eq!(nullable(&table), [false, true]);
}

#[tokio::test]
async fn columns_that_snowflake_fills_keep_it() {
    let table = strict();
    table.lock().unwrap()[1].default = "'north'";
    prepare(&mut Session::free(&table), &without_region())
        .await
        .unwrap();
    assert_eq!(nullable(&table), [false, false]);
}

#[tokio::test]
async fn so_do_keys_by_which_rows_are_matched() {
    let table = strict();
    let by_number = Upload {
        strategy: Strategy::Upsert(Match::Keys(vec!["N".to_owned()])),
        ..result()
    };
    let target = prepare(&mut Session::free(&table), &by_number)
        .await
        .unwrap();
    assert_eq!(nullable(&table), [false, false]);
    assert_eq!(target.not_null, ["N", "REGION"]);
    let by_region = Upload {
        strategy: Strategy::Upsert(Match::Keys(vec!["REGION".to_owned()])),
        ..result()
    };
    prepare(&mut Session::free(&table), &by_region)
        .await
        .unwrap();
    assert_eq!(nullable(&table), [true, false]);
}

#[tokio::test]
async fn a_primary_key_is_never_given_up() {
    for (at, result) in [(0, result()), (1, without_region())] {
        let table = strict();
        table.lock().unwrap()[at].is_primary_key = true;
        let error = refusal(&table, &result).await;
        for part in ["DB.S.T", ["\"N\"", "\"REGION\""][at], "the result has"] {
            assert!(error.message().contains(part), "{error}");
        }
        assert_eq!(nullable(&table), [false, false]);
    }
}

#[tokio::test]
async fn who_does_not_own_the_table_is_told_both_sides() {
    for (result, parts) in [
        (result(), ["\"N\"", "has a NULL"]),
        (without_region(), ["\"REGION\"", "has no such column"]),
    ] {
        let table = strict();
        let mut session = Session {
            is_owner: false,
            ..Session::free(&table)
        };
        let error = prepare(&mut session, &result).await.unwrap_err();
        assert_eq!(error.code(), Some("003001"));
        for part in ["NOT NULL", "DB.S.T", "not the owner"].iter().chain(&parts) {
            assert!(error.message().contains(part), "{error}");
        }
        assert!(error.hint().unwrap().contains("own the table"), "{error}");
    }
}

#[tokio::test]
async fn a_table_that_must_not_change_keeps_all() {
    let table = strict();
    let fixed = |upload| Upload {
        evolve_schema: false,
        ..upload
    };
    // A NULL that there is, COPY refuses.
    let target = prepare(&mut Session::free(&table), &fixed(result()))
        .await
        .unwrap();
    assert_eq!(target.not_null, ["N", "REGION"]);
    let error = refusal(&table, &fixed(without_region())).await;
    assert!(error.message().contains("\"REGION\""), "{error}");
    assert_eq!(nullable(&table), [false, false]);
}

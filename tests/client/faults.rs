//! What goes wrong on the way, and what the client makes of it.

use std::time::Duration;

use bridge_core::ErrorKind;
use bridge_core::snowflake::Statement;
use serde_json::json;

use crate::standin::{Standin, run, spool};

#[tokio::test]
async fn a_lost_answer_does_not_run_a_statement_twice() {
    let standin = Standin::start().await;
    let mut session = standin.login().await;
    run(&mut session, "create table t (a int)").await;
    standin
        .fault(json!({"sql": "insert"}), json!({"lose_answer": true}))
        .await;
    let inserted = run(&mut session, "insert into t values (1), (2)").await;
    assert_eq!(inserted.rows_changed(), Some(2));
    assert_eq!(
        run(&mut session, "select count(*) from t")
            .await
            .first_value(),
        Some("2")
    );
    let requests = standin
        .audit(|record| {
            record["sql"]
                .as_str()
                .is_some_and(|sql| sql.starts_with("insert"))
        })
        .await;
    assert_eq!(requests.len(), 2);
    assert_eq!(
        requests[0]["query"]["requestId"],
        requests[1]["query"]["requestId"]
    );
}

#[tokio::test]
async fn an_expired_session_keeps_what_is_temporary() {
    let standin = Standin::start().await;
    let mut session = standin.login().await;
    run(&mut session, "create temporary table t (a int)").await;
    run(&mut session, "insert into t values (1)").await;
    let sessions = standin
        .admin(reqwest::Method::GET, "sessions", &json!(null))
        .await;
    let id = sessions["sessions"][0]["id"].clone();
    standin
        .admin(
            reqwest::Method::POST,
            "sessions",
            &json!({"id": id, "expire": "session"}),
        )
        .await;
    assert_eq!(
        run(&mut session, "select count(*) from t")
            .await
            .first_value(),
        Some("1")
    );
    assert_eq!(
        standin
            .audit(|record| record["kind"] == "token")
            .await
            .len(),
        1
    );
}

#[tokio::test]
async fn a_dropped_statement_is_aborted() {
    let standin = Standin::start().await;
    let mut session = standin.login().await;
    standin
        .fault(json!({"sql": "select 42"}), json!({"black_hole": true}))
        .await;
    let statement = Statement::new("select 42");
    assert!(
        tokio::time::timeout(Duration::from_millis(300), session.execute(&statement))
            .await
            .is_err()
    );
    standin.wait_for(|record| record["kind"] == "abort").await;
    assert!(!session.is_usable());
}

#[tokio::test]
async fn a_missing_privilege_is_named() {
    let standin = Standin::start().await;
    let withheld = json!({
        "account": "acme-demo", "role": "LOADER_ROLE", "privilege": "CREATE TABLE", "on": "SCHEMA",
        "name": "ANALYTICS_DB.REPORTS", "withhold": true,
    });
    standin
        .admin(reqwest::Method::POST, "privileges", &withheld)
        .await;
    let mut session = standin.login().await;
    let error = session
        .execute(&Statement::new("create table t (a int)"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Configuration, Some("003001"))
    );
    assert!(error.message().contains("REPORTS"), "{error}");
    assert!(error.hint().unwrap().contains("LOADER_ROLE"), "{error}");
    assert!(error.query_id().is_some());
}

#[tokio::test]
async fn storage_credentials_that_ran_out_are_replaced() {
    let standin = Standin::start().await;
    let (_directory, path) = spool("part-00000.parquet");
    std::fs::write(&path, b"not read by anybody").unwrap();
    let mut session = standin.login().await;
    standin
        .fault(
            json!({"kind": "objectstore", "method": "PUT"}),
            json!({"status": 400, "body": "<Error><Code>ExpiredToken</Code></Error>"}),
        )
        .await;
    session
        .put(&path, "~/a/1/", "part-00000.parquet", &|_| {})
        .await
        .unwrap();
    let puts = standin
        .audit(|record| {
            record["sql"]
                .as_str()
                .is_some_and(|sql| sql.starts_with("PUT"))
        })
        .await;
    assert_eq!(puts.len(), 2);
    let listed = run(&mut session, "list '@~/a/1/'").await;
    assert_eq!(listed.rows.len(), 1);
}

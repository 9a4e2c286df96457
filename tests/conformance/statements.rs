//! Statements that are answered late, twice, badly or not at all.

use std::time::Duration;

use bridge_core::ErrorKind;
use bridge_core::snowflake::{Session, Statement};
use reqwest::Method;
use serde_json::{Value, json};

use crate::case::{Case, case};
use crate::world::{World, refused, run};

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "statement_keeps_its_id",
            &["statement.request-id", "statement.gzip"],
            request_id,
        ),
        case("statement_parked", &["statement.parked"], |world| {
            parked(world, "333333", true, true)
        })
        .alone(),
        case(
            "statement_parked_without_address",
            &["statement.parked-without-url"],
            |world| parked(world, "333333", true, false),
        )
        .alone(),
        case(
            "statement_parked_asynchronously",
            &["statement.parked-async"],
            |world| parked(world, "333334", false, true),
        )
        .alone(),
        case(
            "statement_parked_while_the_session_expires",
            &["statement.parked-renewal"],
            parked_renewal,
        )
        .alone(),
        case(
            "statement_polls_its_own_host_only",
            &["statement.parked-host"],
            parked_elsewhere,
        ),
        case("statement_abort", &["statement.abort"], abort),
        case(
            "statement_abort_while_parked",
            &["statement.abort"],
            abort_parked,
        )
        .alone(),
        case("statement_errors", &["statement.errors"], errors),
        case(
            "statement_answers_that_are_damaged",
            &["statement.damaged"],
            damaged,
        ),
    ]
}

async fn request_id(world: World) {
    let mut session = world.login().await;
    run(&mut session, "create table t (a int)").await;
    for (n, action) in [
        json!({"lose_answer": true}),
        json!({"status": 503, "body": "busy"}),
        json!({"cut_after": 20}),
    ]
    .into_iter()
    .enumerate()
    {
        world
            .fault(json!({"sql": format!("values \\({n}\\)")}), action)
            .await;
        let inserted = run(&mut session, format!("insert into t values ({n})")).await;
        assert_eq!(inserted.rows_changed(), Some(1));
    }
    let count = run(&mut session, "select count(*) from t").await;
    assert_eq!(count.first_value(), Some("3"));
    let requests = world.statements("insert").await;
    assert_eq!(requests.len(), 6);
    for pair in requests.chunks(2) {
        assert_eq!(pair[0]["query"]["requestId"], pair[1]["query"]["requestId"]);
        assert_ne!(
            pair[0]["query"]["request_guid"],
            pair[1]["query"]["request_guid"]
        );
        assert_eq!(
            pair[0]["query"]["clientStartTime"],
            pair[1]["query"]["clientStartTime"]
        );
        assert_eq!(pair[0]["query"]["retryCount"], Value::Null);
        assert_eq!(pair[1]["query"]["retryCount"], "1");
        assert_eq!(pair[0]["headers"]["content-encoding"], "gzip");
    }
    assert_eq!(requests[1]["query"]["retryReason"], "0");
    assert_eq!(requests[3]["query"]["retryReason"], "503");
}

async fn park(world: &World, code: &str, success: bool, result_url: bool) {
    let parking = json!({"after_ms": 30, "poll_ms": 30, "code": code, "success": success, "result_url": result_url});
    world.admin(Method::POST, "parking", parking).await;
}

/// A session whose `delete from t` waits until the other one commits.
async fn blocked(world: &World) -> (Session, Session) {
    let (mut session, mut holder) = (world.login().await, world.login().await);
    run(&mut session, "create table t (a int)").await;
    run(&mut session, "insert into t values (1), (2)").await;
    run(&mut holder, "begin").await;
    run(&mut holder, "update t set a = a + 1").await;
    (session, holder)
}

async fn parked(world: World, code: &'static str, success: bool, result_url: bool) {
    let (mut session, mut holder) = blocked(&world).await;
    park(&world, code, success, result_url).await;
    let statement = Statement::new("delete from t");
    let release = async {
        world.wait_for(|record| record["kind"] == "result").await;
        run(&mut holder, "commit").await;
    };
    let (deleted, ()) = tokio::join!(session.execute(&statement), release);
    assert_eq!(deleted.unwrap().rows_changed(), Some(2));
    assert_eq!(world.statements("delete").await.len(), 1);
}

async fn parked_renewal(world: World) {
    let (mut session, mut holder) = blocked(&world).await;
    park(&world, "333333", true, true).await;
    let statement = Statement::new("delete from t");
    let release = async {
        world.wait_for(|record| record["kind"] == "result").await;
        world.expire_sessions("session").await;
        world.wait_for(|record| record["kind"] == "token").await;
        run(&mut holder, "commit").await;
    };
    let (deleted, ()) = tokio::join!(session.execute(&statement), release);
    assert_eq!(deleted.unwrap().rows_changed(), Some(2));
    assert_eq!(world.statements("delete").await.len(), 1);
    assert_eq!(world.requests("token").await.len(), 2);
}

async fn parked_elsewhere(world: World) {
    let mut session = world.login().await;
    for url in [
        "https://attacker.example/queries/a/result",
        "/queries/../session/result",
    ] {
        let body = json!({"success": true, "code": "333333", "data": {"queryId": "q", "getResultUrl": url}});
        let action = json!({"status": 200, "body": body.to_string(), "headers": {"Content-Type": "application/json"}});
        world.fault(json!({"kind": "query"}), action).await;
        let error = refused(&mut session, "select 1").await;
        assert_eq!(error.kind(), ErrorKind::Internal, "{url}");
    }
    assert!(world.requests("result").await.is_empty());
}

async fn abort(world: World) {
    let mut session = world.login().await;
    world
        .fault(json!({"sql": "select 42"}), json!({"black_hole": true}))
        .await;
    let statement = Statement::new("select 42");
    let given_up =
        tokio::time::timeout(Duration::from_millis(200), session.execute(&statement)).await;
    assert!(given_up.is_err());
    let abort = world.wait_for(|record| record["kind"] == "abort").await;
    assert_eq!(abort["aborts"], statement.request_id().to_string());
    assert!(!session.is_usable());
}

async fn abort_parked(world: World) {
    let (mut session, mut holder) = blocked(&world).await;
    park(&world, "333333", true, true).await;
    let statement = Statement::new("delete from t");
    tokio::select! {
        result = session.execute(&statement) => panic!("{result:?}"),
        _ = world.wait_for(|record| record["kind"] == "result") => {}
    }
    let aborted = world
        .wait_for(|record| record["kind"] == "abort" && !record["finished"].is_null())
        .await;
    assert_eq!(
        (&aborted["status"], &aborted["code"]),
        (&json!(200), &Value::Null),
        "{aborted}"
    );
    run(&mut holder, "commit").await;
    // It ended without an effect.
    let count = run(&mut holder, "select count(*) from t").await;
    assert_eq!(count.first_value(), Some("2"));
}

async fn errors(world: World) {
    let withheld = json!({
        "account": world.account, "role": "LOADER_ROLE", "privilege": "CREATE TABLE", "on": "SCHEMA",
        "name": "ANALYTICS_DB.REPORTS", "withhold": true,
    });
    world.admin(Method::POST, "privileges", withheld).await;
    let mut session = world.login().await;
    for (sql, kind, code, words) in [
        (
            "create table t (a int)",
            ErrorKind::Configuration,
            "003001",
            "REPORTS",
        ),
        (
            "select * from no_table",
            ErrorKind::Configuration,
            "002003",
            "NO_TABLE",
        ),
        ("selec 1", ErrorKind::Internal, "001003", "selec"),
        (
            "select 1; select 2",
            ErrorKind::Configuration,
            "000008",
            "statement",
        ),
    ] {
        let error = refused(&mut session, sql).await;
        assert_eq!((error.kind(), error.code()), (kind, Some(code)), "{error}");
        assert!(error.message().contains(words), "{error}");
        assert!(
            error.query_id().is_some() && error.sqlstate().is_some(),
            "{error}"
        );
        assert!(session.is_usable());
    }
    // Words of the server are made fit for a log line, whatever they are.
    let hostile = format!("line\r\nERROR: forged\u{1b}[2J {}", "x".repeat(5000));
    let action = json!({"error": {"code": "003001", "sqlState": "42501\r\n", "message": hostile}});
    world.fault(json!({"kind": "query"}), action).await;
    let error = refused(&mut session, "select 1").await;
    assert!(
        !error.to_string().contains(|c: char| c.is_control()),
        "{error}"
    );
    assert!(error.to_string().len() < 1000);
    assert!(error.hint().unwrap().contains("LOADER_ROLE"));
}

async fn damaged(world: World) {
    let mut session = world.login().await;
    for action in [
        json!({"status": 200, "body": "<html>a proxy</html>", "headers": {"Content-Type": "text/html"}}),
        json!({"status": 200, "body": ""}),
        json!({"status": 200, "body": "{\"data\": {\"rowtype\": ["}),
        json!({"cut_after": 1}),
    ] {
        world.fault(json!({"kind": "query"}), action.clone()).await;
        let result = run(&mut session, "select 1").await;
        assert_eq!(result.first_value(), Some("1"), "{action}");
    }
    assert_eq!(world.statements("select 1").await.len(), 8);
}

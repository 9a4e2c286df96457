//! Statements: results, errors, lost and damaged answers, polling, and aborts.

use std::time::Duration;

use bridge_core::ErrorKind;
use bridge_core::snowflake::Statement;
use serde_json::json;

use crate::server::{DEADLINE, Reply, Server};
use crate::setup::{ABORT, LOGIN, QUERY, RENEW, logged_in, login, result, serve};

#[tokio::test]
async fn a_statement_and_its_result() {
    let server =
        serve(|_| Reply::json(result(&["N", "t"], json!([["1", null], ["2", "b"]])))).await;
    let mut session = login(&server).await;
    let statement = Statement::new("select 1");
    let result = session.execute(&statement).await.unwrap();
    assert_eq!(result.query_id, "01-query");
    assert_eq!(result.columns, ["N", "t"]);
    assert_eq!(
        (result.value(1, "T"), result.value(0, "t")),
        (Some("b"), None)
    );

    let request = server.wait_for(QUERY, 1).await;
    assert_eq!(
        request.header("authorization"),
        Some("Snowflake Token=\"session-token-1\"")
    );
    assert_eq!(request.header("accept"), Some("application/json"));
    assert_eq!(
        request.parameter("requestId"),
        Some(statement.request_id().to_string().as_str())
    );
    assert_eq!(request.sql(), "select 1");
    assert_eq!(request.json()["asyncExec"], false);
    assert_eq!(request.json()["sequenceId"], 1);
}

#[tokio::test]
async fn errors_keep_what_identifies_them() {
    let server = serve(|_| {
        Reply::json(json!({
            "success": false, "code": "003001", "message": "SQL access control error:\nInsufficient privileges to operate on schema 'S'.",
            "data": {"errorCode": "003001", "sqlState": "42501", "queryId": "01-denied", "line": -1},
        }))
    })
    .await;
    let mut session = login(&server).await;
    let error = session
        .execute(&Statement::new("create table t (a int)"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert_eq!(
        (error.code(), error.sqlstate(), error.query_id()),
        (Some("003001"), Some("42501"), Some("01-denied"))
    );
    assert!(error.hint().unwrap().contains("\"LOADER\""), "{error}");
    // A refusal ends the statement, not the session.
    assert!(session.is_usable());
    assert_eq!(server.requests_for(QUERY).len(), 1);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again() {
    for cut in [0, 1, 2] {
        let server = serve(move |request| match (request.earlier, cut) {
            (0, 0) => Reply::Lost,
            (0, 1) => Reply::Cut(b"{\"data\": {\"rowset\": [[\"1\"".to_vec()),
            (0, _) => Reply::status(200, "{\"data\": {\"rowset\": [[\"1\""),
            _ => Reply::json(result(&["N"], json!([["1"]]))),
        })
        .await;
        let mut session = login(&server).await;
        let result = session.execute(&Statement::new("insert")).await.unwrap();
        assert_eq!(result.first_value(), Some("1"));
        let requests = server.requests_for(QUERY);
        assert_eq!(requests.len(), 2);
        assert_eq!(
            requests[0].parameter("requestId"),
            requests[1].parameter("requestId")
        );
        assert_ne!(
            requests[0].parameter("request_guid"),
            requests[1].parameter("request_guid")
        );
        assert_eq!(requests[1].parameter("retryCount"), Some("1"));
        assert_eq!(requests[0].body.len(), requests[1].body.len());
    }
}

#[tokio::test]
async fn a_page_of_a_proxy_is_named() {
    let server =
        serve(|_| Reply::status(200, "<html>\n<title>Please log in to the network</title>")).await;
    let mut session = login(&server).await;
    let error = session
        .execute(&Statement::new("select 1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert!(error.message().contains("Please log in"), "{error}");
}

#[tokio::test]
async fn long_statements_are_polled() {
    for (code, with_url) in [("333333", true), ("333334", true), ("333333", false)] {
        let server = serve(move |request| match request.path.as_str() {
            "/queries/01-long/result" if request.earlier > 0 => Reply::json(result(&["N"], json!([["7"]]))),
            _ => {
                let mut data = json!({"queryId": "01-long", "queryAbortsAfterSecs": 300, "progressDesc": null});
                if with_url {
                    data["getResultUrl"] = json!("/queries/01-long/result");
                }
                Reply::json(json!({"success": code == "333333", "code": code, "message": null, "data": data}))
            }
        })
        .await;
        let mut session = login(&server).await;
        let result = session.execute(&Statement::new("copy")).await.unwrap();
        assert_eq!(result.first_value(), Some("7"));
        let polls = server.requests_for("/queries/01-long/result");
        assert_eq!(polls.len(), 2);
        assert_eq!(polls[0].method, "GET");
        assert_eq!(
            polls[0].header("authorization"),
            Some("Snowflake Token=\"session-token-1\"")
        );
        assert_eq!(server.requests_for(QUERY).len(), 1);
    }
}

#[tokio::test]
async fn polls_go_to_the_account_only() {
    for url in [
        "https://attacker.example/queries/a/result",
        "/queries/../../session",
        "//attacker.example/a",
    ] {
        let server = serve(move |_| {
            Reply::json(json!({"success": true, "code": "333333", "data": {"queryId": "q", "getResultUrl": url}}))
        })
        .await;
        let mut session = login(&server).await;
        let error = session.execute(&Statement::new("copy")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{url}");
        assert_eq!(server.requests_for(QUERY).len(), 1);
    }
}

#[tokio::test]
async fn a_dropped_statement_is_aborted() {
    let server = serve(|_| Reply::Silence).await;
    let mut session = login(&server).await;
    let statement = Statement::new("copy");
    tokio::select! {
        _ = session.execute(&statement) => panic!("the server never answers"),
        _ = server.wait_for(QUERY, 1) => {}
    }
    let abort = server.wait_for(ABORT, 1).await;
    assert_eq!(
        abort.json()["requestId"],
        statement.request_id().to_string()
    );
    assert_ne!(
        abort.parameter("requestId"),
        Some(statement.request_id().to_string().as_str())
    );
    assert_eq!(
        abort.header("authorization"),
        Some("Snowflake Token=\"session-token-1\"")
    );
    assert!(!session.is_usable());
    let error = session
        .execute(&Statement::new("select 1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SessionEnded);
    assert_eq!(server.requests_for(QUERY).len(), 1);
}

#[tokio::test]
async fn an_abort_renews_the_session_and_asks_again_while_nothing_runs() {
    let server = serve_with_aborts(|request| match request.earlier {
        0 => failure("390112"),
        1 | 2 => failure("000605"),
        _ => Reply::json(json!({"success": true})),
    })
    .await;
    let mut session = login(&server).await;
    let statement = Statement::new("copy");
    tokio::select! {
        _ = session.execute(&statement) => panic!("the server never answers"),
        _ = server.wait_for(QUERY, 1) => {}
    }
    let last = server.wait_for(ABORT, 4).await;
    assert_eq!(server.requests_for(RENEW).len(), 1);
    assert_eq!(
        last.header("authorization"),
        Some("Snowflake Token=\"session-token-2\"")
    );
}

#[tokio::test]
async fn after_a_lost_answer_nothing_comes_before_the_abort() {
    for (answered, usable) in [(true, true), (false, false)] {
        let server = Server::start(move |request| match request.path.as_str() {
            LOGIN => Reply::json(logged_in()),
            ABORT if answered => Reply::json(json!({"success": true})),
            ABORT => Reply::Lost,
            _ if request.sql() == "copy" => Reply::Lost,
            _ => Reply::json(result(&["N"], json!([["1"]]))),
        })
        .await;
        let mut session = login(&server).await;
        let error = session.execute(&Statement::new("copy")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient);
        assert!(
            !server.requests_for(ABORT).is_empty(),
            "aborted before it returned"
        );
        assert_eq!(session.is_usable(), usable);
        assert_eq!(
            session.execute(&Statement::new("rollback")).await.is_ok(),
            usable
        );
    }
}

/// Statements are never answered; aborts as `abort` says.
async fn serve_with_aborts(
    abort: impl Fn(&crate::server::Request) -> Reply + Send + Sync + 'static,
) -> Server {
    Server::start(move |request| match request.path.as_str() {
        LOGIN => Reply::json(logged_in()),
        RENEW => Reply::json(json!({"success": true, "data": {"sessionToken": "session-token-2"}})),
        ABORT => abort(request),
        _ => Reply::Silence,
    })
    .await
}

fn failure(code: &str) -> Reply {
    Reply::json(json!({"success": false, "data": null, "code": code, "message": "no"}))
}

#[tokio::test]
async fn an_answer_that_announces_rows_and_has_none_is_refused() {
    let server = serve(|_| {
        Reply::json(json!({"success": true, "data": {"rowtype": [{"name": "1"}], "rowset": null, "total": 1}}))
    })
    .await;
    let error = login(&server)
        .await
        .execute(&Statement::new("select 1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[tokio::test]
async fn an_answered_statement_is_not_aborted() {
    let server = serve(|_| Reply::json(result(&["N"], json!([["1"]])))).await;
    let mut session = login(&server).await;
    session.execute(&Statement::new("select 1")).await.unwrap();
    session.close().await;
    assert_eq!(server.requests_for(ABORT).len(), 0);
}

#[tokio::test]
async fn results_in_another_format_are_refused() {
    let server = serve(|_| {
        Reply::json(json!({"success": true, "data": {"queryResultFormat": "arrow", "rowsetBase64": "AAAA", "rowtype": []}}))
    })
    .await;
    let error = login(&server)
        .await
        .execute(&Statement::new("select 1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[tokio::test]
async fn large_results_come_in_parts() {
    let server = serve(|request| match request.path.as_str() {
        "/part-1" => Reply::gzip(b"[\"2\"],[\"3\"]"),
        "/part-2" if request.earlier == 0 => Reply::status(503, "later"),
        "/part-2" => Reply::status(200, "[\"4\"]"),
        _ => {
            let port = request.header("host").unwrap().rsplit(':').next().unwrap().to_owned();
            let part = |n: u8| json!({"url": format!("http://127.0.0.1:{port}/part-{n}?signature=x"), "rowCount": 1});
            let mut answer = result(&["N"], json!([["1"]]));
            answer["data"]["chunks"] = json!([part(1), part(2)]);
            answer["data"]["qrmk"] = json!("part-key");
            Reply::json(answer)
        }
    })
    .await;
    let result = login(&server)
        .await
        .execute(&Statement::new("show tables"))
        .await
        .unwrap();
    let numbers: Vec<_> = (0..result.rows.len())
        .filter_map(|row| result.value(row, "N"))
        .collect();
    assert_eq!(numbers, ["1", "2", "3", "4"]);
    let part = server.wait_for("/part-1", 1).await;
    assert_eq!(part.header("authorization"), None);
    assert_eq!(
        part.header("x-amz-server-side-encryption-customer-key"),
        Some("part-key")
    );
}

#[tokio::test]
async fn parts_elsewhere_are_not_fetched() {
    let server = serve(|_| {
        let mut answer = result(&["N"], json!([]));
        answer["data"]["chunks"] = json!([{"url": "http://169.254.169.254/latest/meta-data"}]);
        Reply::json(answer)
    })
    .await;
    let mut session = login(&server).await;
    let statement = Statement::new("select 1");
    let fetch = session.execute(&statement);
    let error = tokio::time::timeout(DEADLINE, fetch)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
}

#[tokio::test]
async fn a_poll_that_answers_at_once_is_not_a_busy_loop() {
    let server = serve(|_| {
        Reply::json(json!({"success": false, "code": "333333", "data": {"getResultUrl": "/queries/q/result"}}))
    })
    .await;
    let mut session = login(&server).await;
    let statement = Statement::new("copy");
    let endless = session.execute(&statement);
    assert!(
        tokio::time::timeout(Duration::from_millis(700), endless)
            .await
            .is_err()
    );
    let polls = server.requests_for("/queries/q/result").len();
    assert!((1..=3).contains(&polls), "{polls} polls");
}

#[tokio::test]
async fn after_a_lost_answer_the_session_can_be_asked_what_happened() {
    let server = serve(|request| {
        if request.sql() == "commit" {
            Reply::Lost
        } else {
            Reply::json(result(&["state"], json!([["committed"]])))
        }
    })
    .await;
    let mut session = login(&server).await;
    let commit = Statement::new("commit");
    let error = session.execute(&commit).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Transient, None));
    let found = session
        .execute(&Statement::new("describe transaction 1"))
        .await
        .unwrap();
    assert_eq!(found.value(0, "state"), Some("committed"));
    // Nobody waits for the lost one any more, so it should not go on.
    let abort = server.wait_for(ABORT, 1).await;
    assert_eq!(abort.json()["requestId"], commit.request_id().to_string());
}

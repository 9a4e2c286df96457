//! The life of a session: renewal, its end, and what it carries from answer to request.

use bridge_core::ErrorKind;
use bridge_core::snowflake::Statement;
use serde_json::json;

use crate::server::{Reply, Request};
use crate::setup::{QUERY, RENEW, SESSION, login, result, serve};

fn failure(code: &str) -> Reply {
    Reply::json(json!({"success": false, "code": code, "message": "gone", "data": null}))
}

fn token(request: &Request) -> &str {
    request.header("authorization").unwrap_or_default()
}

#[tokio::test]
async fn an_expired_session_is_renewed() {
    let server = serve(|request| match request.path.as_str() {
        RENEW => Reply::json(json!({"success": true, "data": {"sessionToken": "session-token-2", "masterToken": "master-token-2"}})),
        _ if token(request).contains("session-token-1") => failure("390112"),
        _ => Reply::json(result(&["N"], json!([["1"]]))),
    })
    .await;
    let mut session = login(&server).await;
    session.execute(&Statement::new("select 1")).await.unwrap();
    let renewal = server.wait_for(RENEW, 1).await;
    assert_eq!(token(&renewal), "Snowflake Token=\"master-token-1\"");
    assert_eq!(
        renewal.json(),
        json!({"oldSessionToken": "session-token-1", "requestType": "RENEW"})
    );
    let queries = server.requests_for(QUERY);
    assert_eq!(queries.len(), 2);
    assert_eq!(
        queries[0].parameter("requestId"),
        queries[1].parameter("requestId")
    );
    assert_eq!(token(&queries[1]), "Snowflake Token=\"session-token-2\"");
    // The next one begins with the new token.
    session.execute(&Statement::new("select 2")).await.unwrap();
    assert_eq!(server.requests_for(QUERY).len(), 3);
    assert_eq!(server.requests_for(RENEW).len(), 1);
}

#[tokio::test]
async fn a_session_may_expire_while_its_statement_is_polled() {
    let server = serve(|request| match request.path.as_str() {
        RENEW => Reply::json(json!({"success": true, "data": {"sessionToken": "session-token-2"}})),
        QUERY => Reply::json(json!({"success": true, "code": "333333", "data": {"getResultUrl": "/queries/q/result"}})),
        _ if token(request).contains("session-token-1") => failure("390112"),
        _ => Reply::json(result(&["N"], json!([["1"]]))),
    })
    .await;
    let mut session = login(&server).await;
    assert!(session.execute(&Statement::new("copy")).await.is_ok());
    // Polled again, not run again.
    assert_eq!(server.requests_for(QUERY).len(), 1);
    assert_eq!(server.requests_for("/queries/q/result").len(), 2);
}

#[tokio::test]
async fn a_session_that_keeps_expiring_ends() {
    let server = serve(|request| match request.path.as_str() {
        RENEW => Reply::json(json!({"success": true, "data": {"sessionToken": "session-token-2"}})),
        _ => failure("390112"),
    })
    .await;
    let mut session = login(&server).await;
    let error = session
        .execute(&Statement::new("select 1"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::SessionEnded, Some("390112"))
    );
    assert_eq!(server.requests_for(RENEW).len(), 2);
    assert!(!session.is_usable());
}

#[tokio::test]
async fn a_session_that_cannot_be_renewed_ends() {
    let server = serve(|request| match request.path.as_str() {
        RENEW => failure("390114"),
        _ => failure("390112"),
    })
    .await;
    let mut session = login(&server).await;
    let error = session
        .execute(&Statement::new("select 1"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::SessionEnded, Some("390114"))
    );
    assert!(!session.is_usable());
}

#[tokio::test]
async fn a_session_that_is_gone_is_reported_as_such() {
    for code in [
        "390104", "390110", "390111", "390113", "390114", "390115", "390195",
    ] {
        let server = serve(move |_| failure(code)).await;
        let mut session = login(&server).await;
        let error = session
            .execute(&Statement::new("select 1"))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::SessionEnded, Some(code))
        );
        assert!(!session.is_usable(), "{code}");
        assert_eq!(server.requests_for(QUERY).len(), 1);
    }
}

#[tokio::test]
async fn the_end_is_told_and_its_answer_does_not_matter() {
    let server = serve(|_| Reply::Lost).await;
    login(&server).await.close().await;
    let request = server.wait_for(SESSION, 1).await;
    assert_eq!(
        (request.method.as_str(), request.parameter("delete")),
        ("POST", Some("true"))
    );
    assert_eq!(token(&request), "Snowflake Token=\"session-token-1\"");
}

#[tokio::test]
async fn requests_stay_with_the_server_that_answered() {
    let server = serve(|request| {
        let value = format!("server-{}", request.earlier);
        Reply::json(result(&["N"], json!([["1"]]))).with_header("x-snowflake-session", &value)
    })
    .await;
    let mut session = login(&server).await;
    for _ in 0..3 {
        session.execute(&Statement::new("select 1")).await.unwrap();
    }
    let echoed: Vec<_> = server
        .requests_for(QUERY)
        .iter()
        .map(|request| request.header("x-snowflake-session").map(str::to_owned))
        .collect();
    assert_eq!(
        echoed,
        [
            None,
            Some("server-0".to_owned()),
            Some("server-1".to_owned())
        ]
    );
}

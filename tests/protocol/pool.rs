//! Pooled sessions: kept by release, closed by everything else.

use std::time::Duration;

use bridge_core::snowflake::{Pool, PoolKey, Statement, Warehouse};
use serde_json::json;
use uuid::Uuid;

use crate::server::{Reply, Server};
use crate::setup::{
    HEARTBEAT, LOGIN, QUERY, RENEW, SESSION, logged_in, network, result, serve, settings,
};

async fn server() -> Server {
    serve(|_| Reply::json(result(&["N"], json!([["1"]])))).await
}

fn key(version: i64) -> PoolKey {
    PoolKey::new(Uuid::from_u128(1), version)
}

#[tokio::test]
async fn a_released_session_is_used_again() {
    let server = server().await;
    let network = network(&server);
    let pool = Pool::new(network.clone()).unwrap();
    for tag in ["first", "second"] {
        let mut session = pool
            .acquire(&key(1), &settings(&network), std::time::Instant::now(), tag)
            .await
            .unwrap();
        session.execute(&Statement::new("select 1")).await.unwrap();
        session.release();
    }
    assert_eq!(server.requests_for(LOGIN).len(), 1);
    let tags: Vec<_> = server
        .requests_for(QUERY)
        .iter()
        .map(|request| request.json()["parameters"]["QUERY_TAG"].clone())
        .collect();
    assert_eq!(tags, ["first", "second"]);
    pool.close().await;
    assert_eq!(server.requests_for(SESSION).len(), 1);
}

#[tokio::test]
async fn a_session_that_is_dropped_is_closed() {
    let server = server().await;
    let network = network(&server);
    let pool = Pool::new(network.clone()).unwrap();
    drop(
        pool.acquire(
            &key(1),
            &settings(&network),
            std::time::Instant::now(),
            "tag",
        )
        .await
        .unwrap(),
    );
    server.wait_for(SESSION, 1).await;
    pool.acquire(
        &key(1),
        &settings(&network),
        std::time::Instant::now(),
        "tag",
    )
    .await
    .unwrap()
    .release();
    assert_eq!(server.requests_for(LOGIN).len(), 2);
}

#[tokio::test]
async fn a_changed_configuration_is_logged_in_anew() {
    let server = server().await;
    let network = network(&server);
    let pool = Pool::new(network.clone()).unwrap();
    pool.acquire(
        &key(1),
        &settings(&network),
        std::time::Instant::now(),
        "tag",
    )
    .await
    .unwrap()
    .release();
    pool.acquire(
        &key(2),
        &settings(&network),
        std::time::Instant::now(),
        "tag",
    )
    .await
    .unwrap()
    .release();
    server.wait_for(SESSION, 1).await;
    assert_eq!(server.requests_for(LOGIN).len(), 2);
}

#[tokio::test]
async fn idle_sessions_are_closed() {
    let server = server().await;
    let network = network(&server);
    let pool = Pool::new(network.clone())
        .unwrap()
        .with_idle_limit(Duration::from_millis(20));
    pool.acquire(
        &key(1),
        &settings(&network),
        std::time::Instant::now(),
        "tag",
    )
    .await
    .unwrap()
    .release();
    server.wait_for(SESSION, 1).await;
    assert_eq!(format!("{pool:?}"), "Pool { idle: 0, .. }");
}

#[tokio::test]
async fn sessions_that_ended_are_not_kept() {
    let server =
        serve(|_| Reply::json(json!({"success": false, "code": "390111", "data": null}))).await;
    let network = network(&server);
    let pool = Pool::new(network.clone()).unwrap();
    let mut session = pool
        .acquire(
            &key(1),
            &settings(&network),
            std::time::Instant::now(),
            "tag",
        )
        .await
        .unwrap();
    session
        .execute(&Statement::new("select 1"))
        .await
        .unwrap_err();
    session.release();
    assert_eq!(format!("{pool:?}"), "Pool { idle: 0, .. }");
}

#[tokio::test]
async fn sessions_in_use_send_heartbeats_and_idle_ones_do_not() {
    let server = Server::start(|request| match request.path.as_str() {
        LOGIN => Reply::json(logged_in()),
        HEARTBEAT if request.earlier == 1 => {
            Reply::json(json!({"success": false, "code": "390112", "message": "expired"}))
        }
        RENEW => Reply::json(json!({"success": true, "data": {"sessionToken": "session-token-2"}})),
        _ => Reply::json(json!({"success": true, "data": null, "code": null})),
    })
    .await;
    let network = network(&server);
    let pool = Pool::new(network.clone())
        .unwrap()
        .with_heartbeat(Duration::from_millis(20));
    let session = pool
        .acquire(&key(1), &settings(&network), std::time::Instant::now(), "")
        .await
        .unwrap();
    // The second beat finds the token expired, and renews it for the statements to come.
    let beat = server.wait_for(HEARTBEAT, 3).await;
    assert_eq!(
        beat.header("authorization"),
        Some("Snowflake Token=\"session-token-2\"")
    );
    assert_eq!(beat.body, b"");
    session.release();
    let beats = server.requests_for(HEARTBEAT).len();
    // Another session's beats show that time has passed for this one too.
    let other = pool
        .acquire(&key(1), &settings(&network), std::time::Instant::now(), "")
        .await
        .unwrap();
    drop(other);
    server.wait_for(SESSION, 1).await;
    assert!(server.requests_for(HEARTBEAT).len() <= beats + 1);
}

//! Pooled sessions: kept by release, closed by everything else.

use std::time::Duration;

use bridge_core::ErrorKind;
use bridge_core::snowflake::{Pool, PoolKey, Statement, Warehouse};
use serde_json::json;
use uuid::Uuid;

use crate::server::{Reply, Request, Server};
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

/// Each login gets a token of its own, by which its session's requests are told apart.
fn numbered_login(request: &Request) -> Reply {
    let mut answer = logged_in();
    answer["data"]["token"] = json!(format!("login-{}", request.earlier));
    Reply::json(answer)
}

fn shown(request: &Request) -> &str {
    request.header("authorization").unwrap()
}

#[tokio::test]
async fn sessions_in_use_send_heartbeats_and_idle_ones_do_not() {
    let server = Server::start(|request| match request.path.as_str() {
        LOGIN => numbered_login(request),
        HEARTBEAT if request.earlier == 1 => {
            Reply::json(json!({"success": false, "code": "390112", "message": "expired"}))
        }
        RENEW => Reply::json(json!({"success": true, "data": {"sessionToken": "renewed-0"}})),
        _ => Reply::json(json!({"success": true, "data": null, "code": null})),
    })
    .await;
    let network = network(&server);
    let pool = Pool::new(network.clone())
        .unwrap()
        .with_heartbeat(Duration::from_millis(20));
    let acquire = |key| {
        let (pool, settings) = (pool.clone(), settings(&network));
        async move {
            let session = pool.acquire(&key, &settings, std::time::Instant::now(), "");
            session.await.unwrap()
        }
    };
    let first = acquire(key(1)).await;
    // The second beat finds the token expired, and renews it for the statements to come.
    let beat = server.wait_for(HEARTBEAT, 3).await;
    assert_eq!(shown(&beat), "Snowflake Token=\"renewed-0\"");
    assert_eq!(beat.body, b"");
    first.release();
    let of_first = |beats: &[Request]| {
        let of_first = beats
            .iter()
            .filter(|beat| shown(beat).contains("renewed-0"));
        of_first.count()
    };
    let released = server.requests_for(HEARTBEAT);
    // The beats of another session show that time has passed for this one too. One may have been on its way.
    let _second = acquire(PoolKey::new(Uuid::from_u128(2), 1)).await;
    server.wait_for(HEARTBEAT, released.len() + 10).await;
    let beats = server.requests_for(HEARTBEAT);
    assert!(beats.iter().any(|beat| shown(beat).contains("login-1")));
    assert!(of_first(&beats) <= of_first(&released) + 1, "{beats:#?}");
}

#[tokio::test]
async fn a_session_that_ended_while_it_lay_idle_is_replaced() {
    let server = Server::start(|request| match request.path.as_str() {
        LOGIN => numbered_login(request),
        QUERY if request.earlier > 0 && shown(request).contains("login-0") => {
            Reply::json(json!({"success": false, "code": "390111", "message": "gone"}))
        }
        QUERY => Reply::json(result(&["N"], json!([["1"]]))),
        _ => Reply::json(json!({"success": true, "data": null, "code": null})),
    })
    .await;
    let network = network(&server);
    let pool = Pool::new(network.clone()).unwrap();
    for _ in 0..2 {
        let mut session = pool
            .acquire(&key(1), &settings(&network), std::time::Instant::now(), "")
            .await
            .unwrap();
        session.execute(&Statement::new("select 1")).await.unwrap();
        session.release();
    }
    assert_eq!(server.requests_for(LOGIN).len(), 2);
    // In the middle of its work a session is not replaced: what it held is gone.
    let ended = Server::start(|request| match request.path.as_str() {
        LOGIN => numbered_login(request),
        QUERY if request.earlier == 2 => {
            Reply::json(json!({"success": false, "code": "390111", "message": "gone"}))
        }
        QUERY => Reply::json(result(&["N"], json!([["1"]]))),
        _ => Reply::json(json!({"success": true, "data": null, "code": null})),
    })
    .await;
    let network = crate::setup::network(&ended);
    let pool = Pool::new(network.clone()).unwrap();
    for round in 0..2 {
        let mut session = pool
            .acquire(&key(1), &settings(&network), std::time::Instant::now(), "")
            .await
            .unwrap();
        session.execute(&Statement::new("begin")).await.unwrap();
        if round == 1 {
            let error = session.execute(&Statement::new("copy")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::SessionEnded);
        }
        session.release();
    }
    assert_eq!(ended.requests_for(LOGIN).len(), 1);
}

#[tokio::test]
async fn what_is_released_into_a_closed_pool_is_closed() {
    let server = server().await;
    let network = network(&server);
    let pool = Pool::new(network.clone()).unwrap();
    let session = pool
        .acquire(&key(1), &settings(&network), std::time::Instant::now(), "")
        .await
        .unwrap();
    pool.close().await;
    assert_eq!(server.requests_for(SESSION).len(), 0);
    session.release();
    server.wait_for(SESSION, 1).await;
}

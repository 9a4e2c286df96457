//! What a session needs besides statements: renewal, signs of life, its end.

use std::time::{Duration, Instant};

use bridge_core::ErrorKind;
use bridge_core::snowflake::{Pool, PoolKey, Session, SessionOptions, Statement, Warehouse};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::case::{Case, case};
use crate::world::{World, refused, run};

pub fn cases() -> Vec<Case> {
    vec![
        case("session_renewal", &["session.renewal"], renewal),
        case("session_renews_once", &["session.one-renewal"], one_renewal),
        case("session_that_is_gone", &["session.end"], gone),
        case(
            "session_with_an_expired_master_token",
            &["session.master-expired"],
            master_expired,
        ),
        case("session_heartbeat", &["session.heartbeat"], heartbeat),
        case("session_close", &["session.close"], close),
        case("session_pool", &["session.pool"], pool),
        case("session_affinity", &["session.affinity"], affinity).alone(),
        case("session_query_tag", &["session.query-tag"], query_tag),
    ]
}

async fn renewal(world: World) {
    let mut session = world.login().await;
    run(&mut session, "create table permanent (a int)").await;
    run(&mut session, "create temporary table t (a int)").await;
    run(&mut session, "begin").await;
    run(&mut session, "insert into permanent values (1)").await;
    world.expire_sessions("session").await;
    run(&mut session, "insert into t select * from permanent").await;
    run(&mut session, "commit").await;
    let count = run(&mut session, "select count(*) from t").await;
    assert_eq!(count.first_value(), Some("1"));
    assert_eq!(world.requests("token").await.len(), 1);
    let begin = "insert into t select";
    let tries = world.statements(begin).await;
    assert_eq!(tries.len(), 2);
    assert_eq!(
        tries[0]["query"]["requestId"],
        tries[1]["query"]["requestId"]
    );
}

fn key() -> PoolKey {
    PoolKey::new(Uuid::from_u128(1), 1)
}

async fn one_renewal(world: World) {
    let pool = Pool::new(world.network())
        .unwrap()
        .with_heartbeat(Duration::from_millis(5));
    let mut session = pool
        .acquire(&key(), &world.settings(), Instant::now(), "")
        .await
        .unwrap();
    // The heartbeat and the statement find the token expired at the same time.
    let slow = json!({"delay_ms": 200});
    world.fault(json!({"kind": "token"}), slow).await;
    world.expire_sessions("session").await;
    session.execute(&Statement::new("select 1")).await.unwrap();
    world
        .wait_for(|record| record["kind"] == "heartbeat" && record["code"].is_null())
        .await;
    assert_eq!(world.requests("token").await.len(), 1);
}

async fn gone(world: World) {
    let mut session = world.login().await;
    let id = world.sessions().await[0]["id"].clone();
    world
        .admin(Method::DELETE, "sessions", json!({"id": id}))
        .await;
    let error = refused(&mut session, "select 1").await;
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::SessionEnded, Some("390111"))
    );
    assert!(!session.is_usable());
    for code in ["390104", "390110", "390113", "390115", "390195"] {
        let mut session = world.login().await;
        let action = json!({"error": {"code": code, "message": "gone"}});
        world.fault(json!({"kind": "query"}), action).await;
        let error = refused(&mut session, "select 1").await;
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::SessionEnded, Some(code))
        );
        assert!(!session.is_usable());
    }
}

async fn master_expired(world: World) {
    let mut session = world.login().await;
    world.expire_sessions("master").await;
    let error = refused(&mut session, "select 1").await;
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::SessionEnded, Some("390114"))
    );
    assert!(!session.is_usable());
}

async fn heartbeat(world: World) {
    let pool = Pool::new(world.network())
        .unwrap()
        .with_heartbeat(Duration::from_millis(20));
    let session = pool
        .acquire(&key(), &world.settings(), Instant::now(), "")
        .await
        .unwrap();
    world.wait_for(|record| record["kind"] == "heartbeat").await;
    world.expire_sessions("session").await;
    world.wait_for(|record| record["kind"] == "token").await;
    session.release();
    let beats = world.requests("heartbeat").await.len();
    let mut session = pool
        .acquire(&key(), &world.settings(), Instant::now(), "")
        .await
        .unwrap();
    session.execute(&Statement::new("select 1")).await.unwrap();
    // One may have been on its way; while nobody used the session there was none.
    assert!(world.requests("heartbeat").await.len() <= beats + 2);
    assert_eq!(world.requests("token").await.len(), 1);
}

async fn close(world: World) {
    world.login().await.close().await;
    let session = world.login().await;
    world
        .fault(json!({"kind": "session"}), json!({"status": 500}))
        .await;
    session.close().await;
    let ends = world.requests("session").await;
    assert_eq!(ends.len(), 2);
    assert!(ends.iter().all(|end| end["query"]["delete"] == "true"));
}

async fn pool(world: World) {
    let pool = Pool::new(world.network()).unwrap();
    for _ in 0..3 {
        let mut session = pool
            .acquire(&key(), &world.settings(), Instant::now(), "tag")
            .await
            .unwrap();
        session.execute(&Statement::new("select 1")).await.unwrap();
        session.release();
    }
    assert_eq!(world.requests("login").await.len(), 1);
    pool.close().await;
    assert_eq!(world.requests("session").await.len(), 1);
}

async fn affinity(world: World) {
    let mut session = world.login().await;
    run(&mut session, "select 1").await;
    world
        .admin(Method::POST, "affinity", json!({"value": "server-2"}))
        .await;
    run(&mut session, "select 2").await;
    run(&mut session, "select 3").await;
    let echoed: Vec<_> = world
        .requests("query")
        .await
        .iter()
        .map(|request| request["headers"]["x-snowflake-session"].clone())
        .collect();
    let [first, second, third] = echoed.as_slice() else {
        panic!("{echoed:?}")
    };
    assert!(first.is_string());
    assert_eq!(first, second);
    assert_eq!(third, "server-2");
}

async fn query_tag(world: World) {
    let tag = r#"{"database":"app","upload_id":"1","execution_id":"e"}"#;
    let options = SessionOptions {
        query_tag: Some(tag.to_owned()),
        ..SessionOptions::default()
    };
    let mut session = Session::login(&world.settings(), &world.network(), &options)
        .await
        .unwrap();
    run(&mut session, "select 1").await;
    let request = &world.requests("query").await[0];
    assert_eq!(request["parameters"]["QUERY_TAG"], tag, "{request}");
}

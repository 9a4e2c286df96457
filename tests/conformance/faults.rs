//! Networks that cut, stall, crawl and lie.

use std::time::{Duration, Instant};

use bridge_core::ErrorKind;
use bridge_core::config::{Account, AllowedHosts, ConnectionSettings, Network};
use bridge_core::snowflake::{Session, SessionOptions, Statement};
use serde_json::json;

use crate::case::{Case, case};
use crate::world::{World, file, refused, run};

pub fn cases() -> Vec<Case> {
    vec![
        case("network_cuts", &["network.cut"], cuts),
        case("network_silence", &["network.black-hole"], silence),
        case("network_that_crawls", &["network.slow"], crawl).alone(),
        case(
            "network_refusals_are_final",
            &["network.permanent"],
            refusals,
        ),
        case(
            "network_connections_that_were_closed",
            &["network.keep-alive"],
            closed,
        ),
        case(
            "network_loses_the_answer_to_commit",
            &["network.lost-answer"],
            lost_answers,
        ),
        case(
            "network_names_that_do_not_resolve",
            &["network.dns"],
            no_such_name,
        ),
        case("network_hostile_answers", &["network.hostile"], hostile),
    ]
}

async fn cuts(world: World) {
    let mut session = world.login().await;
    run(&mut session, "create table t (a int)").await;
    for n in [0, 1, 10, 100] {
        world
            .fault(json!({"kind": "query"}), json!({"cut_request_after": n}))
            .await;
        let inserted = run(&mut session, format!("insert into t values ({n})")).await;
        assert_eq!(inserted.rows_changed(), Some(1));
    }
    let count = run(&mut session, "select count(*) from t").await;
    assert_eq!(count.first_value(), Some("4"));
}

async fn silence(world: World) {
    let network = Network {
        stall_timeout: Duration::from_millis(200),
        tries: 2,
        ..world.network()
    };
    world
        .fault(json!({"kind": "login"}), json!({"black_hole": true}))
        .await;
    // The second try is answered.
    Session::login(&world.settings(), &network, &SessionOptions::default())
        .await
        .unwrap();
    assert_eq!(world.requests("login").await.len(), 2);
}

async fn crawl(world: World) {
    let network = Network {
        stall_timeout: Duration::from_millis(1500),
        ..world.network()
    };
    let mut session = Session::login(&world.settings(), &network, &SessionOptions::default())
        .await
        .unwrap();
    // Slower in all than the stall timeout, and never still for so long.
    world
        .fault(
            json!({"kind": "query"}),
            json!({"drip": {"bytes": 40, "every_ms": 50}}),
        )
        .await;
    let begun = Instant::now();
    run(&mut session, "select 1").await;
    assert_eq!(
        world.statements("select 1").await.len(),
        1,
        "{:?}",
        begun.elapsed()
    );
    let (_directory, path, _) = file(1 << 20);
    world
        .fault(
            json!({"kind": "objectstore", "method": "PUT"}),
            json!({"throttle": 400_000}),
        )
        .await;
    let begun = Instant::now();
    session
        .put(&path, "~/slow/", "part-00000.parquet", &|_| {})
        .await
        .unwrap();
    assert!(
        begun.elapsed() > Duration::from_millis(1500),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(world.statements("put").await.len(), 1);
}

async fn refusals(world: World) {
    let mut session = world.login().await;
    for (status, kind) in [
        (400, ErrorKind::Internal),
        (403, ErrorKind::Configuration),
        (404, ErrorKind::Configuration),
        (422, ErrorKind::Internal),
    ] {
        let before = world.requests("query").await.len();
        world
            .fault(
                json!({"kind": "query"}),
                json!({"status": status, "body": "no"}),
            )
            .await;
        let error = refused(&mut session, "select 1").await;
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(world.requests("query").await.len() - before, 1, "{status}");
    }
}

async fn closed(world: World) {
    let mut session = world.login().await;
    run(&mut session, "create table t (a int)").await;
    for n in 0..5 {
        world
            .fault(json!({"kind": "query"}), json!({"close_after": true}))
            .await;
        run(&mut session, format!("insert into t values ({n})")).await;
        run(&mut session, format!("insert into t values ({n})")).await;
    }
    let count = run(&mut session, "select count(*) from t").await;
    assert_eq!(count.first_value(), Some("10"));
}

async fn lost_answers(world: World) {
    let mut session = world.login().await;
    run(&mut session, "create table t (a int)").await;
    run(&mut session, "begin").await;
    run(&mut session, "insert into t values (1)").await;
    world
        .fault(json!({"sql": "^commit"}), json!({"lose_answer": true}))
        .await;
    run(&mut session, "commit").await;
    let count = run(&mut session, "select count(*) from t").await;
    assert_eq!(count.first_value(), Some("1"));
    assert_eq!(world.statements("commit").await.len(), 2);
    // No answer to any of the tries: what is not known is said so, and the session can be asked.
    for _ in 0..world.network().tries {
        world
            .fault(json!({"sql": "^insert"}), json!({"lose_answer": true}))
            .await;
    }
    let error = session
        .execute(&Statement::new("insert into t values (2)"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Transient, None),
        "{error}"
    );
    assert!(session.is_usable());
    let count = run(&mut session, "select count(*) from t").await;
    assert_eq!(count.first_value(), Some("2"));
}

async fn no_such_name(world: World) {
    // Nothing below the domain `invalid` ever resolves (RFC 6761), and no name server is asked for it.
    let network = Network {
        allowed_hosts: AllowedHosts::parse("https://account.invalid:443").unwrap(),
        tries: 2,
        ..world.network()
    };
    let settings = ConnectionSettings {
        account: Account::parse("account.invalid", &network.allowed_hosts).unwrap(),
        ..world.settings()
    };
    let error = Session::login(&settings, &network, &SessionOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert!(error.hint().unwrap().contains("account identifier"));
}

async fn hostile(world: World) {
    let network = Network {
        stall_timeout: Duration::from_millis(1500),
        tries: 1,
        ..world.network()
    };
    for (action, words) in [
        (json!({"endless_body": true}), "more than"),
        (json!({"gzip_bomb": 100}), "more than"),
        (json!({"endless_headers": true}), "connection"),
        (
            json!({"status": 200, "body": "9".repeat(100_000)}),
            "other than Snowflake's JSON",
        ),
        (
            json!({"status": 200, "body": format!("{{\"code\": {}}}", "[".repeat(50_000))}),
            "damaged",
        ),
    ] {
        world.fault(json!({"kind": "login"}), action.clone()).await;
        let error = Session::login(&world.settings(), &network, &SessionOptions::default())
            .await
            .unwrap_err();
        assert!(error.message().contains(words), "{error}");
        assert!(error.to_string().len() < 1000);
    }
}

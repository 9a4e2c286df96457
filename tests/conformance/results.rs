//! Results, whole and in parts.

use bridge_core::ErrorKind;
use bridge_core::snowflake::{QueryResult, Statement};
use reqwest::Method;
use serde_json::{Value, json};

use crate::case::{Case, case};
use crate::world::{World, refused, run};

pub fn cases() -> Vec<Case> {
    vec![
        case("result_of_values_and_nulls", &["result.json"], values),
        case("result_in_chunks", &["result.chunks"], |world| {
            in_chunks(world, "headers", true)
        })
        .alone(),
        case("result_in_plain_chunks", &["result.chunks"], |world| {
            in_chunks(world, "none", false)
        })
        .alone(),
        case(
            "result_in_chunks_with_a_key",
            &["result.chunks-key"],
            |world| in_chunks(world, "qrmk", true),
        )
        .alone(),
        case(
            "result_chunks_that_fail",
            &["result.chunks-errors"],
            failing_chunks,
        )
        .alone(),
        case(
            "result_in_another_format",
            &["result.no-arrow"],
            another_format,
        ),
    ]
}

async fn values(world: World) {
    let mut session = world.login().await;
    let result = run(
        &mut session,
        "select 1 as \"one\", null as b, 'it''s' as c, 12.50::number(10,2) as d, true as e",
    )
    .await;
    assert_eq!(result.columns, ["one", "B", "C", "D", "E"]);
    assert_eq!(result.value(0, "one"), Some("1"));
    assert_eq!(result.value(0, "b"), None);
    assert_eq!(result.value(0, "c"), Some("it's"));
    assert_eq!(result.value(0, "d"), Some("12.50"));
    assert_eq!(result.value(0, "e"), Some("1"));
    assert!(!result.query_id.is_empty());
}

const ROWS: usize = 1000;

/// A table of a thousand rows, and all of them as a result.
async fn select(world: &World, chunks: Value) -> bridge_core::Result<QueryResult> {
    let mut session = world.login().await;
    run(&mut session, "create table t (a int)").await;
    let values: Vec<_> = (0..ROWS).map(|n| format!("({n})")).collect();
    run(
        &mut session,
        format!("insert into t values {}", values.join(",")),
    )
    .await;
    world.admin(Method::POST, "chunks", chunks).await;
    session
        .execute(&Statement::new("select a from t order by a"))
        .await
}

fn assert_all(result: &QueryResult) {
    assert_eq!(result.rows.len(), ROWS);
    for (n, row) in result.rows.iter().enumerate() {
        assert_eq!(row[0].as_deref(), Some(n.to_string().as_str()));
    }
}

async fn in_chunks(world: World, headers: &'static str, gzip: bool) {
    let chunks = json!({"inline_rows": 10, "chunk_rows": 300, "headers": headers, "gzip": gzip});
    assert_all(&select(&world, chunks).await.unwrap());
}

async fn failing_chunks(world: World) {
    for action in [
        json!({"status": 503, "body": "later"}),
        json!({"cut_after": 10}),
        json!({"lose_answer": true}),
    ] {
        world.fault(json!({"kind": "chunk"}), action).await;
    }
    let chunks = json!({"inline_rows": 10, "chunk_rows": 300, "headers": "headers", "gzip": true});
    assert_all(&select(&world, chunks.clone()).await.unwrap());
    world
        .fault(
            json!({"kind": "chunk"}),
            json!({"status": 403, "body": "<Error><Code>AccessDenied</Code></Error>"}),
        )
        .await;
    let mut session = world.login().await;
    let error = refused(&mut session, "select a from t order by a").await;
    assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
    assert!(error.message().contains("part of a result"), "{error}");
}

async fn another_format(world: World) {
    let mut session = world.login().await;
    let body = json!({"success": true, "code": null, "message": null, "data": {
        "queryResultFormat": "arrow", "rowsetBase64": "AAAA", "rowtype": [], "total": 1,
    }});
    let action = json!({"status": 200, "body": body.to_string()});
    world.fault(json!({"kind": "query"}), action).await;
    let error = refused(&mut session, "select 1").await;
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.message().contains("JSON"), "{error}");
}

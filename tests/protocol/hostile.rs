//! A server that means harm: whatever it says, the client ends with an error of bounded length, in bounded time and memory.
//!
//! Where a client without guards comes to harm, the same answer is given to one, to see that it does.

use std::io::Write;
use std::time::{Duration, Instant};

use bridge_core::Error;
use bridge_core::config::Network;
use bridge_core::snowflake::{Session, SessionOptions, Statement};
use serde_json::{Value, json};

use crate::server::{DEADLINE, Reply, Server};
use crate::setup::{QUERY, logged_in, network, result, serve, settings};

/// The most that a message may take in a log, in bytes.
const LONGEST_MESSAGE: usize = 1500;
/// More than any answer may be.
const BOMB: usize = 33 << 20;

/// What a client does until the server strikes.
#[derive(Clone, Copy)]
enum Stage {
    Login,
    Query,
    Put,
}

/// A behaviour, and whether a client without guards is harmed by it: it waits without end, takes more memory than an answer
/// may, or repeats what would forge a line in a log.
struct Attack(&'static str, Stage, Reply, bool);

fn with(mut answer: Value, pointer: &str, value: Value) -> Reply {
    *answer
        .pointer_mut(pointer)
        .expect("what is replaced is there") = value;
    Reply::json(answer)
}

fn refusal(message: &str) -> Reply {
    Reply::json(
        json!({"success": false, "code": "002003", "message": message, "data": {"sqlState": "42S02"}}),
    )
}

fn put(changes: &[(&str, Value)]) -> Reply {
    let mut answer = json!({"success": true, "code": null, "data": {
        "command": "UPLOAD", "encryptionMaterial": null,
        "stageInfo": {
            "locationType": "S3", "location": "bucket/a/", "region": "us-west-2", "endPoint": "127.0.0.1:1",
            "creds": {"AWS_KEY_ID": "a", "AWS_SECRET_KEY": "b", "AWS_TOKEN": "c"}, "isClientSideEncrypted": false,
        },
    }});
    for (pointer, value) in changes {
        *answer
            .pointer_mut(pointer)
            .expect("what is replaced is there") = value.clone();
    }
    Reply::json(answer)
}

fn attacks() -> Vec<Attack> {
    use Stage::{Login, Put, Query};
    let forged = "no\nERROR:  forged line\r\x1b[2Jcleared\u{202e}desrever\0";
    let long = "x".repeat(2 << 20);
    let deep =
        |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    let rows = |rows: Value| result(&["N"], rows);
    let chunks = |count: usize| {
        let mut answer = result(&["N"], json!([]));
        answer["data"]["chunks"] = json!(vec![
            json!({"url": "https://a.s3.amazonaws.com/x", "rowCount": 1});
            count
        ]);
        Reply::json(answer)
    };
    vec![
        Attack("nothing", Login, Reply::status(200, ""), false),
        Attack("null", Login, Reply::status(200, "null"), false),
        Attack(
            "a page",
            Login,
            Reply::status(200, "<html>\n<h1>\x07 hello"),
            true,
        ),
        Attack("an array", Login, Reply::status(200, "[]"), false),
        Attack(
            "no text",
            Login,
            Reply::status(200, vec![0xff; 4096]),
            false,
        ),
        Attack(
            "objects within objects",
            Login,
            Reply::status(200, deep("{\"data\":", "}")),
            false,
        ),
        Attack(
            "arrays within arrays",
            Login,
            Reply::status(200, format!("{{\"data\":{}}}", deep("[", "]"))),
            false,
        ),
        Attack("a packed bomb", Login, Reply::gzip(&vec![b' '; BOMB]), true),
        Attack(
            "a long answer",
            Login,
            Reply::status(200, vec![b' '; BOMB]),
            true,
        ),
        Attack(
            "broken packing",
            Login,
            Reply::status(200, "{}").with_header("content-encoding", "gzip"),
            false,
        ),
        Attack(
            "a trickle",
            Login,
            Reply::Trickle(logged_in().to_string().into_bytes()),
            true,
        ),
        Attack("silence", Login, Reply::Silence, true),
        Attack(
            "a cut answer",
            Login,
            Reply::Cut(b"{\"success\": true".to_vec()),
            false,
        ),
        Attack("a closed connection", Login, Reply::Lost, false),
        Attack(
            "a long header",
            Login,
            Reply::json(logged_in()).with_header("x-a", &long),
            false,
        ),
        Attack(
            "a circle",
            Login,
            Reply::status(307, "").with_header("location", "/session/v1/login-request"),
            false,
        ),
        Attack(
            "a pause of years",
            Login,
            Reply::status(503, "").with_header("retry-after", "99999999999"),
            false,
        ),
        Attack("a forged log line", Login, refusal(forged), true),
        Attack("a long message", Login, refusal(&long), true),
        Attack(
            "a token that would be two headers",
            Login,
            with(logged_in(), "/data/token", json!("a\r\nX-Evil: 1")),
            false,
        ),
        Attack(
            "a token of another type",
            Login,
            with(logged_in(), "/data/token", json!({"a": []})),
            false,
        ),
        Attack(
            "no token",
            Login,
            with(logged_in(), "/data/token", json!(null)),
            false,
        ),
        Attack(
            "rows that are none",
            Query,
            with(rows(json!([])), "/data/rowset", json!("rows")),
            false,
        ),
        Attack(
            "another format",
            Query,
            with(rows(json!([])), "/data/queryResultFormat", json!("arrow")),
            false,
        ),
        Attack("a million parts", Query, chunks(100_000), false),
        Attack(
            "a forged log line to a statement",
            Query,
            refusal(forged),
            true,
        ),
        Attack(
            "a directory of this machine",
            Put,
            put(&[
                ("/data/stageInfo/locationType", json!("LOCAL_FS")),
                ("/data/stageInfo/location", json!("/etc")),
            ]),
            false,
        ),
        Attack(
            "a download",
            Put,
            put(&[("/data/command", json!("DOWNLOAD"))]),
            false,
        ),
        Attack(
            "unknown storage",
            Put,
            put(&[("/data/stageInfo/locationType", json!(forged))]),
            true,
        ),
        Attack(
            "encryption without a key",
            Put,
            put(&[("/data/stageInfo/isClientSideEncrypted", json!(true))]),
            false,
        ),
        Attack(
            "a key of no length",
            Put,
            put(&[
                ("/data/stageInfo/isClientSideEncrypted", json!(true)),
                (
                    "/data/encryptionMaterial",
                    json!({"queryStageMasterKey": "AAAA", "queryId": "q", "smkId": 1}),
                ),
            ]),
            false,
        ),
        Attack(
            "a place above the stage",
            Put,
            put(&[("/data/stageInfo/location", json!("bucket/../../a/"))]),
            false,
        ),
        Attack(
            "a bucket that is a host",
            Put,
            put(&[("/data/stageInfo/location", json!("evil.example/#/a/"))]),
            false,
        ),
        Attack(
            "no credentials",
            Put,
            put(&[("/data/stageInfo/creds", json!(null))]),
            false,
        ),
        Attack(
            "credentials that would be two headers",
            Put,
            put(&[("/data/stageInfo/creds/AWS_TOKEN", json!("a\r\nX-Evil: 1"))]),
            false,
        ),
    ]
}

async fn strike(stage: Stage, reply: Reply) -> Result<(), Error> {
    let server = match stage {
        Stage::Login => Server::start(move |_| reply.clone()).await,
        Stage::Query | Stage::Put => {
            serve(move |request| match request.path.as_str() {
                QUERY => reply.clone(),
                _ => Reply::status(404, ""),
            })
            .await
        }
    };
    let network = Network {
        stall_timeout: Duration::from_millis(500),
        tries: 1,
        ..network(&server)
    };
    let mut session =
        Session::login(&settings(&network), &network, &SessionOptions::default()).await?;
    if matches!(stage, Stage::Query) {
        return session.execute(&Statement::new("select 1")).await.map(drop);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    session
        .put(file.path(), "~/a/", "part-00000.parquet", &|_| {})
        .await
}

/// What a client makes of it that takes an answer as it comes.
async fn harms(reply: Reply) -> bool {
    let server = Server::start(move |_| reply.clone()).await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .gzip(true)
        .build()
        .unwrap();
    let url = format!("http://127.0.0.1:{}/", server.port);
    let whole = async { client.get(url).send().await?.text().await };
    match tokio::time::timeout(Duration::from_secs(2), whole).await {
        Err(_) => true,
        Ok(Err(_)) => false,
        Ok(Ok(text)) => {
            let message = serde_json::from_str::<Value>(&text).map_or(text.clone(), |answer| {
                let said = [
                    &answer["message"],
                    &answer["data"]["stageInfo"]["locationType"],
                ];
                said.iter().filter_map(|said| said.as_str()).collect()
            });
            message.len() > LONGEST_MESSAGE || message.contains(char::is_control)
        }
    }
}

/// Whether an error may go into a log as it is.
fn is_bounded(error: &Error) -> bool {
    let texts = [
        error.message(),
        error.hint().unwrap_or_default(),
        error.code().unwrap_or_default(),
    ];
    let bidi = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    texts.iter().all(|text| {
        text.len() <= LONGEST_MESSAGE && !text.contains(|c: char| c.is_control() || bidi(c))
    })
}

#[tokio::test]
async fn every_behaviour_is_a_bounded_error() {
    let (mut bounded, mut harmed, mut expected_harm) = (0, 0, 0);
    let mut slowest = Duration::ZERO;
    let attacks = attacks();
    let count = attacks.len();
    for Attack(name, stage, reply, is_harmful) in attacks {
        let begun = Instant::now();
        match tokio::time::timeout(DEADLINE, strike(stage, reply.clone())).await {
            Ok(Err(error)) if is_bounded(&error) => bounded += 1,
            other => eprintln!("{name}: {other:?}"),
        }
        slowest = slowest.max(begun.elapsed());
        if is_harmful {
            expected_harm += 1;
            match harms(reply).await {
                true => harmed += 1,
                false => eprintln!("no harm: {name}"),
            }
        }
    }
    writeln!(
        std::io::stdout(),
        "\nsecurity: suite=hostile behaviours={count} bounded={bounded} slowest_ms={} harmful_without_guard={harmed}",
        slowest.as_millis()
    )
    .unwrap();
    assert!(count >= 20);
    assert_eq!(bounded, count);
    assert_eq!(harmed, expected_harm);
}

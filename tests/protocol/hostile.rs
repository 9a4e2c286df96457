//! A server that means harm: whatever it says, the client ends with an error of bounded length, in bounded time and memory.
//!
//! Where a client without guards comes to harm, the same answer is given to one, to see that it does.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bridge_core::Error;
use bridge_core::config::Network;
use bridge_core::snowflake::{Session, SessionOptions, Statement};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::server::{DEADLINE, Reply, Server};
use crate::setup::{QUERY, logged_in, network, result, serve, settings};

/// The most that a message may take in a log, in bytes.
const LONGEST_MESSAGE: usize = 1500;
/// In seconds; nobody waits for an answer for longer.
const LONGEST_PAUSE: u64 = 3_600;
/// Requests for one answer that a server should not be able to ask for.
const MOST_PARTS: usize = 10_000;
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
/// may, repeats what would forge a line in a log, or does as it is told where nobody may tell it (see [`is_misled`]).
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
            true,
        ),
        Attack("a forged log line", Login, refusal(forged), true),
        Attack("a long message", Login, refusal(&long), true),
        Attack(
            "a token that would be two headers",
            Login,
            with(logged_in(), "/data/token", json!("a\r\nX-Evil: 1")),
            true,
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
        Attack("a million parts", Query, chunks(100_000), true),
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
                ("/data/stageInfo/location", json!(named_directory())),
            ]),
            true,
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
            true,
        ),
        Attack(
            "a bucket that is a host",
            Put,
            put(&[("/data/stageInfo/location", json!("evil.example/#/a/"))]),
            true,
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
            true,
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

/// A directory that the server names as if it were a stage.
fn named_directory() -> PathBuf {
    std::env::temp_dir().join(format!("named-by-a-server-{}", std::process::id()))
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
    let whole = async {
        let response = client.get(url).send().await?;
        let pause = response.headers().get("retry-after").cloned();
        let pause = pause.and_then(|pause| pause.to_str().ok()?.parse::<u64>().ok());
        Ok::<_, reqwest::Error>((pause.unwrap_or(0), response.text().await?))
    };
    match tokio::time::timeout(Duration::from_secs(2), whole).await {
        Err(_) => true,
        Ok(Err(_)) => false,
        Ok(Ok((pause, _))) if pause > LONGEST_PAUSE => true,
        Ok(Ok((_, text))) if is_misled(&text).await => true,
        Ok(Ok((_, text))) => {
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

/// Whether a client that does as it is told writes a file of the server's choice, sends a file somewhere else than it says, sends
/// a header that it does not know of, or makes requests without number.
async fn is_misled(text: &str) -> bool {
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    let stage = &answer["data"]["stageInfo"];
    let said = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let location = said(&stage["location"]);
    if stage["locationType"] == "LOCAL_FS" {
        let file = Path::new(&location).join("part-00000.parquet");
        return std::fs::write(&file, "rows").is_ok() && std::fs::remove_file(file).is_ok();
    }
    let path = format!("/{location}part-00000.parquet");
    let address = format!("https://s3.us-west-2.amazonaws.com{path}");
    if reqwest::Url::parse(&address).is_ok_and(|address| address.path() != path) {
        return true;
    }
    for secret in [&answer["data"]["token"], &stage["creds"]["AWS_TOKEN"]] {
        let server = Server::start(|_| Reply::status(200, "")).await;
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n",
            said(secret)
        );
        let mut connection = TcpStream::connect(("127.0.0.1", server.port))
            .await
            .unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        if server.wait_for("/", 1).await.header("x-evil").is_some() {
            return true;
        }
    }
    answer["data"]["chunks"].as_array().map_or(0, Vec::len) > MOST_PARTS
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
    std::fs::create_dir_all(named_directory()).unwrap();
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
    // Empty: nothing was written where a server said.
    std::fs::remove_dir(named_directory()).unwrap();
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

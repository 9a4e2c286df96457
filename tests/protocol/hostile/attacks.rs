//! What a hostile server says, and what becomes of a client without guards that hears it.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::server::Reply;
use crate::setup::{logged_in, result};

/// More than any answer may be.
const BOMB: usize = super::MOST_HELD + (1 << 20);

/// What a client does until the server strikes.
#[derive(Clone, Copy)]
pub enum Stage {
    Login,
    Query,
    Put,
}

/// What becomes of a client without guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// Nobody has let it in, and yet it sends a statement.
    Believes,
    /// It waits for longer than a guarded one takes for all.
    Waits,
    /// It takes more memory than any answer may.
    Fills,
    /// It exhausts its stack, and the process ends.
    Overflows,
    /// It asks again and again.
    Asks,
    /// It writes into a log what is too long, no text, or more than a line of its own.
    Logs,
    /// It sends a header that it does not know of.
    Smuggles,
    /// It counts other rows than there are.
    Miscounts,
    /// It writes a file where the server says.
    Writes,
    /// It sends rows somewhere else than to its directory of the stage.
    Strays,
    /// It sends rows that anybody can read, though the stage wants them encrypted.
    Exposes,
    /// It sends rows without proof of who it is, which only a place takes that is open to everybody.
    Sends,
}

pub struct Attack(pub &'static str, pub Stage, pub Reply, pub Harm);

/// A directory that the server names as if it were a stage.
pub fn named_directory() -> PathBuf {
    std::env::temp_dir().join(format!("named-by-a-server-{}", std::process::id()))
}

fn with(mut answer: Value, pointer: &str, value: Value) -> Reply {
    *answer
        .pointer_mut(pointer)
        .expect("what is replaced is there") = value;
    Reply::json(answer)
}

pub fn refusal(message: &str) -> Reply {
    Reply::json(
        json!({"success": false, "code": "002003", "message": message, "data": {"sqlState": "42S02"}}),
    )
}

pub fn put(storage: u16, changes: &[(&str, Value)]) -> Reply {
    let mut answer = json!({"success": true, "code": null, "data": {
        "command": "UPLOAD", "localLocation": null, "encryptionMaterial": null,
        "stageInfo": {
            "locationType": "S3", "location": "bucket/a/", "region": "us-west-2", "endPoint": format!("127.0.0.1:{storage}"),
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

/// All of them. Parts of results and files of stages lie at the port `storage`; nobody may be sent to the port `elsewhere`.
pub fn attacks(storage: u16, elsewhere: u16) -> Vec<Attack> {
    use Harm::*;
    use Stage::{Login, Put, Query};
    let put = |changes: &[(&str, Value)]| put(storage, changes);
    let forged = "no\nERROR:  forged line\r\x1b[2Jcleared\u{202e}desrever\0";
    // Sound but for its length, so that nothing else is wrong with it.
    let padded = format!("{}{}", logged_in(), " ".repeat(BOMB));
    let long = "x".repeat(2 << 20);
    let deep =
        |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    let rows = |rows: Value| {
        let mut answer = result(&["N"], rows);
        answer["data"]["total"] = json!(1);
        answer
    };
    let chunks = |count: usize| {
        let mut answer = result(&["N"], json!([]));
        answer["data"]["chunks"] = json!(vec![
            json!({"url": format!("http://127.0.0.1:{storage}/part"), "rowCount": 1});
            count
        ]);
        Reply::json(answer)
    };
    vec![
        Attack("nothing", Login, Reply::status(200, ""), Believes),
        Attack("null", Login, Reply::status(200, "null"), Believes),
        Attack(
            "a page",
            Login,
            Reply::status(200, "<html>\n<h1>\x07 hello"),
            Logs,
        ),
        Attack("an array", Login, Reply::status(200, "[]"), Believes),
        Attack("no text", Login, Reply::status(200, vec![0xff; 4096]), Logs),
        Attack(
            "objects within objects",
            Login,
            Reply::status(200, deep("{\"data\":", "}")),
            Overflows,
        ),
        Attack(
            "arrays within arrays",
            Login,
            Reply::status(200, format!("{{\"data\":{}}}", deep("[", "]"))),
            Overflows,
        ),
        Attack(
            "a packed bomb",
            Login,
            Reply::gzip(padded.as_bytes()),
            Fills,
        ),
        Attack(
            "a long answer",
            Login,
            Reply::status(200, padded.as_str()),
            Fills,
        ),
        Attack(
            "broken packing",
            Login,
            Reply::status(200, "{}").with_header("content-encoding", "gzip"),
            Believes,
        ),
        Attack(
            "a trickle",
            Login,
            Reply::Trickle(logged_in().to_string().into_bytes()),
            Waits,
        ),
        Attack("silence", Login, Reply::Silence, Waits),
        Attack(
            "a cut answer",
            Login,
            Reply::Cut(b"{\"success\": true".to_vec()),
            Believes,
        ),
        Attack("a closed connection", Login, Reply::Lost, Asks),
        Attack(
            "a long header",
            Login,
            Reply::json(logged_in()).with_header("x-a", &"x".repeat(BOMB)),
            Fills,
        ),
        Attack(
            "a circle",
            Login,
            Reply::status(307, "").with_header("location", "/session/v1/login-request"),
            Asks,
        ),
        Attack(
            "a pause of years",
            Login,
            Reply::status(503, "").with_header("retry-after", "99999999999"),
            Waits,
        ),
        Attack("a forged log line", Login, refusal(forged), Logs),
        Attack("a long message", Login, refusal(&long), Logs),
        Attack(
            "a token that would be two headers",
            Login,
            with(logged_in(), "/data/token", json!("a\r\nX-Evil: 1")),
            Smuggles,
        ),
        Attack(
            "a token of another type",
            Login,
            with(logged_in(), "/data/token", json!({"a": []})),
            Believes,
        ),
        Attack(
            "no token",
            Login,
            with(logged_in(), "/data/token", json!(null)),
            Believes,
        ),
        Attack(
            "rows that are none",
            Query,
            with(rows(json!([])), "/data/rowset", json!("rows")),
            Miscounts,
        ),
        Attack(
            "another format",
            Query,
            with(rows(json!([])), "/data/queryResultFormat", json!("arrow")),
            Miscounts,
        ),
        Attack("parts without number", Query, chunks(100_000), Asks),
        Attack(
            "a forged log line to a statement",
            Query,
            refusal(forged),
            Logs,
        ),
        Attack(
            "a directory of this machine",
            Put,
            put(&[
                ("/data/stageInfo/locationType", json!("LOCAL_FS")),
                ("/data/stageInfo/location", json!(named_directory())),
            ]),
            Writes,
        ),
        Attack(
            "a download",
            Put,
            put(&[
                ("/data/command", json!("DOWNLOAD")),
                ("/data/localLocation", json!(named_directory())),
            ]),
            Writes,
        ),
        Attack(
            "unknown storage",
            Put,
            put(&[("/data/stageInfo/locationType", json!(forged))]),
            Logs,
        ),
        Attack(
            "encryption without a key",
            Put,
            put(&[("/data/stageInfo/isClientSideEncrypted", json!(true))]),
            Exposes,
        ),
        Attack(
            "a key of two bytes",
            Put,
            put(&[
                ("/data/stageInfo/isClientSideEncrypted", json!(true)),
                (
                    "/data/encryptionMaterial",
                    json!({"queryStageMasterKey": "zts=", "queryId": "q", "smkId": 1}),
                ),
            ]),
            Exposes,
        ),
        Attack(
            "a place above the stage",
            Put,
            put(&[("/data/stageInfo/location", json!("bucket/../../a/"))]),
            Strays,
        ),
        Attack(
            "a bucket that is a host",
            Put,
            put(&[
                ("/data/stageInfo/endPoint", json!(null)),
                (
                    "/data/stageInfo/location",
                    json!(format!("127.0.0.1:{elsewhere}#/a/")),
                ),
            ]),
            Strays,
        ),
        Attack(
            "no credentials",
            Put,
            put(&[("/data/stageInfo/creds", json!(null))]),
            Sends,
        ),
        Attack(
            "credentials that would be two headers",
            Put,
            put(&[("/data/stageInfo/creds/AWS_TOKEN", json!("a\r\nX-Evil: 1"))]),
            Smuggles,
        ),
    ]
}

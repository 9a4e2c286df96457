//! A client without guards: it takes what comes as it comes, and does as it is told. Each of its ways is to be seen by its
//! effect: in what arrives at a server, in a file, in a process.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use aes::Aes128;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use url::Url;

use super::attacks::{Harm, Stage, named_directory};
use super::{LONGEST_MESSAGE, MOST_ASKED, MOST_HELD, is_bidi};
use crate::server::{Reply, Request, Server};
use crate::setup::{LOGIN, QUERY};

/// What is sent to a stage; it begins as files of its kind do.
const ROWS: &[u8] = b"PAR1 rows of somebody";
const FILE: &str = "part-00000.parquet";
const DIRECTORY: &str = "/bucket/a/";
/// The stack of the thread that parses.
const STACK: usize = 2 << 20;
/// Names the file that this process has to parse, where it is a child.
const PARSE: &str = "HOSTILE_PARSE";
const SIGABRT: i32 = 6;

/// Where a client may be sent.
pub struct Places {
    pub storage: Server,
    /// Nobody may come here.
    pub elsewhere: Server,
}

impl Places {
    pub async fn start() -> Self {
        Self {
            storage: Server::start(|_| Reply::status(200, "").with_header("etag", "\"e\"")).await,
            elsewhere: Server::start(|_| Reply::status(200, "")).await,
        }
    }

    /// How many requests came.
    pub fn came(&self) -> usize {
        self.storage.requests().len() + self.elsewhere.requests().len()
    }
}

/// Whether this client comes to a harm by an answer. It is waited for no longer than `patience`.
pub async fn suffers(
    harm: Harm,
    stage: Stage,
    reply: &Reply,
    places: &Places,
    patience: Duration,
) -> bool {
    let script = reply.clone();
    let server = Server::start(move |request| match request.path.as_str() {
        QUERY if matches!(stage, Stage::Login) => Reply::status(200, "{}"),
        _ => script.clone(),
    })
    .await;
    let came = places.storage.requests().len();
    match harm {
        Harm::Believes => log_in(&server).await.is_some(),
        Harm::Waits => timeout(patience, wait_as_told(&server)).await.is_err(),
        Harm::Fills => answer(&server).await.held > MOST_HELD,
        Harm::Overflows => overflows(&answer(&server).await.body),
        Harm::Asks => {
            ask_until_all_is_there(&server).await;
            server.requests().len().max(places.came() - came) > MOST_ASKED
        }
        Harm::Logs => is_harmful_line(&log(&answer(&server).await)),
        Harm::Smuggles => match stage {
            Stage::Login => log_in(&server).await,
            Stage::Query | Stage::Put => put(&server, places).await,
        }
        .is_some_and(|sent| sent.header("x-evil").is_some()),
        Harm::Miscounts => {
            let data = answer(&server).await.json()["data"].take();
            data["total"].as_u64() != Some(count(&data["rowset"]))
        }
        Harm::Writes => {
            put(&server, places).await;
            let file = named_directory().join(FILE);
            file.exists() && std::fs::remove_file(file).is_ok()
        }
        Harm::Strays => put(&server, places)
            .await
            .is_some_and(|sent| sent.path != format!("{DIRECTORY}{FILE}")),
        Harm::Exposes => put(&server, places)
            .await
            .is_some_and(|sent| can_be_read(&sent.body)),
        Harm::Sends => put(&server, places)
            .await
            .is_some_and(|sent| sent.body == ROWS && sent.header("authorization").is_none()),
    }
}

/// What came, and how many bytes of memory that took.
struct Answer {
    head: String,
    body: Vec<u8>,
    held: usize,
}

impl Answer {
    /// What cannot be read is nothing.
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        Some(lines.find(|(key, _)| *key == name)?.1)
    }

    fn is_ok(&self) -> bool {
        self.head.starts_with("HTTP/1.1 200")
    }
}

/// Everything that is said to a request, up to the end of the connection.
async fn exchange(host: &str, head: &str, body: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    if let Ok(mut connection) = TcpStream::connect(host).await {
        let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
        let _ = connection.write_all(head.as_bytes()).await;
        let _ = connection.write_all(body).await;
        let _ = connection.read_to_end(&mut all).await;
    }
    all
}

async fn get(host: &str, path: &str) -> Answer {
    let all = exchange(host, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n"), b"").await;
    let end = all.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = all.split_at(end.map_or(all.len(), |end| end + 4));
    let head = String::from_utf8_lossy(head).into_owned();
    let mut answer = Answer {
        body: body.to_vec(),
        held: all.len(),
        head,
    };
    let mut plain = Vec::new();
    if answer.header("content-encoding") == Some("gzip")
        && GzDecoder::new(body).read_to_end(&mut plain).is_ok()
    {
        answer.held += plain.len();
        answer.body = plain;
    }
    answer
}

fn host(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

async fn answer(server: &Server) -> Answer {
    get(&host(server.port), LOGIN).await
}

/// Logs in, and sends a statement unless it was refused. The statement as it arrived.
async fn log_in(server: &Server) -> Option<Request> {
    let answer = answer(server).await;
    let said = answer.json();
    if answer.is_ok() && said["success"] != json!(false) {
        let token = &said["data"]["token"];
        let token = token.as_str().map_or(token.to_string(), str::to_owned);
        let head = format!("POST {QUERY} HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n");
        exchange(&host(server.port), &head, b"{\"sqlText\": \"select 1\"}").await;
    }
    server.requests_for(QUERY).pop()
}

async fn wait_as_told(server: &Server) {
    let answer = answer(server).await;
    let pause = answer
        .header("retry-after")
        .and_then(|pause| pause.parse().ok());
    sleep(Duration::from_secs(pause.unwrap_or(0))).await;
}

/// Asks until there is an answer, goes where it leads, and fetches every part of it. A little more than the most that a
/// server may ask for is enough to see that there is no end to it.
async fn ask_until_all_is_there(server: &Server) {
    let mut path = LOGIN.to_owned();
    for _ in 0..=MOST_ASKED {
        let answer = get(&host(server.port), &path).await;
        if let Some(location) = answer.header("location") {
            path = location.to_owned();
        } else if answer.held > 0 {
            let said = answer.json();
            let parts = said["data"]["chunks"].as_array().into_iter().flatten();
            for part in parts.take(MOST_ASKED + 1) {
                let url = Url::parse(part["url"].as_str().unwrap()).unwrap();
                get(url.authority(), url.path()).await;
            }
            return;
        }
    }
}

/// The line that a log gets. Bytes: a log is a file.
fn log(answer: &Answer) -> Vec<u8> {
    let said = answer.json();
    let words = [&said["message"], &said["data"]["stageInfo"]["locationType"]];
    let words: String = words.iter().filter_map(|words| words.as_str()).collect();
    let words = match said {
        Value::Null => answer.body.as_slice(),
        _ => words.as_bytes(),
    };
    [b"ERROR:  Snowflake says ", words].concat()
}

fn is_harmful_line(line: &[u8]) -> bool {
    std::str::from_utf8(line).map_or(true, |line| {
        line.len() > LONGEST_MESSAGE || line.contains(|c: char| c.is_control() || is_bidi(c))
    })
}

/// The rows of a result, counted as languages do that have no types: text as well has a length.
fn count(rows: &Value) -> u64 {
    let count = match rows {
        Value::Array(rows) => rows.len(),
        Value::String(rows) => rows.chars().count(),
        _ => 0,
    };
    count as u64
}

/// Does what the answer to PUT says. The file as it arrived somewhere, if it did.
async fn put(server: &Server, places: &Places) -> Option<Request> {
    let data = answer(server).await.json()["data"].take();
    let stage = &data["stageInfo"];
    let said = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let location = said(&stage["location"]);
    if stage["locationType"] == "LOCAL_FS" {
        std::fs::write(Path::new(&location).join(FILE), ROWS).unwrap();
        return None;
    }
    let url = match stage["endPoint"].as_str() {
        Some(end_point) => format!("http://{end_point}/{location}{FILE}"),
        None => {
            let (bucket, directory) = location.split_once('/').unwrap();
            let region = said(&stage["region"]);
            format!("http://{bucket}.s3.{region}.amazonaws.com/{directory}{FILE}")
        }
    };
    let url = Url::parse(&url).unwrap();
    if data["command"] == "DOWNLOAD" {
        let file = Path::new(&said(&data["localLocation"])).join(FILE);
        std::fs::write(file, get(url.authority(), url.path()).await.body).unwrap();
        return None;
    }
    let body = match data["encryptionMaterial"]["queryStageMasterKey"].as_str() {
        Some(key) => encrypted(&STANDARD.decode(key).unwrap()),
        None => ROWS.to_vec(),
    };
    let mut head = format!(
        "PUT {} HTTP/1.1\r\nHost: {}\r\n",
        url.path(),
        url.authority()
    );
    if stage["creds"].is_object() {
        let (id, token) = (&stage["creds"]["AWS_KEY_ID"], &stage["creds"]["AWS_TOKEN"]);
        head += &format!("Authorization: AWS {}\r\n", said(id));
        head += &format!("X-Amz-Security-Token: {}\r\n", said(token));
    }
    let came = places.came();
    exchange(url.authority(), &head, &body).await;
    let (storage, elsewhere) = (places.storage.requests(), places.elsewhere.requests());
    let arrived = storage.len() + elsewhere.len() > came;
    let to_storage = url.port() == Some(places.storage.port);
    let mut requests = if to_storage { storage } else { elsewhere };
    arrived.then(|| requests.pop()).flatten()
}

/// Under a key that is filled up with zeros, as some libraries do it.
fn encrypted(key: &[u8]) -> Vec<u8> {
    let mut whole = [0; 16];
    let length = key.len().min(16);
    whole[..length].copy_from_slice(&key[..length]);
    cbc::Encryptor::<Aes128>::new(&whole.into(), &[0; 16].into())
        .encrypt_padded_vec_mut::<Pkcs7>(ROWS)
}

/// Whether somebody without a key reads it: as it is, or by trying all keys of two bytes.
fn can_be_read(body: &[u8]) -> bool {
    let begins_well = |plain: &[u8]| plain.starts_with(&ROWS[..4]);
    begins_well(body)
        || (0..=u16::MAX).any(|key| {
            let mut whole = [0; 16];
            whole[..2].copy_from_slice(&key.to_be_bytes());
            cbc::Decryptor::<Aes128>::new(&whole.into(), &[0; 16].into())
                .decrypt_padded_vec_mut::<Pkcs7>(body)
                .is_ok_and(|plain| begins_well(&plain))
        })
}

/// Whether a process that parses this ends by exhausting its stack.
fn overflows(text: &[u8]) -> bool {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("hostile::naive::a_parser_without_a_bound_exhausts_its_stack")
        .env(PARSE, file.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    if child.status.success() {
        assert!(said.contains("parsed whole: true"), "{child:?}");
        return false;
    }
    assert_eq!(child.status.signal(), Some(SIGABRT), "{child:?}");
    said.contains("has overflowed its stack")
}

/// Where a JSON value ends; one call for each that is within another.
fn end_of_value(text: &[u8], at: usize) -> Option<usize> {
    let end_of_scalar = |at: usize| {
        let rest = text.get(at..)?;
        let length = rest.iter().position(|byte| b",:]}".contains(byte));
        Some(at + length.unwrap_or(rest.len()))
    };
    let close = match text.get(at)? {
        b'{' => b'}',
        b'[' => b']',
        _ => return end_of_scalar(at),
    };
    let mut at = at + 1;
    loop {
        if close == b'}' {
            at = end_of_scalar(at)? + 1;
        }
        at = end_of_value(text, at)?;
        match text.get(at)? {
            b',' => at += 1,
            byte if *byte == close => return Some(at + 1),
            _ => return None,
        }
    }
}

#[test]
fn a_parser_without_a_bound_exhausts_its_stack() {
    if let Some(file) = std::env::var_os(PARSE) {
        let none = rustix::process::Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        // The end of this process is meant, and needs no core file.
        rustix::process::setrlimit(rustix::process::Resource::Core, none).unwrap();
        let text = std::fs::read(file).unwrap();
        let parser = std::thread::Builder::new().stack_size(STACK);
        let parser = parser.spawn(move || end_of_value(&text, 0) == Some(text.len()));
        eprintln!("parsed whole: {}", parser.unwrap().join().unwrap());
        return;
    }
    assert!(!overflows(br#"{"a":[1,{"b":2}],"c":"d"}"#));
    assert!(overflows("[".repeat(1 << 20).as_bytes()));
}

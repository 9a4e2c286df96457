//! An HTTP/1.1 server that answers from a script and remembers what it was asked.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// Everything a test waits for happens within this time, or never.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A request as it arrived, its body unpacked.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// In the order of the URL, so that a repeated key is seen.
    pub query: Vec<(String, String)>,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    pub was_gzip: bool,
    /// How many requests for the same path came before.
    pub earlier: usize,
}

impl Request {
    /// The value of a query key, which must be there once at most.
    pub fn parameter(&self, key: &str) -> Option<&str> {
        let mut values = self
            .query
            .iter()
            .filter(|(name, _)| name == key)
            .map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{key} is repeated");
        value
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub fn sql(&self) -> String {
        self.json()["sqlText"]
            .as_str()
            .expect("a statement")
            .to_owned()
    }
}

/// What the script says to a request.
#[derive(Clone)]
pub enum Reply {
    /// A whole answer.
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// The beginning of an answer that claims to be longer.
    Cut(Vec<u8>),
    /// The connection is closed instead.
    Lost,
    /// Another reply, later.
    After(Duration, Box<Reply>),
    /// A whole answer of which a few bytes come at a time.
    Trickle(Vec<u8>),
    /// Nothing, for ever.
    Silence,
}

impl Reply {
    pub fn json(body: Value) -> Self {
        Self::status(200, body.to_string())
    }

    pub fn status(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::Answer {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub fn gzip(body: &[u8]) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        Self::status(200, encoder.finish().unwrap()).with_header("content-encoding", "gzip")
    }

    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name, value.to_owned()));
        }
        self
    }
}

type Script = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

/// A running server; it ends with the test's runtime.
pub struct Server {
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    answered: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub async fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (script, seen): (Script, _) = (Arc::new(script), Arc::clone(&requests));
        let answered: Arc<Mutex<Vec<Request>>> = Arc::default();
        let told = Arc::clone(&answered);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, seen, told) =
                    (Arc::clone(&script), Arc::clone(&seen), Arc::clone(&told));
                tokio::spawn(async move {
                    if let Some(request) = serve(stream, script, seen).await {
                        told.lock().unwrap().push(request);
                    }
                });
            }
        });
        Self {
            port,
            requests,
            answered,
        }
    }

    /// The requests that were answered.
    pub fn answered(&self) -> Vec<Request> {
        self.answered.lock().unwrap().clone()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn requests_for(&self, path: &str) -> Vec<Request> {
        self.requests()
            .into_iter()
            .filter(|request| request.path == path)
            .collect()
    }

    /// Waits for the request number `count` (from 1) for a path.
    pub async fn wait_for(&self, path: &str, count: usize) -> Request {
        let arrived = async {
            loop {
                if let Some(request) = self.requests_for(path).into_iter().nth(count - 1) {
                    return request;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, arrived)
            .await
            .unwrap_or_else(|_| panic!("no request {count} for {path}: {:#?}", self.requests()))
    }
}

/// One request for each connection, so that each try is a connection of its own. The request, if it was answered.
async fn serve(
    mut stream: TcpStream,
    script: Script,
    seen: Arc<Mutex<Vec<Request>>>,
) -> Option<Request> {
    let mut request = read_request(&mut stream).await?;
    let mut reply = {
        let mut seen = seen.lock().unwrap();
        request.earlier = seen
            .iter()
            .filter(|other| other.path == request.path)
            .count();
        seen.push(request.clone());
        script(&request)
    };
    while let Reply::After(pause, later) = reply {
        tokio::time::sleep(pause).await;
        reply = *later;
    }
    let (status, headers, body, length) = match reply {
        Reply::Answer {
            status,
            headers,
            body,
        } => (status, headers, body.clone(), body.len()),
        Reply::Cut(body) => (200, Vec::new(), body.clone(), body.len() + 100),
        Reply::Trickle(body) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.ok()?;
            for piece in body.chunks(2) {
                stream.write_all(piece).await.ok()?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            return Some(request);
        }
        Reply::Lost | Reply::After(..) => return None,
        Reply::Silence => return std::future::pending().await,
    };
    let mut head =
        format!("HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    // The client may well hang up on an answer that is too large.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(&body).await;
    let _ = stream.shutdown().await;
    Some(request)
}

async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).expect("a head in UTF-8");
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = bytes.split_off(head_end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    let was_gzip = headers
        .get("content-encoding")
        .is_some_and(|encoding| encoding == "gzip");
    if was_gzip {
        let mut plain = Vec::new();
        GzDecoder::new(body.as_slice())
            .read_to_end(&mut plain)
            .expect("a gzip body");
        body = plain;
    }
    let url = Url::parse(&format!("http://host{target}")).unwrap();
    Some(Request {
        method,
        path: url.path().to_owned(),
        query: url
            .query_pairs()
            .map(|(key, value)| (key.into_owned(), value.into_owned()))
            .collect(),
        headers,
        body,
        was_gzip,
        earlier: 0,
    })
}

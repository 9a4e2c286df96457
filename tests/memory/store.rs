//! A Snowflake that lets everybody in and a store of each cloud that reads what it is sent and keeps nothing of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cloud {
    Amazon,
    Azure,
    Google,
}

pub struct Store {
    pub port: u16,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    received: AtomicU64,
    requests: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
    have_met: AtomicBool,
}

/// How long requests wait for each other at most.
const MEETING: Duration = Duration::from_secs(10);

impl Store {
    pub async fn start(cloud: Cloud, bytes_per_second: u64) -> Self {
        Self::start_with_meeting(cloud, bytes_per_second, 0).await
    }

    /// The first requests with bytes of files wait until so many of them are open.
    pub async fn start_with_meeting(cloud: Cloud, bytes_per_second: u64, meeting: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let counts = Arc::new(Counts::default());
        let server = Server {
            cloud,
            port,
            begun: Instant::now(),
            bytes_per_second,
            meeting,
            counts: Arc::clone(&counts),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                // A client that hangs up ends its connection and nothing else.
                tokio::spawn(async move { server.serve(stream).await.ok() });
            }
        });
        Self { port, counts }
    }

    /// Bytes of files.
    pub fn received(&self) -> u64 {
        self.counts.received.load(Ordering::Relaxed)
    }

    /// The most requests with bytes of files that were open at the same time.
    pub fn most_at_once(&self) -> usize {
        self.counts.most_open.load(Ordering::Relaxed)
    }

    /// Requests with bytes of files.
    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::Relaxed)
    }
}

impl Counts {
    fn begin(&self) {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_open.fetch_max(open, Ordering::Relaxed);
    }

    fn end(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct Server {
    cloud: Cloud,
    port: u16,
    begun: Instant,
    bytes_per_second: u64,
    meeting: usize,
    counts: Arc<Counts>,
}

impl Server {
    /// Waits until enough requests have met, which they do once.
    async fn meet(&self) {
        let counts = &self.counts;
        let until = Instant::now() + MEETING;
        while !counts.have_met.load(Ordering::Relaxed) && Instant::now() < until {
            if counts.open.load(Ordering::Relaxed) >= self.meeting {
                counts.have_met.store(true, Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        counts.have_met.store(true, Ordering::Relaxed);
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut target = String::new();
            let mut length = 0;
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await? == 0 {
                    return Ok(());
                }
                let line = line.trim_end().to_ascii_lowercase();
                if line.is_empty() {
                    break;
                }
                if target.is_empty() {
                    target = line;
                } else if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let is_file = target.starts_with("put ") && !target.contains("comp=blocklist");
            self.discard(&mut stream, length, is_file).await?;
            let body = self.answer(&target);
            let head = format!(
                "HTTP/1.1 {}\r\nETag: \"e\"\r\nContent-Length: {}\r\n\r\n",
                if self.cloud == Cloud::Azure && target.starts_with("put ") {
                    "201 Created"
                } else {
                    "200 OK"
                },
                body.len()
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
        }
    }

    async fn discard(
        &self,
        stream: &mut BufReader<TcpStream>,
        length: u64,
        is_file: bool,
    ) -> std::io::Result<()> {
        if is_file {
            self.counts.begin();
            self.meet().await;
        }
        let mut left = length;
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let count = stream.read(&mut buffer[..most]).await?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            left -= count as u64;
            if is_file {
                let all = self
                    .counts
                    .received
                    .fetch_add(count as u64, Ordering::Relaxed);
                let due = Duration::from_secs_f64(all as f64 / self.bytes_per_second as f64);
                tokio::time::sleep(due.saturating_sub(self.begun.elapsed())).await;
            }
        }
        if is_file {
            self.counts.end();
        }
        Ok(())
    }

    fn answer(&self, target: &str) -> String {
        let ok =
            |data: Value| json!({"success": true, "code": null, "message": null, "data": data});
        if target.contains("/session/v1/login-request") {
            ok(json!({"token": "t", "masterToken": "m"})).to_string()
        } else if target.contains("/queries/v1/query-request") {
            ok(json!({
                "command": "UPLOAD",
                "encryptionMaterial": {"queryStageMasterKey": "ztke8tIdVt1zmlQIZm0BMA==", "queryId": "q", "smkId": 1},
                "stageInfo": self.stage(),
            }))
            .to_string()
        } else if target.contains("?uploads") {
            "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
                .to_owned()
        } else if target.starts_with("post ") && target.contains("uploadid=") {
            "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>"
                .to_owned()
        } else {
            String::new()
        }
    }

    fn stage(&self) -> Value {
        let here = format!("127.0.0.1:{}", self.port);
        match self.cloud {
            Cloud::Amazon => json!({
                "locationType": "S3", "location": "bucket/a/", "region": "us-west-2", "endPoint": here,
                "creds": {"AWS_KEY_ID": "k", "AWS_SECRET_KEY": "s", "AWS_TOKEN": "t"},
            }),
            Cloud::Azure => json!({
                "locationType": "AZURE", "location": "container/a/", "storageAccount": "account",
                "endPoint": format!("blob.localhost:{}", self.port),
                "creds": {"AZURE_SAS_TOKEN": "?sv=2021-01-01&sig=abc%3D"},
            }),
            Cloud::Google => json!({
                "locationType": "GCS", "location": "bucket/a/", "region": "us", "endPoint": here,
                "creds": {"GCS_ACCESS_TOKEN": "token"},
            }),
        }
    }
}

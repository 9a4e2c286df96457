//! An object store for measurements: takes what clients of S3 send, counts it, and keeps nothing. It costs next to no
//! time, so that what is measured is who sends.
//!
//! Prints its port, answers `GET /stats`, and ends when its standard input does.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

/// What has arrived since the start.
#[derive(Default)]
struct Stats {
    /// Whole objects, and the bytes of their bodies.
    objects: u64,
    bytes: u64,
    /// Seconds since 1970 when the last of them was whole.
    last: f64,
    /// The bytes of objects of which parts have arrived.
    parts: HashMap<String, u64>,
    uploads: u64,
}

impl Stats {
    fn whole(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
        self.last = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
    }
}

/// The first line of a request and the size of its body.
struct Request {
    method: String,
    target: String,
    length: u64,
}

struct Answer {
    status: &'static str,
    body: String,
}

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut output = io::stdout();
    writeln!(output, "{}", listener.local_addr()?.port())?;
    output.flush()?;
    let stats = Arc::new(Mutex::new(Stats::default()));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let stats = Arc::clone(&stats);
            thread::spawn(move || serve(&stream, &stats));
        }
    });
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// Answers one connection's requests until it ends.
fn serve(stream: &TcpStream, stats: &Mutex<Stats>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(256 << 10, stream);
    let mut writer = stream;
    while let Some(request) = read_head(&mut reader)? {
        discard(&mut reader, request.length)?;
        let answer = answer(
            &request,
            &mut stats.lock().unwrap_or_else(PoisonError::into_inner),
        );
        let length = answer.body.len();
        let text = format!(
            "HTTP/1.1 {}\r\nETag: \"0\"\r\nContent-Length: {length}\r\n\r\n{}",
            answer.status, answer.body
        );
        writer.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// The next request up to its body; nothing where the client has gone.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        length: 0,
    };
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else {
            return Ok(Some(request));
        };
        if name.eq_ignore_ascii_case("content-length") {
            request.length = value
                .trim()
                .parse()
                .map_err(|_| io::ErrorKind::InvalidData)?;
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(io::ErrorKind::Unsupported.into());
        }
    }
}

/// Reads so many bytes into nowhere.
fn discard(reader: &mut impl BufRead, mut left: u64) -> io::Result<()> {
    while left > 0 {
        let there = reader.fill_buf()?.len();
        if there == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let taken = there.min(usize::try_from(left).unwrap_or(usize::MAX));
        reader.consume(taken);
        left -= taken as u64;
    }
    Ok(())
}

/// What S3 says, as far as its clients look at it.
fn answer(request: &Request, stats: &mut Stats) -> Answer {
    let (path, query) = request
        .target
        .split_once('?')
        .unwrap_or((&request.target, ""));
    let upload = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("uploadId="));
    let mut status = "200 OK";
    let body = match (request.method.as_str(), upload) {
        ("GET", _) if path == "/stats" => format!(
            "{{\"objects\": {}, \"bytes\": {}, \"last\": {}}}",
            stats.objects, stats.bytes, stats.last
        ),
        ("PUT", None) => {
            stats.whole(request.length);
            String::new()
        }
        ("PUT", Some(upload)) => {
            *stats.parts.entry(upload.to_owned()).or_default() += request.length;
            String::new()
        }
        ("POST", None) => {
            stats.uploads += 1;
            format!(
                "<InitiateMultipartUploadResult><UploadId>{}</UploadId></InitiateMultipartUploadResult>",
                stats.uploads
            )
        }
        ("POST", Some(upload)) => {
            let bytes = stats.parts.remove(upload).unwrap_or_default();
            stats.whole(bytes);
            "<CompleteMultipartUploadResult><ETag>\"0\"</ETag></CompleteMultipartUploadResult>"
                .to_owned()
        }
        ("DELETE", _) => {
            status = "204 No Content";
            String::new()
        }
        _ => {
            status = "501 Not Implemented";
            String::new()
        }
    };
    Answer { status, body }
}

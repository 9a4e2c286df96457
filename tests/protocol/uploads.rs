//! PUT: the statement, and the file on its way to S3, which the scripted server plays as well.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, KeyInit, KeyIvInit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bridge_core::ErrorKind;
use bridge_core::snowflake::{Session, SessionOptions};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::server::{DEADLINE, Reply, Request, Server};
use crate::setup::{QUERY, TRIES, login, network, serve, settings};

const STAGE_KEY: &str = "ztke8tIdVt1zmlQIZm0BMA==";
const OBJECT: &str = "/bucket/users/7/snowflake_bridge/u/1/part-00000.parquet";
pub const STAGE: &str = "~/snowflake_bridge/u/1/";

pub fn put_answer(request: &Request, encrypted: bool) -> Reply {
    let material =
        json!({"queryStageMasterKey": STAGE_KEY, "queryId": "01-put", "smkId": i64::MAX});
    Reply::json(json!({
        "success": true, "code": null, "message": null,
        "data": {
            "command": "UPLOAD", "src_locations": ["/etc/passwd"], "parallel": 4, "threshold": 209_715_200,
            "encryptionMaterial": if encrypted { material } else { Value::Null },
            "stageInfo": {
                "locationType": "S3", "location": "bucket/users/7/snowflake_bridge/u/1/", "region": "us-west-2",
                "endPoint": request.header("host").unwrap().replace("acme-demo.localhost", "127.0.0.1"),
                "creds": {"AWS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_KEY": "stage-secret", "AWS_TOKEN": "stage-token"},
                "isClientSideEncrypted": encrypted, "ciphers": "AES_CBC",
            },
        },
    }))
}

fn stored() -> Reply {
    Reply::status(200, "").with_header("etag", "\"e\"")
}

fn refused(status: u16, code: &str) -> Reply {
    Reply::status(
        status,
        format!("<Error><Code>{code}</Code><Message>stage-token AKIAEXAMPLE</Message></Error>"),
    )
}

/// A file of the spool with content that does not repeat.
fn file(size: usize) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spooled");
    let content: Vec<u8> = (0..size).map(|i| (i * i / 7) as u8).collect();
    std::fs::write(&path, &content).unwrap();
    (directory, path, content)
}

/// Opens an object as Snowflake does: unwraps its key with the stage's, then decrypts.
fn open(object: &Request, body: &[u8]) -> Vec<u8> {
    let meta = |name: &str| STANDARD.decode(object.header(name).unwrap()).unwrap();
    let stage_key = STANDARD.decode(STAGE_KEY).unwrap();
    let wrapped = meta("x-amz-meta-x-amz-key");
    let mut key = Vec::new();
    for block in wrapped.chunks(16) {
        // One block of CBC with an IV of zeros is a block of ECB.
        let decryptor =
            cbc::Decryptor::<aes::Aes128>::new_from_slices(&stage_key, &[0; 16]).unwrap();
        key.extend(
            decryptor
                .decrypt_padded_vec_mut::<aes::cipher::block_padding::NoPadding>(block)
                .unwrap(),
        );
    }
    assert_eq!(key.split_off(16), [16; 16], "padding of the wrapped key");
    assert!(aes::Aes128::new_from_slice(&key).is_ok());
    cbc::Decryptor::<aes::Aes128>::new_from_slices(&key, &meta("x-amz-meta-x-amz-iv"))
        .unwrap()
        .decrypt_padded_vec_mut::<Pkcs7>(body)
        .unwrap()
}

fn assert_metadata(object: &Request, content: &[u8]) {
    assert_eq!(
        object.header("x-amz-meta-sfc-digest"),
        Some(STANDARD.encode(Sha256::digest(content)).as_str())
    );
    let description: Value =
        serde_json::from_str(object.header("x-amz-meta-x-amz-matdesc").unwrap()).unwrap();
    assert_eq!(
        description,
        json!({"queryId": "01-put", "smkId": "9223372036854775807", "keySize": "128"})
    );
    assert_eq!(
        object.header("content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(object.header("x-amz-security-token"), Some("stage-token"));
    assert!(
        object
            .header("authorization")
            .unwrap()
            .starts_with("AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/")
    );
}

async fn storage(object: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    serve(move |request| {
        if request.path == QUERY {
            put_answer(request, true)
        } else {
            object(request)
        }
    })
    .await
}

#[tokio::test]
async fn a_file_travels_encrypted() {
    let server = storage(|_| stored()).await;
    let (_directory, path, content) = file(100_000);
    let told = Mutex::new(Vec::new());
    let mut session = login(&server).await;
    session
        .put(&path, STAGE, "part-00000.parquet", &|bytes| {
            told.lock().unwrap().push(bytes)
        })
        .await
        .unwrap();
    assert_eq!(told.into_inner().unwrap(), [100_000]);

    let statement = server.wait_for(QUERY, 1).await;
    assert_eq!(
        statement.sql(),
        "PUT 'file:///snowflake_bridge/part-00000.parquet' '@~/snowflake_bridge/u/1/' \
         PARALLEL=1 AUTO_COMPRESS=FALSE SOURCE_COMPRESSION=NONE OVERWRITE=TRUE"
    );
    assert_eq!(statement.header("accept"), Some("application/json"));
    let object = server.wait_for(OBJECT, 1).await;
    assert_eq!(object.method, "PUT");
    assert_metadata(&object, &content);
    assert_ne!(object.body[..100_000], content);
    assert_eq!(open(&object, &object.body), content);
    // Nothing that belongs to Snowflake goes to storage, and the other way round.
    assert!(
        !object
            .headers
            .values()
            .any(|value| value.contains("session-token"))
    );
    assert!(session.is_usable());
}

#[tokio::test]
async fn a_stage_that_encrypts_by_itself_gets_the_file_as_it_is() {
    let server = serve(|request| {
        if request.path == QUERY {
            put_answer(request, false)
        } else {
            stored()
        }
    })
    .await;
    let (_directory, path, content) = file(1000);
    login(&server)
        .await
        .put(&path, STAGE, "part-00000.parquet", &|_| {})
        .await
        .unwrap();
    let object = server.wait_for(OBJECT, 1).await;
    assert_eq!(object.body, content);
    assert_eq!(object.header("x-amz-meta-x-amz-key"), None);
    assert!(object.header("x-amz-meta-sfc-digest").is_some());
}

#[tokio::test]
async fn a_large_file_travels_in_parts() {
    let server = storage(|request| match (request.method.as_str(), request.parameter("uploadId")) {
        ("POST", None) => Reply::status(
            200,
            "<InitiateMultipartUploadResult><Bucket>bucket</Bucket><Key>k</Key><UploadId>u1</UploadId></InitiateMultipartUploadResult>",
        ),
        ("POST", Some("u1")) => Reply::status(
            200,
            "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>",
        ),
        ("PUT", Some("u1")) => stored(),
        _ => Reply::status(400, "unexpected"),
    })
    .await;
    let (_directory, path, content) = file(17 << 20);
    let told = Mutex::new(Vec::new());
    login(&server)
        .await
        .put(&path, STAGE, "part-00000.parquet", &|bytes| {
            told.lock().unwrap().push(bytes)
        })
        .await
        .unwrap();
    let told = told.into_inner().unwrap();
    assert!(
        told.len() >= 3 && told.is_sorted() && told.last() == Some(&(17 << 20)),
        "{told:?}"
    );

    let requests = server.requests_for(OBJECT);
    assert_metadata(&requests[0], &content);
    let mut parts: Vec<_> = requests
        .iter()
        .filter(|request| request.method == "PUT")
        .collect();
    parts.sort_by_key(|part| {
        part.parameter("partNumber")
            .unwrap()
            .parse::<u32>()
            .unwrap()
    });
    let sizes: Vec<_> = parts.iter().map(|part| part.body.len()).collect();
    assert_eq!(sizes, [8 << 20, 8 << 20, (1 << 20) + 16]);
    let body: Vec<u8> = parts
        .iter()
        .flat_map(|part| part.body.iter().copied())
        .collect();
    assert!(open(&requests[0], &body) == content);
}

const BEGUN: &str = "<InitiateMultipartUploadResult><Bucket>bucket</Bucket><Key>k</Key><UploadId>u1</UploadId></InitiateMultipartUploadResult>";

/// Telling whether an attribute is there twice takes the square of their number, on the thread that all uploads share.
#[tokio::test]
async fn an_answer_of_nothing_but_attributes_is_no_work() {
    let attributes: String = (0..60_000).map(|n| format!(" a{n}=\"\"")).collect();
    let told = BEGUN.replacen("Result>", &format!("Result{attributes}>"), 1);
    let server = storage(move |_| Reply::status(200, told.clone())).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(17 << 20).unwrap();
    let mut session = login(&server).await;
    let begun = Instant::now();
    session
        .put(file.path(), STAGE, "part-00000.parquet", &|_| {})
        .await
        .unwrap_err();
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn parts_travel_side_by_side() {
    // The first part is answered long after the second has arrived.
    let server = storage(|request| {
        match (request.method.as_str(), request.parameter("partNumber")) {
            ("POST", None) if request.parameter("uploadId").is_none() => Reply::status(200, BEGUN),
            ("PUT", Some("1")) => Reply::After(Duration::from_secs(8), Box::new(stored())),
            ("PUT", Some(_)) => stored(),
            _ => Reply::status(
                200,
                "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>",
            ),
        }
    })
    .await;
    let (_directory, path, _) = file(17 << 20);
    let mut session = login(&server).await;
    let put = session.put(&path, STAGE, "part-00000.parquet", &|_| {});
    let seen = async {
        // POST, PUT, PUT: both are there before either is answered.
        server.wait_for(OBJECT, 3).await;
        server.answered()
    };
    let (put, answered) = tokio::join!(put, seen);
    put.unwrap();
    assert!(
        !answered
            .iter()
            .any(|request| request.parameter("partNumber") == Some("1")),
        "{answered:#?}"
    );
}

#[tokio::test]
async fn no_part_is_left_behind() {
    for (what, kind) in [("part", ErrorKind::Internal), ("end", ErrorKind::Transient)] {
        let server = storage(move |request| {
            match (request.method.as_str(), request.parameter("uploadId")) {
                ("POST", None) => Reply::status(200, BEGUN),
                ("PUT", _) if what == "part" && request.parameter("partNumber") == Some("3") => {
                    refused(404, "NoSuchUpload")
                }
                ("PUT", _) => stored(),
                ("DELETE", _) => Reply::status(204, ""),
                // Storage may say 200 and then that it failed.
                _ => refused(200, "InternalError"),
            }
        })
        .await;
        let (_directory, path, _) = file(17 << 20);
        let error = login(&server)
            .await
            .put(&path, STAGE, "part-00000.parquet", &|_| {})
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let removed = server.requests_for(OBJECT);
        let removed = removed.iter().filter(|request| request.method == "DELETE");
        assert_eq!(removed.count(), 1, "{what}");
    }
}

#[tokio::test]
async fn expired_credentials_are_asked_for_again_once() {
    for (status, code) in [(400, "ExpiredToken"), (403, "AccessDenied")] {
        let server = storage(move |request| {
            if request.earlier == 0 {
                refused(status, code)
            } else {
                stored()
            }
        })
        .await;
        let (_directory, path, content) = file(1000);
        login(&server)
            .await
            .put(&path, STAGE, "part-00000.parquet", &|_| {})
            .await
            .unwrap();
        let statements = server.requests_for(QUERY);
        assert_eq!(statements.len(), 2);
        assert_eq!(statements[0].sql(), statements[1].sql());
        assert_ne!(
            statements[0].parameter("requestId"),
            statements[1].parameter("requestId")
        );
        // A new answer, so a new key as well.
        let objects = server.requests_for(OBJECT);
        assert_ne!(
            objects[0].header("x-amz-meta-x-amz-iv"),
            objects[1].header("x-amz-meta-x-amz-iv")
        );
        assert_eq!(open(&objects[1], &objects[1].body), content);
    }
}

#[tokio::test]
async fn refusals_of_storage() {
    for (status, code, kind, statements, puts) in [
        (400, "ExpiredToken", ErrorKind::Transient, 2, 2),
        (403, "AccessDenied", ErrorKind::Configuration, 2, 2),
        (403, "RequestTimeTooSkewed", ErrorKind::Configuration, 1, 1),
        (404, "NoSuchBucket", ErrorKind::Internal, 1, 1),
        (503, "SlowDown", ErrorKind::Throttled, 1, TRIES),
        (307, "TemporaryRedirect", ErrorKind::Configuration, 1, 1),
    ] {
        let server = storage(move |_| refused(status, code)).await;
        let (_directory, path, _) = file(1000);
        let error = login(&server)
            .await
            .put(&path, STAGE, "part-00000.parquet", &|_| {})
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{code}: {error}");
        assert!(error.message().contains(code), "{error}");
        let shown = format!("{error:?}");
        assert!(
            !shown.contains("stage-token") && !shown.contains("AKIA"),
            "{shown}"
        );
        assert_eq!(server.requests_for(QUERY).len(), statements, "{code}");
        assert_eq!(server.requests_for(OBJECT).len(), puts, "{code}");
    }
}

#[tokio::test]
async fn storage_that_does_not_answer() {
    let server = storage(|_| Reply::Lost).await;
    let (_directory, path, _) = file(1000);
    let error = login(&server)
        .await
        .put(&path, STAGE, "part-00000.parquet", &|_| {})
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert_eq!(server.requests_for(OBJECT).len(), TRIES);
}

#[tokio::test]
async fn storage_on_which_nothing_moves() {
    let server = storage(|_| Reply::Silence).await;
    let (_directory, path, _) = file(1000);
    let mut network = network(&server);
    network.stall_timeout = Duration::from_millis(200);
    let options = SessionOptions::default();
    let mut session = Session::login(&settings(&network), &network, &options)
        .await
        .unwrap();
    let put = session.put(&path, STAGE, "part-00000.parquet", &|_| {});
    let error = tokio::time::timeout(DEADLINE, put)
        .await
        .expect("an end")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert!(error.message().contains("nothing moved"), "{error}");
    assert_eq!(server.requests_for(OBJECT).len(), TRIES);
}

#[tokio::test]
async fn only_our_own_file_is_read() {
    let server = storage(|_| stored()).await;
    let mut session = login(&server).await;
    let missing = session
        .put(
            "/nonexistent/file".as_ref(),
            STAGE,
            "part-00000.parquet",
            &|_| {},
        )
        .await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::Internal);
    let (_directory, path, _) = file(10);
    for name in ["../x", "a'b", ""] {
        assert!(
            session.put(&path, STAGE, name, &|_| {}).await.is_err(),
            "{name}"
        );
    }
    assert_eq!(server.requests_for(QUERY).len(), 0);
}

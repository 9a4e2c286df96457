//! The answers that an input holds, and ready ones that lead the client to where an input comes next.

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;

use super::inspect;
use crate::snowflake::script::Answer;

/// Stands between two answers, on a line of its own.
const BETWEEN: &[u8] = b"\n%%\n";

/// The statement still runs.
pub(super) const RUNNING: &str = r#"{"success": false, "code": "333333", "message": null,
    "data": {"queryId": "01a-b", "getResultUrl": "/queries/01a-b/result"}}"#;
/// The session has to be renewed.
pub(super) const EXPIRED: &str =
    r#"{"success": false, "code": "390112", "message": "expired", "data": null}"#;
/// A result with one row and one part.
pub(super) const WITH_PART: &str = r#"{"success": true, "code": null, "message": null, "data": {"queryId": "01a-b",
    "rowtype": [{"name": "A"}], "rowset": [["0"]], "total": 2, "queryResultFormat": "json", "chunkHeaders": {},
    "chunks": [{"url": "https://b.s3.us-west-2.amazonaws.com/part", "rowCount": 1}]}}"#;
/// Where a file goes, on each cloud, and on Google also by a presigned address.
pub(super) const PUTS: [&str; 4] = [
    r#"{"success": true, "data": {"command": "UPLOAD", "encryptionMaterial": {"queryStageMasterKey": "ztke8tIdVt1zmlQIZm0BMA==",
        "queryId": "01a", "smkId": 9223372036854775807}, "stageInfo": {"locationType": "S3", "location": "b/users/1/",
        "region": "us-west-2", "creds": {"AWS_KEY_ID": "AKIA", "AWS_SECRET_KEY": "s", "AWS_TOKEN": "t"}}}}"#,
    r#"{"success": true, "data": {"command": "UPLOAD", "encryptionMaterial": null, "stageInfo": {"locationType": "AZURE",
        "location": "c/users/1/", "storageAccount": "sfc1", "isClientSideEncrypted": false,
        "creds": {"AZURE_SAS_TOKEN": "sv=1&sig=2"}}}}"#,
    r#"{"success": true, "data": {"command": "UPLOAD", "encryptionMaterial": null, "stageInfo": {"locationType": "GCS",
        "location": "b/users/1/", "region": "us-west1", "creds": {"GCS_ACCESS_TOKEN": "t"}}}}"#,
    r#"{"success": true, "data": {"command": "UPLOAD", "encryptionMaterial": null, "stageInfo": {"locationType": "GCS",
        "location": "b/users/1/", "presignedUrl": "https://storage.googleapis.com/b/users/1/x?Signature=2", "creds": {}}}}"#,
];

/// A sequence of answers.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers(pub(super) Vec<Answer>);

impl Answers {
    /// Those that an input holds.
    pub(super) fn read(input: &[u8]) -> Self {
        let mut answers = Vec::new();
        let mut rest = input;
        while let Some(at) = (0..rest.len()).find(|at| rest[*at..].starts_with(BETWEEN)) {
            answers.push(answer(&rest[..at]));
            rest = &rest[at + BETWEEN.len()..];
        }
        answers.push(answer(rest));
        Self(answers)
    }

    /// One, of a body that is what it is.
    pub(super) fn of_body(body: &[u8]) -> Self {
        Self(vec![of_body(body)])
    }

    /// The same, with ready ones before them.
    pub(super) fn after(&self, ready: &[&str]) -> Self {
        let ready = ready.iter().map(|body| of_body(body.as_bytes()));
        Self(ready.chain(self.0.iter().cloned()).collect())
    }

    /// The first answer, if it has this shape.
    pub(super) fn first<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.0.first()?.body).ok()
    }

    /// Whether some answer spells `text` literally.
    pub(super) fn mention(&self, text: &str) -> bool {
        self.0.iter().any(|answer| {
            let value = serde_json::from_slice(&answer.body).unwrap_or_default();
            inspect::mentions(&answer.body, text) || inspect::holds(&value, text)
        })
    }

    /// Fails if a text repeats a secret of these answers.
    pub(super) fn expect_no_secret_in(&self, shown: &str) {
        assert!(
            !shown.contains(inspect::MARK) || !self.0.iter().all(inspect::marks_secrets_only),
            "a secret of an answer is shown: {shown}"
        );
    }
}

fn of_body(body: &[u8]) -> Answer {
    Answer {
        body: body.to_vec(),
        ..Answer::default()
    }
}

/// Reads one answer. A head that is none belongs to the body.
fn answer(input: &[u8]) -> Answer {
    head(input).unwrap_or_else(|| of_body(input))
}

fn head(input: &[u8]) -> Option<Answer> {
    let end = input.windows(2).position(|part| part == b"\n\n")?;
    let head = std::str::from_utf8(&input[..end]).ok()?;
    let mut lines = head.strip_prefix("HTTP ")?.lines();
    let status = StatusCode::from_bytes(lines.next()?.as_bytes()).ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).ok()?,
            HeaderValue::from_str(value.trim()).ok()?,
        );
    }
    Some(Answer {
        status,
        headers,
        body: input[end + 2..].to_vec(),
    })
}

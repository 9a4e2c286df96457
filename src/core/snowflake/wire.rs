//! The JSON shapes of Snowflake's driver protocol. Every field that drivers have seen missing or null is optional here.

use std::collections::HashMap;

use secrecy::SecretString;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::errors::{Asked, Defaults, Refusal, refusal};
use super::rows::Rows;
use super::text;
use crate::{Error, ErrorKind, Result};

/// What surrounds every answer. `data` differs between success, failure and progress, so it is read when that is known.
#[derive(Deserialize)]
pub(crate) struct Envelope {
    #[serde(default)]
    data: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "text_or_number")]
    pub(crate) code: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    success: Option<bool>,
    /// What was sent, and must not come back in any text.
    #[serde(skip)]
    pub(crate) secrets: Vec<SecretString>,
}

impl Envelope {
    /// An answer that does not say so is a success if it brings data and no code.
    pub(crate) fn is_success(&self) -> bool {
        self.success
            .unwrap_or(self.code.is_none() && self.data.is_some())
    }

    pub(crate) fn has_code(&self, codes: &[&str]) -> bool {
        self.failure_code()
            .is_some_and(|code| codes.contains(&code.as_str()))
    }

    /// Reads `data` as `T`, and what is not there as nothing.
    ///
    /// # Errors
    /// `Internal` if it has another shape.
    pub(crate) fn data_if_any<T: Default + for<'de> Deserialize<'de>>(&self) -> Result<T> {
        match self.data {
            None => Ok(T::default()),
            Some(_) => self.data(),
        }
    }

    /// Reads `data` as `T`.
    ///
    /// # Errors
    /// `Internal` if it is missing or has another shape. What it holds is not repeated: it may be a token.
    pub(crate) fn data<T: for<'de> Deserialize<'de>>(&self) -> Result<T> {
        let Some(data) = &self.data else {
            return Err(Error::new(
                ErrorKind::Internal,
                "Snowflake's answer holds no data",
            ));
        };
        serde_json::from_str(data.get()).map_err(|cause| {
            Error::new(
                ErrorKind::Internal,
                format!(
                    "Snowflake's answer has an unexpected shape ({:?} error at column {})",
                    cause.classify(),
                    cause.column()
                ),
            )
        })
    }

    fn failure(&self) -> FailureData {
        self.data
            .as_ref()
            .and_then(|data| serde_json::from_str(data.get()).ok())
            .unwrap_or_default()
    }

    /// The code of a failure, which some answers have beside the data and others in it.
    pub(crate) fn failure_code(&self) -> Option<String> {
        self.code.clone().or_else(|| self.failure().error_code)
    }

    /// The error that a failure is.
    pub(crate) fn refused(&self, asked: Asked, defaults: &Defaults) -> Error {
        // Again at the end: what became one word on the way may be a secret.
        self.with_refusal(asked, defaults, refusal)
            .map_texts(|text| text::mask(text, &self.secrets))
    }

    /// Calls `f` with what a failure says about itself.
    fn with_refusal<R>(
        &self,
        asked: Asked,
        defaults: &Defaults,
        f: impl FnOnce(&Refusal<'_>) -> R,
    ) -> R {
        let data = self.failure();
        // Before the text is cut to its length, which could leave half a secret.
        let message = self
            .message
            .clone()
            .map(|message| text::mask(message, &self.secrets));
        f(&Refusal {
            asked,
            code: self.code.as_deref().or(data.error_code.as_deref()),
            sqlstate: data.sql_state.as_deref(),
            message: message.as_deref(),
            query_id: data.query_id.as_deref(),
            next_action: data.next_action.as_deref(),
            defaults: Some(defaults),
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FailureData {
    #[serde(deserialize_with = "text_or_number")]
    error_code: Option<String>,
    #[serde(deserialize_with = "text_or_number")]
    sql_state: Option<String>,
    #[serde(deserialize_with = "text_or_number")]
    query_id: Option<String>,
    #[serde(deserialize_with = "text_or_number")]
    next_action: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LoginData {
    pub(crate) token: SecretString,
    #[serde(default)]
    pub(crate) master_token: Option<SecretString>,
    #[serde(default, deserialize_with = "seconds")]
    pub(crate) master_validity_in_seconds: Option<u64>,
    #[serde(default)]
    pub(crate) server_version: Option<String>,
    #[serde(default)]
    pub(crate) session_info: Option<LoginSessionInfo>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LoginSessionInfo {
    pub(crate) database_name: Option<String>,
    pub(crate) schema_name: Option<String>,
    pub(crate) warehouse_name: Option<String>,
    pub(crate) role_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RenewData {
    pub(crate) session_token: SecretString,
    #[serde(default)]
    pub(crate) master_token: Option<SecretString>,
    #[serde(default, rename = "validityInSecondsMT", deserialize_with = "seconds")]
    pub(crate) validity_in_seconds_mt: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ProgressData {
    pub(crate) query_id: Option<String>,
    pub(crate) get_result_url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct QueryData {
    pub(crate) query_id: Option<String>,
    #[serde(alias = "rowType")]
    pub(crate) rowtype: Option<Vec<RowType>>,
    pub(crate) rowset: Option<Rows>,
    pub(crate) query_result_format: Option<String>,
    /// How many rows the whole result has, which counts only where none came.
    #[serde(deserialize_with = "text_or_number")]
    pub(crate) total: Option<String>,
    pub(crate) chunks: Option<Vec<Chunk>>,
    /// An empty map and a missing one differ: only without the map does `qrmk` count.
    pub(crate) chunk_headers: Option<HashMap<String, String>>,
    pub(crate) qrmk: Option<SecretString>,
}

#[derive(Deserialize)]
pub(crate) struct RowType {
    pub(crate) name: String,
}

/// A part of a result that lies in cloud storage, behind an address that needs no further proof.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Chunk {
    pub(crate) url: SecretString,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueryBody<'a> {
    pub(crate) sql_text: &'a str,
    pub(crate) async_exec: bool,
    pub(crate) sequence_id: u64,
    pub(crate) query_submission_time: u64,
    pub(crate) describe_only: bool,
    pub(crate) is_internal: bool,
    /// Session parameters for this statement only.
    pub(crate) parameters: HashMap<&'a str, &'a str>,
}

/// The answer to a PUT statement. What it says about files of this machine (`src_locations`) is not even read.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PutData {
    pub(crate) command: Option<String>,
    pub(crate) encryption_material: Option<EncryptionMaterial>,
    pub(crate) stage_info: Option<StageInfo>,
    /// What older servers call `stageInfo`.
    pub(crate) upload_info: Option<StageInfo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EncryptionMaterial {
    pub(crate) query_stage_master_key: SecretString,
    #[serde(deserialize_with = "text_or_number")]
    pub(crate) query_id: Option<String>,
    /// Up to 2^63-1, so it is kept as text and never a float.
    #[serde(deserialize_with = "text_or_number")]
    pub(crate) smk_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct StageInfo {
    pub(crate) location_type: Option<String>,
    pub(crate) location: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) end_point: Option<String>,
    /// Azure only.
    pub(crate) storage_account: Option<String>,
    /// Google only; where it is absent, `creds` has a token.
    pub(crate) presigned_url: Option<SecretString>,
    pub(crate) use_regional_url: Option<bool>,
    pub(crate) use_virtual_url: Option<bool>,
    pub(crate) creds: Option<StageCredentials>,
    pub(crate) is_client_side_encrypted: Option<bool>,
    pub(crate) ciphers: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", default)]
pub(crate) struct StageCredentials {
    pub(crate) aws_key_id: Option<SecretString>,
    pub(crate) aws_secret_key: Option<SecretString>,
    pub(crate) aws_token: Option<SecretString>,
    pub(crate) aws_id: Option<SecretString>,
    pub(crate) aws_key: Option<SecretString>,
    pub(crate) azure_sas_token: Option<SecretString>,
    pub(crate) gcs_access_token: Option<SecretString>,
}

/// A value that some servers write as text and others as a bare number or boolean; digits are kept as they are.
pub(crate) fn text_or_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let Some(raw) = Option::<Box<RawValue>>::deserialize(deserializer)? else {
        return Ok(None);
    };
    match raw.get().as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => serde_json::from_str(raw.get())
            .map(Some)
            .map_err(de::Error::custom),
        Some(b'[' | b'{') => Err(de::Error::custom("text or a number expected")),
        _ => Ok(Some(raw.get().to_owned())),
    }
}

/// A number of seconds. What is none counts as absent: it only decides how often to give a sign of life.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(text_or_number(deserializer)?.and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(json: &str) -> Envelope {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn codes_may_be_integers_or_missing() {
        assert_eq!(
            envelope(r#"{"code": 200, "success": true}"#)
                .code
                .as_deref(),
            Some("200")
        );
        assert_eq!(
            envelope(r#"{"code": "390100", "data": null}"#)
                .code
                .as_deref(),
            Some("390100")
        );
        assert_eq!(envelope(r#"{"code": null}"#).code, None);
        assert!(!envelope("{}").is_success());
    }

    #[test]
    fn big_integers_keep_their_digits() {
        let put: PutData = envelope(
            r#"{"data": {"encryptionMaterial": {"queryStageMasterKey": "a", "queryId": "q", "smkId": 9223372036854775807}}}"#,
        )
        .data()
        .unwrap();
        assert_eq!(
            put.encryption_material.unwrap().smk_id.as_deref(),
            Some("9223372036854775807")
        );
    }

    #[test]
    fn failures_may_lack_everything() {
        for json in [
            r#"{"success": false}"#,
            r#"{"success": false, "data": null, "code": null, "message": null}"#,
            r#"{"success": false, "data": {}, "message": ""}"#,
            r#"{"success": false, "data": "odd", "message": ""}"#,
        ] {
            envelope(json).with_refusal(Asked::Statement, &Defaults::default(), |refusal| {
                assert_eq!((refusal.code, refusal.query_id), (None, None), "{json}");
            });
        }
        envelope(r#"{"success": false, "data": {"errorCode": 100046, "queryId": "q", "sqlState": "22003"}}"#)
            .with_refusal(Asked::Statement, &Defaults::default(), |refusal| {
                assert_eq!(refusal.code, Some("100046"));
                assert_eq!(refusal.sqlstate, Some("22003"));
            });
    }

    #[test]
    fn nothing_that_was_sent_comes_back() {
        let mut refused = envelope(
            r#"{"success": false, "message": "wrong: hunter2 pass", "code": "hunter2-token",
                "data": {"sqlState": "hunter2-token", "queryId": "hunter2!-token"}}"#,
        );
        refused.secrets = vec!["hunter2-token".into(), "hunter2 pass".into()];
        let error = refused.refused(Asked::Statement, &Defaults::default());
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn results_hold_text_and_null_and_bare_numbers() {
        let data: QueryData = envelope(
            r#"{"data": {"rowtype": [{"name": "A"}], "rowset": [["1", null, 2, true]], "finalRoleName": null}}"#,
        )
        .data()
        .unwrap();
        assert_eq!(
            data.rowset.unwrap().rows[0],
            [
                Some("1".to_owned()),
                None,
                Some("2".to_owned()),
                Some("true".to_owned())
            ]
        );
    }

    #[test]
    fn an_odd_shape_is_an_error_that_repeats_nothing() {
        let error = envelope(r#"{"data": {"token": ["hunter2"]}}"#)
            .data::<LoginData>()
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}

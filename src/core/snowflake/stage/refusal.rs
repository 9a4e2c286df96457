//! What storage means by its refusals.

use http::StatusCode;

use crate::snowflake::errors;
use crate::{Error, ErrorKind};

/// Why a file did not get into the storage.
#[derive(Debug)]
pub(super) struct UploadFailure {
    pub(super) error: Error,
    /// Whether new credentials may help.
    pub(super) may_be_expiry: bool,
}

impl From<Error> for UploadFailure {
    fn from(error: Error) -> Self {
        Self {
            error,
            may_be_expiry: false,
        }
    }
}

/// What a status of a storage means, and the code beside it if there is one. The three clouds say it differently when
/// credentials have expired: Amazon 400 with a code, Azure 403, Google 401, or 400 for a presigned address.
pub(super) fn refused(status: StatusCode, code: Option<&str>) -> UploadFailure {
    let said = code.map_or_else(String::new, |code| format!(", {code}"));
    let number = status.as_u16();
    let message = format!("the stage's storage refused a file (HTTP {number}{said})");
    let (kind, hint, may_be_expiry) = match (number, code) {
        (_, Some("RequestTimeTooSkewed")) => (
            ErrorKind::Configuration,
            "Set the clock of this server, for instance with NTP.",
            false,
        ),
        (_, Some("ExpiredToken" | "TokenRefreshRequired")) => (ErrorKind::Transient, "", true),
        (401 | 403, _) => (
            ErrorKind::Configuration,
            "Check that nothing between this server and the storage changes or blocks requests.",
            true,
        ),
        (429, _) | (503, Some("SlowDown" | "ServerBusy")) => (ErrorKind::Throttled, "", false),
        (408 | 500..=599, _) => (ErrorKind::Transient, "", false),
        (300..=399, _) => (
            errors::http_status(status, "").kind(),
            "Storage redirects are not followed.",
            false,
        ),
        _ => (ErrorKind::Internal, "", false),
    };
    let error = Error::new(kind, message);
    UploadFailure {
        error: if hint.is_empty() {
            error
        } else {
            error.with_hint(hint)
        },
        may_be_expiry,
    }
}

/// What stands in `<Code>` of the error answers of all three clouds.
pub(super) fn error_code(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, begun) = text.split_once("<Code>")?;
    let (code, _) = begun.split_once("</Code>")?;
    Some(crate::snowflake::text::token(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_storage_means() {
        use ErrorKind::{Configuration, Internal, Throttled, Transient};
        for (status, code, kind, may_be_expiry) in [
            (400, Some("ExpiredToken"), Transient, true),
            (400, Some("TokenRefreshRequired"), Transient, true),
            (400, Some("InvalidArgument"), Internal, false),
            (401, None, Configuration, true),
            (403, Some("AccessDenied"), Configuration, true),
            (403, Some("AuthenticationFailed"), Configuration, true),
            (403, Some("RequestTimeTooSkewed"), Configuration, false),
            (404, Some("NoSuchBucket"), Internal, false),
            (307, None, Configuration, false),
            (408, None, Transient, false),
            (429, None, Throttled, false),
            (500, None, Transient, false),
            (503, Some("SlowDown"), Throttled, false),
            (503, Some("ServerBusy"), Throttled, false),
            (503, None, Transient, false),
            (504, None, Transient, false),
        ] {
            let failure = refused(StatusCode::from_u16(status).unwrap(), code);
            assert_eq!(
                (failure.error.kind(), failure.may_be_expiry),
                (kind, may_be_expiry),
                "{status} {code:?}"
            );
            assert!(failure.error.message().contains(&status.to_string()));
        }
    }

    #[test]
    fn codes_of_errors() {
        let xml = b"<?xml version=\"1.0\"?><Error><Code>ExpiredToken</Code><Message>AKIA secret</Message></Error>";
        assert_eq!(error_code(xml).as_deref(), Some("ExpiredToken"));
        assert_eq!(error_code(b"<Error></Error>"), None);
        assert_eq!(error_code(b"\xff<Code>x</Code>"), None);
        assert_eq!(error_code(b"<Code>a\r\nb c</Code>").as_deref(), Some("abc"));
    }
}

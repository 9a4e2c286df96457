//! The error of this layer, and the one place where SQLSTATE, message and hint of an ERROR are decided.

use std::time::Duration;

use bridge_core::ErrorKind;
use pgrx::pg_sys::elog::PgLogLevel;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;
use thiserror::Error;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, Error)]
pub enum Error {
    /// From the core: Snowflake, a value, a secret.
    #[error(transparent)]
    Core(#[from] bridge_core::Error),
    /// A query on our own tables could not be run.
    #[error("internal query failed: {0}")]
    Spi(#[from] pgrx::spi::Error),
    /// The caller asked for something that cannot be done.
    #[error("{message}")]
    User {
        sqlstate: PgSqlErrorCode,
        message: String,
        hint: Option<String>,
    },
    /// An upload has to wait until its owner may send more.
    #[error("{message}")]
    NoAllowance {
        message: String,
        /// When that may be.
        delay: Duration,
    },
    /// The worker's claim is not the upload's any more.
    #[error("upload {upload} was taken over")]
    TakenOver { upload: i64 },
    /// An ERROR that PostgreSQL raised and that was caught, with its transaction rolled back.
    #[error("{message}")]
    Server {
        sqlstate: PgSqlErrorCode,
        message: String,
        hint: Option<String>,
    },
}

impl Error {
    pub fn user(sqlstate: PgSqlErrorCode, message: impl Into<String>) -> Self {
        Self::User {
            sqlstate,
            message: message.into(),
            hint: None,
        }
    }

    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        if let Self::User { hint, .. } | Self::Server { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::user(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
    }

    pub fn missing(message: impl Into<String>) -> Self {
        Self::user(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, message)
    }

    pub fn denied(message: impl Into<String>) -> Self {
        Self::user(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, message)
    }

    /// Whether it was caught because another transaction came first, which passes by itself.
    pub fn is_lost_conflict(&self) -> bool {
        matches!(
            self,
            Self::Server {
                sqlstate: PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
                    | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
                    | PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
                ..
            }
        )
    }

    /// Whether somebody else has what only one may have.
    pub fn is_unique_violation(&self) -> bool {
        matches!(
            self,
            Self::Server {
                sqlstate: PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
                ..
            }
        )
    }

    /// Whether it is more than PostgreSQL holds, in an index for instance.
    pub fn is_too_large(&self) -> bool {
        matches!(
            self,
            Self::Server {
                sqlstate: PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                ..
            }
        )
    }

    /// Whether a lock was not to be had, or not in time.
    pub fn is_lock_not_available(&self) -> bool {
        self.sqlstate_and_hint().0 == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
    }

    /// Whether somebody, or a timeout, canceled the statement.
    pub fn is_canceled(&self) -> bool {
        self.sqlstate_and_hint().0 == PgSqlErrorCode::ERRCODE_QUERY_CANCELED
    }

    /// Whether there was no room for a file.
    pub fn is_disk_full(&self) -> bool {
        self.sqlstate_and_hint().0 == PgSqlErrorCode::ERRCODE_DISK_FULL
    }

    /// SQLSTATE and hint, as they reach the user.
    pub fn sqlstate_and_hint(&self) -> (PgSqlErrorCode, Option<String>) {
        match self {
            Self::Core(error) => (
                match error.kind() {
                    _ if is_of_full_disk(error) => PgSqlErrorCode::ERRCODE_DISK_FULL,
                    ErrorKind::NeedsTable | ErrorKind::NeedsTurn => {
                        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
                    }
                    ErrorKind::Transient | ErrorKind::Throttled | ErrorKind::SessionEnded => {
                        PgSqlErrorCode::ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION
                    }
                    ErrorKind::Credentials => {
                        PgSqlErrorCode::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION
                    }
                    ErrorKind::Configuration => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    ErrorKind::Data => PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
                    ErrorKind::Canceled => PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
                    ErrorKind::Internal => PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                },
                error.hint().map(str::to_owned),
            ),
            Self::NoAllowance { .. } => (
                PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                Some(
                    "It goes on by itself when what was sent is a day old; a superuser can raise the setting."
                        .to_owned(),
                ),
            ),
            Self::Spi(_) => (PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, None),
            Self::TakenOver { .. } => (PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, None),
            Self::User { sqlstate, hint, .. } | Self::Server { sqlstate, hint, .. } => {
                (*sqlstate, hint.clone())
            }
        }
    }
}

fn is_of_full_disk(error: &bridge_core::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded))
}

impl From<CaughtError> for Error {
    fn from(caught: CaughtError) -> Self {
        let report = match &caught {
            CaughtError::PostgresError(report)
            | CaughtError::ErrorReport(report)
            | CaughtError::RustPanic {
                ereport: report, ..
            } => report,
        };
        Self::Server {
            sqlstate: report.sql_error_code(),
            message: report.message().to_owned(),
            hint: report.hint().map(str::to_owned),
        }
    }
}

impl From<Error> for ErrorReport {
    #[track_caller]
    fn from(error: Error) -> Self {
        let (sqlstate, hint) = error.sqlstate_and_hint();
        let report = ErrorReport::new(sqlstate, error.to_string(), "snowflake_bridge");
        match hint {
            Some(hint) => report.set_hint(hint),
            None => report,
        }
    }
}

/// Writes to the server log, and to nobody's client, at LOG.
pub fn log_message(message: &str) {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        message.to_owned(),
        "snowflake_bridge",
    )
    .report(PgLogLevel::LOG);
}

/// Writes an error to the server log at LOG (an ERROR would end the worker), with its SQLSTATE and hint.
pub fn log_error(context: &str, error: &Error) {
    let (sqlstate, hint) = error.sqlstate_and_hint();
    let report = ErrorReport::new(sqlstate, format!("{context}: {error}"), "snowflake_bridge");
    match hint {
        Some(hint) => report.set_hint(hint),
        None => report,
    }
    .report(PgLogLevel::LOG);
}

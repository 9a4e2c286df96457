//! The one error type of this crate. Its kind says what the caller does next; its fields say what to tell the user.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Shorthand for a result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller does next. Decided by codes and states, never by the text of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// May succeed on its own: network, throttling, a server error, a lost answer. Try again later.
    Transient,
    /// The other side asks to slow down. Try again later, with fewer at once.
    Throttled,
    /// The session is gone, and with it its transaction and temporary objects. Log in again and go on from what is recorded.
    SessionEnded,
    /// Snowflake refused who we are. Never tried again until the configuration changes: repeated tries lock the user out.
    Credentials,
    /// A name, privilege, host, key file or setting has to be corrected by somebody.
    Configuration,
    /// The data cannot be held by the target as it is.
    Data,
    /// What has to be done to the table may not happen beside other loads. Nothing was begun; try again as the only one.
    NeedsTable,
    /// It is not known yet who else is at the table. Nothing was begun; try again in turn.
    NeedsTurn,
    /// Somebody asked us to stop.
    Canceled,
    /// Snowflake or this program behaved in a way that nobody planned for.
    Internal,
}

impl ErrorKind {
    /// Whether the same work may succeed later without anybody's help.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Transient
                | Self::Throttled
                | Self::SessionEnded
                | Self::NeedsTable
                | Self::NeedsTurn
        )
    }
}

/// A failure, with what is needed to act on it. Cheap to move: one pointer.
pub struct Error(Box<Repr>);

struct Repr {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    code: Option<String>,
    sqlstate: Option<String>,
    query_id: Option<String>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    is_local: bool,
}

impl Error {
    /// An error of `kind`; the message is lower case, without a full stop, and never holds a secret or a cell's value.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Repr {
            kind,
            message: message.into(),
            hint: None,
            code: None,
            sqlstate: None,
            query_id: None,
            retry_after: None,
            source: None,
            is_local: false,
        }))
    }

    /// Adds a full sentence that tells the user what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds Snowflake's own code, six digits.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.0.code = Some(code.into());
        self
    }

    /// Adds the SQLSTATE that Snowflake reported.
    #[must_use]
    pub fn with_sqlstate(mut self, sqlstate: impl Into<String>) -> Self {
        self.0.sqlstate = Some(sqlstate.into());
        self
    }

    /// Adds the id under which Snowflake's query history knows the statement.
    #[must_use]
    pub fn with_query_id(mut self, query_id: impl Into<String>) -> Self {
        self.0.query_id = Some(query_id.into());
        self
    }

    /// Adds the earliest time at which a retry makes sense, as the other side asked for.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// Says that the cause is on this machine, so that Snowflake's account is not suspected.
    #[must_use]
    pub fn on_this_machine(mut self) -> Self {
        self.0.is_local = true;
        self
    }

    /// Puts in front what was being done, and adds what else the user can do.
    #[must_use]
    pub fn in_context(mut self, doing: impl fmt::Display, hint: impl fmt::Display) -> Self {
        self.0.message = format!("{doing}: {}", self.0.message);
        self.0.hint = Some(match self.0.hint.take() {
            Some(first) => format!("{first} {hint}"),
            None => hint.to_string(),
        });
        self
    }

    /// Changes every text that can be seen, as for taking out what must not be.
    #[must_use]
    pub(crate) fn map_texts(mut self, change: impl Fn(String) -> String) -> Self {
        let Repr {
            message,
            hint,
            code,
            sqlstate,
            query_id,
            ..
        } = &mut *self.0;
        for text in [Some(message)]
            .into_iter()
            .chain([
                hint.as_mut(),
                code.as_mut(),
                sqlstate.as_mut(),
                query_id.as_mut(),
            ])
            .flatten()
        {
            *text = change(std::mem::take(text));
        }
        self
    }

    /// Keeps the cause, which [`StdError::source`] then gives.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What the caller does next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What went wrong, for the user.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Snowflake's own code.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The SQLSTATE that Snowflake reported.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        self.0.sqlstate.as_deref()
    }

    /// Snowflake's id of the failed statement.
    #[must_use]
    pub fn query_id(&self) -> Option<&str> {
        self.0.query_id.as_deref()
    }

    /// How long to wait at least before a retry.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the cause is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.0.is_local
    }
}

impl fmt::Display for Error {
    /// The message, then what identifies it on Snowflake's side.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let mut separator = " (Snowflake ";
        for (label, value) in [
            ("code", &self.0.code),
            ("SQLSTATE", &self.0.sqlstate),
            ("query", &self.0.query_id),
        ] {
            if let Some(value) = value {
                write!(f, "{separator}{label} {value}")?;
                separator = ", ";
            }
        }
        if separator == ", " {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)?;
        let mut cause = self.source();
        while let Some(source) = cause {
            write!(f, ": {source}")?;
            cause = source.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_what_snowflake_knows() {
        let plain = Error::new(ErrorKind::Data, "column \"a\" holds a date");
        assert_eq!(plain.to_string(), "column \"a\" holds a date");
        let full = Error::new(ErrorKind::Configuration, "no such table")
            .with_code("002003")
            .with_sqlstate("02000")
            .with_query_id("01a");
        assert_eq!(
            full.to_string(),
            "no such table (Snowflake code 002003, SQLSTATE 02000, query 01a)"
        );
    }

    #[test]
    fn every_text_can_be_changed() {
        let error = Error::new(ErrorKind::Data, "a b")
            .with_hint("b")
            .with_code("b1")
            .with_sqlstate("b2")
            .with_query_id("b3")
            .map_texts(|text| text.replace('b', "x"));
        assert_eq!(
            error.to_string(),
            "a x (Snowflake code x1, SQLSTATE x2, query x3)"
        );
        assert_eq!(error.hint(), Some("x"));
    }

    #[test]
    fn what_is_tried_again() {
        use ErrorKind::*;
        for kind in [Credentials, Configuration, Data, Canceled, Internal] {
            assert!(!kind.is_retryable());
        }
        assert!(Transient.is_retryable() && SessionEnded.is_retryable());
    }
}

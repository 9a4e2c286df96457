//! One login at a time for each configuration. Many uploads begin at once, and five wrong passwords lock a user out:
//! whoever waited behind a refused login is refused with it, without asking Snowflake again.

use std::future::Future;
use std::sync::Mutex;
use std::time::Instant;

use super::transport::lock;
use crate::{Error, ErrorKind, Result};

/// What is known of one configuration's credentials.
#[derive(Default)]
pub(super) struct Gate {
    turn: tokio::sync::Mutex<()>,
    refused: Mutex<Option<(Instant, Refusal)>>,
}

/// An error to be given more than once.
#[derive(Clone)]
struct Refusal {
    message: String,
    hint: Option<String>,
    code: Option<String>,
}

impl Gate {
    /// Runs `login`, unless the credentials, as they were read at `read_at`, have been refused since.
    pub(super) async fn pass<T>(
        &self,
        read_at: Instant,
        login: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let _turn = self.turn.lock().await;
        if let Some((refused_at, refusal)) = &*lock(&self.refused)
            && *refused_at >= read_at
        {
            return Err(refusal.clone().into());
        }
        let result = login.await;
        if let Err(error) = &result
            && error.kind() == ErrorKind::Credentials
        {
            *lock(&self.refused) = Some((Instant::now(), Refusal::from(error)));
        }
        result
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        Self {
            message: error.message().to_owned(),
            hint: error.hint().map(str::to_owned),
            code: error.code().map(str::to_owned),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let mut error = Self::new(ErrorKind::Credentials, refusal.message);
        if let Some(hint) = refusal.hint {
            error = error.with_hint(hint);
        }
        if let Some(code) = refusal.code {
            error = error.with_code(code);
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_waits_behind_a_refused_login_is_refused_with_it() {
        let gate = Gate::default();
        let logins = AtomicUsize::new(0);
        let read_at = Instant::now();
        let attempt = || {
            gate.pass(read_at, async {
                logins.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
                Err::<(), _>(
                    Error::new(ErrorKind::Credentials, "wrong password").with_code("390100"),
                )
            })
        };
        let (first, second, third) = tokio::join!(attempt(), attempt(), attempt());
        for refused in [first, second, third] {
            let error = refused.unwrap_err();
            assert_eq!(
                (error.kind(), error.code()),
                (ErrorKind::Credentials, Some("390100"))
            );
        }
        assert_eq!(logins.load(Ordering::Relaxed), 1);

        // Read again after the refusal, the configuration may have changed.
        let again = gate.pass(Instant::now(), async { Ok(()) }).await;
        assert!(again.is_ok());
    }
}

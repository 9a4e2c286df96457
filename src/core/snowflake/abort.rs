//! Ending a statement in Snowflake that nobody waits for any more.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::errors::{Defaults, NOT_EXECUTING, SESSION_EXPIRED};
use super::farewell;
use super::tokens::Tokens;
use super::transport::{Call, Purpose, Transport};

/// Longer than the usual trouble, and short beside what a caller who has just lost an answer has waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two such answers, doubled each time: a statement that is on its way arrives soon.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The server says "not executing" also of a statement that it has not begun; drivers ask so often.
const TRIES: u32 = 5;

/// Aborts a statement when it is dropped, unless [`AbortOnDrop::disarm`] came first.
pub(crate) struct AbortOnDrop(Option<Running>);

struct Running {
    transport: Arc<Transport>,
    tokens: Tokens,
    request_id: Uuid,
}

impl AbortOnDrop {
    pub(crate) fn new(transport: &Arc<Transport>, tokens: &Tokens, request_id: Uuid) -> Self {
        Self(Some(Running {
            transport: Arc::clone(transport),
            tokens: tokens.clone(),
            request_id,
        }))
    }

    /// Aborts the statement and waits until Snowflake says that it does not run, or for [`PATIENCE`]; whether it said so.
    pub(crate) async fn now(mut self) -> bool {
        match self.0.take() {
            Some(running) => tokio::time::timeout(PATIENCE, running.abort())
                .await
                .unwrap_or(false),
            None => true,
        }
    }

    /// The statement has been answered.
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            farewell::say(async move {
                // Whoever dropped the statement learns nothing of it.
                running.abort().await;
            });
        }
    }
}

impl Running {
    /// Whether Snowflake said that the statement does not run.
    async fn abort(self) -> bool {
        let unknown = Arc::new(Defaults::default());
        let mut wait = FIRST_WAIT;
        for _ in 0..TRIES {
            let token = self.tokens.session();
            let call = Call::new(Purpose::Abort, Some(&token));
            let body = || Ok(json!({"requestId": self.request_id.to_string()}));
            match self.transport.call(&call, body).await {
                Ok(envelope) if envelope.is_success() => return true,
                Ok(envelope) if envelope.has_code(&[SESSION_EXPIRED]) => {
                    let renewed = self.tokens.renew(&self.transport, token, &unknown).await;
                    if renewed.is_err() {
                        return false;
                    }
                }
                Ok(envelope) if envelope.has_code(&[NOT_EXECUTING]) => {
                    tokio::time::sleep(wait).await;
                    wait = wait.saturating_mul(2);
                }
                _ => return false,
            }
        }
        // Asked so often, it is over.
        true
    }
}

//! Signs of life for a session that is in use and yet silent, as while a large file is put.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::errors::{Defaults, SESSION_EXPIRED};
use super::tokens::Tokens;
use super::transport::{Call, Purpose, Transport};

/// Drivers let a quarter of the master token's life pass between heartbeats, within these bounds.
const SHORTEST: Duration = Duration::from_secs(900);
const LONGEST: Duration = Duration::from_secs(3600);

/// Sends heartbeats until it is dropped.
#[derive(Debug)]
pub(crate) struct Heartbeat(Option<JoinHandle<()>>);

impl Heartbeat {
    /// Begins to send heartbeats, the first after one interval; `every` replaces what follows from the master token.
    pub(crate) fn start(
        transport: &Arc<Transport>,
        tokens: &Tokens,
        defaults: &Arc<Defaults>,
        every: Option<Duration>,
    ) -> Self {
        let (transport, tokens, defaults) =
            (Arc::clone(transport), tokens.clone(), Arc::clone(defaults));
        let beats = async move {
            loop {
                let pause = every.unwrap_or_else(|| interval(tokens.master_life()));
                tokio::time::sleep(pause).await;
                beat(&transport, &tokens, &defaults).await;
            }
        };
        Self(
            Handle::try_current()
                .ok()
                .map(|runtime| runtime.spawn(beats)),
        )
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

fn interval(master_life: Duration) -> Duration {
    (master_life / 4).clamp(SHORTEST, LONGEST)
}

/// Best effort: a session that has ended is noticed by the next statement.
async fn beat(transport: &Arc<Transport>, tokens: &Tokens, defaults: &Arc<Defaults>) {
    let token = tokens.session();
    let call = Call::new(Purpose::Heartbeat, Some(&token));
    let answer = transport.call(&call, || Ok(Value::Null)).await;
    if answer.is_ok_and(|envelope| envelope.has_code(&[SESSION_EXPIRED])) {
        let _ = tokens.renew(transport, token, defaults).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_masters_life() {
        let seconds = |life| interval(Duration::from_secs(life)).as_secs();
        assert_eq!(seconds(14_400), 3600);
        assert_eq!(seconds(8_000), 2000);
        assert_eq!(seconds(60), 900);
        assert_eq!(seconds(1_000_000), 3600);
    }
}

//! Executions that triggers could not enter in the queue, and have left word of. Where they still cannot be entered, they are tried
//! more and more rarely, and hold up nothing else.

use std::time::{Duration, Instant};

use crate::error::{Result, log_error};
use crate::{tx, uploads};

/// After the first time that some cannot be entered; doubled with each further one, up to the other.
const DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(60);
/// How long they may take in one pass over the queue.
const PATIENCE: Duration = Duration::from_millis(200);

pub(super) struct Missed {
    /// When they are tried again.
    due: Instant,
    delay: Duration,
    /// They cannot all be entered together, and are tried block by block of their table: which block comes next.
    block: Option<i64>,
}

impl Missed {
    pub(super) fn new() -> Self {
        Self {
            due: Instant::now(),
            delay: DELAY,
            block: None,
        }
    }

    /// Enters them in the queue, as far as that can be done now. Returns when to go on.
    ///
    /// # Errors
    /// If another transaction comes first: then they are tried with the next look at the queue.
    pub(super) fn enter(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        if self.due > begun {
            return Ok(self.due - begun);
        }
        let mut block = match self.block.take() {
            Some(block) => block,
            None => match tx::transaction(uploads::enqueue_missed) {
                Ok(()) => {
                    *self = Self::new();
                    return Ok(Duration::ZERO);
                }
                Err(error) if error.is_lost_conflict() => return Err(error),
                Err(error) => {
                    log_error(
                        "snowflake_bridge: some executions cannot be entered in the queue",
                        &error,
                    );
                    0
                }
            },
        };
        while tx::transaction(|| uploads::enqueue_missed_of_block(block))? {
            block += 1;
            if begun.elapsed() >= PATIENCE {
                self.block = Some(block);
                return Ok(Duration::ZERO);
            }
        }
        let delay = self.delay;
        self.due = Instant::now() + delay;
        self.delay = (delay * 2).min(MAX_DELAY);
        Ok(delay)
    }
}

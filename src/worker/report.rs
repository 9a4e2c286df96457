//! What the network thread tells the main thread, and what it waits for.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use bridge_core::snowflake::PoolKey;
use bridge_core::snowflake::sql::TableName;
use bridge_core::upload::{Outcome, Phase};
use bridge_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::net::EventFd;
use crate::uploads::Claim;

/// What the network thread tells the main thread about an upload.
pub enum Event {
    /// Shown to whoever asks; may be lost.
    Progress {
        claim: Claim,
        phase: Phase,
        staged: u64,
    },
    /// Snowflake has let the upload in.
    Connected { claim: Claim },
    /// Must be durable before the answer is sent; the upload waits for it.
    Record {
        claim: Claim,
        entry: Entry,
        answer: oneshot::Sender<Result<()>>,
    },
    /// The last word on this attempt. Sent back is that it was recorded: then what the attempt left is this worker's to
    /// tidy up.
    Finished {
        claim: Claim,
        target: Option<String>,
        result: Result<Outcome>,
        /// If it failed: whether it is still open what becomes of the rows.
        is_undecided: bool,
        recorded: oneshot::Sender<()>,
    },
    /// What the upload has shared with others has failed, for whatever reason: it is to be loaded by itself, or ends because
    /// somebody wanted that. Sent back as above.
    Parted {
        claim: Claim,
        error: Arc<Error>,
        is_canceled: bool,
        is_undecided: bool,
        recorded: oneshot::Sender<()>,
    },
    /// The files that an upload has left up to this claim are gone from the stage.
    Cleaned { claim: Claim },
    /// No more files are removed for now.
    CleaningEnded { config: PoolKey, result: Result<()> },
    /// Nobody has looked through the stage after all.
    NotSwept { config: Uuid },
    /// Directories of uploads that lie in a stage, and whether they are old; the answer is of which the files may go, and up to
    /// which claim.
    FoundInStage {
        found: Vec<(Uuid, bool)>,
        answer: oneshot::Sender<Vec<(Uuid, i32)>>,
    },
}

pub enum Entry {
    Staged,
    Copying {
        transaction: String,
        target: TableName,
        rows: u64,
        bytes: u64,
    },
}

/// Sends events to the main thread and wakes it.
#[derive(Clone)]
pub struct Reporter {
    pub events: Sender<Event>,
    pub wake: Arc<EventFd>,
}

impl Reporter {
    /// Tells the main thread.
    ///
    /// # Errors
    /// `Canceled` if it is ending.
    pub(super) fn send(&self, event: Event) -> Result<()> {
        self.events
            .send(event)
            .map_err(|_| Error::new(ErrorKind::Canceled, "the worker is shutting down"))?;
        self.wake.signal();
        Ok(())
    }

    pub(super) async fn record(&self, claim: Claim, entry: Entry) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.send(Event::Record {
            claim,
            entry,
            answer,
        })?;
        answered
            .await
            .map_err(|_| Error::new(ErrorKind::Canceled, "the worker is shutting down"))?
    }

    /// The upload goes on by itself, or ends. Returns as [`finish`](Self::finish).
    pub(super) async fn part(
        &self,
        claim: Claim,
        error: Arc<Error>,
        is_canceled: bool,
        is_undecided: bool,
    ) -> bool {
        let (recorded, is_recorded) = oneshot::channel();
        let event = Event::Parted {
            claim,
            error,
            is_canceled,
            is_undecided,
            recorded,
        };
        self.send(event).is_ok() && is_recorded.await.is_ok()
    }

    /// Returns whether it was recorded: not if another claim has taken the upload over, whose files are in the stage.
    pub(super) async fn finish(
        &self,
        claim: Claim,
        target: Option<String>,
        result: Result<Outcome>,
        is_undecided: bool,
    ) -> bool {
        let (recorded, is_recorded) = oneshot::channel();
        let event = Event::Finished {
            claim,
            target,
            result,
            is_undecided,
            recorded,
        };
        self.send(event).is_ok() && is_recorded.await.is_ok()
    }
}

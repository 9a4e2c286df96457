//! The ledger of an upload on the network thread: what must become durable is recorded by the main thread.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bridge_core::Result;
use bridge_core::snowflake::sql::TableName;
use bridge_core::upload::{Ledger, Phase};
use tokio::sync::watch;

use super::report::{Entry, Event, Reporter};
use crate::uploads::Claim;

/// What is known of an attempt, whatever became of it.
pub(super) struct State {
    /// Whether it is open what becomes of the rows: nobody can stop the upload then.
    is_undecided: watch::Sender<bool>,
    /// The transaction of the last load.
    transaction: Mutex<Option<String>>,
}

impl State {
    pub(super) fn new(is_undecided: bool) -> Self {
        Self {
            is_undecided: watch::Sender::new(is_undecided),
            transaction: Mutex::new(None),
        }
    }

    pub(super) fn is_undecided(&self) -> bool {
        *self.is_undecided.borrow()
    }

    /// Waits until nothing is open.
    pub(super) async fn decided(&self) {
        // The sender is ours, so there is always an answer.
        let _ = self
            .is_undecided
            .subscribe()
            .wait_for(|undecided| !undecided)
            .await;
    }

    pub(super) fn into_transaction(self) -> Option<String> {
        self.transaction
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an upload on the network thread records through the main thread.
pub(super) struct WorkerLedger<'a> {
    pub claim: Claim,
    pub reporter: &'a Reporter,
    pub state: &'a State,
    pub target: TableName,
    pub bytes: u64,
}

#[async_trait]
impl Ledger for WorkerLedger<'_> {
    async fn staged(&self) -> Result<()> {
        self.reporter.record(self.claim, Entry::Staged).await
    }

    async fn copying(&self, transaction: &str, rows: u64) -> Result<()> {
        let transaction = transaction.to_owned();
        *self
            .state
            .transaction
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(transaction.clone());
        let entry = Entry::Copying {
            transaction,
            target: self.target.clone(),
            rows,
            bytes: self.bytes,
        };
        self.reporter.record(self.claim, entry).await
    }

    fn rolled_back(&self) {
        self.state.is_undecided.send_replace(false);
    }

    fn progress(&self, phase: Phase, staged: u64) {
        self.state
            .is_undecided
            .send_replace(phase == Phase::Committing);
        // Lost only when the worker is shutting down, and then nobody is left to look.
        let _ = self.reporter.send(Event::Progress {
            claim: self.claim,
            phase,
            staged,
        });
    }
}

//! A ledger in memory.

use std::sync::Mutex;

use async_trait::async_trait;

use super::{Ledger, Phase};
use crate::error::Result;

/// What the next attempt would read back.
#[derive(Default)]
pub(super) struct FakeLedger {
    pub(super) staged: Mutex<bool>,
    pub(super) transaction: Mutex<Option<String>>,
    pub(super) rows: Mutex<u64>,
    /// Whether it is open what becomes of the rows.
    pub(super) is_undecided: Mutex<bool>,
}

#[async_trait]
impl Ledger for FakeLedger {
    async fn staged(&self) -> Result<()> {
        *self.staged.lock().unwrap() = true;
        Ok(())
    }

    async fn copying(&self, transaction: &str, rows: u64) -> Result<()> {
        *self.rows.lock().unwrap() = rows;
        *self.transaction.lock().unwrap() = Some(transaction.to_owned());
        Ok(())
    }

    fn rolled_back(&self) {
        *self.is_undecided.lock().unwrap() = false;
    }

    fn progress(&self, phase: Phase, _: u64) {
        *self.is_undecided.lock().unwrap() = phase == Phase::Committing;
    }
}

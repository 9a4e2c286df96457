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
}

#[async_trait]
impl Ledger for FakeLedger {
    async fn staged(&self) -> Result<()> {
        *self.staged.lock().unwrap() = true;
        Ok(())
    }

    async fn copying(&self, transaction: &str) -> Result<()> {
        *self.transaction.lock().unwrap() = Some(transaction.to_owned());
        Ok(())
    }

    fn progress(&self, _: Phase, _: u64) {}
}

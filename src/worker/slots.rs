//! How many uploads do more than knock at the same time.

use std::sync::Arc;

use bridge_core::fairness::BESIDE;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Shared by the uploads of all owners, and beside them what is for the first upload of an owner only.
#[derive(Clone)]
pub(super) struct Slots {
    shared: Arc<Semaphore>,
    beside: Arc<Semaphore>,
}

impl Slots {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            shared: Arc::new(Semaphore::new(slots)),
            beside: Arc::new(Semaphore::new((BESIDE - 1) * slots)),
        }
    }

    /// Waits for a slot. `None` if there are no more, which never happens: they are not closed.
    pub(super) async fn acquire(&self, is_first_of_owner: bool) -> Option<SemaphorePermit<'_>> {
        let acquired = tokio::select! {
            biased;
            acquired = self.shared.acquire() => acquired,
            acquired = self.beside.acquire(), if is_first_of_owner => acquired,
        };
        acquired.ok()
    }
}

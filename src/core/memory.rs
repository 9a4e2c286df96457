//! How much memory a process takes for results, whatever their size: one number that everything which holds rows or
//! bytes of files takes its part of.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const MB: u64 = 1 << 20;

/// The bytes that one process may hold of what it reads and sends. A single value is held up to twice besides: where it
/// comes from, and where it goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimit(u64);

impl Default for MemoryLimit {
    /// 256 MB: what is gained by more is not worth asking for, see the parts below.
    fn default() -> Self {
        Self(256 * MB)
    }
}

impl MemoryLimit {
    /// A limit of that many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The whole, in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// Rows that were fetched and not looked at yet; what is more waits on disk. 8 MB of 256.
    #[must_use]
    pub fn fetched(self) -> usize {
        self.part(32).min(64 << 20)
    }

    /// Values that are collected before they are encoded: 8 MB of 256, plenty to make the cost of a batch disappear.
    #[must_use]
    pub fn batch(self) -> usize {
        self.part(32).min(64 << 20)
    }

    /// Encoded rows that wait for their row group to end: 32 MB of 256, some row groups to a file of the usual size.
    /// Snowflake reads them in parallel.
    #[must_use]
    pub fn row_group(self) -> usize {
        self.part(8).min(256 << 20)
    }

    /// What the values of one row may take besides the largest of them. They are in memory together, more than once.
    #[must_use]
    pub fn row(self) -> usize {
        self.part(8)
    }

    /// Parts of files that are on their way: half, since a process may read meanwhile.
    #[must_use]
    pub fn sending(self) -> usize {
        self.part(2)
    }

    fn part(self, divisor: u64) -> usize {
        usize::try_from(self.0 / divisor).unwrap_or(usize::MAX)
    }
}

/// Memory for parts of files on their way, shared by all uploads of a process: who finds none left waits, in turn.
#[derive(Debug, Clone)]
pub struct SendMemory {
    free: Arc<Semaphore>,
    kilobytes: u32,
}

/// Memory that was taken; dropping it gives it back.
#[derive(Debug)]
pub struct Taken {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for SendMemory {
    fn default() -> Self {
        Self::new(MemoryLimit::default())
    }
}

impl SendMemory {
    /// The share of `limit` that is for sending.
    #[must_use]
    pub fn new(limit: MemoryLimit) -> Self {
        let kilobytes = u32::try_from(limit.sending() >> 10)
            .unwrap_or(u32::MAX)
            .max(1);
        Self {
            free: Arc::new(Semaphore::new(kilobytes as usize)),
            kilobytes,
        }
    }

    /// Takes `bytes`, once they are free. What is more than there is at all counts as all of it: it then goes alone.
    pub async fn take(&self, bytes: usize) -> Taken {
        let permit = Arc::clone(&self.free)
            .acquire_many_owned(self.kilobytes_of(bytes))
            .await;
        Taken {
            // An error says that the semaphore was closed, which nobody does.
            _permit: permit.ok(),
        }
    }

    /// Takes `bytes` if they are free now.
    #[must_use]
    pub fn try_take(&self, bytes: usize) -> Option<Taken> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(self.kilobytes_of(bytes));
        permit.ok().map(|permit| Taken {
            _permit: Some(permit),
        })
    }

    fn kilobytes_of(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(1 << 10))
            .unwrap_or(u32::MAX)
            .min(self.kilobytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_usual_limit() {
        let limit = MemoryLimit::default();
        assert_eq!(limit.bytes(), 256 << 20);
        assert_eq!((limit.fetched(), limit.batch()), (8 << 20, 8 << 20));
        assert_eq!((limit.row_group(), limit.row()), (32 << 20, 32 << 20));
        assert_eq!(limit.sending(), 128 << 20);
        // A column of a batch has less than 2 GB, and so has a page of a file.
        let limit = MemoryLimit::new(u64::MAX);
        assert_eq!((limit.batch(), limit.row_group()), (64 << 20, 256 << 20));
    }

    #[tokio::test]
    async fn who_finds_no_memory_waits_for_it() {
        let memory = SendMemory::new(MemoryLimit::new(2 << 20));
        let first = memory.take(600 << 10).await;
        assert!(memory.try_take(600 << 10).is_none());
        let second = memory.try_take(400 << 10).unwrap();
        drop(first);
        drop(memory.take(600 << 10).await);
        drop(second);
        // More than there is takes all of it.
        let all = memory.take(usize::MAX).await;
        assert!(memory.try_take(1).is_none());
        drop(all);
        assert!(memory.try_take(1).is_some());
    }
}

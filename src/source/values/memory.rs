//! Memory for one value at a time: whatever PostgreSQL's functions leave behind goes with the value.
#![allow(unsafe_code)]

use pgrx::pg_sys;

use crate::memory::InMemory;

/// A memory context that is emptied after every value. It goes with the context it was made in.
pub(super) struct ValueMemory(pg_sys::MemoryContext);

impl ValueMemory {
    /// # Safety
    /// On the main thread, inside a transaction; the current memory context outlives the result.
    pub(super) unsafe fn new() -> Self {
        // SAFETY: as the caller promises; the name is a constant, as PostgreSQL asks.
        Self(unsafe {
            pg_sys::AllocSetContextCreateExtended(
                pg_sys::CurrentMemoryContext,
                c"snowflake_bridge value".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        })
    }

    /// Runs `work` in this memory, and empties it.
    pub(super) fn scoped<T>(&self, work: impl FnOnce() -> T) -> T {
        // SAFETY: the context lives, see `new`.
        unsafe {
            let memory = InMemory::of(self.0);
            let result = work();
            drop(memory);
            pg_sys::MemoryContextReset(self.0);
            result
        }
    }
}

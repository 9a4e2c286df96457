//! Where PostgreSQL allocates, and what the C library's allocator keeps.
#![allow(unsafe_code)]

use pgrx::pg_sys;

/// What is allocated while this lives comes from this memory, whichever way it ends.
pub struct InMemory(pg_sys::MemoryContext);

impl InMemory {
    /// # Safety
    /// On the main thread, with memory that outlives this.
    pub unsafe fn of(memory: pg_sys::MemoryContext) -> Self {
        // SAFETY: as the caller promises.
        Self(unsafe { pg_sys::MemoryContextSwitchTo(memory) })
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        // SAFETY: the memory that was used before, which outlives what is done in between.
        unsafe { pg_sys::MemoryContextSwitchTo(self.0) };
    }
}

/// Has the C library's allocator give back to the system what it keeps of memory that was freed. It takes its locks: any thread may do this.
pub fn give_back() {
    // SAFETY: the allocator's own housekeeping.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

//! Memory that nobody uses any more goes back to the system. The allocator would keep it, and for each thread that has encrypted a
//! file some more: after thousands of uploads far more than they ever needed at one time.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use crate::memory::give_back;

/// Between two times that it is given back, while there is always something to do and when there is not.
const BUSY: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_secs(10);

/// Has all threads of this process share what the allocator keeps. Takes effect for threads that start later.
pub(super) fn share_among_threads() {
    /// The main thread's, and one for all others, which wait for the network most of the time.
    #[cfg(target_env = "gnu")]
    const ARENAS: libc::c_int = 2;
    // SAFETY: sets a number of the allocator's.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// When memory was given back, and whether anything was done since.
pub(super) struct Spare {
    is_any: bool,
    /// Nothing if it is to be given back at once.
    given_back: Option<Instant>,
}

impl Spare {
    pub(super) fn new() -> Self {
        Self {
            is_any: false,
            given_back: Some(Instant::now()),
        }
    }

    /// Has it given back at once.
    pub(super) fn begin_anew(&mut self) {
        *self = Self {
            is_any: true,
            given_back: None,
        };
    }

    /// Gives back what uploads have left, now and then.
    pub(super) fn give_back(&mut self, is_busy: bool) {
        self.is_any |= is_busy;
        let pause = if is_busy { BUSY } else { QUIET };
        let is_due = self.given_back.is_none_or(|at| at.elapsed() >= pause);
        if !(self.is_any && is_due) {
            return;
        }
        give_back();
        *self = Self {
            is_any: is_busy,
            given_back: Some(Instant::now()),
        };
    }
}

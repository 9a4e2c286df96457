//! What a thread wakes the main thread with.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A counter that the kernel lets one thread signal and another wait for beside its latch.
pub struct EventFd(OwnedFd);

impl EventFd {
    pub(super) fn new() -> std::io::Result<Self> {
        // SAFETY: a system call without pointers; a valid result is a descriptor that nobody else owns.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: just made, see above.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes the waiter's descriptor readable. May be called from any thread.
    pub fn signal(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: writes eight bytes from a live buffer. It can fail only when 2^64-2 signals are pending, and then
        // the descriptor is readable anyway.
        unsafe {
            libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len());
        }
    }

    pub(super) fn clear(&self) {
        let mut count = [0_u8; 8];
        // SAFETY: reads at most eight bytes into a live buffer; "would block" means there was nothing to clear.
        unsafe {
            libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len());
        }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

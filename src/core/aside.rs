//! Work on a thread of its own, so that the one that asked for it goes on meanwhile, and can be stopped where it waits.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Between two looks whether somebody wants the thread to stop that waits.
const SHORT: Duration = Duration::from_millis(20);

/// Has a thread do something. Threads that it starts in turn inherit its signal mask.
type Start = fn(Box<dyn FnOnce() + Send>) -> std::io::Result<()>;

/// How to have work done by others, and how to be stopped meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Aside {
    /// Starts a thread; nothing where one thread does everything.
    pub start: Option<Start>,
    /// Returns at once, unless somebody wants this thread to stop: then it may unwind.
    pub check: fn(),
    /// Does something while this thread gets no signals, as threads that it starts meanwhile never do.
    pub without_signals: fn(&mut dyn FnMut()),
    /// Has the allocator give back what it keeps of memory that was freed. May be called on any thread.
    pub give_back: fn(),
}

impl Default for Aside {
    /// Everything on this thread, which nobody stops.
    fn default() -> Self {
        Self {
            start: None,
            check: || (),
            without_signals: |work| work(),
            give_back: || (),
        }
    }
}

impl Aside {
    /// What another thread tells; nothing if it ended without a word.
    pub(crate) fn wait<T>(self, receiver: &Receiver<T>) -> Option<T> {
        loop {
            match receiver.recv_timeout(SHORT) {
                Ok(told) => return Some(told),
                Err(RecvTimeoutError::Timeout) => (self.check)(),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn who_waits_is_told_or_stopped() {
        let (sender, receiver) = mpsc::channel();
        sender.send(7).unwrap();
        assert_eq!(Aside::default().wait(&receiver), Some(7));
        let stopped = Aside {
            check: || panic!("stop"),
            ..Aside::default()
        };
        let waiting = std::panic::AssertUnwindSafe(&receiver);
        assert!(catch_unwind(|| stopped.wait(&waiting)).is_err());
        drop(sender);
        assert_eq!(stopped.wait(&receiver), None);
    }
}

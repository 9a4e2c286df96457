//! Work that takes long in one piece, such as the compression of a large value: done on another thread, so that the one that
//! asked for it can be stopped meanwhile.

use std::fs::File;
use std::io::Write;
use std::sync::mpsc;

use crate::error::{Error, ErrorKind, Result};

/// Bytes that a disk takes within milliseconds, unless it is in trouble.
const PIECE: usize = 1 << 20;

/// How to be stopped: both functions may unwind where somebody wants this thread to stop.
#[derive(Debug, Clone, Copy)]
pub struct Aside {
    /// Has work done and returns when it is. If it unwinds, the work goes on for nobody.
    pub run: fn(Box<dyn FnOnce() + Send>),
    /// Returns at once where nobody wants that.
    pub check: fn(),
}

impl Default for Aside {
    /// Everything on this thread, which nobody stops.
    fn default() -> Self {
        Self {
            run: |work| work(),
            check: || (),
        }
    }
}

impl Aside {
    /// What `work` returns.
    ///
    /// # Errors
    /// `Internal` if the work did not end, because it panicked say.
    pub fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (sender, receiver) = mpsc::channel();
        (self.run)(Box::new(move || {
            // The receiver is gone if nobody waits any more.
            let _ = sender.send(work());
        }));
        receiver.try_recv().map_err(|error| {
            Error::new(ErrorKind::Internal, "a helper thread ended early").with_source(error)
        })
    }
}

/// A file whose writer can be stopped between its pieces.
pub(crate) struct InPieces {
    pub(crate) file: File,
    pub(crate) aside: Aside,
}

impl Write for InPieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // What unwinds already may still flush what waits.
        if !std::thread::panicking() {
            (self.aside.check)();
        }
        let piece = bytes.get(..PIECE).unwrap_or(bytes);
        self.file.write(piece)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_does_not_end_is_an_error() {
        assert_eq!(Aside::default().run(|| 7).unwrap(), 7);
        let forgetful = Aside {
            run: |work| drop(work),
            ..Aside::default()
        };
        let lost = forgetful.run(|| 7).unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::Internal);
    }
}

//! The file itself: what goes into it is digested on the way, and the disk takes it while more is encoded.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::storage;
use crate::error::Result;
use crate::threads::panicked;

/// Bytes that wait before the disk is asked to take them: what is left of them at the end is what the end waits for.
const WAITING: usize = 16 << 20;

/// A file that is written from its beginning to its end.
pub(super) struct Disk {
    file: Arc<File>,
    digest: Sha256,
    size: u64,
    /// Bytes since the disk was asked last.
    waiting: usize,
    is_durable: bool,
    syncing: Option<Syncing>,
}

/// A thread that has the disk take what was written so far, each time it is asked. It inherits what signals are blocked.
struct Syncing {
    ask: Sender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Disk {
    /// A file that is durable once it has ended, or is not. With a thread that waits for the disk `ahead` of the end, where
    /// there can be one.
    pub(super) fn new(file: File, is_durable: bool, ahead: bool) -> Self {
        let file = Arc::new(file);
        let syncing = if is_durable && ahead {
            Syncing::start(&file)
        } else {
            None
        };
        Self {
            file,
            digest: Sha256::new(),
            size: 0,
            waiting: 0,
            is_durable,
            syncing,
        }
    }

    /// Waits until the disk has everything, if it is to. Returns the size of the file and its digest: SHA-256 in base64.
    ///
    /// # Errors
    /// `Transient` when the disk fails or is full.
    pub(super) fn finish(self) -> Result<(u64, String)> {
        let failed = |error| storage("sync a spool file", error);
        if let Some(Syncing { ask, thread }) = self.syncing {
            drop(ask);
            // The system tells of a failure once, and it may have told the thread.
            thread.join().map_err(|_| panicked())?.map_err(failed)?;
        }
        if self.is_durable {
            self.file.sync_all().map_err(failed)?;
        }
        Ok((self.size, STANDARD.encode(self.digest.finalize())))
    }
}

impl Syncing {
    fn start(file: &Arc<File>) -> Option<Self> {
        let (ask, asked) = mpsc::channel();
        let file = Arc::clone(file);
        let sync = move || {
            while asked.recv().is_ok() {
                // All that was asked for meanwhile is one.
                while asked.try_recv().is_ok() {}
                file.sync_data()?;
            }
            Ok(())
        };
        // Where there is no thread to be had, the end waits for all of it.
        let thread = thread::Builder::new().spawn(sync).ok()?;
        Some(Self { ask, thread })
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = (&*self.file).write(bytes)?;
        self.digest.update(bytes.get(..count).unwrap_or(bytes));
        self.size += count as u64;
        self.waiting += count;
        if self.waiting >= WAITING
            && let Some(syncing) = &self.syncing
        {
            self.waiting = 0;
            // A thread that has failed says so at the end.
            let _ = syncing.ask.send(());
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

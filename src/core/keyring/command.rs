//! A key file that a command prints, for keys that live in a vault or a key management service.

use std::io::{ErrorKind as IoErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

use super::{Keyring, MAX_FILE_BYTES};
use crate::error::{Error, ErrorKind, Result};

/// Whether to stop is asked this often.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

impl Keyring {
    /// Reads what a shell command prints, for at most `limit`. It gets no input; what it writes to its standard error
    /// goes where ours goes. `tick` is called several times a second; if it unwinds, the command is ended.
    ///
    /// # Errors
    /// `Transient` when the command fails or takes longer: what it asks may be out of reach for a while. `Configuration` when
    /// it cannot be started, or prints something other than a key file.
    pub fn from_command(command: &str, limit: Duration, tick: impl Fn()) -> Result<Self> {
        let text = Running::start(command)?.output(Instant::now() + limit, tick)?;
        let problem = |problem: String| {
            Error::new(
                ErrorKind::Configuration,
                format!("what snowflake_bridge.key_command prints {problem}"),
            )
            .with_hint(
                "It must print what a key file holds, lines of id:key:state, and nothing else.",
            )
        };
        let text = std::str::from_utf8(&text).map_err(|_| problem("is not text".to_owned()))?;
        Self::parse(text).map_err(problem)
    }
}

/// A command that is ended when nobody waits for it any more.
struct Running(Child);

impl Running {
    fn start(command: &str) -> Result<Self> {
        Command::new("/bin/sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // With all that it starts, so that it can be ended with all of it.
            .process_group(0)
            .spawn()
            .map(Self)
            .map_err(|error| {
                Error::new(
                    ErrorKind::Configuration,
                    "snowflake_bridge.key_command cannot be started",
                )
                .with_source(error)
            })
    }

    fn output(mut self, deadline: Instant, tick: impl Fn()) -> Result<Zeroizing<Vec<u8>>> {
        let mut pipe = self
            .0
            .stdout
            .take()
            .ok_or_else(|| failed("has no output"))?;
        // Of its full size from the start: a buffer that grows leaves copies behind.
        let capacity = usize::try_from(MAX_FILE_BYTES).unwrap_or(0) + 1;
        let mut buffer = Zeroizing::new(vec![0; capacity]);
        let mut length = 0;
        loop {
            tick();
            if Instant::now() >= deadline {
                return Err(failed("takes too long"));
            }
            match poll(
                &mut [PollFd::new(&pipe.as_fd(), PollFlags::IN)],
                Some(&TICK),
            ) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => {
                    return Err(failed("cannot be read").with_source(std::io::Error::from(error)));
                }
            }
            let room = buffer.get_mut(length..).unwrap_or_default();
            match pipe.read(room) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) => return Err(failed("cannot be read").with_source(error)),
            }
        }
        if length == capacity {
            return Err(failed("prints too much"));
        }
        buffer.truncate(length);
        // Its output has ended, and it may go on for a while all the same.
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(buffer),
                Ok(Some(status)) => return Err(failed(&format!("has failed: {status}"))),
                Ok(None) if Instant::now() >= deadline => return Err(failed("takes too long")),
                Ok(None) => {
                    tick();
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(failed("cannot be waited for").with_source(error)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            // It may just have ended; nobody is left to tell otherwise.
            let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

fn failed(what: &str) -> Error {
    Error::new(
        ErrorKind::Transient,
        format!("snowflake_bridge.key_command {what}"),
    )
    .with_hint("Run the command as the server's operating system user; what it writes to its standard error is in the server log.")
}

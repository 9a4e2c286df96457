//! Fail points: named places where the tests of survival make the process die, fail or stand still. Only a build with the
//! feature `failpoints` has any; everywhere else these functions do nothing.
//!
//! What is to go wrong lies in the directory that the environment variable `SNOWFLAKE_BRIDGE_FAILPOINTS` names. Each file
//! there is one order, carried out once, by whoever removes the file: its name is `<place>@<anything>`, its text `kill`,
//! `error`, `panic` or `sleep <milliseconds>`. The file `log` gets a line for each. The place of a statement is its first word.

#[cfg(not(feature = "failpoints"))]
pub use absent::{during, reach};
#[cfg(feature = "failpoints")]
pub use armed::{during, reach};

#[cfg(not(feature = "failpoints"))]
mod absent {
    use std::future::Future;

    use crate::Result;

    /// Does what somebody ordered for this place.
    ///
    /// # Errors
    /// A `Transient` one if that was the order.
    #[inline]
    pub const fn reach(_place: &str) -> Result<()> {
        Ok(())
    }

    /// Runs `work`, and does what somebody ordered for this place while it is under way.
    ///
    /// # Errors
    /// What `work` returns, or as [`reach`].
    #[inline]
    pub fn during<T>(
        _place: &str,
        work: impl Future<Output = Result<T>>,
    ) -> impl Future<Output = Result<T>> {
        work
    }
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::fs::{self, OpenOptions};
    use std::future::{Future, pending};
    use std::io::Write;
    use std::path::Path;
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use crate::{Error, ErrorKind, Result};

    const DIRECTORY: &str = "SNOWFLAKE_BRIDGE_FAILPOINTS";
    /// By then a request has been sent, and most have not been answered.
    const UNDER_WAY: Duration = Duration::from_millis(3);

    enum Order {
        Kill,
        Error,
        Panic,
        Sleep(Duration),
    }

    /// See the function of this name in a build without fail points.
    ///
    /// # Errors
    /// A `Transient` one if that was the order.
    pub fn reach(place: &str) -> Result<()> {
        match take(place) {
            None => Ok(()),
            Some(Order::Sleep(time)) => {
                std::thread::sleep(time);
                Ok(())
            }
            Some(order) => fail(place, &order),
        }
    }

    /// See the function of this name in a build without fail points.
    ///
    /// # Errors
    /// What `work` returns, or as [`reach`].
    pub async fn during<T>(place: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let interference = async {
            tokio::time::sleep(UNDER_WAY).await;
            match take(place) {
                None | Some(Order::Sleep(_)) => pending().await,
                Some(order) => fail(place, &order),
            }
        };
        tokio::select! {
            biased;
            result = work => result,
            failed = interference => match failed {
                Err(error) => Err(error),
                Ok(()) => pending().await,
            },
        }
    }

    #[allow(clippy::panic)]
    fn fail(place: &str, order: &Order) -> Result<()> {
        let place = first_word(place);
        match order {
            Order::Kill => {
                let _ = kill_process(getpid(), Signal::KILL);
                Ok(())
            }
            Order::Panic => panic!("fail point {place}"),
            Order::Error | Order::Sleep(_) => Err(Error::new(
                ErrorKind::Transient,
                format!("fail point {place}"),
            )),
        }
    }

    fn first_word(place: &str) -> &str {
        place.split(' ').next().unwrap_or(place)
    }

    /// The order for this place, if there is one that nobody else has taken.
    fn take(place: &str) -> Option<Order> {
        let place = first_word(place);
        let directory = std::env::var_os(DIRECTORY)?;
        for entry in fs::read_dir(&directory).ok()?.flatten() {
            let name = entry.file_name();
            let is_here = name
                .to_str()
                .and_then(|name| name.split_once('@'))
                .is_some_and(|(of, _)| of == place);
            if !is_here {
                continue;
            }
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            if fs::remove_file(entry.path()).is_err() {
                continue;
            }
            note(Path::new(&directory), place, &text);
            return match text.trim().split_once(' ') {
                None if text.trim() == "kill" => Some(Order::Kill),
                None if text.trim() == "error" => Some(Order::Error),
                None if text.trim() == "panic" => Some(Order::Panic),
                Some(("sleep", time)) => Some(Order::Sleep(Duration::from_millis(
                    time.parse().unwrap_or_default(),
                ))),
                _ => None,
            };
        }
        None
    }

    /// Written before the order is carried out: nothing is after a kill.
    fn note(directory: &Path, place: &str, order: &str) {
        if let Ok(mut log) = OpenOptions::new()
            .append(true)
            .create(true)
            .open(directory.join("log"))
        {
            let _ = log.write_all(format!("{place} {}\n", order.trim()).as_bytes());
        }
    }
}

//! The same work for each of several things, on several threads.

use std::num::NonZero;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;

use crate::error::{Error, ErrorKind, Result};

/// More threads than this gain little: one thread reads what all of them encode.
const MOST_HELPERS: usize = 3;

/// How many threads beside the caller's have a processor to run on. Found out once: the limits of a control group are in files.
pub(crate) fn helpers() -> usize {
    static PROCESSORS: LazyLock<usize> =
        LazyLock::new(|| thread::available_parallelism().map_or(1, NonZero::get));
    (*PROCESSORS - 1).min(MOST_HELPERS)
}

/// Does `work` for each of `items`, on the caller's thread and at most `helpers` others. The results come in the order of the
/// items.
///
/// # Errors
/// One of those that `work` returned; what others were not begun then is left.
pub(crate) fn each<T: Send, R: Send>(
    items: Vec<T>,
    helpers: usize,
    work: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    if helpers == 0 || items.len() < 2 {
        return items.into_iter().map(work).collect();
    }
    let count = items.len();
    let left = Mutex::new(items.into_iter().enumerate());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || -> Result<Vec<(usize, R)>> {
        let mut done = Vec::new();
        while let Some((index, item)) = next() {
            match work(item) {
                Ok(result) => done.push((index, result)),
                Err(error) => {
                    // The others stop as well.
                    while next().is_some() {}
                    return Err(error);
                }
            }
        }
        Ok(done)
    };
    let mut done = thread::scope(|scope| -> Result<_> {
        let helpers: Vec<_> = (0..helpers.min(count - 1))
            // Who gets no thread does it alone.
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, run).ok())
            .collect();
        let mut done = run()?;
        for helper in helpers {
            done.extend(helper.join().map_err(|_| panicked())??);
        }
        Ok(done)
    })?;
    done.sort_unstable_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// What a thread's panic becomes.
pub(crate) fn panicked() -> Error {
    Error::new(
        ErrorKind::Internal,
        "a thread panicked while it read or encoded rows; the server log of this process has the place",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_done_once_and_in_order() {
        for helpers in [0, 1, 3, 100] {
            for count in [0, 1, 2, 50] {
                let items: Vec<usize> = (0..count).collect();
                let done = each(items, helpers, |item| Ok(item * 2)).unwrap();
                assert_eq!(done, (0..count).map(|item| item * 2).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn an_error_is_returned() {
        for helpers in [0, 2] {
            let error = each((0..50).collect(), helpers, |item| match item {
                17 => Err(Error::new(ErrorKind::Internal, "no")),
                item => Ok(item),
            });
            assert_eq!(error.unwrap_err().message(), "no");
        }
    }
}

//! Writing many at once where one of them may be what cannot be written.

use crate::error::{Error, Result};

/// Writes all together; where that fails, half by half, so that one which cannot be written costs no other. `leave` is told of
/// each such one, and at once of all that are left where it is none of them that is at fault: somebody has canceled the
/// statement, or keeps a table locked. `write` writes all or none of what it is given.
pub fn half_by_half<T>(
    all: &[T],
    write: &mut dyn FnMut(&[T]) -> Result<()>,
    leave: &mut dyn FnMut(&[T], Error),
) {
    match write(all) {
        Ok(()) => {}
        Err(error) if all.len() > 1 && !error.is_canceled() && !error.is_lost_conflict() => {
            let (first, second) = all.split_at(all.len() / 2);
            half_by_half(first, write, leave);
            half_by_half(second, write, leave);
        }
        Err(error) => leave(all, error),
    }
}

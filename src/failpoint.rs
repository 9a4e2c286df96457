//! Fail points of this layer, where a failure is an ERROR; see [`bridge_core::failpoint`].

use pgrx::prelude::*;

/// Does what somebody ordered for this place; an error is raised, as the server itself would.
#[inline]
pub fn reach(place: &str) {
    if let Err(error) = bridge_core::failpoint::reach(place) {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_IO_ERROR,
            error.message().to_owned()
        );
    }
}

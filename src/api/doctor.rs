//! `check()`: looks at everything an installation needs, and says what to do about what is wrong.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::doctor::{self, Finding};
use crate::sandbox;

#[pg_extern(volatile, parallel_unsafe)]
fn check() -> Result<
    TableIterator<
        'static,
        (
            name!(item, String),
            name!(ok, bool),
            name!(detail, String),
            name!(hint, Option<String>),
        ),
    >,
    ErrorReport,
> {
    sandbox::require_unrestricted()?;
    let show_paths = super::access::is_superuser()?;
    let findings = sandbox::as_extension_owner(|| doctor::examine(show_paths))?;
    Ok(TableIterator::new(findings.into_iter().map(
        |Finding {
             item,
             ok,
             detail,
             hint,
         }| (item.to_owned(), ok, detail, hint),
    )))
}

//! Acting as somebody else for a moment: as the extension's owner on our own tables, or as the owner of an
//! application's table on that table. Both pin `search_path`, so that no name is resolved by somebody else's choice.
#![allow(unsafe_code)]

use std::cell::RefCell;

use pgrx::pg_sys;

use crate::cached::ReadAt;
use crate::error::{Error, Result};
use crate::guards;
use crate::setting::ForNow;

/// Runs `work` with the rights of the extension's owner. Only for statements on our own tables, in our own words.
///
/// # Errors
/// What `work` returns; an error if the extension is being dropped.
pub fn as_extension_owner<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let owner = extension_owner()?;
    let _identity = Identity::assume(owner, pg_sys::SECURITY_LOCAL_USERID_CHANGE)?;
    work()
}

/// Runs `work` with the caller's own rights, and with names that only PostgreSQL's own catalog answers to: a schema of somebody
/// else's in the caller's `search_path` has no say.
///
/// # Errors
/// What `work` returns.
pub fn as_caller<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: a backend-local read.
    let _identity = Identity::assume(unsafe { pg_sys::GetUserId() }, 0)?;
    work()
}

/// Runs `work` as `owner` in a security-restricted operation: code that others attached to the table (triggers, view
/// functions, policies) runs with the owner's rights and can neither take on other roles nor leave anything behind.
/// `SET ROLE` would be no boundary, since that code could undo it.
///
/// # Errors
/// What `work` returns.
pub fn as_table_owner<T>(owner: pg_sys::Oid, work: impl FnOnce() -> Result<T>) -> Result<T> {
    if !guards::is_sandboxed() {
        return work();
    }
    let _identity = Identity::assume(
        owner,
        pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION,
    )?;
    work()
}

/// Refuses to go on inside somebody's index expression, materialized view or the like, where the current user is not
/// the one who asked.
///
/// # Errors
/// `42501` inside a security-restricted operation.
pub fn require_unrestricted() -> Result<()> {
    // SAFETY: reads a backend-local variable.
    if guards::ON && unsafe { pg_sys::InSecurityRestrictedOperation() } {
        return Err(Error::denied(
            "snowflake_bridge cannot be used within a security-restricted operation",
        ));
    }
    Ok(())
}

/// Whether what runs now has the role that the session itself has taken on: it is not inside a SECURITY DEFINER function, nor in
/// anything else that runs as somebody who did not ask. PostgreSQL itself marks each such change of role in the context; an extension
/// that changes it may not, and then it is not the session's role.
pub fn is_sessions_own_code() -> bool {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: backend-local reads.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        user == pg_sys::GetOuterUserId() && context == 0
    }
}

struct Identity {
    user: pg_sys::Oid,
    context: i32,
    _settings: ForNow,
}

impl Identity {
    fn assume(user: pg_sys::Oid, flags: u32) -> Result<Self> {
        let flags = i32::try_from(flags).map_err(|_| Error::denied("unknown security context"))?;
        let (mut present, mut context) = (pg_sys::InvalidOid, 0);
        // SAFETY: inside a transaction on the main thread; what is saved here is restored in `drop`, and by
        // PostgreSQL itself when the transaction is rolled back.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&raw mut present, &raw mut context);
            pg_sys::SetUserIdAndSecContext(user, context | flags);
        }
        Ok(Self {
            user: present,
            context,
            _settings: ForNow::set(&[
                (c"search_path", c"pg_catalog, pg_temp"),
                (c"row_security", c"on"),
            ]),
        })
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        // SAFETY: restores what `assume` saved; it only assigns backend-local state and is what PostgreSQL itself does when it ends
        // a (sub)transaction. The settings are put back after it.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) };
    }
}

thread_local! {
    static OWNER_READ: RefCell<Option<(ReadAt, pg_sys::Oid)>> = const { RefCell::new(None) };
}

/// The role that owns the extension, and with it our tables; whoever changes the one changes the others.
fn extension_owner() -> Result<pg_sys::Oid> {
    const OWNER: &str = "select e.extowner, pg_catalog.to_regclass('snowflake_bridge.watches')::pg_catalog.oid \
         from pg_catalog.pg_extension e where e.extname operator(pg_catalog.=) 'snowflake_bridge'";
    let known = OWNER_READ.with_borrow(|read| {
        let (read_at, owner) = read.as_ref()?;
        read_at.holds().then_some(*owner)
    });
    if let Some(owner) = known {
        return Ok(owner);
    }
    let read_at = ReadAt::now();
    let (owner, table) = pgrx::Spi::connect(|client| {
        let rows = client.select(OWNER, Some(1), &[])?;
        if rows.is_empty() {
            return Ok((None, None));
        }
        Ok::<_, Error>(rows.first().get_two::<pg_sys::Oid, pg_sys::Oid>()?)
    })?;
    let owner = owner.ok_or_else(|| {
        Error::missing("the extension snowflake_bridge is not installed in this database")
    })?;
    OWNER_READ.set(table.map(|table| (read_at.depending_on([table]), owner)));
    Ok(owner)
}

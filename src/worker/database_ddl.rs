//! Statements that need a database without sessions: DROP DATABASE, CREATE DATABASE from a template, ALTER DATABASE RENAME
//! and SET TABLESPACE. PostgreSQL refuses them while anybody is connected, and our workers always are: the worker has to
//! leave before such a statement runs, if its user may run it.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::{registry, vacancy};

/// Whether [`make_way`] has to look at it; most statements it has not.
///
/// # Safety
/// With a live statement.
pub unsafe fn is_about_databases(statement: *mut pg_sys::Node) -> bool {
    matches!(
        // SAFETY: every node begins with its tag.
        unsafe { (*statement).type_ },
        pg_sys::NodeTag::T_DropdbStmt
            | pg_sys::NodeTag::T_CreatedbStmt
            | pg_sys::NodeTag::T_AlterDatabaseStmt
            | pg_sys::NodeTag::T_RenameStmt
    )
}

/// Has the worker leave whose database the statement needs for itself. It `is_alone` outside of transaction blocks and functions.
///
/// # Safety
/// Inside a transaction, with a live statement.
#[pg_guard]
pub unsafe extern "C-unwind" fn make_way(statement: *mut pg_sys::Node, is_alone: bool) {
    // SAFETY: called by the hook, inside a transaction, with a live statement.
    unsafe {
        if let Some(database) = needs_for_itself(statement, is_alone) {
            vacancy::vacate(database);
        }
        if (*statement).type_ == pg_sys::NodeTag::T_CreatedbStmt {
            // A copy may have brought the extension along.
            registry::wake_at_commit(registry::Wake::Launcher);
        }
    }
}

/// The database that must have no sessions for the statement to succeed, if the current user may run it: the failing
/// statement of anybody else must not stop a worker, nor may one that PostgreSQL refuses because it is not `is_alone`: within a
/// transaction block or a function.
///
/// # Safety
/// Inside a transaction, with a live statement.
unsafe fn needs_for_itself(statement: *mut pg_sys::Node, is_alone: bool) -> Option<pg_sys::Oid> {
    // SAFETY: a node's tag tells its type; names are C strings of the parser.
    unsafe {
        match (*statement).type_ {
            pg_sys::NodeTag::T_DropdbStmt if is_alone => {
                let statement = statement.cast::<pg_sys::DropdbStmt>();
                of_other_sessions((*statement).dbname).filter(|database| owns(*database))
            }
            pg_sys::NodeTag::T_AlterDatabaseStmt if is_alone => {
                let statement = statement.cast::<pg_sys::AlterDatabaseStmt>();
                option((*statement).options, c"tablespace")?;
                of_other_sessions((*statement).dbname).filter(|database| owns(*database))
            }
            pg_sys::NodeTag::T_RenameStmt => {
                let statement = statement.cast::<pg_sys::RenameStmt>();
                if (*statement).renameType != pg_sys::ObjectType::OBJECT_DATABASE {
                    return None;
                }
                of_other_sessions((*statement).subname)
                    .filter(|database| owns(*database) && may_create_databases())
            }
            pg_sys::NodeTag::T_CreatedbStmt if is_alone => {
                let statement = statement.cast::<pg_sys::CreatedbStmt>();
                let template = option((*statement).options, c"template")?;
                let name = pg_sys::defGetString(template);
                Some(pg_sys::get_database_oid(name, true))
                    .filter(|database| *database != pg_sys::InvalidOid)
                    .filter(|database| {
                        may_create_databases() && (owns(*database) || is_template(*database))
                    })
            }
            _ => None,
        }
    }
}

/// The database of this name; `None` if there is none, or it is the one that this session is connected to, and that the
/// statement therefore refuses.
///
/// # Safety
/// Inside a transaction, with a C string.
unsafe fn of_other_sessions(name: *const c_char) -> Option<pg_sys::Oid> {
    // SAFETY: see above.
    let (database, own) = unsafe { (pg_sys::get_database_oid(name, true), pg_sys::MyDatabaseId) };
    (database != pg_sys::InvalidOid && database != own).then_some(database)
}

/// The option of this name that a statement gives with a value.
///
/// # Safety
/// With a live list of options.
unsafe fn option(options: *mut pg_sys::List, name: &CStr) -> Option<*mut pg_sys::DefElem> {
    if options.is_null() {
        return None;
    }
    // SAFETY: the list holds the parser's DefElems, and an index below its length is one of them.
    unsafe {
        (0..(*options).length)
            .map(|index| pg_sys::list_nth(options, index).cast::<pg_sys::DefElem>())
            .find(|option| CStr::from_ptr((**option).defname) == name && !(**option).arg.is_null())
    }
}

fn owns(database: pg_sys::Oid) -> bool {
    // SAFETY: inside a transaction.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let owns = pg_sys::pg_database_ownercheck(database, pg_sys::GetUserId());
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        let owns =
            pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, pg_sys::GetUserId());
        owns
    }
}

/// Superuser, or CREATEDB.
fn may_create_databases() -> bool {
    // SAFETY: inside a transaction.
    unsafe {
        pg_sys::superuser()
            || of_catalog(
                pg_sys::SysCacheIdentifier::AUTHOID,
                pg_sys::GetUserId(),
                |role: &pg_sys::FormData_pg_authid| role.rolcreatedb,
            )
    }
}

fn is_template(database: pg_sys::Oid) -> bool {
    // SAFETY: inside a transaction.
    unsafe {
        of_catalog(
            pg_sys::SysCacheIdentifier::DATABASEOID,
            database,
            |database: &pg_sys::FormData_pg_database| database.datistemplate,
        )
    }
}

/// What a row of a shared catalog says; false if there is none.
///
/// # Safety
/// Inside a transaction, with the type of that cache's rows.
unsafe fn of_catalog<T>(
    cache: pg_sys::SysCacheIdentifier::Type,
    oid: pg_sys::Oid,
    look: impl Fn(&T) -> bool,
) -> bool {
    // SAFETY: see above; the row stays until it is released.
    unsafe {
        let row = pg_sys::SearchSysCache1(cache as i32, pg_sys::Datum::from(oid));
        if row.is_null() {
            return false;
        }
        let answer = look(&*pg_sys::GETSTRUCT(row).cast::<T>());
        pg_sys::ReleaseSysCache(row);
        answer
    }
}

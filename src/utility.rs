//! The hook on utility statements: three parts of ours are told of them, and everybody else who has a hook.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::sync::OnceLock;

use pgrx::pg_sys;

use crate::statement_end;
use crate::worker::{database_ddl, dropping};

type Utility = unsafe extern "C-unwind" fn(
    *mut pg_sys::PlannedStmt,
    *const c_char,
    bool,
    pg_sys::ProcessUtilityContext::Type,
    pg_sys::ParamListInfo,
    *mut pg_sys::QueryEnvironment,
    *mut pg_sys::DestReceiver,
    *mut pg_sys::QueryCompletion,
);

// Not through pgrx: its wrapper turns an ERROR into a panic and back, and what the error says about position, table and
// constraint would be lost for every utility statement of the server.
#[allow(non_snake_case)]
unsafe extern "C-unwind" {
    /// What PostgreSQL itself does with it.
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        is_read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        receiver: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// What the hook found when it was installed, and calls itself.
static NEXT: OnceLock<Utility> = OnceLock::new();
const STANDARD: Utility = standard_ProcessUtility;

/// Installs the hook. Only in the postmaster, while it loads its preloaded libraries.
pub fn install_hook() {
    // SAFETY: nothing else runs while libraries are loaded, and the hook stays as long as the server.
    unsafe {
        let next = pg_sys::ProcessUtility_hook.unwrap_or(STANDARD);
        if NEXT.set(next).is_ok() {
            pg_sys::ProcessUtility_hook = Some(process_utility);
        }
    }
}

/// Every utility statement passes here. An ERROR jumps over this frame: it has nothing to be dropped, what a COPY has begun to
/// finish is forgotten with its subtransaction, and that an extension is dropped with the transaction.
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    is_read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: a hook is given a live statement, and passes on what it was given.
    unsafe {
        let utility = (*statement).utilityStmt;
        let is_alone = context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL
            && !pg_sys::IsTransactionBlock();
        if database_ddl::is_about_databases(utility) {
            database_ddl::make_way(utility, is_alone);
        }
        let drops_extension = dropping::drops_extension(utility);
        if drops_extension {
            dropping::begins();
        }
        let fires_triggers = statement_end::is_copy_from(utility);
        if fires_triggers {
            statement_end::begins();
        }
        NEXT.get().unwrap_or(&STANDARD)(
            statement,
            text,
            is_read_only,
            context,
            parameters,
            environment,
            receiver,
            completion,
        );
        if fires_triggers {
            statement_end::ends();
        }
        if drops_extension {
            dropping::ends();
        }
    }
}

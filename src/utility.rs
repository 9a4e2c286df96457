//! The hook for utility statements, as PostgreSQL declares it.
#![allow(unsafe_code)]

use std::ffi::c_char;

use pgrx::pg_sys;

/// Who is called for a utility statement.
pub type Utility = unsafe extern "C-unwind" fn(
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
    pub fn standard_ProcessUtility(
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

//! The end of statements that fire no triggers of ours for statements: those on a single partition, of which the row triggers are
//! copies of the table's. Hooks tell of it, so that what such a statement finishes is entered together as well.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::sync::OnceLock;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::finished;
use crate::utility::{Utility, standard_ProcessUtility};

type Finish = unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc);
// Not through pgrx, for the reason that holds for utility statements.
#[allow(non_snake_case)]
unsafe extern "C-unwind" {
    fn standard_ExecutorFinish(query: *mut pg_sys::QueryDesc);
}

/// What the hooks found when they were installed, and call themselves.
static NEXT: OnceLock<(Finish, Utility)> = OnceLock::new();
const STANDARD: (Finish, Utility) = (standard_ExecutorFinish, standard_ProcessUtility);

/// Installs the hooks, in the postmaster while it loads its preloaded libraries. Elsewhere nothing is done: what is entered row by
/// row is entered all the same.
pub fn install_hooks() {
    // SAFETY: nothing else runs while libraries are loaded, and the hooks stay as long as the server.
    unsafe {
        if !pg_sys::process_shared_preload_libraries_in_progress || pg_sys::IsBinaryUpgrade {
            return;
        }
        let next = (
            pg_sys::ExecutorFinish_hook.unwrap_or(STANDARD.0),
            pg_sys::ProcessUtility_hook.unwrap_or(STANDARD.1),
        );
        if NEXT.set(next).is_ok() {
            pg_sys::ExecutorFinish_hook = Some(executor_finish);
            pg_sys::ProcessUtility_hook = Some(process_utility);
        }
    }
}

/// Every statement passes here, and fires its AFTER triggers. An ERROR jumps over this frame: it has nothing to be dropped, and what
/// has begun is forgotten with its subtransaction.
unsafe extern "C-unwind" fn executor_finish(query: *mut pg_sys::QueryDesc) {
    // SAFETY: a hook is given a live statement, and passes on what it was given.
    unsafe {
        let is_told = writes_to_partition(query);
        if is_told {
            begins();
        }
        NEXT.get().unwrap_or(&STANDARD).0(query);
        if is_told {
            ends();
        }
    }
}

/// Every utility statement passes here; COPY fires its triggers within. Of an ERROR the same holds.
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
    // SAFETY: a hook is given a live statement, and passes on what it was given; a node's tag tells its type.
    unsafe {
        let utility = (*statement).utilityStmt;
        let is_told = (*utility).type_ == pg_sys::NodeTag::T_CopyStmt
            && (*utility.cast::<pg_sys::CopyStmt>()).is_from;
        if is_told {
            begins();
        }
        NEXT.get().unwrap_or(&STANDARD).1(
            statement,
            text,
            is_read_only,
            context,
            parameters,
            environment,
            receiver,
            completion,
        );
        if is_told {
            ends();
        }
    }
}

/// # Safety
/// With a statement that has run.
unsafe fn writes_to_partition(query: *mut pg_sys::QueryDesc) -> bool {
    // SAFETY: the list holds the relations that the statement has opened to write to them, and holds them open.
    unsafe {
        let opened = (*(*query).estate).es_opened_result_relations;
        !opened.is_null()
            && (0..(*opened).length).any(|index| {
                let element = *(*opened).elements.offset(index as isize);
                let relation = element.ptr_value.cast::<pg_sys::ResultRelInfo>();
                !(*relation).ri_TrigDesc.is_null()
                    && (*(*(*relation).ri_RelationDesc).rd_rel).relispartition
            })
    }
}

#[pg_guard]
extern "C-unwind" fn begins() {
    finished::begin_statement();
}

#[pg_guard]
extern "C-unwind" fn ends() {
    finished::end_statement();
}

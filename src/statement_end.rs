//! The end of statements that fire no triggers of ours for statements: those on a single partition, of which the row triggers are
//! copies of the table's. Hooks tell of it, so that what such a statement finishes is entered together as well.
#![allow(unsafe_code)]

use std::sync::OnceLock;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::finished;

type Finish = unsafe extern "C-unwind" fn(*mut pg_sys::QueryDesc);
// Not through pgrx, for the reason that holds for utility statements.
#[allow(non_snake_case)]
unsafe extern "C-unwind" {
    fn standard_ExecutorFinish(query: *mut pg_sys::QueryDesc);
}

/// What the hook found when it was installed, and calls itself.
static NEXT: OnceLock<Finish> = OnceLock::new();
const STANDARD: Finish = standard_ExecutorFinish;

/// Installs the hook. Only in the postmaster, while it loads its preloaded libraries; elsewhere what is entered row by row is
/// entered all the same.
pub fn install_hook() {
    // SAFETY: nothing else runs while libraries are loaded, and the hook stays as long as the server.
    unsafe {
        let next = pg_sys::ExecutorFinish_hook.unwrap_or(STANDARD);
        if NEXT.set(next).is_ok() {
            pg_sys::ExecutorFinish_hook = Some(executor_finish);
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
        NEXT.get().unwrap_or(&STANDARD)(query);
        if is_told {
            ends();
        }
    }
}

/// Whether a utility statement fires AFTER triggers: COPY does, within.
///
/// # Safety
/// With a live statement.
pub unsafe fn is_copy_from(statement: *mut pg_sys::Node) -> bool {
    // SAFETY: a node's tag tells its type.
    unsafe {
        (*statement).type_ == pg_sys::NodeTag::T_CopyStmt
            && (*statement.cast::<pg_sys::CopyStmt>()).is_from
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

/// A statement that may finish executions begins, or has run and is about to fire its triggers.
#[pg_guard]
pub extern "C-unwind" fn begins() {
    finished::begin_statement();
}

/// It has fired them.
#[pg_guard]
pub extern "C-unwind" fn ends() {
    finished::end_statement();
}

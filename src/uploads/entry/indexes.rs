//! The indexes of a table that rows are written to, of which each row needs few.
#![allow(unsafe_code)]

use std::ffi::CStr;

use pgrx::pg_sys;

use super::WRITES;

/// At most one upload of an execution waits, by this index.
const WAITING: &CStr = c"uploads_waiting";

/// In the order of the target, in which only those are open that the row being written belongs to.
#[derive(Default)]
pub(super) struct Indexes {
    all: Vec<Index>,
    /// The one that tells whether an upload waits, as PostgreSQL is told it.
    pub(super) waiting: *mut pg_sys::List,
}

struct Index {
    oid: pg_sys::Oid,
    is_waiting: bool,
    is_btree: bool,
    /// It is no longer being built.
    is_ready: bool,
    /// Of the rows that belong to it.
    condition: *mut pg_sys::ExprState,
}

impl Indexes {
    /// Those of a target, as they are now.
    ///
    /// # Safety
    /// With a relation that is locked and open, on the main thread, in the state's memory.
    pub(super) unsafe fn of(
        target: *mut pg_sys::ResultRelInfo,
        state: *mut pg_sys::EState,
    ) -> Self {
        let mut indexes = Self::default();
        // SAFETY: as the caller promises.
        unsafe {
            pg_sys::ExecOpenIndices(target, true);
            for place in 0..usize::try_from((*target).ri_NumIndices).unwrap_or(0) {
                let info = *(*target).ri_IndexRelationInfo.add(place);
                let condition = pg_sys::ExecPrepareQual((*info).ii_Predicate, state);
                (*info).ii_PredicateState = condition;
                let relation = *(*target).ri_IndexRelationDescs.add(place);
                let (oid, class) = ((*relation).rd_id, (*relation).rd_rel);
                let is_waiting = CStr::from_ptr((*class).relname.data.as_ptr()) == WAITING;
                if is_waiting {
                    indexes.waiting = pg_sys::lappend_oid(indexes.waiting, oid);
                }
                indexes.all.push(Index {
                    oid,
                    is_waiting,
                    is_btree: (*class).relam == pg_sys::BTREE_AM_OID,
                    is_ready: (*info).ii_ReadyForInserts,
                    condition,
                });
            }
            indexes.close(target);
        }
        indexes
    }

    /// Whether ours is there, and all are of a kind that keeps nothing for the next row, as others do while they are open.
    pub(super) fn are_simple(&self) -> bool {
        !self.waiting.is_null() && self.all.iter().all(|index| index.is_btree)
    }

    pub(super) fn oids(&self) -> impl Iterator<Item = pg_sys::Oid> {
        self.all.iter().map(|index| index.oid)
    }

    /// Opens and locks those that the row in the context belongs to; what is not open gets no entry.
    ///
    /// # Safety
    /// With the target that these are of, and a row in the context of the state.
    pub(super) unsafe fn open(
        &self,
        target: *mut pg_sys::ResultRelInfo,
        state: *mut pg_sys::EState,
    ) {
        for (place, index) in self.all.iter().enumerate() {
            // SAFETY: as the caller promises.
            unsafe { index.open(target, place, state) };
        }
    }

    /// As [`open`](Self::open), but only the one of what waits; returns whether the row belongs to it.
    ///
    /// # Safety
    /// As [`open`](Self::open).
    pub(super) unsafe fn open_waiting(
        &self,
        target: *mut pg_sys::ResultRelInfo,
        state: *mut pg_sys::EState,
    ) -> bool {
        let mut all = self.all.iter().enumerate();
        // SAFETY: as the caller promises.
        all.find(|(_, index)| index.is_waiting)
            .is_some_and(|(place, index)| unsafe { index.open(target, place, state) })
    }

    /// Closes what is open. `ExecCloseIndices` may expect all to be.
    ///
    /// # Safety
    /// With the target that these are of.
    pub(super) unsafe fn close(&self, target: *mut pg_sys::ResultRelInfo) {
        for place in 0..self.all.len() {
            // SAFETY: as the caller promises.
            unsafe {
                let opened = (*target).ri_IndexRelationDescs.add(place);
                let relation = std::mem::replace(&mut *opened, std::ptr::null_mut());
                if !relation.is_null() {
                    pg_sys::index_close(relation, WRITES);
                }
            }
        }
    }
}

impl Index {
    /// # Safety
    /// As [`Indexes::open`], with the place of this in the target.
    unsafe fn open(
        &self,
        target: *mut pg_sys::ResultRelInfo,
        place: usize,
        state: *mut pg_sys::EState,
    ) -> bool {
        // SAFETY: as the caller promises.
        unsafe {
            let opened = (*target).ri_IndexRelationDescs.add(place);
            let context = (*state).es_per_tuple_exprcontext;
            if (*opened).is_null() && self.is_ready && pg_sys::ExecQual(self.condition, context) {
                *opened = pg_sys::index_open(self.oid, WRITES);
            }
            !(*opened).is_null()
        }
    }
}

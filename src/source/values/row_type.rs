//! The types of rows that are values themselves, or within values.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::rc::Rc;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::column::{Attribute, attributes};
use crate::error::{Error, Result};
use crate::memory::InMemory;
use crate::tx;

/// A row's type: its description, and what its attributes are called.
pub(super) struct RowType {
    pub(super) descriptor: pg_sys::TupleDesc,
    pub(super) attributes: Vec<Attribute>,
}

/// The types of rows that were met.
pub(super) struct RowTypes {
    memory: pg_sys::MemoryContext,
    /// With PostgreSQL's number of the state in which each was described.
    known: HashMap<(pg_sys::Oid, i32), (u64, Rc<RowType>)>,
}

impl RowTypes {
    /// # Safety
    /// Used only while the current memory context lives.
    pub(super) unsafe fn new() -> Self {
        Self {
            // SAFETY: a variable of this process.
            memory: unsafe { pg_sys::CurrentMemoryContext },
            known: HashMap::new(),
        }
    }

    /// A row's type, which stays what it is: nobody else changes one that has a name, since it is locked until the transaction ends,
    /// and what code that the query runs has changed is refused. Rows of both forms may lie about, and none tells of which it is.
    ///
    /// # Errors
    /// `55006` if the type was changed since it was met first; for an attribute's name that is not UTF-8.
    ///
    /// # Safety
    /// The type that a row's header names, or a composite type's; on the main thread, inside a transaction.
    pub(super) unsafe fn get(&mut self, type_oid: pg_sys::Oid, typmod: i32) -> Result<Rc<RowType>> {
        let is_named = type_oid != pg_sys::RECORDOID;
        // In rows of types with names it is whatever was in memory.
        let typmod = if is_named { -1 } else { typmod };
        let key = (type_oid, typmod);
        // SAFETY: as the caller promises; the copy lives as long as this.
        unsafe {
            if is_named && !self.known.contains_key(&key) {
                tx::lock_to_read(pg_sys::get_typ_typrelid(type_oid));
            }
            let state = pg_sys::assign_record_type_identifier(type_oid, typmod);
            if let Some((known, row_type)) = self.known.get(&key) {
                return if *known == state {
                    Ok(Rc::clone(row_type))
                } else {
                    Err(changed())
                };
            }
            let _memory = InMemory::of(self.memory);
            let descriptor = pg_sys::lookup_rowtype_tupdesc_copy(type_oid, typmod);
            let row_type = Rc::new(RowType {
                descriptor,
                attributes: attributes(descriptor)?,
            });
            self.known.insert(key, (state, Rc::clone(&row_type)));
            Ok(row_type)
        }
    }
}

fn changed() -> Error {
    Error::user(
        PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
        "a type of the result was changed while its values were read",
    )
    .hint("Change it before the query, or after it.")
}

//! A row of the queue that is written without a statement. The statement of [`super::enqueue`] writes the same row, but makes forty
//! defaults and the conditions and expressions of all indexes ready each time, which takes longer than to write it. Here they are made
//! ready once in a process, and anew when a relation has changed. Columns, defaults, constraints and indexes are those of the
//! table as it is; the calls and their order are those of PostgreSQL's executor. For a table that has more than ours was made with,
//! there is the statement.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::mem::ManuallyDrop;

use pgrx::prelude::*;
use pgrx::{PgTupleDesc, direct_function_call_as_datum, pg_sys};

use self::indexes::Indexes;
use self::simple::{is_random_uuid, is_simple};
use super::NewUpload;
use crate::cached::ReadAt;
use crate::error::{Error, Result};
use crate::memory::InMemory;

mod indexes;
mod simple;

/// What whoever writes to a table locks it and its indexes with.
const WRITES: pg_sys::LOCKMODE = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;

thread_local! {
    /// Not given back when the process ends, by when PostgreSQL has ended.
    static READY: RefCell<ManuallyDrop<Option<Ready>>> = const { RefCell::new(ManuallyDrop::new(None)) };
}

/// Writes the row of an execution of which no upload waits, and for which nobody else is just writing one: whoever is, is waited
/// for. Returns false, having written nothing, if one waits, or if there is anything that only a statement would heed.
///
/// # Errors
/// `23505` if somebody else has entered the execution at the same moment; whatever a statement would meet.
pub(super) fn insert(new: &NewUpload) -> Result<bool> {
    // What an ERROR interrupts is not used again.
    let ready = READY.with_borrow_mut(|ready| ready.take());
    // SAFETY: the main thread, inside a transaction.
    let ready = unsafe { Ready::locked(ready) }?;
    // SAFETY: of the table as it is, which is locked.
    let is_written = ready.is_simple && unsafe { ready.may_insert() && ready.insert(new)? };
    READY.with_borrow_mut(|kept| **kept = Some(ready));
    Ok(is_written)
}

/// The table, and what it takes to write to it.
struct Ready {
    read_at: ReadAt,
    relation: pg_sys::Oid,
    /// Has all of the memory.
    state: *mut pg_sys::EState,
    target: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    indexes: Indexes,
    /// The places of the columns that are given.
    given: [usize; GIVEN.len()],
    /// The places of columns that are not, and what they get.
    defaults: Vec<(usize, *mut pg_sys::ExprState)>,
    /// The same of those that count: what is not written has no number, unless an index changes at that moment.
    numbers: Vec<(usize, *mut pg_sys::ExprState)>,
    /// The places of those that get a random UUID, for which the server goes through OpenSSL each time.
    uuids: Vec<usize>,
    /// It has nothing that only a statement would heed, as a trigger; then what was made ready is used.
    is_simple: bool,
}

/// As [`Ready::values`] has them.
const GIVEN: [&CStr; 8] = [
    c"watch_id",
    c"execution_id",
    c"user_id",
    c"owner_kind",
    c"owner_oid",
    c"row_user_id",
    c"options",
    c"needs_mirror",
];

impl Ready {
    /// What was made ready, if that is still so; made anew otherwise. Locks the table as a statement does that writes to it.
    ///
    /// # Safety
    /// On the main thread, inside a transaction.
    unsafe fn locked(ready: Option<Self>) -> Result<Self> {
        // SAFETY: as the caller promises. With the lock comes word of what has changed until then.
        unsafe {
            if let Some(ready) = ready {
                pg_sys::LockRelationOid(ready.relation, WRITES);
                if ready.read_at.holds() {
                    return Ok(ready);
                }
            }
            let name = pg_sys::makeRangeVar(
                c"snowflake_bridge".as_ptr().cast_mut(),
                c"uploads".as_ptr().cast_mut(),
                -1,
            );
            let relation =
                pg_sys::RangeVarGetRelidExtended(name, WRITES, 0, None, std::ptr::null_mut());
            Self::of(relation)
        }
    }

    /// # Safety
    /// With a relation that is locked, on the main thread, inside a transaction.
    unsafe fn of(oid: pg_sys::Oid) -> Result<Self> {
        let read_at = ReadAt::now();
        // SAFETY: as the caller promises; everything is allocated in the state's memory, which is left again before anything can
        // free it, and relations are closed again.
        unsafe {
            let relation = pg_sys::table_open(oid, pg_sys::NoLock as pg_sys::LOCKMODE);
            let is_simple = is_simple(relation);
            let state = {
                let _memory = InMemory::of(pg_sys::TopMemoryContext);
                pg_sys::CreateExecutorState()
            };
            let mut ready = Self {
                read_at,
                relation: oid,
                state,
                target: std::ptr::null_mut(),
                slot: std::ptr::null_mut(),
                indexes: Indexes::default(),
                given: [0; GIVEN.len()],
                defaults: Vec::new(),
                numbers: Vec::new(),
                uuids: Vec::new(),
                is_simple,
            };
            let _memory = InMemory::of((*state).es_query_cxt);
            let descriptor = pg_sys::CreateTupleDescCopyConstr((*relation).rd_att);
            ready.slot =
                pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsVirtual);
            ready.target =
                pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
            let target = ready.target;
            (*target).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            pg_sys::InitResultRelInfo(target, relation, 0, std::ptr::null_mut(), 0);
            ready.indexes = Indexes::of(target, state);
            ready.is_simple &= ready.indexes.are_simple();
            for (place, name) in ready.given.iter_mut().zip(GIVEN) {
                let number = pg_sys::SPI_fnumber(descriptor, name.as_ptr());
                *place = usize::try_from(number - 1).map_err(|_| no_column(name))?;
            }
            let columns = PgTupleDesc::from_pg_unchecked(descriptor);
            for place in (0..columns.len()).filter(|place| !ready.given.contains(place)) {
                // A column that was dropped has no type, of which to ask for a default is an ERROR.
                if columns.get(place).is_none_or(|column| column.attisdropped) {
                    continue;
                }
                let number = i32::try_from(place + 1).unwrap_or(0);
                let default = pg_sys::build_column_default(relation, number);
                if default.is_null() {
                    continue;
                }
                if is_random_uuid(default) {
                    ready.uuids.push(place);
                    continue;
                }
                let counts = (*default).type_ == pg_sys::NodeTag::T_NextValueExpr;
                let default = pg_sys::ExecPrepareExpr(default.cast(), state);
                let those = if counts {
                    &mut ready.numbers
                } else {
                    &mut ready.defaults
                };
                those.push((place, default));
            }
            pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
            let indexes = ready.indexes.oids().chain([oid]);
            ready.read_at = ready.read_at.clone().depending_on(indexes);
            Ok(ready)
        }
    }

    /// Row level security and the rights of the present user are a statement's to heed.
    ///
    /// # Safety
    /// With the table locked, as which this was made ready.
    unsafe fn may_insert(&self) -> bool {
        // SAFETY: as the caller promises.
        unsafe {
            pg_sys::pg_class_aclcheck(
                self.relation,
                pg_sys::GetUserId(),
                pg_sys::ACL_INSERT as pg_sys::AclMode,
            ) == pg_sys::AclResult::ACLCHECK_OK
                && pg_sys::check_enable_rls(self.relation, pg_sys::InvalidOid, true)
                    != pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
        }
    }

    /// # Safety
    /// With the table locked, as which this was made ready.
    unsafe fn insert(&self, new: &NewUpload) -> Result<bool> {
        // SAFETY: as the caller promises; what is opened is closed again, or by the rollback that an ERROR brings.
        unsafe {
            let target = self.target;
            (*target).ri_RelationDesc =
                pg_sys::table_open(self.relation, pg_sys::NoLock as pg_sys::LOCKMODE);
            let context = pg_sys::MakePerTupleExprContext(self.state);
            (*context).ecxt_scantuple = self.slot;
            let memory = InMemory::of((*context).ecxt_per_tuple_memory);
            let is_written = self.values(new).map(|values| self.write(values));
            drop(memory);
            pg_sys::ReScanExprContext(context);
            self.indexes.close(target);
            pg_sys::table_close(
                (*target).ri_RelationDesc,
                pg_sys::NoLock as pg_sys::LOCKMODE,
            );
            is_written
        }
    }

    /// What is given, as PostgreSQL has it.
    fn values(&self, new: &NewUpload) -> Result<[Option<pg_sys::Datum>; GIVEN.len()]> {
        let options = CString::new(new.options.as_str())
            .map_err(|_| Error::invalid("the options hold a NUL character"))?;
        // SAFETY: the function takes a C string, which it only reads.
        let options = unsafe {
            direct_function_call_as_datum(
                pg_sys::jsonb_in,
                &[Some(pg_sys::Datum::from(options.as_ptr()))],
            )
        };
        Ok([
            new.watch_id.into_datum(),
            new.execution_id.as_str().into_datum(),
            new.owner.user_id().into_datum(),
            new.owner.kind().into_datum(),
            Some(pg_sys::Datum::from(new.owner.oid())),
            new.row_user_id.as_deref().into_datum(),
            options,
            (!new.is_shown).into_datum(),
        ])
    }

    /// # Safety
    /// With the table open and none of its indexes, in memory that lasts until the row is written.
    unsafe fn write(&self, values: [Option<pg_sys::Datum>; GIVEN.len()]) -> bool {
        let (state, target, slot) = (self.state, self.target, self.slot);
        // SAFETY: as the caller promises; all places are those of columns of this table.
        unsafe {
            pg_sys::ExecStoreAllNullTuple(slot);
            (*slot).tts_tableOid = self.relation;
            for (place, value) in self.given.into_iter().zip(values) {
                self.set(place, value);
            }
            self.set_defaults(&self.defaults);
            for place in &self.uuids {
                let uuid = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
                self.set(
                    *place,
                    pgrx::Uuid::from_bytes(uuid.into_bytes()).into_datum(),
                );
            }
            // Word of an index that has changed comes with the lock on it.
            let is_to_be_waiting = self.indexes.open_waiting(target, state);
            if !is_to_be_waiting || !self.read_at.holds() {
                return false;
            }
            let waiting = self.indexes.waiting;
            let mut other = pg_sys::ItemPointerData::default();
            // Waits for whoever is about to take the place, or to leave it.
            #[cfg(not(feature = "pg18"))]
            let is_free =
                pg_sys::ExecCheckIndexConstraints(target, slot, state, &raw mut other, waiting);
            #[cfg(feature = "pg18")]
            let is_free = pg_sys::ExecCheckIndexConstraints(
                target,
                slot,
                state,
                &raw mut other,
                &mut pg_sys::ItemPointerData::default(),
                waiting,
            );
            if !is_free {
                return false;
            }
            self.set_defaults(&self.numbers);
            self.indexes.open(target, state);
            if !self.read_at.holds() {
                return false;
            }
            pg_sys::ExecConstraints(target, slot, state);
            pg_sys::simple_table_tuple_insert((*target).ri_RelationDesc, slot);
            insert_into_indexes(target, slot, state);
            // What comes after it in this transaction sees it.
            pg_sys::CommandCounterIncrement();
            true
        }
    }

    /// # Safety
    /// As [`write`](Self::write).
    unsafe fn set_defaults(&self, defaults: &[(usize, *mut pg_sys::ExprState)]) {
        for (place, default) in defaults {
            let mut is_null = false;
            // SAFETY: as the caller promises.
            unsafe {
                let context = (*self.state).es_per_tuple_exprcontext;
                let value = pg_sys::ExecEvalExpr(*default, context, &raw mut is_null);
                self.set(*place, (!is_null).then_some(value));
            }
        }
    }

    /// # Safety
    /// With a place of the table's.
    unsafe fn set(&self, place: usize, value: Option<pg_sys::Datum>) {
        // SAFETY: as the caller promises.
        unsafe {
            *(*self.slot).tts_isnull.add(place) = value.is_none();
            *(*self.slot).tts_values.add(place) = value.unwrap_or(pg_sys::Datum::null());
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        // SAFETY: made for this, and used by nobody else. Relations that an ERROR has left open are closed by its rollback.
        unsafe { pg_sys::FreeExecutorState(self.state) };
    }
}

/// # Safety
/// As [`Ready::write`], of a row that is in the table.
unsafe fn insert_into_indexes(
    target: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    state: *mut pg_sys::EState,
) {
    let (none, nobody) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: as the caller promises.
    unsafe {
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        pg_sys::ExecInsertIndexTuples(target, slot, state, false, false, none, nobody);
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        pg_sys::ExecInsertIndexTuples(target, slot, state, false, false, none, nobody, false);
    }
}

fn no_column(name: &CStr) -> Error {
    Error::missing(format!(
        "the table snowflake_bridge.uploads has no column {}",
        name.to_string_lossy()
    ))
}

//! Reading a query row by row into spool files: the caller's own, in the caller's backend, as the caller, in the caller's
//! snapshot; or that of a watch. However many rows there are, and however large, only a few are in memory.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::path::Path;

use bridge_core::batch::RowSink;
use bridge_core::json::PlanOptions;
use bridge_core::spool::{Manifest, SpoolOptions, SpoolWriter, Stamp};
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::{check_for_interrupts, pg_sys};

use super::values::{Pinned, RowReader};
use crate::error::{Error, Result};

/// Rows that are fetched at once, and kept before they are read: enough to make the cost of a fetch disappear.
const FETCH_ROWS: i64 = 256;

/// The same for rows that are read as they come, of which none is kept.
const FETCH_ROWS_AT_ONCE: i64 = 8_192;

/// What the reader needs to know.
pub struct QueryOptions<'a> {
    pub stamp: Stamp,
    pub spool: &'a Path,
    pub plan: PlanOptions,
    pub files: SpoolOptions,
    /// Told from time to time how many rows were read.
    pub progress: &'a dyn Fn(u64),
    /// Asked again and again whether the files may have that many bytes, about; reading ends with its error.
    pub may_take: &'a dyn Fn(u64) -> Result<()>,
}

/// What was read.
pub struct QueryResult {
    pub manifest: Manifest,
    /// The columns with values that Snowflake could not hold as what they are, and how many.
    pub affected: Vec<(String, u64)>,
}

/// Runs the query, in the server's encoding and maybe with a value of `$1`, and reads its rows into the spool.
///
/// # Errors
/// If it is not one statement that returns rows, or its result cannot be held by Snowflake; what the query raises is raised.
pub fn read_query(
    query: &[u8],
    argument: Option<&DatumWithOid<'_>>,
    options: &QueryOptions<'_>,
) -> Result<QueryResult> {
    let kind = argument.map(DatumWithOid::oid);
    let mut value = argument
        .and_then(DatumWithOid::datum)
        .map(|value| value.sans_lifetime());
    Spi::connect_mut(|_| {
        let plan = prepare(query, kind)?;
        // SAFETY: a plan that was just made, of one statement that returns rows; the cursor goes with the transaction if it
        // is not closed below.
        unsafe {
            // The worker reads what is there once all locks are: a caller, what the caller's own snapshot has.
            let read_only = check(plan)? && argument.is_none();
            let portal = pg_sys::SPI_cursor_open(
                std::ptr::null(),
                plan,
                value
                    .as_mut()
                    .map_or(std::ptr::null_mut(), std::ptr::from_mut),
                std::ptr::null(),
                read_only,
            );
            let result = stream(portal, options);
            pg_sys::SPI_cursor_close(portal);
            result
        }
    })
}

/// Looks at a query with a parameter of this type without running it.
///
/// # Errors
/// If it cannot be read into the spool; what PostgreSQL has to say against it is raised.
pub fn check_query(query: &str, parameter: pg_sys::Oid) -> Result<()> {
    Spi::connect_mut(|_| {
        let plan = prepare(query.as_bytes(), Some(parameter))?;
        // SAFETY: a plan that was just made.
        unsafe { check(plan) }.map(drop)
    })
}

fn prepare(query: &[u8], parameter: Option<pg_sys::Oid>) -> Result<pg_sys::SPIPlanPtr> {
    let query =
        CString::new(query).map_err(|_| Error::invalid("the query holds a NUL character"))?;
    let count = parameter.is_some().into();
    let mut kind = parameter.unwrap_or(pg_sys::InvalidOid);
    // SAFETY: connected to SPI; the query has as many parameters as types are given. Syntax errors are raised.
    let plan = unsafe {
        pg_sys::SPI_prepare_cursor(
            query.as_ptr(),
            count,
            &raw mut kind,
            pg_sys::CURSOR_OPT_NO_SCROLL as i32,
        )
    };
    if plan.is_null() {
        Err(unsuitable())
    } else {
        Ok(plan)
    }
}

fn unsuitable() -> Error {
    Error::user(
        PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
        "the query is not one statement that returns rows",
    )
    .hint("Pass one SELECT, VALUES, TABLE or WITH, or one INSERT, UPDATE or DELETE with RETURNING.")
}

/// Refuses what is not one statement that returns rows. Returns whether it only reads, and so can use the caller's snapshot
/// as it is: one that writes needs to see what the transaction has written before.
///
/// # Safety
/// A live plan.
unsafe fn check(plan: pg_sys::SPIPlanPtr) -> Result<bool> {
    // SAFETY: as the caller promises; PostgreSQL's lists hold as many live nodes as they say.
    unsafe {
        if !pg_sys::SPI_is_cursor_plan(plan) {
            return Err(unsuitable());
        }
        let sources = pg_sys::SPI_plan_get_plan_sources(plan);
        let source = first(sources).cast::<pg_sys::CachedPlanSource>();
        if source.is_null() {
            return Err(unsuitable());
        }
        let query = first((*source).query_list).cast::<pg_sys::Query>();
        // EXPLAIN, SHOW, FETCH and CALL return rows as well, and are no queries.
        if query.is_null() || (*query).commandType == pg_sys::CmdType::CMD_UTILITY {
            return Err(unsuitable());
        }
        Ok((*query).commandType == pg_sys::CmdType::CMD_SELECT
            && !(*query).hasModifyingCTE
            && !(*query).hasForUpdate
            && (*(*source).query_list).length == 1)
    }
}

/// # Safety
/// A live list of nodes, or null.
unsafe fn first(list: *mut pg_sys::List) -> *mut std::ffi::c_void {
    // SAFETY: as the caller promises; a list that is not null is not empty.
    unsafe {
        if list.is_null() || (*list).length < 1 {
            std::ptr::null_mut()
        } else {
            (*(*list).elements).ptr_value
        }
    }
}

/// # Safety
/// An open cursor, inside SPI.
unsafe fn stream(portal: pg_sys::Portal, options: &QueryOptions<'_>) -> Result<QueryResult> {
    // SAFETY: as the caller promises. What is made here goes with SPI's memory context if it is not ended below.
    unsafe {
        let descriptor = (*portal).tupDesc;
        let mut reader = RowReader::new(descriptor, options.plan)?;
        let mut writer = SpoolWriter::create(
            options.spool,
            &reader.columns(),
            &options.stamp,
            &options.files,
        )?;
        if reader.is_independent() {
            read_as_they_come(portal, options, &mut reader, &mut writer)?;
        } else {
            read_kept(portal, options, &mut reader, &mut writer)?;
        }
        let mut manifest = writer.finish()?;
        let affected = reader.settle(&mut manifest)?;
        Ok(QueryResult { manifest, affected })
    }
}

/// Reads each row where the query has it, under the settings of the query.
///
/// # Safety
/// As [`stream`].
unsafe fn read_as_they_come(
    portal: pg_sys::Portal,
    options: &QueryOptions<'_>,
    reader: &mut RowReader,
    writer: &mut SpoolWriter,
) -> Result<()> {
    let mut receiver = Reading {
        receiver: receiver(read_row),
        reader,
        writer,
        taken: 0,
        may_take: options.may_take,
        result: Ok(()),
    };
    loop {
        // SAFETY: as the caller promises; the receiver lives on, and nothing else uses what it borrows meanwhile.
        let fetched = unsafe {
            pg_sys::PortalRunFetch(
                portal,
                pg_sys::FetchDirection::FETCH_FORWARD,
                FETCH_ROWS_AT_ONCE,
                (&raw mut receiver).cast(),
            )
        };
        std::mem::replace(&mut receiver.result, Ok(()))?;
        if fetched == 0 {
            return Ok(());
        }
        (options.progress)(receiver.writer.rows());
    }
}

/// Reads rows that were kept, so that settings of our own do not reach the query.
///
/// # Safety
/// As [`stream`].
unsafe fn read_kept(
    portal: pg_sys::Portal,
    options: &QueryOptions<'_>,
    reader: &mut RowReader,
    writer: &mut SpoolWriter,
) -> Result<()> {
    // SAFETY: as the caller promises. What is made here goes with SPI's memory context if it is not ended below.
    unsafe {
        // What takes more waits in a temporary file. In kilobytes, as PostgreSQL counts.
        let memory = i32::try_from(options.files.memory.fetched() >> 10).unwrap_or(i32::MAX);
        let store = pg_sys::tuplestore_begin_heap(false, false, memory);
        let slot = pg_sys::MakeSingleTupleTableSlot(
            (*portal).tupDesc,
            &raw const pg_sys::TTSOpsMinimalTuple,
        );
        let mut receiver = Keeping {
            receiver: receiver(keep_row),
            store,
        };
        let mut taken = 0;
        loop {
            pg_sys::tuplestore_clear(store);
            let fetched = pg_sys::PortalRunFetch(
                portal,
                pg_sys::FetchDirection::FETCH_FORWARD,
                FETCH_ROWS,
                (&raw mut receiver).cast(),
            );
            if fetched == 0 {
                break;
            }
            (options.progress)(writer.rows());
            let _pinned = Pinned::new();
            while pg_sys::tuplestore_gettupleslot(store, true, false, slot) {
                check_for_interrupts!();
                let (values, nulls) = values(slot);
                reader.read(values, nulls, writer)?;
                // The row that was read makes room for its being written.
                if let Some(clear) = (*(*slot).tts_ops).clear {
                    clear(slot);
                }
                writer.end_row()?;
                look(writer, &mut taken, options.may_take)?;
            }
        }
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::tuplestore_end(store);
        Ok(())
    }
}

/// All values of a row, and which of them are NULL.
///
/// # Safety
/// A slot that holds a row; the result lives as long as that.
unsafe fn values<'a>(slot: *mut pg_sys::TupleTableSlot) -> (&'a [pg_sys::Datum], &'a [bool]) {
    // SAFETY: as the caller promises.
    unsafe {
        let columns = (*(*slot).tts_tupleDescriptor).natts;
        let count = usize::try_from(columns).unwrap_or(0);
        if count == 0 {
            return (&[], &[]);
        }
        if i32::from((*slot).tts_nvalid) < columns {
            pg_sys::slot_getsomeattrs_int(slot, columns);
        }
        (
            std::slice::from_raw_parts((*slot).tts_values, count),
            std::slice::from_raw_parts((*slot).tts_isnull, count),
        )
    }
}

/// Asks whether the files may go on to grow, each time after they have.
fn look(writer: &SpoolWriter, taken: &mut u64, may_take: &dyn Fn(u64) -> Result<()>) -> Result<()> {
    let bytes = writer.bytes();
    if bytes == *taken {
        return Ok(());
    }
    *taken = bytes;
    may_take(bytes)
}

type ReceiveSlot =
    unsafe extern "C-unwind" fn(*mut pg_sys::TupleTableSlot, *mut pg_sys::DestReceiver) -> bool;

fn receiver(receive: ReceiveSlot) -> pg_sys::DestReceiver {
    pg_sys::DestReceiver {
        receiveSlot: Some(receive),
        rStartup: Some(start_up),
        rShutdown: Some(end),
        rDestroy: Some(end),
        mydest: pg_sys::CommandDest::DestTuplestore,
    }
}

/// Takes the rows that a cursor gives into a store, which moves to disk what is too much for memory.
#[repr(C)]
struct Keeping {
    receiver: pg_sys::DestReceiver,
    store: *mut pg_sys::Tuplestorestate,
}

#[pg_guard]
unsafe extern "C-unwind" fn keep_row(
    slot: *mut pg_sys::TupleTableSlot,
    receiver: *mut pg_sys::DestReceiver,
) -> bool {
    // SAFETY: PostgreSQL hands back the receiver it was given, which is the first field of ours.
    unsafe { pg_sys::tuplestore_puttupleslot((*receiver.cast::<Keeping>()).store, slot) };
    true
}

/// Reads the rows that a cursor gives. Ends with the first that cannot be read.
#[repr(C)]
struct Reading<'a> {
    receiver: pg_sys::DestReceiver,
    reader: &'a mut RowReader,
    writer: &'a mut SpoolWriter,
    taken: u64,
    may_take: &'a dyn Fn(u64) -> Result<()>,
    result: Result<()>,
}

#[pg_guard]
unsafe extern "C-unwind" fn read_row(
    slot: *mut pg_sys::TupleTableSlot,
    receiver: *mut pg_sys::DestReceiver,
) -> bool {
    // SAFETY: PostgreSQL hands back the receiver it was given, which is the first field of ours, and a slot with a row.
    unsafe {
        let reading = &mut *receiver.cast::<Reading<'_>>();
        let (values, nulls) = values(slot);
        reading.result = reading
            .reader
            .read(values, nulls, reading.writer)
            .and_then(|()| Ok(reading.writer.end_row()?))
            .and_then(|()| look(reading.writer, &mut reading.taken, reading.may_take));
        reading.result.is_ok()
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn start_up(
    _receiver: *mut pg_sys::DestReceiver,
    _operation: i32,
    _description: pg_sys::TupleDesc,
) {
}

#[pg_guard]
unsafe extern "C-unwind" fn end(_receiver: *mut pg_sys::DestReceiver) {}

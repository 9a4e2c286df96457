//! Transactions that survive what happens inside them: in the worker, where nobody else begins one, and in a trigger,
//! where an error must not reach the application.
#![allow(unsafe_code)]

use std::panic::AssertUnwindSafe;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, Result};
use crate::statement::kept;

/// Runs `work` in a transaction of its own and commits it. For the background worker only: no transaction may be open.
///
/// # Errors
/// What `work` returned, or an ERROR or panic it raised; the transaction is then rolled back and the next one can begin.
pub fn transaction<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: the worker's main thread, outside of any transaction: the sequence is that of every PostgreSQL worker.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    let outcome = catch(work);
    // SAFETY: ends the transaction begun above, whichever way `work` went; an abort also pops the snapshot.
    unsafe {
        match &outcome {
            Ok(_) => {
                pg_sys::PopActiveSnapshot();
                let committed = catch(|| {
                    pg_sys::CommitTransactionCommand();
                    Ok(())
                });
                if let Err(error) = committed {
                    pg_sys::AbortCurrentTransaction();
                    return Err(error);
                }
            }
            Err(_) => pg_sys::AbortCurrentTransaction(),
        }
        // Without this, autovacuum never learns what the worker wrote.
        pg_sys::pgstat_report_stat(false);
    }
    outcome
}

/// Runs what has transactions of its own, so that a panic between them costs no more than this. For the background worker only:
/// no transaction may be open.
///
/// # Errors
/// What `work` returned, or an ERROR or panic it raised.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch(work).inspect_err(|_| {
        // SAFETY: the worker's main thread; does nothing where no transaction is open.
        unsafe { pg_sys::AbortCurrentTransaction() }
    })
}

/// What a procedure does in transactions of its own, one after the other.
pub struct OwnTransactions(());

impl OwnTransactions {
    /// Begins, in a procedure that was called with this `fcinfo`.
    ///
    /// # Errors
    /// `25001` within a transaction block or a function, where nothing can be committed.
    pub fn begin(fcinfo: pg_sys::FunctionCallInfo) -> Result<Self> {
        // SAFETY: PostgreSQL passes a valid `fcinfo`, and to a procedure a CallContext as its context; its tag is looked at
        // first.
        let is_atomic = unsafe {
            let context = (*fcinfo).context;
            context.is_null()
                || (*context).type_ != pg_sys::NodeTag::T_CallContext
                || (*context.cast::<pg_sys::CallContext>()).atomic
        };
        if is_atomic {
            return Err(Error::user(
                PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
                "this procedure commits as it goes, and cannot run within a transaction",
            )
            .hint("Call it by itself: no BEGIN before it, and no function around it."));
        }
        // SAFETY: inside a transaction on the main thread. Only the outermost SPI connection may commit; it ends with the
        // call, or by a rollback.
        pgrx::spi::Spi::check_status(unsafe {
            pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as i32)
        })?;
        Ok(Self(()))
    }

    /// Runs `work` on a fresh snapshot, and commits.
    ///
    /// # Errors
    /// What `work` returns. It must then end the call, which rolls back what `work` did and nothing before.
    pub fn run<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        // SAFETY: between `begin` and `drop`, so SPI is connected. The snapshot is popped before the commit, and by the
        // rollback where an ERROR comes first.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        let outcome = work()?;
        // SAFETY: as above.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::SPI_commit();
        }
        Ok(outcome)
    }
}

impl Drop for OwnTransactions {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: ends the connection that `begin` made. Where an ERROR unwinds, its rollback does so.
            unsafe { pg_sys::SPI_finish() };
        }
    }
}

/// Runs `work` in a subtransaction of the current transaction.
///
/// # Errors
/// What `work` returned, or an ERROR or panic it raised; everything it did is then rolled back, and only that.
pub fn subtransaction<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: inside a transaction, on the main thread. The order of calls, and the restoring of memory context and
    // resource owner, are those of PL/pgSQL's exception block.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let outcome = catch(work);
        match &outcome {
            Ok(_) => pg_sys::ReleaseCurrentSubTransaction(),
            Err(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        outcome
    }
}

/// Runs `work` on a snapshot of this moment, whatever snapshot the transaction has. `work` must only read.
///
/// # Errors
/// What `work` returns.
pub fn with_latest_snapshot<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: inside a transaction; the snapshot is popped again below, or by the rollback that an ERROR brings.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
    let outcome = work();
    // SAFETY: pushed above.
    unsafe { pg_sys::PopActiveSnapshot() };
    outcome
}

/// Locks a relation as a query that reads it does, until the transaction ends, and waits for that as such a query would.
pub fn lock_to_read(relation: pg_sys::Oid) {
    // SAFETY: inside a transaction. One that was dropped can be locked too.
    unsafe { pg_sys::LockRelationOid(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE) };
}

/// Locks a relation as a statement that changes its rows does, until the transaction ends.
///
/// # Errors
/// `55P03` if that would have to wait.
pub fn lock_to_write_now(relation: pg_sys::Oid) -> Result<()> {
    let mode = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: as above.
    if unsafe { pg_sys::ConditionalLockRelationOid(relation, mode) } {
        return Ok(());
    }
    Err(Error::user(
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
        "could not obtain lock on the watched relation",
    ))
}

/// Locks what a class and a number stand for, until the transaction ends; waits for who has it. No SQL function takes locks of
/// other classes than PostgreSQL's own, 1 and 2.
pub fn lock_number(class: u16, number: u64) {
    // SAFETY: inside a transaction; the tag is plain data, and the numbers are its halves.
    unsafe {
        let mut tag = pg_sys::LOCKTAG {
            locktag_field1: pg_sys::MyDatabaseId.to_u32(),
            locktag_field2: (number >> 32) as u32,
            locktag_field3: number as u32,
            locktag_field4: class,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        };
        pg_sys::LockAcquire(&raw mut tag, pg_sys::ExclusiveLock as i32, false, false);
    }
}

/// The one value of a query that only reads. pgrx's own `get_one` takes every query for a change: it would use up a
/// transaction id each time, which a standby cannot even assign.
///
/// # Errors
/// If the query fails, or gives no row.
pub fn read<T: FromDatum + IntoDatum>(query: &str, args: &[DatumWithOid<'_>]) -> Result<Option<T>> {
    Spi::connect(|client| {
        let rows = client.select(kept(client, query, args)?, Some(1), args)?;
        Ok(rows.first().get_one()?)
    })
}

/// The two values of a query that only reads; see [`read`].
///
/// # Errors
/// As [`read`].
pub fn read_two<A: FromDatum + IntoDatum, B: FromDatum + IntoDatum>(
    query: &str,
    args: &[DatumWithOid<'_>],
) -> Result<(Option<A>, Option<B>)> {
    Spi::connect(|client| {
        let rows = client.select(kept(client, query, args)?, Some(1), args)?;
        Ok(rows.first().get_two()?)
    })
}

/// Refuses what has to write on a server that only replays what another one writes.
///
/// # Errors
/// `25006` on a standby.
pub fn require_primary(function: &str) -> Result<()> {
    // SAFETY: a look at shared memory.
    if unsafe { pg_sys::RecoveryInProgress() } {
        return Err(Error::user(
            PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            format!("snowflake_bridge.{function}() cannot be called on a standby"),
        )
        .hint("Call it on the primary."));
    }
    Ok(())
}

/// Runs `work` on the transaction's snapshot where there is none yet, as while it commits.
pub fn with_snapshot<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: inside a transaction; the snapshot is popped again below, or by the rollback that an ERROR brings.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    let outcome = work();
    // SAFETY: pushed above.
    unsafe { pg_sys::PopActiveSnapshot() };
    outcome
}

/// Whether the current transaction sees what others commit while it runs.
pub fn sees_later_commits() -> bool {
    // SAFETY: a backend-local variable.
    unsafe { pg_sys::XactIsoLevel < pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Whether a row version with this `xmin` was written by the current transaction, or a part of it.
pub fn is_own(xmin: i64) -> bool {
    u32::try_from(xmin).is_ok_and(|xmin| {
        // SAFETY: a look at backend-local state inside a transaction.
        unsafe {
            pg_sys::TransactionIdIsCurrentTransactionId(pg_sys::TransactionId::from_inner(xmin))
        }
    })
}

/// Turns an ERROR or a panic into a value. The caller must roll back what was open.
fn catch<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    PgTryBuilder::new(AssertUnwindSafe(work))
        .catch_others(|caught| Err(Error::from(caught)))
        .catch_rust_panic(|caught| Err(Error::from(caught)))
        .execute()
}
